"""The HTTP server of the fake service: it reads requests, and writes answers or breaks off."""

from __future__ import annotations

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from tests.fakes.fake_service.lists import Seen
from tests.fakes.identity.base import Request

if TYPE_CHECKING:
    from tests.fakes.fake_service.service import FakeService

__all__ = ["Handler", "Server"]


class Server(ThreadingHTTPServer):
    """Gives each connection a thread.

    :ivar service: answers the requests.
    """

    daemon_threads = True
    block_on_close = False
    service: FakeService

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent where a client broke its connection: it was killed, or gave up."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def setup(self) -> None:
        """Note the connection."""
        super().setup()
        self.server.service.connections.add(self.connection)

    def finish(self) -> None:
        """Forget the connection."""
        self.server.service.connections.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:
        """Answer a reading request; some clients put what they ask for into its body."""
        if not self._is_for_identity():
            self._serve(dict(parse_qsl(urlsplit(self.path).query)) | self._body())

    def do_POST(self) -> None:
        """Answer a request that changes something."""
        if not self._is_for_identity():
            self._serve(self._body())

    def _is_for_identity(self) -> bool:
        """Answer a request that the identity endpoints serve."""
        identity = self.server.service.identity
        if identity is None or "/jobs/" in self.path:
            return False
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = dict(self.headers.items())
        response = identity.answer(Request.read(self.command, self.path, headers, body))
        if response.status is None:
            self.hang_up()
        else:
            self.say(response.status, response.data, dict(response.headers))
        return True

    def say(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Send a whole answer."""
        self.server.service.may_answer.wait()
        self.send_response(status)
        head = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        for name, value in (head | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def hang_up(self) -> None:
        """Close the connection, without another word."""
        self.close_connection = True

    def _body(self) -> dict[str, Any]:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return dict(json.loads(body or b"{}"))

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Return the time by the service's own clock."""
        identity = self.server.service.identity
        if identity is not None and timestamp is None:
            timestamp = identity.issuer.now()
        return super().date_time_string(timestamp)

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def _serve(self, parameters: dict[str, Any]) -> None:
        service = self.server.service
        endpoint = re.sub(r"^/api/2\.\d/(jobs/)?", "", urlsplit(self.path).path).rstrip("/")
        version = urlsplit(self.path).path.split("/")[2]
        headers = dict(self.headers.items())
        authorization = headers.get("Authorization", "")
        port = self.client_address[1]
        seen = Seen(endpoint, parameters, authorization, version, headers, port)
        fault = service.receive(seen)
        if self._is_hung_up_on(seen, "received"):
            return
        if fault is not None:
            if fault.handled:
                service.answer(seen)
            fault.do(self)
            return
        status, answer = service.answer(seen)
        if self._is_hung_up_on(seen, "handled"):
            return
        self.say(status, json.dumps(answer).encode())
        if status == 200:
            service.note_ends(answer)

    def _is_hung_up_on(self, seen: Seen, moment: str) -> bool:
        if self.server.service.hangs_up(seen, moment):
            self.hang_up()
            return True
        return False
