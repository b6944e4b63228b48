"""A small HTTP proxy on loopback that leads every host name to one server of the test."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Proxy:
    """Takes ``CONNECT`` and requests in absolute form. Use it as a context manager.

    :ivar target: port on loopback that every host name leads to.
    :ivar user: user and password that it wants, as ``user:password``; empty for none.
    :ivar status: what it answers instead of connecting; None to connect.
    :ivar tls: for a proxy that is spoken to over TLS.
    :ivar port: where it listens; a free one if 0.
    :ivar seen: first line of each request.
    """

    target: int
    user: str = ""
    status: int | None = None
    tls: ssl.SSLContext | None = None
    port: int = 0
    seen: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Its URL, without credentials."""
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Refuse connections from now on, and end those there are."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
                if self.tls is not None:
                    connection = self.tls.wrap_socket(connection, server_side=True)
            except ssl.SSLError:
                continue
            except OSError:
                return
            self._sockets.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                received = connection.recv(65536)
                if not received:
                    return
                head += received
            first, _, rest = head.partition(b"\r\n")
            self.seen.append(first.decode())
            status = self.status
            wanted = base64.b64encode(self.user.encode("latin-1")).decode()
            if self.user and f"proxy-authorization: basic {wanted}".lower() not in (
                rest.decode("latin-1").lower()
            ):
                status = 407
            if status is not None:
                connection.sendall(
                    f"HTTP/1.1 {status} Refused\r\nContent-Length: 0\r\n"
                    "Proxy-Authenticate: Basic\r\nConnection: close\r\n\r\n".encode()
                )
                return
            with socket.create_connection(("127.0.0.1", self.target)) as upstream:
                self._sockets.append(upstream)
                if first.startswith(b"CONNECT "):
                    connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    upstream.sendall(head)
                back = threading.Thread(target=_copy, args=(upstream, connection), daemon=True)
                back.start()
                _copy(connection, upstream)
                back.join(10)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
