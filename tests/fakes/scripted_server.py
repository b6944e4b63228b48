"""An HTTP server on loopback whose responses a test gives one by one."""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

TOKEN = "dapi-not-a-real-token"
# So many requests after the last step are a loop.
MOST_UNSCRIPTED = 1000
EXHAUSTED = "The test has no more answers."


@dataclass(frozen=True)
class Request:
    """A request as the server read it."""

    verb: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


Step = Callable[[socket.socket], None]


def answer(payload: Any = None, status: int = 200, headers: dict[str, str] | None = None) -> Step:
    """Answer with JSON, or with the bytes or text given."""
    body = payload if isinstance(payload, bytes) else None
    if body is None:
        body = payload.encode() if isinstance(payload, str) else json.dumps(payload or {}).encode()

    def step(connection: socket.socket) -> None:
        head = {"Content-Length": str(len(body)), "Connection": "close", **(headers or {})}
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{k}: {v}" for k, v in head.items()), "", ""]
        connection.sendall("\r\n".join(lines).encode() + body)

    return step


def lose(connection: socket.socket) -> None:
    """Read the request, do what it asks, and close without a word."""


def reset(connection: socket.socket) -> None:
    """Read the request and reset the connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def half_a_body(connection: socket.socket) -> None:
    """Promise 100 bytes and send 9."""
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"run_id"')


def never_answer(connection: socket.socket) -> None:
    """Say nothing until the client hangs up."""
    connection.settimeout(10)
    with contextlib.suppress(OSError):
        connection.recv(1)


@dataclass
class ScriptedServer:
    """An HTTP server on loopback that takes one step for each request.

    After the last step it answers with the ids that it is asked for, and nothing else. A client
    that has had many such answers goes round in circles, so that it is refused: the test fails,
    and does not go on for ever.
    """

    steps: list[Step] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    ca_file: Path | None = None
    unscripted: int = 0

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"
        self._always: Step | None = None
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def will(self, *steps: Step) -> None:
        """Add steps to take."""
        self.steps.extend(steps)

    def will_always(self, step: Step) -> None:
        """Take this step for each request after the last of the others.

        A client on a busy machine may ask again, since it has not waited for an answer.
        """
        self._always = step

    def close(self) -> None:
        """Stop listening."""
        self._stop.close()
        self._thread.join(10)

    def _serve(self) -> None:
        with self._listener, self._stopped, selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._stopped, selectors.EVENT_READ)
            while self._stopped not in (ready := [key.fileobj for key, _ in selector.select()]):
                for one in ready:
                    if one is self._listener:
                        # A client that a signal interrupts has connected, and sends later than
                        # another.
                        selector.register(self._listener.accept()[0], selectors.EVENT_READ)
                    else:
                        selector.unregister(one)
                        self._answer(cast("socket.socket", one))
            for key in list(selector.get_map().values()):
                cast("socket.socket", key.fileobj).close()

    def _answer(self, connection: socket.socket) -> None:
        if self.tls is not None:
            try:
                connection = self.tls.wrap_socket(connection, server_side=True)
            except OSError:
                return
        with connection:
            if (request := self._read(connection)) is None:
                return
            self.requests.append(request)
            step = self.steps.pop(0) if self.steps else self._always or self._unscripted(request)
            step(connection)

    def _unscripted(self, request: Request) -> Step:
        self.unscripted += 1
        if self.unscripted > MOST_UNSCRIPTED:
            return answer({"error_code": "INVALID_PARAMETER_VALUE", "message": EXHAUSTED}, 400)
        return answer({k: int(v) for k, v in request.query.items() if k in ("run_id", "job_id")})

    @staticmethod
    def _read(connection: socket.socket) -> Request | None:
        data = b""
        while b"\r\n\r\n" not in data:
            received = connection.recv(65536)
            if not received:
                return None
            data += received
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += connection.recv(65536)
        verb, target, _ = first.split(" ")
        parts = urlsplit(target)
        return Request(
            verb=verb,
            path=parts.path,
            query={k: v[0] for k, v in parse_qs(parts.query).items()},
            headers=headers,
            body=json.loads(body) if body else None,
        )
