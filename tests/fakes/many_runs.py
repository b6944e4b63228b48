"""A Jobs API with thousands of runs that only pass the time, and that counts what it is asked.

Nothing is executed: a run has a start and an end, and its state follows from the clock. It speaks
``runs/submit``, ``runs/get``, ``runs/list``, ``runs/get-output`` and ``get`` of API 2.0, 2.1 and
2.2; since 2.1 lists have pages of 25 and page tokens, and leave out tasks unless asked for them.
Used by the benchmarks, in a process of its own, and by the tests of the poller, in theirs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

MAX_LIMIT = 1000
MAX_LIMIT_SINCE_2_1 = 25
# The later versions show so many tasks of a run in a list.
LISTED_TASKS = 100
LAST_OFFSET = 10_000

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(eq=False)
class Run:
    """A run: its states follow from the clock."""

    run_id: int
    start: float
    end: float
    result: str = "SUCCESS"
    tasks: int = 0
    # The runs of its tasks, where each has an end of its own.
    members: list[Run] = field(default_factory=list)
    # Its job; default one of its own.
    job: int = 0

    @property
    def job_id(self) -> int:
        """Its job."""
        return self.job or self.run_id + 500_000

    def as_json(self, now: float, *, listed_tasks: int | None = None) -> dict[str, Any]:
        """Answer the run as the API does, in about the size of a real one.

        :param listed_tasks: how many tasks to show at most; None for all of them.
        """
        ended = now >= self.end
        state: dict[str, Any] = {
            "life_cycle_state": "TERMINATED" if ended else "RUNNING",
            "state_message": "" if ended else "In run",
            "user_cancelled_or_timedout": False,
        }
        if ended:
            state["result_state"] = self.result
        answer = {
            "job_id": self.job_id,
            "run_id": self.run_id,
            "number_in_job": self.run_id,
            "original_attempt_run_id": self.run_id,
            "attempt_number": 0,
            "creator_user_name": "someone@example.com",
            "state": state,
            "task": {
                "notebook_task": {
                    "notebook_path": "/Shared/sales/daily/aggregate",
                    "base_parameters": {"day": "2026-01-01", "region": "emea"},
                }
            },
            "cluster_spec": {
                "new_cluster": {
                    "spark_version": "15.4.x-scala2.12",
                    "node_type_id": "Standard_D3_v2",
                    "num_workers": 2,
                    "custom_tags": {"team": "sales", "cost_center": "4711"},
                    "spark_conf": {"spark.speculation": "true"},
                }
            },
            "cluster_instance": {"cluster_id": "0101-120000-abcdefgh"},
            "start_time": int(self.start * 1000),
            "end_time": int(self.end * 1000) if ended else 0,
            "setup_duration": 1000,
            "execution_duration": int((self.end - self.start) * 1000) if ended else 0,
            "cleanup_duration": 0,
            "trigger": "ONE_TIME",
            "run_name": f"sales.total[{self.run_id}] scheduled__2026-01-01T00:00:00+00:00 try 1",
            "run_page_url": f"https://example.com/?o=1#job/{self.job_id}/run/1",
            "run_type": "JOB_RUN" if self.job else "SUBMIT_RUN",
        }
        if self.members:
            answer["format"] = "MULTI_TASK"
            answer["tasks"] = [
                {**member.as_json(now), "task_key": f"t{member.run_id}"} for member in self.members
            ]
        if self.tasks:
            shown = self.tasks if listed_tasks is None else min(self.tasks, listed_tasks)
            answer["format"] = "MULTI_TASK"
            answer["has_more"] = shown < self.tasks
            answer["tasks"] = [
                {"run_id": 1000 * self.run_id + n, "task_key": f"task {n}"} for n in range(shown)
            ]
            if not shown:
                del answer["tasks"], answer["has_more"]
        return answer


@dataclass
class ManyRuns:
    """The service.

    :ivar jobs: the settings of jobs, by id.
    :ivar lasting: how many seconds a submitted run lasts.
    :ivar max_page: most runs on a page of the 2.0 list.
    :ivar requests_per_second: above it the answer is 429; None for no limit.
    :ivar retry_after: the Retry-After header of a 429.
    :ivar list_runs: answers lists in place of the service's own way.
    :ivar get_run: answers ``runs/get`` in place of the service's own way.
    :ivar odd: what ``runs/get`` answers for some runs, in place of the run.
    :ivar found_active: how often ``runs/get`` showed a run that had not ended.
    :ivar latest: runs that ``runs/get`` showed lately, in this order.
    :ivar refused: runs that the caller may not see, nor their output: 403.
    :ivar hidden: the same, and they are on no list.
    :ivar broken_jobs: jobs that cannot be read: 500.
    :ivar trouble: answers to give before anything else: a status for each request.
    :ivar hung: endpoints whose requests are not answered, as long as they are in here.
    """

    runs: dict[int, Run] = field(default_factory=dict)
    jobs: dict[int, dict[str, Any]] = field(default_factory=dict)
    lasting: float = 3600
    max_page: int = MAX_LIMIT
    requests_per_second: float | None = None
    retry_after: str = "1"
    trouble: deque[int] = field(default_factory=deque)
    deleted: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    hidden: set[int] = field(default_factory=set)
    broken_jobs: set[int] = field(default_factory=set)
    hung: set[str] = field(default_factory=set)
    odd: dict[int, Callable[[], web.Response]] = field(default_factory=dict)
    lists_refused: bool = False
    asked: Counter[str] = field(default_factory=Counter)
    connections: set[Any] = field(default_factory=set)
    throttled: int = 0
    found_active: int = 0
    latest: deque[int] = field(default_factory=lambda: deque(maxlen=1000))
    list_runs: Answer | None = None
    get_run: Answer | None = None
    _recent: deque[float] = field(default_factory=deque)

    def add(self, count: int, *, lasting: float = 3600, first_id: int | None = None) -> list[int]:
        """Start runs now, that last so long; return their ids."""
        now = time.time()
        first = first_id or max(self.runs, default=0) + 1
        ids = list(range(first, first + count))
        for run_id in ids:
            self.runs[run_id] = Run(run_id, now, now + lasting)
        return ids

    def end(self, run_id: int, result: str = "SUCCESS") -> None:
        """End a run now."""
        self.runs[run_id].end = time.time()
        self.runs[run_id].result = result

    def app(self) -> web.Application:
        """Make the web application."""
        app = web.Application(middlewares=[self._count])
        for version in ("2.0", "2.1", "2.2"):
            base = f"/api/{version}/jobs/runs"
            app.router.add_get(f"/api/{version}/jobs/get", self._get_job)
            app.router.add_post(f"{base}/submit", self._submit)
            app.router.add_get(f"{base}/get", self._get_as_told)
            app.router.add_get(f"{base}/list", self._list_as_told)
            app.router.add_get(f"{base}/get-output", self._output)
            app.router.add_post(f"{base}/cancel", self._cancel)
        app.router.add_post("/set-up", self._set_up)
        app.router.add_get("/counts", self._counts)
        return app

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request that came without a connection, as the application does."""
        endpoint = request.path.split("/jobs/")[1]
        handlers: dict[str, Answer] = {
            "get": self._get_job,
            "runs/submit": self._submit,
            "runs/get": self._get_as_told,
            "runs/list": self._list_as_told,
            "runs/get-output": self._output,
        }
        return await self._counted(request, handlers[endpoint])

    @web.middleware
    async def _count(self, request: web.Request, handler: Any) -> web.StreamResponse:
        return await self._counted(request, handler)

    async def _counted(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if not request.path.startswith("/api/"):
            response: web.StreamResponse = await handler(request)
            return response
        path = request.path.split("/jobs/")[1]
        only = [name for name in ("active_only", "completed_only") if name in request.query]
        self.asked[" ".join([path, *only])] += 1
        self.connections.add(
            request.transport.get_extra_info("peername") if request.transport else 0
        )
        now = time.monotonic()
        if self.requests_per_second is not None:
            while self._recent and self._recent[0] <= now - 1:
                self._recent.popleft()
            if len(self._recent) >= self.requests_per_second:
                self.throttled += 1
                return web.json_response({}, status=429, headers={"Retry-After": self.retry_after})
            self._recent.append(now)
        while path in self.hung:  # noqa: ASYNC110 - a test changes it
            await asyncio.sleep(0.01)
        if self.trouble:
            return web.Response(status=self.trouble.popleft())
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _get_as_told(self, request: web.Request) -> web.StreamResponse:
        return await (self.get_run or self._get)(request)

    async def _get(self, request: web.Request) -> web.Response:
        # The official provider's triggers send what they ask for in the body of the GET.
        asked = request.query or await request.json()
        run_id = int(asked["run_id"])
        if run_id in self.odd:
            return self.odd[run_id]()
        if run_id in self.refused | self.hidden:
            return self._error("You do not have View permission.", "PERMISSION_DENIED", 403)
        if run_id not in self.runs or run_id in self.deleted:
            return self._error(f"Run {run_id} does not exist.")
        now = time.time()
        self.latest.append(run_id)
        self.found_active += now < self.runs[run_id].end
        return web.json_response(self.runs[run_id].as_json(now))

    async def _submit(self, _request: web.Request) -> web.Response:
        (run_id,) = self.add(1, lasting=self.lasting)
        return web.json_response({"run_id": run_id})

    async def _get_job(self, request: web.Request) -> web.Response:
        job_id = int(request.query["job_id"])
        if job_id in self.broken_jobs:
            return self._error("Internal error.", "INTERNAL_ERROR", 500)
        if job_id not in self.jobs:
            return self._error(f"Job {job_id} does not exist.")
        return web.json_response({"job_id": job_id, "settings": self.jobs[job_id]})

    async def _output(self, request: web.Request) -> web.Response:
        run = self.runs[int(request.query["run_id"])]
        if run.run_id in self.refused:
            return self._error("You do not have View permission.", "PERMISSION_DENIED", 403)
        output = {"result": str(run.run_id)}
        return web.json_response({"metadata": run.as_json(time.time()), "notebook_output": output})

    async def _cancel(self, request: web.Request) -> web.Response:
        self.end((await request.json())["run_id"], "CANCELED")
        return web.json_response({})

    async def _list_as_told(self, request: web.Request) -> web.StreamResponse:
        return await (self.list_runs or self._list)(request)

    async def _list(self, request: web.Request) -> web.Response:
        if self.lists_refused:
            return self._error("Listing runs is not allowed.")
        now = time.time()
        wanted = sorted(
            (
                run
                for run in self.runs.values()
                if run.run_id not in self.deleted | self.hidden
                and int(run.start * 1000) >= int(request.query.get("start_time_from", 0))
                and int(run.start * 1000) <= int(request.query.get("start_time_to", 10**18))
                and not (request.query.get("active_only") == "true" and now >= run.end)
                and not (request.query.get("completed_only") == "true" and now < run.end)
            ),
            key=lambda run: (run.start, run.run_id),
            reverse=True,
        )
        since_2_1 = "/api/2.0/" not in request.path
        most = MAX_LIMIT_SINCE_2_1 if since_2_1 else self.max_page
        limit, offset = int(request.query.get("limit", 20)), int(request.query.get("offset", 0))
        if limit > most:
            return self._error(f"Invalid value for limit: {limit} is over {most}.")
        if offset > LAST_OFFSET:
            return self._error("The offset is over 10000.")
        if token := request.query.get("page_token"):
            # As the real ones do, a token names the run after which the page begins.
            last = tuple(float(part) for part in token.split("-"))
            wanted = [run for run in wanted if (run.start, run.run_id) < last]
        page = wanted[offset : offset + (limit or most)]
        more = offset + len(page) < len(wanted)
        tasks = LISTED_TASKS if since_2_1 and request.query.get("expand_tasks") == "true" else 0
        answer: dict[str, Any] = {"runs": [run.as_json(now, listed_tasks=tasks) for run in page]}
        if not since_2_1:
            answer["has_more"] = more
        elif more:
            answer["next_page_token"] = f"{page[-1].start!r}-{page[-1].run_id}"
        return web.json_response(answer)

    @staticmethod
    def _error(
        message: str, code: str = "INVALID_PARAMETER_VALUE", status: int = 400
    ) -> web.Response:
        return web.json_response({"error_code": code, "message": message}, status=status)

    async def _set_up(self, request: web.Request) -> web.Response:
        """Start runs that end evenly between two times from now, and forget all counts.

        With ``group`` they are the tasks of one more run.
        """
        wish = await request.json()
        self.runs.clear()
        self.asked.clear()
        self.connections.clear()
        self.throttled = 0
        self.max_page = wish.get("max_page", MAX_LIMIT)
        self.requests_per_second = wish.get("requests_per_second")
        now, count = time.time(), wish["runs"]
        warm_up = Run(count + 1, now - 7200, now - 3600)
        first, last = wish["first_end"], wish["last_end"]
        for n in range(count):
            # A fixed shuffle, so that the order of ends is not that of starts.
            part = (n * 7919 % count) / max(1, count - 1)
            self.runs[n + 1] = Run(n + 1, now + n / 1e6, now + first + part * (last - first))
        ends = {str(run.run_id): run.end for run in self.runs.values()}
        if wish.get("group"):
            members = list(self.runs.values())
            last_end = max(member.end for member in members)
            self.runs[count + 2] = Run(count + 2, now, last_end, members=members)
        self.runs[warm_up.run_id] = warm_up
        return web.json_response(ends)

    async def _counts(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                "requests": dict(self.asked),
                "connections": len(self.connections),
                "throttled": self.throttled,
            }
        )


async def main(port: int) -> None:
    """Serve on loopback until stopped; print the address."""
    runner = web.AppRunner(ManyRuns().app(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    address = runner.addresses[0]
    print(json.dumps({"url": f"http://{address[0]}:{address[1]}"}), flush=True)  # noqa: T201
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(main(parser.parse_args().port))
