"""All identity endpoints on loopback: over http, over TLS, and as a proxy for their real names."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import trustme

from tests.fakes.identity.azure import EntraDiscovery, EntraTokens, InstanceMetadata
from tests.fakes.identity.base import Endpoint, Request, Response, TokenIssuer
from tests.fakes.identity.clouds import (
    CITokens,
    GoogleIAM,
    GoogleTokens,
    KubernetesTokens,
    SecurityTokenService,
)
from tests.fakes.identity.workspace import (
    Discovery,
    LoginPage,
    Me,
    MetadataService,
    WorkspaceTokens,
)

__all__ = ["TENANT", "Certificates", "Identity", "IdentityServer"]

TENANT = "11111111-2222-3333-4444-555555555555"
NAMES = (
    "127.0.0.1",
    "localhost",
    "adb-1.2.azuredatabricks.net",
    "iamcredentials.googleapis.com",
    "kubernetes.default.svc",
    "login.microsoftonline.com",
    "management.azure.com",
    "management.core.windows.net",
    "oauth2.googleapis.com",
    "sts.amazonaws.com",
    "sts.eu-west-1.amazonaws.com",
    "dbc-1.cloud.databricks.com",
)


class Certificates:
    """A certificate for the names of all services, of a CA that nobody knows.

    :param folder: where the CA's certificate is written.
    :ivar ca_file: for ``REQUESTS_CA_BUNDLE`` and the like.
    """

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*NAMES).configure_cert(self.context)
        self.ca_file = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))


class Identity:
    """All endpoints, without a network. A :class:`FakeService` may serve those of a workspace.

    :ivar base_url: the workspace's URL, for its discovery documents.
    :ivar unknown: requests that no endpoint serves.
    """

    def __init__(self, issuer: TokenIssuer | None = None) -> None:
        self.base_url = ""
        self.issuer = issuer or TokenIssuer()
        self.discovery = Discovery(self.issuer, lambda: self.base_url)
        self.workspace = WorkspaceTokens(self.issuer)
        self.login_page = LoginPage(self.issuer, TENANT)
        self.me = Me(self.issuer)
        self.entra = EntraTokens(self.issuer, TENANT)
        self.entra_discovery = EntraDiscovery(self.issuer, TENANT)
        self.instance = InstanceMetadata(self.issuer)
        self.kubernetes = KubernetesTokens(self.issuer)
        self.sts = SecurityTokenService(self.issuer)
        self.google = GoogleTokens(self.issuer)
        self.google_iam = GoogleIAM(self.issuer)
        self.metadata = MetadataService(self.issuer)
        self.ci = CITokens(self.issuer)
        self.unknown: list[Request] = []

    @property
    def endpoints(self) -> list[Endpoint]:
        """All endpoints."""
        return [one for one in vars(self).values() if isinstance(one, Endpoint)]

    def answer(self, request: Request) -> Response:
        """Answer a request."""
        for endpoint in self.endpoints:
            if endpoint.serves(request):
                return endpoint(request)
        self.unknown.append(request)
        return Response({"error_code": "ENDPOINT_NOT_FOUND", "message": request.path}, 404)


class IdentityServer:
    """Serves the endpoints. Use it as a context manager.

    Its http port is a proxy, too: a client that goes through it reaches every host name here, with
    TLS where it wants to.

    :param identity: the endpoints.
    :param certificates: for TLS.
    :ivar url: for what is spoken to over http.
    :ivar tls_url: for what is spoken to over TLS.
    :ivar routes: ports on loopback of other servers, by the host name that a client asks for.
    :ivar connected: host names that clients went through the proxy for.
    """

    def __init__(self, identity: Identity, certificates: Certificates) -> None:
        self.identity = identity
        self.certificates = certificates
        self.routes: dict[str, int] = {}
        self.connected: list[str] = []
        self._plain = _Server(self)
        self._tls = _Server(self, certificates.context)
        self.url = f"http://127.0.0.1:{self._plain.port}"
        self.tls_url = f"https://127.0.0.1:{self._tls.port}"

    def __enter__(self) -> Self:
        self._threads = [
            threading.Thread(target=one.serve_forever, args=(0.02,), daemon=True)
            for one in (self._plain, self._tls)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._plain, self._tls):
            one.shutdown()
            one.server_close()
        for thread in self._threads:
            thread.join(10)

    def environment(self) -> dict[str, str]:
        """Return the variables that lead every name here: through the proxy, and to its CA."""
        file = os.fspath(self.certificates.ca_file)
        proxies = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), self.url)
        trusted = dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "AWS_CA_BUNDLE"), file)
        return proxies | trusted

    def port_of(self, host: str) -> int:
        """Return the port where a host name is served with TLS."""
        return self.routes.get(host, self._tls.port)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, owner: IdentityServer, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.owner = owner
        self.port = int(self.server_address[1])
        if tls is not None:
            # The handshake is done by the connection's own thread, when it first reads.
            self.socket = tls.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent where a client broke its connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        """Answer a request."""
        self._answer()

    def do_POST(self) -> None:
        """Answer a request."""
        self._answer()

    def do_CONNECT(self) -> None:
        """Be a proxy."""
        host = self.path.rpartition(":")[0]
        owner = self.server.owner
        owner.connected.append(host)
        self.close_connection = True
        with socket.create_connection(("127.0.0.1", owner.port_of(host))) as upstream:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_copy, args=(upstream, self.connection), daemon=True)
            back.start()
            _copy(self.connection, upstream)
            back.join(10)

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = dict(self.headers.items())
        request = Request.read(self.command, self.path, headers, body)
        response = self.server.owner.identity.answer(request)
        if response.status is None:
            self.close_connection = True
            return
        self.send_response(response.status)
        head = {"Content-Type": "application/json", **response.headers}
        for name, value in {**head, "Content-Length": str(len(response.data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(response.data)

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Return the time by the service's own clock."""
        return super().date_time_string(
            self.server.owner.identity.issuer.now() if timestamp is None else timestamp
        )

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
