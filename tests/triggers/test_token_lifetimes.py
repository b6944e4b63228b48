"""A thousand deferred runs outlive ten tokens: none is polled with an expired one."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.fakes.identity import Identity
from tests.fakes.identity.base import Request
from tests.fakes.identity.workspace import bearer_refusal
from tests.fakes.many_runs import ManyRuns, Run

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
RUNS = 1000
LIFETIME_SECONDS = 2
LIFETIMES = 10
# The end of all runs is the most work at a time. It is measured again with runs that last so long,
# since other processes make some measures longer and none shorter.
MORE_ROUNDS = 2
ROUND_SECONDS = 4
# 50 ms of work where nothing else uses the processor.
MOST_WORK_IN_PAGES = 100
# A fetch that blocked the event loop would block it for so long.
ISSUING_SECONDS = 0.3
PLAIN_TOKEN = "a-plain-token"


class Workspace:
    """Many runs, for those who carry a token that is valid now.

    :ivar refused: how requests of the API were refused, by status.
    :ivar fetched: how many tokens were fetched until more runs were started.
    """

    def __init__(self) -> None:
        self.many = ManyRuns()
        self.identity = Identity()
        self.identity.issuer.lifetime_seconds = LIFETIME_SECONDS
        self.refused: Counter[int] = Counter()
        self.fetched = 0
        self.url = ""

    def app(self) -> web.Application:
        """Make the web application."""
        app = self.many.app()
        app.middlewares.insert(0, self._guard)
        app.router.add_post("/more-runs", self._more_runs)
        app.router.add_route("*", "/{path:oidc/.*|\\.well-known/.*}", self._identity)
        return app

    async def _identity(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            if not self.identity.workspace.requests:
                self._start_runs()
            await asyncio.sleep(ISSUING_SECONDS)
        response = self.identity.answer(await self._read(request))
        return web.Response(
            body=response.data, status=response.status or 500, content_type="application/json"
        )

    async def _more_runs(self, _request: web.Request) -> web.Response:
        self.fetched = self.fetched or len(self.identity.workspace.requests)
        return web.json_response(self.many.add(RUNS, lasting=ROUND_SECONDS))

    def _start_runs(self) -> None:
        """Let the runs last ten lifetimes from now on, however long the client took to import."""
        end = time.time() + LIFETIMES * LIFETIME_SECONDS
        for run in self.many.runs.values():
            if run.end > time.time():
                run.end = end

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        is_plain = request.headers.get("Authorization") == f"Bearer {PLAIN_TOKEN}"
        if request.path.startswith("/api/") and not is_plain:
            refusal = bearer_refusal(self.identity.issuer, await self._read(request))
            if refusal is not None:
                self.refused[refusal.status or 0] += 1
                return web.json_response(refusal.body, status=refusal.status or 500)
        answer: web.StreamResponse = await handler(request)
        return answer

    @staticmethod
    async def _read(request: web.Request) -> Request:
        body = await request.read()
        return Request.read(request.method, request.path_qs, dict(request.headers), body)


@contextmanager
def served(workspace: Workspace) -> Iterator[None]:
    """Serve it in a thread of this process."""
    ready = threading.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        runner = web.AppRunner(workspace.app(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        workspace.url = workspace.identity.base_url = f"http://{host}:{port}"
        ready.set()
        await stop.wait()
        await runner.cleanup()

    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def test_a_thousand_runs_over_ten_lifetimes() -> None:
    """No poll is refused, and a token is fetched at most 2.2 times a lifetime.

    No work delays the event loop for 50 ms: on it, in a thread that parses a page or imports, or of
    the garbage collection. And no fetch of a token blocks it.
    """
    pytest.importorskip("databricks.sdk")
    workspace = Workspace()
    workspace.identity.workspace.clients["me"] = "secret"
    with served(workspace):
        runs = workspace.many.add(RUNS, lasting=3600)
        now = workspace.many.runs[runs[0]].start
        warm_up = RUNS + 1
        workspace.many.runs[warm_up] = Run(warm_up, now - 60, now - 30)
        oauth: dict[str, Any] = {
            "login": "me",
            "password": "secret",
            "extra": {"service_principal_oauth": True},
        }
        connections: dict[str, dict[str, Any]] = {
            "RUNS": oauth,
            "WARM_UP": {"password": PLAIN_TOKEN},
        }
        fields = {"conn_type": "databricks", "host": workspace.url}
        variables = {
            f"AIRFLOW_CONN_{name}": json.dumps({**fields, **one})
            for name, one in connections.items()
        }
        result = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "tests.helpers.drive_logins"],
            input=json.dumps(
                {
                    "runs": runs,
                    "period": 1,
                    "warm_up": warm_up,
                    "more_runs": f"{workspace.url}/more-runs",
                    "rounds": MORE_ROUNDS,
                }
            ),
            env={**os.environ, **variables},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert result.returncode == 0, result.stderr
    measures = json.loads(result.stdout.splitlines()[-1])
    # The log of a test that failed shows all figures.
    print(json.dumps(measures | {"tokens": workspace.fetched, "asked": dict(workspace.many.asked)}))  # noqa: T201
    assert (measures["succeeded"], measures["other"]) == (RUNS * (1 + MORE_ROUNDS), [])
    assert workspace.refused == {}
    assert LIFETIMES <= workspace.fetched <= 2.2 * LIFETIMES
    assert min(measures["longest_work_in_pages"]) < MOST_WORK_IN_PAGES
    # In processor time, so that a loaded machine changes little.
    assert measures["work_while_importing_ms"] < 50
    # By the clock, for calls that block without work.
    assert measures["longest_lateness_ms"] < 1000 * ISSUING_SECONDS / 2
