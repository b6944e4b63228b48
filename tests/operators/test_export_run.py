"""Exports are written to their files as they arrive, over real HTTP."""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from airflow_jobs_provider.api import endpoints, errors
from airflow_jobs_provider.api.base_client import MAX_RESPONSE_BYTES
from airflow_jobs_provider.api.export_stream import ViewEvent
from airflow_jobs_provider.api.retry import RetryPolicy, no_waiting
from airflow_jobs_provider.operators.export_run import DatabricksExportRunOperator
from tests.fakes.scripted_server import TOKEN, ScriptedServer, Step, answer
from tests.helpers.client_face import Face
from tests.helpers.tracebacks import shown_with_locals

# Airflow 3.0's own, with later versions of the library that it builds its paths on.
pytestmark = pytest.mark.filterwarnings(
    "ignore:ObjectStoragePath._protocol_dispatch:DeprecationWarning"
)

CONTEXT: Any = {"ti": SimpleNamespace(dag_id="d", task_id="t")}
MIB = 1024 * 1024
RUN = answer({"run_id": 7})
ONCE = RetryPolicy(max_attempts=1)


@pytest.fixture(autouse=True)
def connection(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection to the scripted server."""
    fields = {"conn_type": "databricks_jobs", "host": server.url, "password": TOKEN}
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(fields))


def export(path: Path, **arguments: Any) -> DatabricksExportRunOperator:
    """Make an operator that exports the run."""
    return DatabricksExportRunOperator(task_id="t", run_id="7", path=str(path), **arguments)


def exported(*contents: str) -> bytes:
    """Return an answer with views of these contents."""
    views = [
        {"content": content, "name": f"view {n}", "type": "NOTEBOOK"}
        for n, content in enumerate(contents)
    ]
    return json.dumps({"views": views}).encode()


def cut_off(body: bytes) -> Step:
    """Answer so much, of which more was promised, and hang up."""

    def step(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + body)

    return step


@pytest.mark.parametrize("encoded", [False, True])
def test_large_views_are_written(server: ScriptedServer, tmp_path: Path, encoded: bool) -> None:
    """Whole, whatever their escapes, and nothing beside them."""
    contents = ['<p>"ä\\ 😀</p>\n' * 100_000, "", "x" * MIB]
    body = exported(*contents)
    step = answer(gzip.compress(body), headers={"Content-Encoding": "gzip"})
    server.will(RUN, step if encoded else answer(body))
    paths = export(tmp_path).execute(CONTEXT)
    assert [Path(path).read_text(encoding="utf-8") for path in paths] == contents
    assert sorted(str(file) for file in tmp_path.iterdir()) == paths


def test_an_export_that_is_cut_off_begins_anew(server: ScriptedServer, tmp_path: Path) -> None:
    """Nothing of the first answer is left."""
    body = exported("a" * MIB, "b" * MIB)
    server.will(RUN, cut_off(body[: MIB + MIB // 2]), answer(exported("c")))
    with no_waiting() as waits:
        (path,) = export(tmp_path).execute(CONTEXT)
    assert len(waits) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["view 0.html"]
    assert Path(path).read_text(encoding="utf-8") == "c"


LIMIT = MAX_RESPONSE_BYTES


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the limit of an export's size to that of other responses, the lowest there is."""
    monkeypatch.setattr(endpoints, "MAX_EXPORT_BYTES", LIMIT)


# Made when they are first needed, not by each process that collects the tests.


@cache
def large_gzip() -> bytes:
    """Return more than the limit."""
    return gzip.compress(exported("x" * (LIMIT + MIB)), 1)


@cache
def broken_gzip() -> bytes:
    """Return an export whose end is missing."""
    return gzip.compress(exported("new" * MIB), 1)[:-9]


def too_large(connection: socket.socket) -> None:
    """Answer with more than the limit."""
    answer(large_gzip(), headers={"Content-Encoding": "gzip"})(connection)


def broken(connection: socket.socket) -> None:
    """Answer with an export whose end is missing."""
    answer(broken_gzip(), headers={"Content-Encoding": "gzip"})(connection)


BAD: dict[str, Step] = {
    "cut off": cut_off(exported("new" * MIB)[:MIB]),
    "a page": answer(b"<html><title>Sign in</title></html>"),
    "a view that does not fit": answer(exported("new")[:-2] + b', {"content": 7}]}'),
    "no JSON behind a view": answer(exported("new")[:-2] + b", <html>"),
    "too large": too_large,
    "broken gzip": broken,
}


@pytest.mark.usefixtures("low_limit")
@pytest.mark.parametrize("name", BAD)
def test_a_failure_leaves_what_was_there(server: ScriptedServer, tmp_path: Path, name: str) -> None:
    """No file half written or renamed, the older one as it was, though other tasks' views came."""
    notebooks = [
        {"task_key": key, "run_id": n, "notebook_task": {}} for key, n in (("a", 8), ("b", 9))
    ]
    old = tmp_path / "a" / "view 0.html"
    old.parent.mkdir()
    old.write_text("old", encoding="utf-8")
    server.will(answer({"run_id": 7, "tasks": notebooks}), answer(exported("new")), BAD[name])
    with pytest.raises(AirflowException):
        export(tmp_path, databricks_retry_limit=1).execute(CONTEXT)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [old]
    assert old.read_text(encoding="utf-8") == "old"


@pytest.mark.usefixtures("low_limit")
def test_what_is_wrong_is_told_alike(face: Face, server: ScriptedServer) -> None:
    """The errors are those of an export that is read whole, on both faces."""
    told: list[list[str]] = []
    for call in (
        endpoints.export_run(7),
        endpoints.export_run_as_stream(7, None, lambda events: [*events]),
    ):
        face.connect(server.url)
        told.append([])
        for step in BAD.values():
            server.will(step)
            with pytest.raises(errors.JobsAPIError) as caught:
                face.send(call, retries=ONCE)
            told[-1].append(f"{type(caught.value).__name__}: {caught.value}")
    assert told[0] == told[1]


@pytest.mark.parametrize("name", sorted(BAD.keys() - {"too large"}))
def test_no_token_in_a_traceback(face: Face, server: ScriptedServer, name: str) -> None:
    """Neither of an answer that is bad somewhere in its middle, nor of who receives it."""

    def fail(events: Iterable[ViewEvent]) -> None:
        for event in events:
            raise OSError(f"disk full after {str(event)[:5]}")

    for receive in (list, fail):
        face.connect(server.url)
        server.will(BAD[name])
        with pytest.raises((errors.JobsAPIError, OSError)) as caught:
            face.send(endpoints.export_run_as_stream(7, None, receive), retries=ONCE)
        assert TOKEN not in shown_with_locals(caught.value)


def test_an_error_of_the_storage_is_no_outage(server: ScriptedServer, tmp_path: Path) -> None:
    """It is raised as it is, and the service is not asked again."""
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    server.will(RUN, answer(exported("x")))
    with pytest.raises(OSError, match="file"):
        export(in_the_way / "folder").execute(CONTEXT)
    assert len(server.requests) == 2


# The process's own peak: ru_maxrss begins at that of the process which started it.
MEASURE = """
import os, sys
from types import SimpleNamespace
from airflow_jobs_provider.operators.export_run import DatabricksExportRunOperator

def export(path):
    operator = DatabricksExportRunOperator(task_id="t", run_id=7, path=path)
    return operator.execute({"ti": SimpleNamespace(dag_id="d", task_id="t")})

def peak_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

export(sys.argv[1] + "/small")
before = peak_kib()
(path,) = export(sys.argv[1] + "/large")
print("RESULT", os.path.getsize(path), peak_kib() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_bounded(server: ScriptedServer, tmp_path: Path) -> None:
    """An export of 100 MB takes less than 50 MB more than a small one, at its peak."""
    size = 100_000_000

    def large(connection: socket.socket) -> None:
        head, tail = b'{"views": [{"content": "', b'", "name": "n"}]}'
        length = len(head) + size + len(tail)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + head)
        for _ in range(100):
            connection.sendall(b"<p>x</p>" * (size // 100 // 8))
        connection.sendall(tail)

    server.will(RUN, answer(exported("x")), RUN, large)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=80,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    _, written, grown_kib = line.split()
    assert int(written) == size
    assert int(grown_kib) < 50 * 1000
