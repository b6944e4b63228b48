"""A Jobs API over real HTTP that keeps count: what was asked, what runs there were, which at once.

Nothing runs in it. A run ends when its time is over and it was looked at often enough, as its plan
says. Idempotency tokens are honoured as the reference promises. Faults and hooks can be put at any
endpoint. It knows neither Airflow nor the package under test.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

__all__ = ["FAULTS", "FakeService", "Fault", "Lists", "Plan", "Run", "Seen"]

LAUNCHES = ("runs/submit", "run-now")
TRACE = "Traceback (most recent call last): line 1"
MAX_HANG_SECONDS = 20


@dataclass(frozen=True)
class Plan:
    """How a run will go.

    :ivar result: its result state.
    :ivar seconds: how long it takes at least.
    :ivar looks: how often it is shown running at least.
    """

    result: str = "SUCCESS"
    seconds: float = 0.0
    looks: int = 1


@dataclass
class Run:
    """A run on the service.

    :ivar more: further fields of its answer.
    """

    run_id: int
    job_id: int
    kind: str
    token: str | None
    plan: Plan
    started: float = field(default_factory=time.time)
    looks: int = 0
    cancels: int = 0
    end_was_told: bool = False
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        if self.cancels:
            return True
        return self.looks >= self.plan.looks and time.time() >= self.started + self.plan.seconds

    @property
    def result(self) -> str | None:
        """Its result state, once it has ended."""
        if not self.ended:
            return None
        return "CANCELED" if self.cancels else self.plan.result

    def as_answer(self) -> dict[str, Any]:
        """The run as ``runs/get`` tells it."""
        state: dict[str, Any] = {"life_cycle_state": "RUNNING", "state_message": "In run"}
        if self.ended:
            state = {"life_cycle_state": "TERMINATED", "state_message": ""}
            state["result_state"] = self.result
        answer: dict[str, Any] = {
            "run_id": self.run_id,
            "job_id": self.job_id,
            "run_type": self.kind,
            "run_page_url": f"http://workspace.invalid/#job/{self.job_id}/run/{self.run_id}",
            "start_time": int(self.started * 1000),
            "state": state,
        }
        if self.ended:
            answer["end_time"] = int((self.started + self.plan.seconds) * 1000)
        return answer | self.more


@dataclass(frozen=True)
class Seen:
    """A request as it came in."""

    endpoint: str
    parameters: dict[str, Any]
    authorization: str
    version: str = "2.0"


@dataclass
class Lists:
    """How the service cuts its lists into pages.

    :ivar largest_limit: items on a page at the most; None for 1000 in version 2.0 and 25 later.
    :ivar last_offset: the highest offset that is allowed.
    :ivar cut_first: whether a page is cut before it is filtered, as the real service does it.
    :ivar hidden: ids that are left out of each page, once it is cut.
    """

    largest_limit: int | None = None
    last_offset: int = 10_000
    cut_first: bool = False
    hidden: set[int] = field(default_factory=set)

    def page(
        self, name: str, items: list[dict[str, Any]], wanted: Callable[[Any], bool], seen: Seen
    ) -> tuple[int, dict[str, Any]]:
        """Answer a page; from 2.1 on the next one has a token."""
        is_old, parameters = seen.version == "2.0", seen.parameters
        largest = self.largest_limit or (1000 if is_old else 25)
        limit = int(parameters.get("limit", 20)) or largest
        offset = int(parameters.get("page_token") or parameters.get("offset") or 0)
        if limit > largest:
            return _refusal(f"Invalid limit {limit} - it has to be no more than {largest}.")
        if "page_token" not in parameters and offset > self.last_offset:
            return _refusal(
                f"The supplied offset {offset} has exceeded the value of {self.last_offset} "
                "allowed for this parameter. Please use the page_token parameter"
            )
        if not self.cut_first:
            items = [item for item in items if wanted(item)]
        page = [item for item in items[offset : offset + limit] if wanted(item)]
        answer: dict[str, Any] = {name: page} if page else {}
        has_more = offset + limit < len(items)
        if is_old:
            answer["has_more"] = has_more
        elif has_more:
            answer["next_page_token"] = str(offset + limit)
        return 200, answer


def _refusal(message: str) -> tuple[int, dict[str, Any]]:
    return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": message}


@dataclass(frozen=True)
class Fault:
    """What happens to a request instead of an answer.

    :ivar handled: whether the service does what was asked all the same.
    :ivar do: answers, or does not, on the open connection.
    """

    handled: bool
    do: Callable[[Handler], None]


def _says(
    status: int, body: bytes, headers: dict[str, str] | None = None
) -> Callable[[Handler], None]:
    def do(handler: Handler) -> None:
        handler.say(status, body, headers)

    return do


def _hang_up(handler: Handler) -> None:
    handler.hang_up()


def _reset(handler: Handler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.hang_up()


def _say_nothing(handler: Handler) -> None:
    handler.connection.settimeout(MAX_HANG_SECONDS)
    with contextlib.suppress(OSError):
        handler.connection.recv(1)
    handler.hang_up()


def _half_a_body(handler: Handler) -> None:
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"run_id"')
    handler.hang_up()


_PAGE = b"<html><head><title>Bad Gateway</title></head><body>nginx</body></html>"
_HTML = {"Content-Type": "text/html"}


def _error(code: Any, message: str) -> bytes:
    return json.dumps({"error_code": code, "message": message}).encode()


_DOWN = _error("TEMPORARILY_UNAVAILABLE", "The service is under maintenance")
_SLOWER = _error("REQUEST_LIMIT_EXCEEDED", "Slow down")

FAULTS: dict[str, Fault] = {
    "lost answer": Fault(True, _hang_up),
    "reset before handling": Fault(False, _reset),
    "reset after handling": Fault(True, _reset),
    "time-out before handling": Fault(False, _say_nothing),
    "time-out after handling": Fault(True, _say_nothing),
    "500": Fault(False, _says(500, _error("INTERNAL_ERROR", "Try again"))),
    "500 after handling": Fault(True, _says(500, _error("INTERNAL_ERROR", "Try again"))),
    "502 HTML": Fault(False, _says(502, _PAGE, _HTML)),
    "503": Fault(False, _says(503, _DOWN)),
    "429": Fault(False, _says(429, _SLOWER)),
    "429 with Retry-After": Fault(False, _says(429, _SLOWER, {"Retry-After": "1"})),
    "403": Fault(False, _says(403, _error(403, "Invalid access token."))),
    "200 not JSON": Fault(False, _says(200, _PAGE, _HTML)),
    "200 not JSON after handling": Fault(True, _says(200, _PAGE, _HTML)),
    "half a body": Fault(True, _half_a_body),
}

# Told of each request as it comes in ("received") and once it is done ("handled"); True hangs up.
Hook = Callable[[Seen, str], bool]


class FakeService:
    """The service. Use it as a context manager.

    :param plan: how runs go that ``plans`` says nothing about.
    :ivar plans: how the next runs go.
    :ivar plans_of_jobs: how the runs of some jobs go, by job id.
    :ivar jobs: the jobs that can be listed: their settings by job id.
    :ivar lists: how lists are cut into pages.
    :ivar accepts: the Authorization headers that are not refused; all of them if None.
    """

    def __init__(self, plan: Plan | None = None) -> None:
        self.plan = plan or Plan()
        self.plans: deque[Plan] = deque()
        self.plans_of_jobs: dict[int, Plan] = {}
        self.jobs: dict[int, dict[str, Any]] = {}
        self.lists = Lists()
        self.accepts: set[str] | None = None
        self.runs: dict[int, Run] = {}
        self.seen: list[Seen] = []
        self.most_at_once = 0
        self.hook: Hook | None = None
        self._troubles: dict[str, deque[Fault]] = defaultdict(deque)
        self._by_token: dict[str, int] = {}
        self._lock = threading.RLock()
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.service = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def trouble(self, endpoint: str, fault: Fault, times: int = 1) -> None:
        """Let the next requests of an endpoint go wrong."""
        self._troubles[endpoint].extend([fault] * times)

    def count(self, endpoint: str) -> int:
        """Return how many requests of an endpoint came in."""
        return sum(request.endpoint == endpoint for request in self.seen)

    @property
    def live(self) -> list[Run]:
        """The runs that have not ended."""
        return [run for run in self.runs.values() if not run.ended]

    def forget(self) -> None:
        """Start anew: no runs, no jobs, no requests, no troubles."""
        with self._lock:
            self.jobs.clear()
            self.lists = Lists()
            for store in (self.plans, self.runs, self.seen, self._troubles, self._by_token):
                store.clear()
            self.most_at_once = 0
            self.hook = None

    def _answer(self, seen: Seen) -> tuple[int, dict[str, Any]]:
        with self._lock:
            parameters = seen.parameters
            if self.accepts is not None and seen.authorization not in self.accepts:
                return 403, {"error_code": 403, "message": "Invalid access token."}
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
            run = self.runs.get(int(parameters.get("run_id", 0)))
            if run is None:
                message = f"Run {parameters.get('run_id')} does not exist."
                return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": message}
            if seen.endpoint == "runs/get":
                answer = run.as_answer()
                run.looks += 1
                return 200, answer
            if seen.endpoint == "runs/cancel":
                if not run.ended:
                    run.cancels += 1
                return 200, {}
            if seen.endpoint == "runs/get-output":
                output: dict[str, Any] = {"metadata": run.as_answer()}
                if run.result == "SUCCESS":
                    output["notebook_output"] = {"result": f"result of {run.run_id}"}
                else:
                    output |= {"error": f"error of {run.run_id}", "error_trace": TRACE}
                return 200, output
            message = f"No API found for {seen.endpoint}"
            return 404, {"error_code": "ENDPOINT_NOT_FOUND", "message": message}

    def _launch(self, seen: Seen) -> dict[str, Any]:
        token = seen.parameters.get("idempotency_token")
        run_id = self._by_token.get(token or "")
        if run_id is None:
            run_id = 1001 + len(self.runs)
            job_id = int(seen.parameters.get("job_id") or 11)
            self.runs[run_id] = Run(
                run_id=run_id,
                job_id=job_id,
                kind="SUBMIT_RUN" if seen.endpoint == "runs/submit" else "JOB_RUN",
                token=token,
                plan=self._plan(job_id),
            )
            if token:
                self._by_token[token] = run_id
            self.most_at_once = max(self.most_at_once, len(self.live))
        return {"run_id": run_id, "number_in_job": run_id}

    def _plan(self, job_id: int) -> Plan:
        if job_id in self.plans_of_jobs:
            return self.plans_of_jobs[job_id]
        return self.plans.popleft() if self.plans else self.plan

    def _list(self, seen: Seen) -> tuple[int, dict[str, Any]]:
        parameters = seen.parameters
        active_only, completed_only = (
            str(parameters.get(name)).lower() == "true"
            for name in ("active_only", "completed_only")
        )
        kind, job_id = parameters.get("run_type"), int(parameters.get("job_id") or 0)

        def cancels_orphans(answer: dict[str, Any]) -> bool:
            run = self.runs[answer["run_id"]]
            return (
                run.run_id not in self.lists.hidden
                and not (active_only and run.ended)
                and not (completed_only and not run.ended)
                and kind in (None, run.kind)
                and job_id in (0, run.job_id)
            )

        runs = sorted(self.runs.values(), key=lambda run: -run.run_id)
        answer = self.lists.page("runs", [run.as_answer() for run in runs], cancels_orphans, seen)
        for run in runs:
            run.looks += 1
        return answer

    def _list_jobs(self, seen: Seen) -> tuple[int, dict[str, Any]]:
        name = seen.parameters.get("name")

        def cancels_orphans(job: dict[str, Any]) -> bool:
            is_hidden = job["job_id"] in self.lists.hidden
            return not is_hidden and name in (None, job["settings"].get("name"))

        jobs = [{"job_id": job_id, "settings": one} for job_id, one in self.jobs.items()]
        return self.lists.page("jobs", jobs, cancels_orphans, seen)

    def _told(self, answer: dict[str, Any]) -> None:
        """Note which runs' ends somebody has been told of."""
        for one in (answer, *answer.get("runs", ())):
            if one.get("state", {}).get("result_state"):
                self.runs[one["run_id"]].end_was_told = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    service: FakeService

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent where a client broke its connection: it was killed, or gave up."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        """Answer a reading request; some clients put what they ask for into its body."""
        self._serve(dict(parse_qsl(urlsplit(self.path).query)) | self._body())

    def do_POST(self) -> None:
        """Answer a request that changes something."""
        self._serve(self._body())

    def say(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Send a whole answer."""
        self.send_response(status)
        head = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        for name, value in (head | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def hang_up(self) -> None:
        """Close the connection, without another word."""
        self.close_connection = True

    def _body(self) -> dict[str, Any]:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return dict(json.loads(body or b"{}"))

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def _serve(self, parameters: dict[str, Any]) -> None:
        service = self.server.service
        endpoint = re.sub(r"^/api/2\.\d/jobs/", "", urlsplit(self.path).path)
        version = urlsplit(self.path).path.split("/")[2]
        seen = Seen(endpoint, parameters, self.headers.get("Authorization", ""), version)
        with service._lock:
            service.seen.append(seen)
            waiting = service._troubles[endpoint]
            fault = waiting.popleft() if waiting else None
        if self._hook(seen, "received"):
            return
        if fault is not None:
            if fault.handled:
                service._answer(seen)
            fault.do(self)
            return
        status, answer = service._answer(seen)
        if self._hook(seen, "handled"):
            return
        self.say(status, json.dumps(answer).encode())
        if status == 200:
            service._told(answer)

    def _hook(self, seen: Seen, moment: str) -> bool:
        hook = self.server.service.hook
        if hook is not None and hook(seen, moment):
            self.hang_up()
            return True
        return False
