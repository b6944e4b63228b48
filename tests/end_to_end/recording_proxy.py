"""A server between a client and a workspace that records the requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Recorded", "recording_proxy"]

_HOP_BY_HOP = ("connection", "content-length", "keep-alive", "transfer-encoding")


@dataclass(frozen=True)
class Recorded:
    """A request.

    :ivar path: its path, without the query.
    :ivar body: its JSON body; an empty dict without one.
    :ivar response: the JSON of the response.
    """

    path: str
    body: dict[str, Any]
    response: dict[str, Any]


@contextmanager
def recording_proxy(url: str) -> Iterator[tuple[int, list[Recorded]]]:
    """Serve on loopback, and forward all requests; return the port and the list of requests.

    :param url: where the requests go.
    """
    target = urlsplit(url)
    seen: list[Recorded] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            """Forward a request that reads."""
            self._forward()

        def do_POST(self) -> None:
            """Forward a request that changes something."""
            self._forward()

        def do_PATCH(self) -> None:
            """Forward a request that adds permissions."""
            self._forward()

        def do_PUT(self) -> None:
            """Forward a request that sets permissions."""
            self._forward()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            connection = HTTPConnection(str(target.hostname), target.port, timeout=60)
            try:
                # A workspace on this machine answers only requests to its own address.
                headers = dict(self.headers.items()) | {"Host": target.netloc}
                connection.request(self.command, self.path, body, headers)
                response = connection.getresponse()
                content = response.read()
            finally:
                connection.close()
            path = urlsplit(self.path).path
            seen.append(Recorded(path, json.loads(body or b"{}"), json.loads(content or b"{}")))
            self.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1], seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
