"""Memory of the local workspace's server with many runs kept, and how fast it answers runs/get.

    python -m benchmarks.workspace_memory            10,000 runs, half a minute
    python -m benchmarks.workspace_memory 1000

The workspace is the command, as users start it. First it only pretends to run (``--dry-run``) and
gets so many runs of a job, each by a request of its own. Then it is started again on what it has
kept, really runs a notebook and opens each kind of page. Memory is that of the server's process in
MB of 1,000,000 bytes: the proportional set size, as in ``benchmarks.notebooks``, and the resident
set size, which counts shared libraries whole. Kernels and exports are processes of their own. Linux
only.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from benchmarks.notebooks import MEGABYTE, NOTEBOOK, Workspace

RUNS = 10_000
READS = 4000
CONNECTIONS = 4


class Memory(NamedTuple):
    """The memory of a process, in MB."""

    proportional: float
    resident: float


class Measures(NamedTuple):
    """What was measured.

    :ivar memory: the memory of the server, by what happened before.
    :ivar reads_per_second: how many requests of runs/get were answered in a second.
    """

    memory: dict[str, Memory]
    reads_per_second: float


def measure(root: Path, runs: int = RUNS) -> Measures:
    """Return the memory at each step, and the rate of requests.

    :param root: an empty folder.
    """
    (root / "done.py").write_text(NOTEBOOK)
    memory: dict[str, Memory] = {}
    workspace = Workspace(root, "--dry-run")
    try:
        memory["started"] = _memory_of(workspace)
        settings = {
            "name": "pretended",
            "existing_cluster_id": "any",
            "notebook_task": {"notebook_path": "/Shared/pretended"},
        }
        job_id = workspace.post("create", settings)["job_id"]
        for number in range(runs):
            body = {"job_id": job_id, "notebook_params": {"number": str(number)}}
            run_id = int(workspace.post("run-now", body)["run_id"])
            # One after another: the job takes no second run while one is active.
            workspace.wait(run_id)
        memory[f"{runs:,} runs launched"] = _memory_of(workspace)
        rate = _reads_per_second(workspace, run_id)
        _open_pages(workspace, run_id)
        memory["pages opened"] = _memory_of(workspace)
    finally:
        workspace.end()
    workspace = Workspace(root)
    try:
        memory[f"started again with {runs:,} runs"] = _memory_of(workspace)
        run_id = workspace.launch("/done")
        workspace.wait(run_id)
        memory["a notebook executed"] = _memory_of(workspace)
        _open_pages(workspace, run_id)
        _open(workspace, f"/runs/{run_id}/notebook")
        memory["its page and others opened"] = _memory_of(workspace)
    finally:
        workspace.end()
    return Measures(memory, rate)


def _memory_of(workspace: Workspace) -> Memory:
    psutil: Any = import_module("psutil")
    found = psutil.Process(workspace.process.pid).memory_full_info()
    return Memory(found.pss / MEGABYTE, found.rss / MEGABYTE)


def _open_pages(workspace: Workspace, run_id: int) -> None:
    """Open the lists, a search through all runs, and the page of a run."""
    for path in ("/", "/?text=no-such-text", "/jobs", "/requests", f"/runs/{run_id}"):
        _open(workspace, path)


def _open(workspace: Workspace, path: str) -> None:
    address = workspace.url.removesuffix("/api/2.0/jobs")
    workspace.session.get(address + path, timeout=60).raise_for_status()


def _reads_per_second(workspace: Workspace, run_id: int) -> float:
    """Send the same request on a few connections; a client's own time is small this way."""
    address = urlsplit(workspace.url)
    assert address.port is not None
    server = ("127.0.0.1", address.port)
    request = (
        f"GET {address.path}/runs/get?run_id={run_id} HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Authorization: {workspace.session.headers['Authorization']!s}\r\n\r\n"
    ).encode()

    def send() -> None:
        with socket.create_connection(server) as connection, connection.makefile("rb") as answers:
            for _ in range(READS // CONNECTIONS):
                connection.sendall(request)
                assert b" 200 " in answers.readline()
                length = 0
                while (line := answers.readline()) != b"\r\n":
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                answers.read(length)

    threads = [threading.Thread(target=send) for _ in range(CONNECTIONS)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return READS / (time.monotonic() - begin)


def main() -> None:
    """Measure, and print a Markdown table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), runs)
    lines = [
        "| server of the local workspace | proportional, MB | resident, MB |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {one.proportional:.1f} | {one.resident:.1f} |"
        for name, one in found.memory.items()
    ]
    sys.stdout.write(
        "\n".join(lines)
        + f"\n\nruns/get: {found.reads_per_second:,.0f} requests a second on {CONNECTIONS} "
        f"connections; {os.cpu_count()} cores, load before {load:.1f}\n"
    )


if __name__ == "__main__":
    main()
