"""A server in front of a workspace, for clients that cannot speak with it directly.

Some know a host's name, but no port of it; some speak TLS only; some need APIs beside those that
the workspace serves.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

import requests

from airflow_jobs_provider.local.workspace import LocalWorkspace

__all__ = ["Answer", "Asked", "forwarding"]

_KEPT_HEADERS = ("Authorization", "Content-Type", "User-Agent")
_JSON = "application/json"


class Asked(NamedTuple):
    """A request."""

    method: str
    path: str
    query: str
    body: bytes


class Answer(NamedTuple):
    """A response."""

    status: int
    body: bytes
    content_type: str = _JSON


@contextmanager
def forwarding(
    workspace: LocalWorkspace,
    *,
    tls: ssl.SSLContext | None = None,
    others: Mapping[str, Callable[[Asked], Answer]] | None = None,
) -> Iterator[int]:
    """Serve a workspace at another port, and return that.

    :param tls: a context for TLS; default None: plain HTTP.
    :param others: who answers the requests whose paths begin so, in place of the workspace.
    """

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            target = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(self.command, target.path, target.query, body)
            answer = next(
                (
                    act(asked)
                    for start, act in (others or {}).items()
                    if asked.path.startswith(start)
                ),
                None,
            ) or self._forward(asked)
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def _forward(self, asked: Asked) -> Answer:
            response = requests.request(
                asked.method,
                f"{workspace.url}{asked.path}?{asked.query}",
                headers={
                    name: self.headers[name] for name in _KEPT_HEADERS if name in self.headers
                },
                data=asked.body,
                timeout=60,
            )
            return Answer(
                response.status_code, response.content, response.headers.get("Content-Type", _JSON)
            )

        do_GET = do_POST = do_PUT = do_PATCH = _answer  # noqa: N815  (the names http.server asks for)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
