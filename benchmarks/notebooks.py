"""How long a notebook takes in the local workspace, and what its kernel costs.

    python -m benchmarks.notebooks

The workspace is the command, as users start it. The notebook has one cell. What counts is the time
from the request that launches it to the end of the run, as a client sees it that asks every 10 ms:
of the first notebook after the start, of others one after another, and of twenty at once. Memory is
the proportional set size: what processes share is divided between them. Linux only.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import requests

SINGLE = 15
AT_ONCE = 20
POLL_SECONDS = 0.01
ENDED = {"TERMINATED", "SKIPPED", "INTERNAL_ERROR"}
NOTEBOOK = "# Databricks notebook source\ndbutils.notebook.exit('done')\n"
WAITING = "# Databricks notebook source\nimport time\ntime.sleep(600)\n"
MEGABYTE = 1e6
_CONNECTION = re.compile(r"export AIRFLOW_CONN_DATABRICKS_DEFAULT=(.*)")


class Workspace:
    """A running ``python -m airflow_jobs_provider.local``.

    :param root: its root folder.
    :param arguments: more arguments of the command.
    """

    def __init__(self, root: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "airflow_jobs_provider.local", "--root", str(root)),
                *("--port", "0", "--max-concurrent-runs", str(AT_ONCE), *arguments),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        found = next(filter(None, map(_CONNECTION.match, self.process.stdout)))
        connection = json.loads(shlex.split(found[1])[0])
        self.url = f"{connection['host']}/api/2.0/jobs"
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {connection['password']}"

    def end(self) -> None:
        """End the workspace; return when it has ended."""
        self.process.terminate()
        self.process.wait()

    def post(self, endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a request; return the answer."""
        answer = self.session.post(f"{self.url}/{endpoint}", json=body, timeout=60)
        answer.raise_for_status()
        answered: dict[str, Any] = answer.json()
        return answered

    def launch(self, path: str) -> int:
        """Launch a notebook; return the id of the run."""
        body = {"existing_cluster_id": "any", "notebook_task": {"notebook_path": path}}
        return int(self.post("runs/submit", body)["run_id"])

    def state(self, run_id: int) -> dict[str, Any]:
        """Return the state of a run."""
        answer = self.session.get(f"{self.url}/runs/get", params={"run_id": run_id}, timeout=60)
        answer.raise_for_status()
        state: dict[str, Any] = answer.json()["state"]
        return state

    def wait(self, run_id: int) -> None:
        """Wait until a run has succeeded."""
        while (state := self.state(run_id))["life_cycle_state"] not in ENDED:
            time.sleep(POLL_SECONDS)
        assert state["result_state"] == "SUCCESS", state

    def seconds_of(self, count: int) -> float:
        """Launch so many notebooks; return the seconds until the last has ended."""
        begin = time.monotonic()
        for run_id in [self.launch("/done") for _ in range(count)]:
            self.wait(run_id)
        return time.monotonic() - begin


def measure(root: Path) -> dict[str, float]:
    """Return the measures by name."""
    psutil: Any = import_module("psutil")
    (root / "done.py").write_text(NOTEBOOK)
    (root / "waits.py").write_text(WAITING)
    workspace = Workspace(root)
    server = psutil.Process(workspace.process.pid)
    try:
        time.sleep(2)  # the fork server has loaded its modules
        idle = server.memory_full_info().pss
        forks = sum(child.memory_full_info().pss for child in server.children())
        first = workspace.seconds_of(1)
        single = [workspace.seconds_of(1) for _ in range(SINGLE)]
        at_once = workspace.seconds_of(AT_ONCE)
        before = server.memory_full_info().pss
        runs = [workspace.launch("/waits") for _ in range(AT_ONCE)]
        while any(workspace.state(run)["life_cycle_state"] != "RUNNING" for run in runs):
            time.sleep(POLL_SECONDS)
        time.sleep(1)
        below = server.children(recursive=True)
        kernels = sum(child.memory_full_info().pss for child in below) - forks
        for run in runs:
            workspace.post("runs/cancel", {"run_id": run})
    finally:
        workspace.end()
    left = [one for one in below if one.is_running()]
    assert not left, left
    return {
        "first notebook after the start, s": first,
        "others, one after another, median, s": statistics.median(single),
        "others, one after another, longest, s": max(single),
        f"{AT_ONCE} at once, until the last has ended, s": at_once,
        "server before its first notebook, MB": idle / MEGABYTE,
        "server after them, MB": before / MEGABYTE,
        "fork server, MB": forks / MEGABYTE,
        "each waiting kernel with its supervisor, MB": kernels / AT_ONCE / MEGABYTE,
    }


def main() -> None:
    """Measure, and print a Markdown table."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder))
    lines = ["| local workspace | |", "| --- | --- |"]
    lines += [f"| {name} | {value:.2f} |" for name, value in rows.items()]
    sys.stdout.write("\n".join(lines) + f"\n\n{os.cpu_count()} cores, load before {load:.1f}\n")


if __name__ == "__main__":
    main()
