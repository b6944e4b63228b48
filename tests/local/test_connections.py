"""Connections that are slow, silent or too many are closed; all others are served."""

from __future__ import annotations

import json
import re
import resource
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from airflow_jobs_provider.local.workspace import LocalWorkspace, Timeouts
from tests.local.api import CLUSTER, Api, Process, until

REQUEST_SECONDS, IDLE_SECONDS = 0.4, 0.8
FILES = 256
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Return a workspace that gives its clients little time."""
    root = tmp_path_factory.mktemp("workspace")
    timeouts = Timeouts(request_seconds=REQUEST_SECONDS, idle_seconds=IDLE_SECONDS)
    with LocalWorkspace(root, timeouts=timeouts) as workspace:
        yield Api(workspace)


def connect(url: str, *, receive_bytes: int | None = None) -> socket.socket:
    """Open a connection to a workspace."""
    address = urlsplit(url)
    assert address.hostname is not None
    connection = socket.socket()
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(20)
    connection.connect((address.hostname, address.port or 0))
    return connection


def head(api: Api, request: str, **headers: object) -> bytes:
    """Return the head of a request that the workspace lets in."""
    sent = {
        "Host": urlsplit(api.workspace.url).netloc,
        "Authorization": f"Bearer {api.workspace.token}",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"{request} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def read_to_end(connection: socket.socket) -> bytes:
    """Read until the workspace closes the connection."""
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received


def drip(connection: socket.socket, data: bytes) -> None:
    """Send a byte at a time, for as long as the workspace takes them."""
    try:
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)
    except OSError:
        pass


@pytest.mark.parametrize("dripping", [False, True])
@pytest.mark.parametrize("part", ["nothing", "half a line", "half the headers"])
def test_slow_headers(impatient: Api, part: str, dripping: bool) -> None:
    """A connection whose first request has no complete headers in time is closed."""
    whole = head(impatient, "GET /api/2.0/jobs/list")
    sent = {"nothing": b"", "half a line": whole[:7], "half the headers": whole[:-3]}[part]
    start = time.monotonic()
    with connect(impatient.workspace.url) as connection:
        sending = threading.Thread(target=drip, args=(connection, sent * 20 if dripping else b""))
        if not dripping:
            connection.sendall(sent)
        sending.start()
        assert read_to_end(connection) == b""
        assert REQUEST_SECONDS * 0.9 <= time.monotonic() - start < 10
        sending.join()


@pytest.mark.parametrize("dripping", [False, True])
def test_slow_body(impatient: Api, dripping: bool) -> None:
    """A request whose body does not arrive in time is answered 408, and closed."""
    kind = "application/json"
    sent = head(impatient, "POST /api/2.0/jobs/create", Content_Length=1000, Content_Type=kind)
    with connect(impatient.workspace.url) as connection:
        connection.sendall(sent + b"{")
        sending = threading.Thread(target=drip, args=(connection, b" " * 500 if dripping else b""))
        sending.start()
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"REQUEST_TIMEOUT"' in answer + read_to_end(connection)
        sending.join()


@pytest.mark.slow
def test_idle_connections(impatient: Api) -> None:
    """A connection is kept between requests, but not for ever, nor with half of the next one."""
    request = head(impatient, "GET /api/2.0/jobs/list")
    for rest in (b"", request[:20]):
        with connect(impatient.workspace.url) as connection:
            for _ in range(3):
                connection.sendall(request)
                assert connection.recv(65536).endswith(b"{}")
                time.sleep(IDLE_SECONDS / 4)
            connection.sendall(rest)
            start = time.monotonic()
            assert read_to_end(connection) == b""
            assert time.monotonic() - start < 10


@pytest.mark.slow
def test_work_has_no_time_limit(impatient: Api) -> None:
    """A request whose work takes long is answered, however short the times for clients are."""
    other = impatient.notebook(
        f"import time\ntime.sleep({2 * (REQUEST_SECONDS + IDLE_SECONDS)})\n"
        "dbutils.notebook.exit('waited for')"
    )
    run, output = impatient.run_notebook(
        f"dbutils.notebook.exit(dbutils.notebook.run({other!r}, 60))"
    )
    assert run["state"]["result_state"] == "SUCCESS"
    assert output["notebook_output"]["result"] == "waited for"


@pytest.mark.slow
def test_slow_readers(impatient: Api) -> None:
    """An answer that is read slowly is sent to its end; one that is not read is given up."""
    body = {**CLUSTER, "notebook_task": {"notebook_path": "/x"}, "later_field": "x" * 9_000_000}
    job_id = impatient.post("create", body, version="2.2").json()["job_id"]
    request = head(impatient, f"GET /api/2.2/jobs/get?job_id={job_id}", Connection="close")
    with connect(impatient.workspace.url, receive_bytes=65536) as slow:
        slow.sendall(request)
        received = b""
        while part := slow.recv(200_000):
            received += part
            time.sleep(0.02)
    assert json.loads(received.partition(b"\r\n\r\n")[2])["job_id"] == job_id
    with connect(impatient.workspace.url, receive_bytes=65536) as silent:
        silent.sendall(request)
        port = silent.getsockname()[1]

        def is_served() -> bool:
            return any(c.raddr and c.raddr.port == port for c in Process().net_connections("tcp"))

        until(is_served, "the connection to be accepted")
        until(lambda: not is_served(), "the connection to be closed")


class LimitedProgram:
    """A workspace in a process that may open few files."""

    def __init__(self, root: Path, log: Path) -> None:
        self._log = log
        limits = f'ulimit -Sn 100 && ulimit -Hn {FILES} && exec "$@"'
        command = [sys.executable, "-m", "airflow_jobs_provider.local", "--port", "0", "--dry-run"]
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", limits, "sh", *command, "--root", str(root)],
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("export "):
                [text] = shlex.split(line.partition("=")[2])
                self.connection = json.loads(text)
                return
        raise AssertionError(log.read_text())

    def get(self, timeout: float = 10) -> int:
        """Ask for the jobs, and return the status; 0 for a connection that was closed."""
        headers = {"Authorization": f"Bearer {self.connection['password']}"}
        url = f"{self.connection['host']}/api/2.0/jobs/list"
        try:
            return requests.get(url, headers=headers, timeout=timeout).status_code
        except requests.ConnectionError:
            return 0

    def log(self) -> str:
        """Return what it has logged."""
        return self._log.read_text()


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[LimitedProgram]:
    """Return a workspace in a process that may open few files."""
    root = tmp_path / "root"
    root.mkdir()
    program = LimitedProgram(root, tmp_path / "log")
    yield program
    program.process.kill()
    program.process.communicate()


@pytest.mark.slow
def test_the_file_limit_is_raised(limited: LimitedProgram) -> None:
    """The workspace may open as many files as the system allows it."""
    assert Process(limited.process.pid).rlimit(resource.RLIMIT_NOFILE) == (FILES, FILES)


@pytest.mark.slow
def test_more_connections_than_files(limited: LimitedProgram) -> None:
    """More connections than there are files stop nothing: those that wait longest are closed."""
    process = Process(limited.process.pid)
    with ExitStack() as stack:
        for _ in range(3 * FILES):
            stack.enter_context(connect(limited.connection["host"]))
        until(lambda: limited.get() == 200, "a request to be answered")
        for _ in range(20):
            assert limited.get() == 200
        assert process.num_fds() < FILES * 0.75
    until(lambda: process.num_fds() < FILES / 2, "the connections to be closed")
    assert limited.get() == 200
    lines = limited.log().splitlines()
    assert 1 <= len(lines) <= 3
    assert all(re.search(r"Connections are (refused|closed): ", line) for line in lines)


@pytest.mark.slow
def test_no_file_is_left(limited: LimitedProgram) -> None:
    """Without a file for a connection the workspace logs it once, and serves when there is one."""
    process = Process(limited.process.pid)
    limit = (process.num_fds(), FILES)
    resource.prlimit(limited.process.pid, resource.RLIMIT_NOFILE, limit)
    statuses: list[int] = []
    asking = threading.Thread(target=lambda: statuses.append(limited.get(timeout=30)))
    asking.start()
    until(lambda: "No connection can be accepted" in limited.log(), "the failure to be logged")
    before = process.cpu_times().user
    time.sleep(1)
    assert process.cpu_times().user - before < 0.5
    assert statuses == []
    resource.prlimit(limited.process.pid, resource.RLIMIT_NOFILE, (FILES, FILES))
    asking.join()
    assert statuses == [200]
    assert len(limited.log().splitlines()) == 1
