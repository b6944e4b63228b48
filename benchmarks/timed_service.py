"""A Jobs API whose runs last a fixed time, and which counts what it is asked.

    python -m benchmarks.timed_service --seconds 10

Prints its address as JSON and serves on loopback until its standard input ends. It answers what an
operator asks from the launch to the end of a run, in API 2.0, 2.1 and 2.2. ``GET /counts`` tells
how many requests of each endpoint there were so far.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

PAGE_2_0, PAGE_SINCE_2_1 = 1000, 25
VERSIONS = ("2.0", "2.1", "2.2")


class TimedService:
    """The service.

    :param seconds: how long each run lasts.
    """

    def __init__(self, seconds: float) -> None:
        self.requests: Counter[str] = Counter()
        self._seconds = seconds
        self._numbers = itertools.count(1001)
        self._runs: dict[int, dict[str, Any]] = {}
        self._tokens: dict[str, int] = {}

    def app(self) -> web.Application:
        """Return the web application."""
        app = web.Application(middlewares=[self._count])
        app.router.add_get("/counts", self._counts)
        for version in VERSIONS:
            jobs = f"/api/{version}/jobs"
            app.router.add_post(f"{jobs}/runs/submit", self._launch)
            app.router.add_post(f"{jobs}/run-now", self._launch)
            app.router.add_get(f"{jobs}/runs/get", self._get)
            app.router.add_get(f"{jobs}/runs/list", self._list)
            app.router.add_get(f"{jobs}/runs/get-output", self._output)
            app.router.add_post(f"{jobs}/runs/cancel", self._cancel)
        return app

    @web.middleware
    async def _count(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if "/jobs/" in request.path:
            self.requests[request.path.partition("/jobs/")[2]] += 1
        return await handler(request)

    async def _counts(self, _request: web.Request) -> web.Response:
        return web.json_response(dict(self.requests))

    async def _launch(self, request: web.Request) -> web.Response:
        wish = await request.json()
        token = wish.get("idempotency_token")
        if token in self._tokens:
            return web.json_response({"run_id": self._tokens[token]})
        run_id = next(self._numbers)
        self._runs[run_id] = {"start": time.time(), "wish": wish, "cancelled_at": None}
        if token is not None:
            self._tokens[token] = run_id
        return web.json_response({"run_id": run_id})

    async def _get(self, request: web.Request) -> web.Response:
        run_id = int(await _argument(request, "run_id"))
        if run_id not in self._runs:
            message = f"Run {run_id} does not exist."
            return web.json_response(
                {"error_code": "INVALID_PARAMETER_VALUE", "message": message}, status=400
            )
        return web.json_response(self._as_json(run_id, tasks="/api/2.0/" not in request.path))

    async def _list(self, request: web.Request) -> web.Response:
        since_2_1 = "/api/2.0/" not in request.path
        most = PAGE_SINCE_2_1 if since_2_1 else PAGE_2_0
        limit, offset = int(request.query.get("limit", 20)), int(request.query.get("offset", 0))
        if limit > most:
            message = f"Invalid limit {limit} - it has to be no more than {most}."
            return web.json_response(
                {"error_code": "INVALID_PARAMETER_VALUE", "message": message}, status=400
            )
        offset = int(request.query.get("page_token", offset))
        earliest = float(request.query.get("start_time_from", 0)) / 1000
        wanted = []
        for run_id, run in reversed(self._runs.items()):
            ended = self._has_ended(run)
            if (
                run["start"] >= earliest
                and not (request.query.get("active_only") == "true" and ended)
                and not (request.query.get("completed_only") == "true" and not ended)
            ):
                wanted.append(run_id)
        page = wanted[offset : offset + (limit or most)]
        more = offset + len(page) < len(wanted)
        tasks = since_2_1 and request.query.get("expand_tasks") == "true"
        answer: dict[str, Any] = {
            "runs": [self._as_json(run_id, tasks=tasks) for run_id in page],
            "has_more": more,
        }
        if since_2_1 and more:
            answer["next_page_token"] = str(offset + len(page))
        return web.json_response(answer)

    async def _output(self, request: web.Request) -> web.Response:
        run_id = int(await _argument(request, "run_id"))
        output = {"result": "done", "truncated": False}
        return web.json_response(
            {"metadata": self._as_json(run_id, tasks=False), "notebook_output": output}
        )

    async def _cancel(self, request: web.Request) -> web.Response:
        run = self._runs[(await request.json())["run_id"]]
        run["cancelled_at"] = run["cancelled_at"] or time.time()
        return web.json_response({})

    def _has_ended(self, run: dict[str, Any]) -> bool:
        return bool(run["cancelled_at"]) or time.time() >= run["start"] + self._seconds

    def _as_json(self, run_id: int, *, tasks: bool) -> dict[str, Any]:
        """Answer a run as the API does, in about the size of a real one."""
        run = self._runs[run_id]
        ended = self._has_ended(run)
        state: dict[str, Any] = {
            "life_cycle_state": "TERMINATED" if ended else "RUNNING",
            "state_message": "" if ended else "In run",
            "user_cancelled_or_timedout": bool(run["cancelled_at"]),
        }
        if ended:
            state["result_state"] = "CANCELED" if run["cancelled_at"] else "SUCCESS"
        answer = {
            "job_id": run_id + 500_000,
            "run_id": run_id,
            "number_in_job": run_id,
            "original_attempt_run_id": run_id,
            "attempt_number": 0,
            "creator_user_name": "someone@example.com",
            "state": state,
            "task": {"notebook_task": run["wish"].get("notebook_task", {})},
            "cluster_spec": {"existing_cluster_id": run["wish"].get("existing_cluster_id", "")},
            "cluster_instance": {"cluster_id": "0101-120000-abcdefgh"},
            "start_time": int(run["start"] * 1000),
            "end_time": int((run["start"] + self._seconds) * 1000) if ended else 0,
            "setup_duration": 1000,
            "execution_duration": int(self._seconds * 1000) if ended else 0,
            "cleanup_duration": 0,
            "trigger": "ONE_TIME",
            "run_name": run["wish"].get("run_name", "Untitled"),
            "run_page_url": f"https://example.com/?o=1#job/{run_id + 500_000}/run/1",
            "run_type": "SUBMIT_RUN",
        }
        if tasks:
            answer["tasks"] = [{"run_id": run_id, "task_key": "task", "state": state}]
        return answer


async def _argument(request: web.Request, name: str) -> Any:
    """Return an argument of a GET; the official provider's hook sends them as a JSON body."""
    if name in request.query:
        return request.query[name]
    return (await request.json())[name]


async def main(seconds: float) -> None:
    """Serve on loopback until the standard input ends; print the address."""
    runner = web.AppRunner(TimedService(seconds).app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    print(json.dumps({"url": f"http://{host}:{port}"}), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    asyncio.run(main(parser.parse_args().seconds))
