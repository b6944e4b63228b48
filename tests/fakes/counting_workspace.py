"""A Jobs API over real HTTP that runs nothing and counts: launches, looks and cancels.

A run is RUNNING until it is told to end or is cancelled. As in the service, a launch with a token
that was used before starts nothing, and a cancel is answered at once and works a little later.
The network to it can be cut.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

__all__ = ["CountedRun", "CountingWorkspace"]

TOKEN = "the-token-of-the-counting-workspace"
TERMINATING_SECONDS = 1.0


@dataclass
class CountedRun:
    """A run, and what was asked of it.

    :ivar run_id: its id.
    :ivar request: what it was launched with.
    :ivar launches: launching requests that were answered with it.
    :ivar cancels: cancelling requests for it.
    :ivar looks: reads of it.
    :ivar beside: runs of the same task that were live when it was launched.
    :ivar exits: whether its notebook gives an exit value.
    :ivar launched_at: when it was launched, on the monotonic clock.
    :ivar cancelled_at: when it was first cancelled, likewise.
    """

    run_id: int
    request: dict[str, Any]
    start_time: int
    launches: int = 1
    cancels: int = 0
    looks: int = 0
    beside: int = 0
    result: str | None = None
    exits: bool = True
    launched_at: float = field(default_factory=time.monotonic)
    cancelled_at: float | None = None

    @property
    def name(self) -> str:
        """The name that the operator gave it: DAG, task, DAG run and try."""
        return str(self.request.get("run_name", ""))

    @property
    def task(self) -> str:
        """What all tries of a task have in common in the names of their runs."""
        return self.name.rpartition(" try ")[0]

    @property
    def is_active(self) -> bool:
        """Whether it goes on."""
        return bool(self.state()["life_cycle_state"] != "TERMINATED")

    def state(self) -> dict[str, Any]:
        """Return the state as runs/get answers it."""
        if self.result is None and self.cancelled_at is not None:
            if time.monotonic() - self.cancelled_at < TERMINATING_SECONDS:
                return {"life_cycle_state": "TERMINATING", "state_message": "Cancelling"}
            return self._ended("CANCELED", "Run cancelled.", user_cancelled_or_timedout=True)
        if self.result is None:
            return {"life_cycle_state": "RUNNING", "state_message": "In run"}
        return self._ended(self.result, "")

    def answer(self, url: str) -> dict[str, Any]:
        """Return the run as runs/get answers it."""
        return {
            "run_id": self.run_id,
            "job_id": self.run_id,
            "run_type": "SUBMIT_RUN",
            "run_name": self.name,
            "run_page_url": f"{url}/#run/{self.run_id}",
            "start_time": self.start_time,
            "state": self.state(),
            **({"tasks": self.tasks()} if self.request.get("tasks") else {}),
        }

    def tasks(self) -> list[dict[str, Any]]:
        """Return its tasks, in the state of the run, where it was submitted with such."""
        return [
            {"run_id": self.run_id * 100 + n, "task_key": task["task_key"], "state": self.state()}
            for n, task in enumerate(self.request.get("tasks") or ())
        ]

    def job(self) -> dict[str, Any]:
        """Return its job as list answers it: each run is of a job of its own."""
        return {"job_id": self.run_id, "settings": {"name": self.name}}

    @staticmethod
    def _ended(result: str, message: str, **more: Any) -> dict[str, Any]:
        return {
            "life_cycle_state": "TERMINATED",
            "result_state": result,
            "state_message": message,
            **more,
        }


@dataclass
class _Hold:
    """The answers of one endpoint, held back."""

    asked: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


@dataclass
class CountingWorkspace:
    """The server; use it as a context manager.

    :ivar requests: requests it has got.
    """

    requests: int = 0
    _runs: list[CountedRun] = field(default_factory=list)
    _by_token: dict[str, CountedRun] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _connections: set[socket.socket] = field(default_factory=set)
    _answers: threading.Event = field(default_factory=threading.Event)
    _held: dict[str, _Hold] = field(default_factory=dict)

    def __post_init__(self) -> None:
        workspace = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                workspace._connections.add(self.connection)

            def finish(self) -> None:
                workspace._connections.discard(self.connection)
                super().finish()

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query: dict[str, Any] = {
                    name: values[0] for name, values in parse_qs(parts.query).items()
                }
                # The official provider's triggers send the parameters of a GET so.
                if length := int(self.headers.get("Content-Length") or 0):
                    query |= json.loads(self.rfile.read(length))
                self._answer(*workspace._handle(parts.path, query))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
                self._answer(*workspace._handle(urlsplit(self.path).path, body))

            def _answer(self, status: int, payload: dict[str, Any]) -> None:
                body = json.dumps(payload).encode()
                workspace._answers.wait()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that was killed in the middle of a request is what the tests do."""

        def serve_at(port: int) -> ThreadingHTTPServer:
            return Server(("127.0.0.1", port), Handler)

        self._serve_at = serve_at
        self._server = serve_at(0)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._answers.set()

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._close()

    def _listen(self) -> None:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def _close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Be gone for a while: connections are broken off, new ones refused."""
        self._close()
        self._break_off()
        try:
            yield
        finally:
            self._server = self._serve_at(self.port)
            self._listen()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Do what is asked for a while but answer nothing; then break off these connections."""
        self._answers.clear()
        try:
            yield
        finally:
            self._break_off()
            self._answers.set()

    @contextmanager
    def holding(self, call: str) -> Iterator[threading.Event]:
        """Hold back the answers of one endpoint; the event tells that a request has come."""
        hold = self._held[call] = _Hold()
        try:
            yield hold.asked
        finally:
            del self._held[call]
            hold.released.set()

    def _break_off(self) -> None:
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def connection(self) -> str:
        """What AIRFLOW_CONN_DATABRICKS_DEFAULT shall say."""
        return json.dumps({"conn_type": "databricks_jobs", "host": self.url, "password": TOKEN})

    def runs_of(self, dag_run_id: str) -> list[CountedRun]:
        """Return the runs that a DAG run launched, in order."""
        with self._lock:
            return [run for run in self._runs if dag_run_id in run.name.split()]

    def run(self, run_id: int) -> CountedRun:
        """Return the run with this id."""
        with self._lock:
            run = self._find(run_id)
        assert run is not None
        return run

    def end(self, run: CountedRun, result: str = "SUCCESS") -> None:
        """Let a run end."""
        with self._lock:
            run.result = result

    def _handle(self, path: str, given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        _, _, call = path.partition("/jobs/")
        if hold := self._held.get(call):
            hold.asked.set()
            hold.released.wait()
        with self._lock:
            self.requests += 1
            if call in ("runs/submit", "run-now"):
                return 200, {"run_id": self._launch(given).run_id}
            if call == "runs/list":
                return 200, self._list(given)
            if call == "list":
                return 200, {"jobs": [run.job() for run in self._runs]}
            if call == "runs/get-output" and (task := self._find_task(given.get("run_id"))):
                return 200, {"notebook_output": {"result": f"output of {task['task_key']}"}}
            run = self._find(given.get("run_id"))
            if run is None:
                message = f"Run {given.get('run_id')} does not exist."
                return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": message}
            if call == "runs/get":
                run.looks += 1
                return 200, run.answer(self.url)
            if call == "runs/get-output":
                gives = run.exits and run.result == "SUCCESS"
                output = {"result": f"output of {run.run_id}"} if gives else {}
                return 200, {"metadata": run.answer(self.url), "notebook_output": output}
            if call == "runs/cancel":
                run.cancels += 1
                if run.is_active and run.cancelled_at is None:
                    run.cancelled_at = time.monotonic()
                return 200, {}
        return 404, {"error_code": "ENDPOINT_NOT_FOUND", "message": path}

    def _launch(self, request: dict[str, Any]) -> CountedRun:
        token = request.get("idempotency_token")
        if token and token in self._by_token:
            run = self._by_token[token]
            run.launches += 1
            return run
        run = CountedRun(4001 + len(self._runs), request, int(time.time() * 1000))
        run.beside = sum(one.is_active and one.task == run.task for one in self._runs)
        self._runs.append(run)
        if token:
            self._by_token[token] = run
        return run

    def _find(self, run_id: Any) -> CountedRun | None:
        return next((run for run in self._runs if str(run.run_id) == str(run_id)), None)

    def _find_task(self, run_id: Any) -> dict[str, Any] | None:
        tasks = (task for run in self._runs for task in run.tasks())
        return next((task for task in tasks if str(task["run_id"]) == str(run_id)), None)

    def _list(self, given: dict[str, Any]) -> dict[str, Any]:
        runs = [run for run in reversed(self._runs) if _wanted(run, given)]
        offset, limit = int(given.get("offset") or 0), int(given.get("limit") or 1000)
        page = runs[offset : offset + limit]
        for run in page:
            run.looks += 1
        return {
            "runs": [run.answer(self.url) for run in page],
            "has_more": offset + limit < len(runs),
        }


def _wanted(run: CountedRun, given: dict[str, Any]) -> bool:
    if given.get("job_id") not in (None, str(run.run_id)):
        return False
    if str(given.get("active_only", "false")).lower() == "true":
        return run.is_active
    if str(given.get("completed_only", "false")).lower() == "true":
        return not run.is_active
    return True
