"""How long an answer may take and how large it may be, on both faces."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from airflow_jobs_provider.api import endpoints, errors
from airflow_jobs_provider.api.auth import Token
from airflow_jobs_provider.api.client import AsyncJobsClient
from airflow_jobs_provider.api.retry import RetryPolicy
from tests.fakes.scripted_server import TOKEN, ScriptedServer, Step, answer
from tests.helpers.client_face import Face

ONCE = RetryPolicy(max_attempts=1)
MIB = 1024 * 1024


def drip(before: bytes) -> Step:
    """Send this at once, then a byte every 50 ms, without end."""

    def step(connection: socket.socket) -> None:
        connection.sendall(before)
        try:
            for _ in range(400):
                connection.sendall(b" ")
                time.sleep(0.05)
        except OSError:
            pass

    return step


DRIPS = {
    "body": drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"),
    "body without a length": drip(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"),
    "chunk": drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n"),
    "error body": drip(b"HTTP/1.1 503 Down\r\nContent-Length: 100000\r\n\r\n"),
    "header": drip(b"HTTP/1.1 200 OK\r\nX-Long: "),
    "status line": drip(b"HTTP/1.1 200 O"),
}


@pytest.mark.parametrize("name", DRIPS)
def test_an_answer_that_comes_byte_by_byte(name: str, face: Face, server: ScriptedServer) -> None:
    """Each byte is in time, the whole is not: it is given up at the deadline, and asked again."""
    server.will(DRIPS[name], answer({"run_id": 7}))
    face.connect(server.url, timeout_seconds=5, response_timeout_seconds=0.5)
    began = time.monotonic()
    with pytest.raises(errors.ResponseLostError, match=r"not complete within 0\.5 s"):
        face.send(endpoints.get_run(7), retries=ONCE)
    assert 0.4 < time.monotonic() - began < 3


def endless(head: bytes, part: bytes) -> Step:
    """Send without end."""

    def step(connection: socket.socket) -> None:
        try:
            connection.sendall(head)
            for _ in range(2000):
                connection.sendall(part)
        except OSError:
            pass

    return step


# Made when they are needed: every test process imports this file.
LARGE: dict[str, Callable[[], Step]] = {
    "length": lambda: answer(b'{"a": "' + b"x" * (2 * MIB) + b'"}'),
    "no length": lambda: endless(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"x" * MIB),
    "chunks": lambda: endless(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"100000\r\n" + b"x" * MIB + b"\r\n",
    ),
    "gzip": lambda: packed(gzip.compress(b"[" + b" " * (100 * MIB) + b"]", compresslevel=1)),
    "gzip of gzips": lambda: packed(gzip.compress(b" " * MIB) * 64),
}


def packed(body: bytes) -> Step:
    """Answer with a body that was packed by gzip."""
    return answer(body, headers={"Content-Encoding": "gzip"})


@pytest.mark.parametrize("name", LARGE)
def test_an_answer_that_is_too_large(name: str, face: Face, server: ScriptedServer) -> None:
    """It is left unread beyond the limit, whose size is that of the decoded answer."""
    server.will(LARGE[name]())
    face.connect(server.url, max_response_bytes=MIB)
    # Not the process's peak, which making the answers above has raised already.
    tracemalloc.start()
    try:
        with pytest.raises(errors.UnexpectedResponseError, match="more than 1 MiB"):
            face.send(endpoints.get_run(7), retries=ONCE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50 * MIB


def test_a_large_error_is_still_that_error(face: Face, server: ScriptedServer) -> None:
    """The status tells; of the page no more is read than a title may need."""
    head = b"HTTP/1.1 503 Down\r\nConnection: close\r\n\r\n<title>Maintenance</title>"
    server.will(endless(head, b"x" * MIB))
    face.connect(server.url)
    with pytest.raises(errors.ServerError, match="Maintenance"):
        face.send(endpoints.get_run(7), retries=ONCE)


def test_an_export_may_be_larger(face: Face, server: ScriptedServer) -> None:
    """An export has a limit of its own: 256 MiB where others have 64."""
    export = {"views": [{"name": "n", "content": "x" * (2 * MIB), "type": "NOTEBOOK"}]}
    server.will(answer(export), answer(export))
    face.connect(server.url, max_response_bytes=MIB)
    (view,) = face.send(endpoints.export_run(7))
    assert len(view["content"]) == 2 * MIB
    assert endpoints.export_run(7).max_response_bytes == 256 * MIB


def test_gzip_is_read(face: Face, server: ScriptedServer) -> None:
    """As asked for; and what is cut off counts as a lost answer."""
    whole = gzip.compress(b'{"run_id": 7}')
    encoded = {"Content-Encoding": "gzip"}
    server.will(answer(whole, headers=encoded), answer(whole[:-9], headers=encoded))
    face.connect(server.url)
    assert face.send(endpoints.get_run(7)) == {"run_id": 7}
    assert server.requests[0].headers["accept-encoding"] == "gzip"
    with pytest.raises(errors.ResponseLostError, match="cut off"):
        face.send(endpoints.get_run(7), retries=ONCE)


@pytest.mark.slow
async def test_a_large_answer_does_not_hold_up_the_event_loop(server: ScriptedServer) -> None:
    """It is unpacked and parsed beside the loop, which has its turn meanwhile."""
    run: dict[str, Any] = {"run_id": 7, "state": {"life_cycle_state": "RUNNING"}, "job_id": 3}
    runs = json.dumps({"runs": [run] * 200_000}).encode()
    server.will(answer(gzip.compress(runs, 1), headers={"Content-Encoding": "gzip"}))
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.005)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    watching = asyncio.create_task(watch())
    async with AsyncJobsClient(server.url, Token(TOKEN)) as client:
        began = time.perf_counter()
        page = await client.send(endpoints.list_runs())
        took = time.perf_counter() - began
    watching.cancel()
    assert len(page.items) == 200_000
    assert longest < took / 2
