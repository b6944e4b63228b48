"""A poller with a service in memory, in virtual time: what it asks for, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobs_provider.api.retry import RetryPolicy
from airflow_jobs_provider.triggers.polling import (
    launch_limiter,
    list_pages,
    outages,
    publisher,
    rate_limiter,
    reader,
)
from airflow_jobs_provider.triggers.polling import poller as poller_module
from airflow_jobs_provider.triggers.polling.poller import RunPoller
from tests.helpers.virtual_time import VirtualTimeLoop, run_in_virtual_time

__all__ = ["ENDED", "RUNNING", "PollerBench", "RunBench", "run_bench"]

RUNNING: Any = {"life_cycle_state": "RUNNING"}
ENDED: Any = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}


class PollerBench:
    """A poller with a service in memory.

    :ivar ends: the second in which each run ends; 1000 if it is not here.
    :ivar errors: are raised in the reads of these runs; the reads of ``hanging`` ones do not end.
    :ivar asked: the second of each request, with the run's id or the path.
    :ivar events: the second in which the client and the poller were closed, and reads canceled.
    """

    host = "w"
    last_response_bytes = 1_000
    metrics = None

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self.loop, self.began = loop, loop.time()
        self.ends: dict[int, float] = {}
        self.errors: dict[int, Exception] = {}
        self.hanging: set[int] = set()
        self.asked: list[tuple[float, Any]] = []
        self.retries: list[RetryPolicy | None] = []
        self.events: list[tuple[str, float]] = []
        self.error: Exception | None = None
        self.limiters: dict[str, Any] = {}

    def now(self) -> float:
        """Return the seconds since the test began."""
        return round(self.loop.time() - self.began, 6)

    def poller(self) -> RunPoller:
        """Start the poller; the event loop must run."""
        hook: Any = self
        return RunPoller(hook, self.limiters, lambda: self.events.append(("on_close", self.now())))

    @asynccontextmanager
    async def async_client(self) -> AsyncIterator[Any]:
        """Open the client, as the hook does."""
        if self.error is not None:
            raise self.error
        try:
            yield self
        finally:
            self.events.append(("client closed", self.now()))

    def retry_policy(self) -> RetryPolicy:
        """Return the hook's policy."""
        return RetryPolicy(random=lambda: 0.0, clock=self.loop.time)

    def version_of(self, _call: Any) -> str:
        """Return the version of the API, as a client does."""
        return "2.0"

    async def send(self, call: Any, *, retries: Any, rate_limit: Any, **_others: Any) -> Any:
        """Answer a call within the rate limit, as a client does."""
        self.retries.append(retries)
        async with rate_limit():
            run_id = call.parameters.get("run_id", 0)
            is_plain = call.path == "runs/get" and len(call.parameters) == 1
            self.asked.append((self.now(), run_id if is_plain else call.path))
            if run_id in self.hanging:
                try:
                    await asyncio.Event().wait()
                finally:
                    self.events.append(("read canceled", self.now()))
            if run_id in self.errors:
                raise self.errors[run_id]
            return self.run(run_id)

    def run(self, run_id: int) -> Any:
        """Return a run as it is now."""
        ended = self.now() >= self.ends.get(run_id, 1000)
        return {"run_id": run_id, "state": ENDED if ended else RUNNING, "tasks": [run_id]}

    async def wait(self, poller: RunPoller, run_id: int, period: float, **options: Any) -> float:
        """Wait for a change of a run that is RUNNING; return when it came."""
        options = {"known": {"state": RUNNING}, **options}
        run = await poller.wait_for_change(run_id, period=period, **options)
        assert run["run_id"] == run_id
        return self.now()


Scenario = Callable[[PollerBench], Coroutine[Any, Any, None]]
RunBench = Callable[[Scenario], PollerBench]


def run_bench(monkeypatch: pytest.MonkeyPatch, scenario: Scenario) -> PollerBench:
    """Run a scenario in virtual time, in which each first wait is the shortest; return the bench.

    :param scenario: a coroutine function of the bench.
    """
    loop = VirtualTimeLoop()
    for module in (
        launch_limiter,
        list_pages,
        outages,
        poller_module,
        publisher,
        rate_limiter,
        reader,
    ):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=loop.time))
    shortest = SimpleNamespace(uniform=lambda least, _most: least)
    monkeypatch.setattr(poller_module, "random", shortest)
    monkeypatch.setattr(rate_limiter, "REQUESTS_PER_SECOND", 1e9)
    bench = PollerBench(loop)
    run_in_virtual_time(scenario(bench), loop)
    return bench
