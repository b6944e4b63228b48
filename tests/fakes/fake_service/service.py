"""A Jobs API over real HTTP that executes nothing: it keeps runs, and counts what it is asked.

A run ends when its plan says so, or when the test ends it. A run of a job with ``tasks`` is a
JobRun: the tasks start at once, whatever they depend on, and the test ends them. As in the real
service, a launch with an idempotency token that was used before starts nothing. Faults and hooks
can be put at any endpoint, and the network to it can be cut. It knows neither Airflow nor the
package under test.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Self

from tests.fakes.fake_service.answers import bad_request, no_endpoint, run_output
from tests.fakes.fake_service.faults import Fault
from tests.fakes.fake_service.lists import Lists, Seen
from tests.fakes.fake_service.runs import UNTIL_ENDED, JobRun, Plan, Run, TaskRun
from tests.fakes.fake_service.server import Handler, Server
from tests.fakes.identity.base import Request
from tests.fakes.identity.server import Identity
from tests.fakes.identity.workspace import bearer_refusal

__all__ = ["LAUNCHES", "TOKEN", "FakeService", "Hook"]

LAUNCHES = ("runs/submit", "run-now")
FIRST_RUN_ID = 1001
FIRST_JOB_ID = 501
TOKEN = "the-token-of-the-fake-service"


# Told of each request as it comes in ("received") and once it is done ("handled"); True hangs up.
Hook = Callable[[Seen, str], bool]


@dataclass
class _Hold:
    """The answers of one endpoint, held back."""

    asked: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


class FakeService:
    """The service. Use it as a context manager.

    :param plan: how runs go that ``plans`` says nothing about.
    :param identity: identity endpoints that it serves, too; it then takes only tokens that they
        issued. None for none.
    :param tls: its certificate; None for http.
    :ivar plans: how the next runs go.
    :ivar plans_of_jobs: how the runs of some jobs go, by job id.
    :ivar jobs: the jobs that can be listed: their settings by job id.
    :ivar pipelines: the names of pipelines by id.
    :ivar lists: how lists are cut into pages.
    :ivar hooks: each is told of each request, after ``hook``; the first that returns True hangs up.
    :ivar accepts: the Authorization headers that are not refused; all of them if None.
    :ivar expired_status: how an expired token is refused: ``400``, ``401`` or ``403``.
    :ivar connections: the open connections.
    :ivar may_answer: answers are written once it is set.
    """

    def __init__(
        self,
        plan: Plan | None = None,
        identity: Identity | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.plan = plan or Plan()
        self.identity = identity
        self.expired_status = "403"
        self._tls = tls
        self.plans: deque[Plan] = deque()
        self.plans_of_jobs: dict[int, Plan] = {}
        self.jobs: dict[int, dict[str, Any]] = {}
        self.pipelines: dict[str, str] = {}
        # The content of notebooks by path, as it was sent.
        self.notebooks: dict[str, str] = {}
        self.lists = Lists()
        self.accepts: set[str] | None = None
        self.runs: dict[int, Run] = {}
        self.seen: list[Seen] = []
        self.most_at_once = 0
        self.hook: Hook | None = None
        self.hooks: list[Hook] = []
        self._job_ids = count(FIRST_JOB_ID)
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)
        self._happenings: dict[tuple[str, int], list[Callable[[], object]]] = defaultdict(list)
        self._by_token: dict[str, int] = {}
        self._held: dict[str, _Hold] = {}
        self._lock = threading.RLock()
        self.connections: set[socket.socket] = set()
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        if identity is not None:
            identity.base_url = self.url

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _listen(self) -> None:
        self._server.service = self
        if self._tls is not None:
            # The handshake is done by the connection's own thread, when it first reads.
            self._server.socket = self._tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
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
            self._server = Server(("127.0.0.1", self.port), Handler)
            self._listen()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Do what is asked for a while but answer nothing; then break off these connections."""
        self.may_answer.clear()
        try:
            yield
        finally:
            self._break_off()
            self.may_answer.set()

    @contextmanager
    def holding(self, endpoint: str) -> Iterator[threading.Event]:
        """Hold back the answers of one endpoint; the event tells that a request has come."""
        hold = self._held[endpoint] = _Hold()
        try:
            yield hold.asked
        finally:
            del self._held[endpoint]
            hold.released.set()

    def _break_off(self) -> None:
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def connection(self) -> str:
        """What AIRFLOW_CONN_DATABRICKS_DEFAULT shall say."""
        return json.dumps({"conn_type": "databricks_jobs", "host": self.url, "password": TOKEN})

    @property
    def requests(self) -> int:
        """How many requests have come in."""
        return len(self.seen)

    def trouble(self, endpoint: str, fault: Fault, times: int = 1) -> None:
        """Let the next requests of an endpoint go wrong."""
        self._faults[endpoint].extend([fault] * times)

    def at(self, endpoint: str, number: int, happening: Callable[[], object]) -> None:
        """Let something happen just before the request of that number is answered."""
        self._happenings[endpoint, number].append(happening)

    def count(self, endpoint: str) -> int:
        """Return how many requests of an endpoint came in."""
        return sum(request.endpoint == endpoint for request in self.seen)

    def asked(self, endpoint: str) -> list[dict[str, Any]]:
        """Return the parameters of the requests of an endpoint, in order."""
        return [request.parameters for request in self.seen if request.endpoint == endpoint]

    def run(self, run_id: int) -> Run:
        """Return the run with this id."""
        with self._lock:
            return self.runs[run_id]

    def runs_of(self, dag_run_id: str) -> list[Run]:
        """Return the runs that a DAG run launched, in order."""
        with self._lock:
            return [run for run in self.runs.values() if dag_run_id in run.name.split()]

    def new_job(self, settings: Mapping[str, Any]) -> int:
        """Create a job; return its id, which no other job has had."""
        job_id = next(self._job_ids)
        self.jobs[job_id] = dict(settings)
        return job_id

    def start(
        self,
        run_id: int,
        *,
        job_id: int = 3,
        ago: float = 0.0,
        life_cycle_state: str = "RUNNING",
        **more: Any,
    ) -> None:
        """Start a run of a job so many seconds ago; the test ends it."""
        first_attempt = {"original_attempt_run_id": run_id, "attempt_number": 0}
        page = {"run_page_url": f"http://w/{run_id}"}
        with self._lock:
            self.runs[run_id] = Run(
                run_id,
                job_id,
                kind="JOB_RUN",
                token=None,
                plan=UNTIL_ENDED,
                started=time.time() - ago,
                life_cycle_state=life_cycle_state,
                more={**first_attempt, **page, **more},
            )

    def end(self, run: Run | int, result: str = "SUCCESS", *, ago: float = 0.0) -> None:
        """End a run, so many seconds ago."""
        with self._lock:
            one = run if isinstance(run, Run) else self.runs[run]
            one.end(result, time.time() - ago)

    def end_task(self, run: JobRun, key: str, result: str = "SUCCESS") -> None:
        """End the latest run of a task of a job."""
        with self._lock:
            run.latest[key].result = result

    @property
    def live(self) -> list[Run]:
        """The runs that have not ended."""
        return [run for run in self.runs.values() if not run.ended]

    def forget(self) -> None:
        """Start anew: no runs, no jobs, no requests, no faults."""
        with self._lock:
            self.jobs.clear()
            self.pipelines.clear()
            self.notebooks.clear()
            self.lists = Lists()
            for store in (self.plans, self.runs, self.seen, self._faults, self._by_token):
                store.clear()
            self.most_at_once = 0
            self.hook = None
            self.hooks.clear()

    def receive(self, seen: Seen) -> Fault | None:
        """Note a request, and let happen what is to happen before it; return its fault."""
        with self._lock:
            self.seen.append(seen)
            waiting = self._faults[seen.endpoint]
            fault = waiting.popleft() if waiting else None
            number = self.count(seen.endpoint)
            for happening in self._happenings.pop((seen.endpoint, number), ()):
                happening()
            return fault

    def hangs_up(self, seen: Seen, moment: str) -> bool:
        """Tell the hooks of a request; return whether one of them hangs up."""
        hooks = [*([self.hook] if self.hook is not None else []), *self.hooks]
        return any(hook(seen, moment) for hook in hooks)

    def answer(self, seen: Seen) -> tuple[int, dict[str, Any]]:
        """Do what is asked; return status and body."""
        if hold := self._held.get(seen.endpoint):
            hold.asked.set()
            hold.released.wait()
        with self._lock:
            parameters = seen.parameters
            if self.accepts is not None and seen.authorization not in self.accepts:
                return 403, {"error_code": 403, "message": "Invalid access token."}
            if self.identity is not None:
                request = Request.read("POST", seen.endpoint, seen.headers, b"")
                refusal = bearer_refusal(self.identity.issuer, request, self.expired_status)
                if refusal is not None:
                    return refusal.status or 500, refusal.body
            if seen.endpoint in LAUNCHES:
                return 200, self._launch(seen)
            if seen.endpoint == "runs/list":
                return self._list(seen)
            if seen.endpoint == "list":
                return self._list_jobs(seen)
            if seen.endpoint == "get":
                job_id = int(parameters["job_id"])
                settings = self.jobs.get(job_id, {"name": f"job {job_id}"})
                return 200, {"job_id": job_id, "settings": settings}
            if seen.endpoint == "update":
                settings = self.jobs.setdefault(int(parameters["job_id"]), {})
                settings.update(parameters["new_settings"])
                return 200, {}
            if seen.endpoint == "create":
                return 200, {"job_id": self.new_job(parameters)}
            if seen.endpoint == "delete":
                # Of two DAG runs that create the job at the same moment, one deletes its own.
                del self.jobs[int(parameters["job_id"])]
                return 200, {}
            if seen.endpoint == "reset":
                self.jobs[int(parameters["job_id"])] = dict(parameters["new_settings"])
                return 200, {}
            if seen.endpoint == "pipelines":
                found = [{"pipeline_id": key, "name": name} for key, name in self.pipelines.items()]
                return 200, {"statuses": found}
            if seen.endpoint.startswith(("workspace/", "preview/")):
                return self._workspace(seen)
            run_id = int(parameters.get("run_id", 0))
            if (answer := self._answer_for_task_run(seen.endpoint, run_id)) is not None:
                return 200, answer
            if seen.endpoint == "runs/get-output" and (task := self._task(run_id)):
                return 200, run_output(task, task["task_key"], task["state"].get("result_state"))
            run = self.runs.get(run_id)
            if run is None:
                return bad_request(f"Run {parameters.get('run_id')} does not exist.")
            if seen.endpoint == "runs/get":
                answer = run.as_answer()
                run.looks += 1
                return 200, answer
            if seen.endpoint == "runs/repair":
                return self._repair(run, parameters)
            if seen.endpoint == "runs/cancel":
                run.cancels += 1
                if run.is_active and run.canceled_at is None:
                    run.canceled_at = time.monotonic()
                return 200, {}
            if seen.endpoint == "runs/get-output":
                return 200, run_output(
                    run.as_answer(),
                    run_id,
                    run.result,
                    full=run.has_output,
                    of_function=run.is_of_function,
                    exit_value=run.exit_value,
                )
            return no_endpoint(seen.endpoint)

    def _workspace(self, seen: Seen) -> tuple[int, dict[str, Any]]:
        """Store and return notebooks, and tell the user's name."""
        path = str(seen.parameters.get("path"))
        if seen.endpoint == "preview/scim/v2/Me":
            return 200, {"userName": "robot"}
        if seen.endpoint == "workspace/import":
            self.notebooks[path] = seen.parameters["content"]
            return 200, {}
        if seen.endpoint != "workspace/export":
            return no_endpoint(seen.endpoint)
        if path not in self.notebooks:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": path}
        return 200, {"content": self.notebooks[path], "file_type": "py"}

    def _launch(self, seen: Seen) -> dict[str, Any]:
        token = seen.parameters.get("idempotency_token")
        run_id = self._by_token.get(token or "")
        if run_id is None:
            run_id = FIRST_RUN_ID + len(self.runs)
            job_id = int(seen.parameters.get("job_id") or 11)
            run = self._new_run(seen, run_id, job_id)
            run.beside = sum(one.is_active and one.task == run.task for one in self.runs.values())
            self.runs[run_id] = run
            if token:
                self._by_token[token] = run_id
            self.most_at_once = max(self.most_at_once, len(self.live))
        else:
            self.runs[run_id].launches += 1
        return {"run_id": run_id, "number_in_job": run_id}

    def _new_run(self, seen: Seen, run_id: int, job_id: int) -> Run:
        settings = self.jobs.get(job_id, {})
        if seen.endpoint == "run-now" and settings.get("tasks"):
            run = JobRun(
                run_id=run_id,
                job_id=job_id,
                kind="JOB_RUN",
                token=seen.parameters.get("idempotency_token"),
                plan=Plan(),
                request=seen.parameters,
                job_name=str(settings["name"]),
                definition=dict(settings),
            )
            run.start_tasks([task["task_key"] for task in settings["tasks"]])
            return run
        return Run(
            run_id=run_id,
            job_id=job_id,
            kind="SUBMIT_RUN" if seen.endpoint == "runs/submit" else "JOB_RUN",
            token=seen.parameters.get("idempotency_token"),
            plan=self._plan(job_id),
            request=seen.parameters,
        )

    def _repair(self, run: Run, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Run tasks again as the service does: in no active run, and after the latest repair."""
        latest = run.repairs[-1] if run.repairs else None
        keys = request.get("rerun_tasks") or []
        if (
            run.is_active
            or request.get("latest_repair_id") != latest
            or (isinstance(run, JobRun) and len({*keys}) < len(keys))
        ):
            message = f"Run {run.run_id} cannot be repaired."
            return 400, {"error_code": "INVALID_STATE", "message": message}
        if isinstance(run, JobRun):
            run.start_tasks(keys)
            return 200, {"repair_id": run.repair(Plan())}
        return 200, {"repair_id": run.repair(self._plan(run.job_id))}

    def _answer_for_task_run(self, endpoint: str, run_id: int) -> dict[str, Any] | None:
        """Answer a request for the run of a task of a job; None for anything else."""
        found = self._task_run(run_id)
        if found is None:
            return None
        run, task = found
        if endpoint == "runs/get":
            return task.as_answer() | {"job_id": run.job_id}
        if endpoint == "runs/cancel":
            task.cancels += 1
            task.result = task.result or "CANCELED"
            return {}
        return None

    def _task_run(self, run_id: int) -> tuple[JobRun, TaskRun] | None:
        for run in self.runs.values():
            if isinstance(run, JobRun):
                for task in run.task_runs:
                    if task.run_id == run_id:
                        return run, task
        return None

    def _plan(self, job_id: int) -> Plan:
        if job_id in self.plans_of_jobs:
            return self.plans_of_jobs[job_id]
        return self.plans.popleft() if self.plans else self.plan

    def _task(self, run_id: int) -> dict[str, Any] | None:
        if run_id in self.runs:
            return None
        tasks = (task for run in self.runs.values() for task in run.tasks())
        return next((task for task in tasks if task["run_id"] == run_id), None)

    def _list(self, seen: Seen) -> tuple[int, dict[str, Any]]:
        parameters = seen.parameters
        active_only, completed_only = (
            str(parameters.get(name)).lower() == "true"
            for name in ("active_only", "completed_only")
        )
        kind, job_id = parameters.get("run_type"), int(parameters.get("job_id") or 0)

        def is_listed(answer: dict[str, Any]) -> bool:
            run = self.runs[answer["run_id"]]
            return (
                run.run_id not in self.lists.hidden
                and not (active_only and run.ended)
                and not (completed_only and not run.ended)
                and kind in (None, run.kind)
                and job_id in (0, run.job_id)
            )

        runs = sorted(self.runs.values(), key=lambda run: (-run.started, -run.run_id))
        answers = [run.as_answer() for run in runs]
        for answer in answers:
            answer.pop("tasks", None)
        page = self.lists.page("runs", answers, is_listed, seen)
        for run in runs:
            run.looks += 1
        return page

    def _list_jobs(self, seen: Seen) -> tuple[int, dict[str, Any]]:
        name = seen.parameters.get("name")

        def is_listed(job: dict[str, Any]) -> bool:
            is_hidden = job["job_id"] in self.lists.hidden
            return not is_hidden and name in (None, job["settings"].get("name"))

        jobs = [{"job_id": job_id, "settings": one} for job_id, one in self.jobs.items()]
        return self.lists.page("jobs", jobs, is_listed, seen)

    def note_ends(self, answer: dict[str, Any]) -> None:
        """Note the runs whose ends a client has been told of by an answer."""
        for one in (answer, *answer.get("runs", ())):
            if one.get("state", {}).get("result_state") and one["run_id"] in self.runs:
                self.runs[one["run_id"]].end_was_told = True
