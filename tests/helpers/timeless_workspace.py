"""A workspace without sockets, whose clock is that of a virtual event loop.

The client is the real one, down to the request that it gives to aiohttp: the request is answered by
``tests.fakes.many_runs`` in memory, after some virtual time.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from aiohttp import ClientConnectionError, web
from aiohttp.test_utils import make_mocked_request

from airflow_jobs_provider.api import async_client
from airflow_jobs_provider.api.auth.static import Token
from airflow_jobs_provider.api.client import AsyncJobsClient
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from tests.fakes.many_runs import ManyRuns, Run
from tests.helpers.virtual_time import VirtualTimeLoop, run_in_virtual_time

__all__ = ["RunScenario", "Workspace", "play"]

T = TypeVar("T")

EPOCH = 1_800_000_000.0
LATENCY = 0.05
_POLLING = "airflow_jobs_provider.triggers.polling."
# The modules that look at the clock.
_CLOCKED = (
    "airflow_jobs_provider.triggers.run_events",
    "tests.fakes.many_runs",
    *(
        _POLLING + name
        for name in (
            "ended_runs",
            "first_reads",
            "job_details",
            "launch_limiter",
            "list_pages",
            "outages",
            "poller",
            "publisher",
            "rate_limiter",
            "reader",
            "run_changes",
            "run_lists",
            "sender",
            "waiters",
        )
    ),
)


class Workspace(ManyRuns):
    """The service, with what a test does to it.

    :ivar loop: the clock.
    :ivar is_down: whether no connection comes about.
    """

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self.loop = loop
        self.is_down = False
        self.api_version = "2.0"
        # The others are copies: a request is made of a dozen mocks, which takes 10 ms.
        self._request: web.Request | None = None

    def now(self) -> float:
        """Return the time in seconds since the epoch."""
        return EPOCH + self.loop.time()

    def start(self, run_id: int, *, job: int = 7, lasting: float = 3600, ago: float = 0) -> Run:
        """Start a run of a job."""
        start = self.now() - ago
        self.runs[run_id] = Run(run_id, start, start + lasting, job=job)
        return self.runs[run_id]

    @property
    def requests(self) -> int:
        """How many requests came."""
        return sum(self.asked.values())

    async def respond(self, path: str) -> web.Response:
        """Answer a request, later."""
        await asyncio.sleep(LATENCY)
        if self.is_down:
            raise ClientConnectionError("the service is down")
        if self._request is None:
            self._request = make_mocked_request("GET", "/")
        response = await self.answer(self._request.clone(rel_url=path))
        assert isinstance(response, web.Response)
        return response


class _Client(AsyncJobsClient):
    """The client, with a session that has no sockets."""

    workspace: Workspace

    async def _choose_route(self) -> Any:
        return SimpleNamespace(proxy=None, address=""), True

    def _session_for(self, _route: Any) -> Any:
        @asynccontextmanager
        async def request(_verb: str, url: Any, **_others: Any) -> AsyncIterator[Any]:
            response = await self.workspace.respond(url.raw_path_qs)

            async def iter_any() -> AsyncIterator[bytes]:
                assert isinstance(response.body, bytes)
                yield response.body

            content = SimpleNamespace(iter_any=iter_any)
            yield SimpleNamespace(status=response.status, headers=response.headers, content=content)

        return SimpleNamespace(request=request)


# What the fixture ``run_scenario`` gives: :func:`play` without its first argument.
RunScenario = Callable[..., Workspace]


def play(
    monkeypatch: pytest.MonkeyPatch, scenario: Any, *arguments: Any, api_version: str = "2.0"
) -> Workspace:
    """Run a scenario with a workspace, in a time of its own; return the workspace.

    :param scenario: a coroutine function of the workspace and the arguments.
    :param api_version: the connection's ``api_version``.
    """
    loop = VirtualTimeLoop()
    clock = SimpleNamespace(monotonic=loop.time, time=lambda: EPOCH + loop.time())
    for name in _CLOCKED:
        module = importlib.import_module(name)
        if hasattr(module, "time"):
            monkeypatch.setattr(module, "time", clock)
    # In a thread a large page would take no virtual time, and the loop would have no timer.
    monkeypatch.setattr(async_client, "LARGE_BYTES", 10**9)
    workspace = Workspace(loop)

    @asynccontextmanager
    async def open_client(_hook: Any) -> AsyncIterator[Any]:
        if workspace.api_version == "missing":
            raise ValueError("The connection isn't defined")
        client = _Client("http://127.0.0.1:1", Token("token"), api_version=api_version)
        client.workspace = workspace
        yield client

    monkeypatch.setattr(DatabricksJobsHook, "async_client", open_client)
    coroutine: Coroutine[Any, Any, None] = scenario(workspace, *arguments)
    run_in_virtual_time(coroutine, loop)
    return workspace
