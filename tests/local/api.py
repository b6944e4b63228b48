"""A plain HTTP client for tests to speak with a local workspace."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import requests

from airflow_jobs_provider.local.workspace import LocalWorkspace

T = TypeVar("T")
Process: Any = import_module("psutil").Process
TERMINAL = {"TERMINATED", "SKIPPED", "INTERNAL_ERROR"}
CLUSTER = {"existing_cluster_id": "1201-my-cluster"}


@dataclass(frozen=True)
class Address:
    """Where a workspace answers that runs in a process of its own."""

    url: str
    token: str
    root: Path


@dataclass
class Api:
    """The Jobs API of a workspace, over real HTTP; answers as they are."""

    workspace: LocalWorkspace | Address
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.session.headers["Authorization"] = f"Bearer {self.workspace.token}"

    @property
    def root(self) -> Path:
        """The workspace's root folder."""
        return self.workspace.root

    def get(self, path: str, version: str = "2.0", **query: Any) -> requests.Response:
        """Send a GET with a query."""
        url = f"{self.workspace.url}/api/{version}/jobs/{path}"
        return self.session.get(url, params=query, timeout=30)

    def post(self, path: str, body: Any = None, version: str = "2.0") -> requests.Response:
        """Send a POST with a JSON body."""
        url = f"{self.workspace.url}/api/{version}/jobs/{path}"
        return self.session.post(url, json=body, timeout=30)

    def submit(self, **settings: Any) -> int:
        """Start a one-time run, and return its run_id."""
        answer = self.post("runs/submit", {**CLUSTER, **settings})
        assert answer.status_code == 200, answer.text
        run_id: int = answer.json()["run_id"]
        return run_id

    def submit_python(self, source: str, *parameters: str, **settings: Any) -> int:
        """Submit a run of a Python file of this text."""
        task = {"python_file": f"dbfs:{self.python(source)}", "parameters": list(parameters)}
        return self.submit(spark_python_task=task, **settings)

    def create(self, **settings: Any) -> int:
        """Create a job, through ``version`` (2.0 if not given), and return its job_id."""
        version = settings.pop("version", "2.0")
        answer = self.post("create", {**CLUSTER, **settings}, version=version)
        assert answer.status_code == 200, answer.text
        job_id: int = answer.json()["job_id"]
        return job_id

    def run_now(self, job_id: int, **fields: Any) -> int:
        """Start a run of a job, and return its run_id."""
        answer = self.post("run-now", {"job_id": job_id, **fields})
        assert answer.status_code == 200, answer.text
        run_id: int = answer.json()["run_id"]
        return run_id

    def run(self, run_id: int, version: str = "2.0") -> dict[str, Any]:
        """Return a run as the API answers it."""
        answer = self.get("runs/get", version=version, run_id=run_id)
        assert answer.status_code == 200, answer.text
        run: dict[str, Any] = answer.json()
        return run

    def output(self, run_id: int) -> dict[str, Any]:
        """Return what get-output answers."""
        output: dict[str, Any] = self.get("runs/get-output", run_id=run_id).json()
        return output

    def run_to_end(self, **settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Submit a run and wait for its end; return it and its first task's output, in 2.2."""
        answer = self.post("runs/submit", settings, version="2.2")
        assert answer.status_code == 200, answer.text
        run_id = answer.json()["run_id"]
        self.wait(run_id)
        ended = self.run(run_id, version="2.2")
        task_run_id = ended["tasks"][0]["run_id"]
        return ended, self.get("runs/get-output", version="2.2", run_id=task_run_id).json()

    def wait(self, run_id: int, *states: str, seconds: float = 30) -> dict[str, Any]:
        """Wait until the run is in one of these states, or has ended if none are given."""
        wanted = set(states) or TERMINAL
        deadline = time.monotonic() + seconds
        while True:
            run = self.run(run_id)
            if run["state"]["life_cycle_state"] in wanted:
                return run
            assert time.monotonic() < deadline, f"still {run['state']}"
            assert run["state"]["life_cycle_state"] not in TERMINAL, run["state"]
            time.sleep(0.02)

    def python(self, source: str) -> str:
        """Put a Python file into the workspace, and return its path there."""
        return self._file(source, ".py")

    def notebook(self, *cells: str) -> str:
        """Put a notebook in the source form into the workspace, and return its path there."""
        body = "\n# COMMAND ----------\n".join(textwrap.dedent(cell).strip("\n") for cell in cells)
        return self._file(f"# Databricks notebook source\n{body}\n", ".py").removesuffix(".py")

    def run_notebook(self, *cells: str, **parameters: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Run a notebook of these cells to its end; return the run and its output."""
        task = {"notebook_path": self.notebook(*cells), "base_parameters": parameters}
        run_id = self.submit(notebook_task=task)
        return self.wait(run_id), self.output(run_id)

    def _file(self, source: str, suffix: str) -> str:
        number = sum(1 for _ in self.root.rglob("*.py"))
        file = self.root / "Users" / "me" / f"file_{number}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(source), encoding="utf-8")
        return f"/Users/me/{file.name}"

    def refusal(self, path: str, body: Any, version: str = "2.2") -> str:
        """Return the message with which a request is refused as wrong.

        :param path: the endpoint.
        :param body: the request.
        :param version: version of the API.
        """
        answer = self.post(path, body, version=version)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error_code"] in ("INVALID_PARAMETER_VALUE", "MALFORMED_REQUEST")
        message: str = answer.json()["message"]
        return message


def until(happened: Callable[[], T], what: str, seconds: float = 15) -> T:
    """Wait until something holds, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return found


def lives(process: Any) -> bool:
    """Return whether a process still does something."""
    return bool(process.is_running() and process.status() != "zombie")
