"""The HTTP connections of the blocking client, on Python's ``http.client``.

``requests`` takes a third of the processor time that a task takes in a process of its own, just to
be imported. ``http.client`` is imported by then.

The time-out of a socket limits each wait for bytes. A response that comes byte by byte never
exceeds it. So the time of the whole response, headers included, is limited, too.
"""

from __future__ import annotations

import base64
import functools
import http.client
import io
import selectors
import ssl
import time
import weakref
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import SplitResult, quote, unquote, urlsplit

from airflow_jobs_provider.api.proxies import Route, ssl_context

__all__ = [
    "HTTP_ERRORS",
    "LIBRARY_ERRORS",
    "ConnectionPool",
    "NotConnectedError",
    "Response",
    "TunnelRefusedError",
]

# Connections that are kept open; more are used at the same time if a client has more threads.
_MAX_IDLE = 10
_CHUNK_BYTES = 64 * 1024
_DEFAULT_PORTS = {"http": 80, "https": 443}
# What an URL consists of, and the percent sign: it is quoted already, but for other characters.
_URL_CHARACTERS = "!#$%&'()*+,/:;=?@[]~"

# What HTTP libraries raise beside their own errors, such as for a response that they cannot parse.
LIBRARY_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RecursionError,
    http.client.HTTPException,
    zlib.error,
)


class NotConnectedError(Exception):
    """A connection failed before a request was sent on it.

    :ivar cause: the error of the socket, of TLS, or of the proxy.
    :ivar at_proxy: whether the proxy itself was not reached.
    """

    def __init__(self, cause: Exception, *, at_proxy: bool) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.at_proxy = at_proxy


HTTP_ERRORS: tuple[type[Exception], ...] = (NotConnectedError, *LIBRARY_ERRORS)
"""What sending a request and reading its response raise."""


class TunnelRefusedError(OSError):
    """A proxy does not connect to the host.

    :ivar status: its status code.
    :ivar reason: the text beside it.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason


class ConnectionPool:
    """Connections to one host, which are kept open between requests.

    :param base_url: URL of the host.
    :param route: the proxy and the certificates.
    :param connect_seconds: longest wait in seconds for each step of a new connection.
    :param timeout_seconds: longest wait in seconds for the next bytes of a response.
    :param response_timeout_seconds: longest time in seconds from a request to the end of its
        response.
    """

    def __init__(
        self,
        base_url: str,
        route: Route,
        *,
        connect_seconds: float,
        timeout_seconds: float,
        response_timeout_seconds: float,
    ) -> None:
        self._new_connection = functools.partial(
            _Connection,
            urlsplit(base_url),
            route,
            connect_seconds=connect_seconds,
            timeout_seconds=timeout_seconds,
            response_timeout_seconds=response_timeout_seconds,
        )
        # Threads may share a client, and the methods of a deque are atomic.
        self._idle: deque[_Connection] = deque()
        # For clients that nobody closes, such as that of a hook.
        weakref.finalize(self, _close_all, self._idle)

    def send(self, verb: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Response:
        """Send a request, and return its response once the headers have come.

        :param verb: HTTP verb.
        :param url: URL with the query.
        :param headers: the headers.
        :param body: the body; None for none.
        :raises NotConnectedError: nothing was sent.
        :raises Exception: another one of :data:`HTTP_ERRORS`: the response is lost.
        """
        connection = self._idle_connection() or self._new_connection()
        try:
            return Response(self, connection, connection.exchange(verb, url, headers, body))
        except BaseException:
            connection.close()
            raise

    def _idle_connection(self) -> _Connection | None:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if connection.is_idle():
                return connection
            connection.close()

    def release(self, connection: _Connection) -> None:
        """Keep a connection for the next request.

        :param connection: the connection, whose response was read to its end.
        """
        if connection.sock is None or len(self._idle) >= _MAX_IDLE:
            connection.close()
        else:
            self._idle.append(connection)

    def close(self) -> None:
        """Close the connections."""
        _close_all(self._idle)


def _close_all(connections: deque[_Connection]) -> None:
    while connections:
        connections.pop().close()


class Response:
    """A response whose body is not read yet. It is a context manager, which ends the response.

    :ivar status: the status code.
    :ivar headers: the headers.
    """

    def __init__(
        self, pool: ConnectionPool, connection: _Connection, received: http.client.HTTPResponse
    ) -> None:
        self.status = received.status
        self.headers = cast("Mapping[str, str]", received.headers)
        self._pool = pool
        self._connection = connection
        self._received = received

    def chunks(self) -> Iterator[bytes]:
        """Yield the chunks of the body, undecoded.

        :raises http.client.IncompleteRead: the connection ends before the body does.
        """
        while chunk := self._received.read(_CHUNK_BYTES):
            yield chunk
        if self._received.length:
            raise http.client.IncompleteRead(b"", self._received.length)

    def read(self, limit: int) -> bytes:
        """Return the body, undecoded. Once it is longer than the limit, the rest is left out.

        :param limit: the limit in bytes.
        """
        body = bytearray()
        for chunk in self.chunks():
            body += chunk
            if len(body) > limit:
                break
        return bytes(body)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None and self._received.isclosed():
            self._pool.release(self._connection)
        else:
            # What is left of the body would be taken for the next response.
            self._received.close()
            self._connection.close()


class _Connection(http.client.HTTPConnection):
    """A connection to a host, direct or through a proxy."""

    def __init__(
        self,
        host: SplitResult,
        route: Route,
        *,
        connect_seconds: float,
        timeout_seconds: float,
        response_timeout_seconds: float,
    ) -> None:
        self._target = host
        self._proxy = urlsplit(route.proxy) if route.proxy else None
        self._verify = route.verify
        self._timeout_seconds = timeout_seconds
        peer = self._proxy or host
        super().__init__(peer.hostname or "", _port(peer), timeout=connect_seconds)
        response: Any = functools.partial(_DeadlineResponse, seconds=response_timeout_seconds)
        self.response_class = response

    def connect(self) -> None:
        """Connect, through the proxy if there is one.

        :raises NotConnectedError: it failed.
        """
        at_proxy = self._proxy is not None
        try:
            super().connect()
            if self._proxy is not None and self._proxy.scheme == "https":
                self._start_tls(self._proxy)
            at_proxy = False
            if self._target.scheme == "https":
                if self._proxy is not None:
                    self._open_tunnel(self._proxy)
                self._start_tls(self._target)
            self.sock.settimeout(self._timeout_seconds)
        except LIBRARY_ERRORS as error:
            raise NotConnectedError(error, at_proxy=at_proxy) from error

    def _start_tls(self, peer: SplitResult) -> None:
        context = ssl_context(self._verify, _host_header(self._target))
        name = (peer.hostname or "").rstrip(".")
        if isinstance(self.sock, ssl.SSLSocket):
            # TLS in the TLS of the proxy, which Python's ssl module cannot do on a socket.
            from urllib3.util.ssltransport import SSLTransport

            inner: Any = SSLTransport(self.sock, context, server_hostname=name)
            self.sock = inner
        else:
            self.sock = context.wrap_socket(self.sock, server_hostname=name)

    def _open_tunnel(self, proxy: SplitResult) -> None:
        address = f"{_ascii_host(self._target)}:{_port(self._target)}"
        lines = [f"CONNECT {address} HTTP/1.1", f"Host: {address}"]
        lines += [f"{name}: {value}" for name, value in _proxy_headers(proxy).items()]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
        response = self.response_class(self.sock, method="CONNECT")
        try:
            response.begin()
        finally:
            response.close()
        if response.status != http.client.OK:
            raise TunnelRefusedError(response.status, response.reason)

    def exchange(
        self, verb: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> http.client.HTTPResponse:
        """Send a request, and return its response once the headers have come."""
        if self.sock is None:
            self.connect()
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        more = {"Host": _host_header(parts)}
        if self._proxy is not None and parts.scheme == "http":
            target = f"http://{_host_header(parts)}{target}"
            more |= _proxy_headers(self._proxy)
        # The service may have answered before it has read the whole body.
        with suppress(BrokenPipeError):
            self.request(verb, quote(target, _URL_CHARACTERS), body, {**more, **headers})
        return self.getresponse()

    def is_idle(self) -> bool:
        """Whether the connection is open, and nothing has come on it since the last response."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.sock, selectors.EVENT_READ)
            return not selector.select(0)


def _port(parts: SplitResult) -> int:
    return parts.port or _DEFAULT_PORTS[parts.scheme]


def _ascii_host(parts: SplitResult) -> str:
    name = parts.hostname or ""
    name = name if name.isascii() else name.encode("idna").decode()
    return f"[{name}]" if ":" in name else name


def _host_header(parts: SplitResult) -> str:
    name = _ascii_host(parts)
    is_default = _port(parts) == _DEFAULT_PORTS[parts.scheme]
    return name if is_default else f"{name}:{parts.port}"


def _proxy_headers(proxy: SplitResult) -> dict[str, str]:
    if not proxy.username:
        return {}
    user = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(user.encode('latin-1')).decode()}"}


class _DeadlineResponse(http.client.HTTPResponse):
    """A response with a deadline; also that of a proxy to CONNECT."""

    def __init__(self, sock: Any, *args: Any, seconds: float, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        raw = sock.makefile("rb", buffering=0)
        self.fp = io.BufferedReader(_DeadlineReader(sock, raw, time.monotonic() + seconds))


class _DeadlineReader(io.RawIOBase):
    def __init__(self, sock: Any, raw: io.RawIOBase, deadline: float) -> None:
        self._sock, self._raw, self._deadline = sock, raw, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the response takes too long")
        usual = self._sock.gettimeout()
        if usual is not None and usual <= left:
            return self._raw.readinto(buffer)
        self._sock.settimeout(left)
        try:
            return self._raw.readinto(buffer)
        finally:
            self._sock.settimeout(usual)

    def close(self) -> None:
        self._raw.close()
        super().close()
