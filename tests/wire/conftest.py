"""Real HTTP for the tests of the clients: a server that does as it is told, and both faces."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme

from airflow_jobs_provider.api.auth import Token
from airflow_jobs_provider.api.client import AsyncJobsClient, JobsClient
from airflow_jobs_provider.api.endpoints import Call, Page
from airflow_jobs_provider.api.retry import RetryPolicy

TOKEN = "dapi-not-a-real-token"


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

    After the last step it answers with the ids that it is asked for, and nothing else.
    """

    steps: list[Step] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def will(self, *steps: Step) -> None:
        """Add steps to take."""
        self.steps.extend(steps)

    def close(self) -> None:
        """Stop listening."""
        if self._thread.is_alive():
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self.tls is not None:
                try:
                    connection = self.tls.wrap_socket(connection, server_side=True)
                except OSError:
                    continue
            with connection:
                if (request := self._read(connection)) is None:
                    continue
                self.requests.append(request)
                ids = {k: int(v) for k, v in request.query.items() if k in ("run_id", "job_id")}
                step = self.steps.pop(0) if self.steps else answer(ids)
                step(connection)

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


def shown_with_locals(error: BaseException) -> str:
    """Return a traceback as Airflow 3.0 logs it, with the local variables of each frame.

    The frames of the tests are left out: they hold what must not be shown.
    """
    here = Path(__file__).parents[1]
    one = traceback.TracebackException.from_exception(error, capture_locals=True, limit=None)
    to_see, seen = [one], set()
    while to_see:
        part = to_see.pop()
        seen.add(id(part))
        frames = [frame for frame in part.stack if here not in Path(frame.filename).parents]
        part.stack = traceback.StackSummary.from_list(frames)
        others = (part.__cause__, part.__context__)
        to_see += [other for other in others if other is not None and id(other) not in seen]
        part.__suppress_context__ = False  # what a tool that ignores "from None" would show
    return "".join(one.format())


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A server that does as it is told."""
    scripted = ScriptedServer()
    yield scripted
    scripted.close()


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[ScriptedServer]:
    """The same behind TLS, with a certificate of a CA that nobody knows."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    scripted = ScriptedServer(tls=context, ca_file=ca_file)
    yield scripted
    scripted.close()


class Face:
    """One of the two clients, used the same way; waits are noted, not waited."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.waits: list[float] = []
        self._runner = asyncio.Runner() if kind == "asyncio" else None
        self._client: Any = None

    def connect(self, url: str, credentials: Any = None, **options: Any) -> Any:
        """Make the client; the policy's jitter is off."""
        self.disconnect()
        options.setdefault("retries", RetryPolicy(random=lambda: 0.0))
        credentials = credentials or Token(TOKEN)
        if self._runner is None:
            self._client = JobsClient(url, credentials, sleep=self.waits.append, **options)
        else:
            self._client = AsyncJobsClient(url, credentials, sleep=self._note, **options)
        return self._client

    async def _note(self, seconds: float) -> None:
        self.waits.append(seconds)

    def send(self, call: Call[Any], **options: Any) -> Any:
        """Send a call and return its result."""
        if self._runner is None:
            return self._client.send(call, **options)
        return self._runner.run(self._client.send(call, **options))

    def take(self, call: Call[Page[Any]], count: int) -> list[Any]:
        """Return the first items of a list."""
        if self._runner is None:
            items = self._client.iterate(call)
            return [item for _, item in zip(range(count), items, strict=False)]

        async def collect() -> list[Any]:
            taken: list[Any] = []
            iterator = self._client.iterate(call)
            async for item in iterator:
                taken.append(item)
                if len(taken) == count:
                    break
            await iterator.aclose()
            return taken

        return self._runner.run(collect())

    def disconnect(self) -> None:
        """Close the client."""
        if self._client is None:
            return
        if self._runner is None:
            self._client.close()
        else:
            self._runner.run(self._client.close())

    def close(self) -> None:
        """Close client and loop."""
        self.disconnect()
        if self._runner is not None:
            self._runner.close()


@pytest.fixture(params=["blocking", "asyncio"])
def face(request: pytest.FixtureRequest) -> Iterator[Face]:
    """Each test of the clients runs on both."""
    one = Face(request.param)
    yield one
    one.close()


@pytest.fixture
def connected(face: Face, server: ScriptedServer) -> Face:
    """A face connected to the scripted server, with a short read time-out."""
    face.connect(server.url, timeout_seconds=0.3)
    return face
