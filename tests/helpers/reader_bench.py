"""A reader of runs and a service in memory, whose time passes in waits and requests only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobs_provider.api.calls import Page
from airflow_jobs_provider.api.errors import (
    JobsAPIError,
)
from airflow_jobs_provider.api.retry import RetryPolicy, no_waiting
from airflow_jobs_provider.triggers.polling import (
    list_pages,
    outages,
    publisher,
    rate_limiter,
    reader,
    run_lists,
    sender,
    slow_reads,
)
from airflow_jobs_provider.triggers.polling.outages import UnreadableRuns
from airflow_jobs_provider.triggers.polling.rate_limiter import RateLimiter
from airflow_jobs_provider.triggers.polling.reader import RunReader
from airflow_jobs_provider.triggers.polling.sender import Sender
from airflow_jobs_provider.triggers.polling.waiters import Waiter, Waiters

__all__ = ["ENDED", "NOW", "RUNNING", "ReaderBench", "reader_bench"]

NOW = 1_000.0
RUNNING = {"life_cycle_state": "RUNNING"}
ENDED = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}


class ReaderBench:
    """A reader and a service in memory; time passes in waits and in slow requests only.

    :ivar answers: what a run's read is answered with: an error, or the run's state.
    :ivar list_error: is raised instead of a list; ``list_errors``: once each, before it.
    :ivar after_read: called after the read of a run, with its id; it may change all of this.
    :ivar request_seconds: how long each request takes.
    """

    def __init__(self, waits: list[float]) -> None:
        self.waits, self.passed = waits, 0.0
        self.answers: dict[int, Any] = {}
        self.listed: list[int] = []
        self.list_error: Exception | None = None
        self.list_errors: list[Exception] = []
        self.after_read: Callable[[int], None] = lambda _run_id: None
        self.request_seconds = 0.0
        self.asked: list[Any] = []
        self.last_response_bytes = 1_000
        self.waiters, self.unreadable = Waiters(), UnreadableRuns()
        policy = RetryPolicy(no_deadline=True, random=lambda: 0.0, clock=self.now)
        client: Any = self
        self.sender = Sender(client, RateLimiter(), policy, {})
        self.reader = RunReader(self.waiters, self.sender, self.unreadable)

    def now(self) -> float:
        """Return the time."""
        return NOW + self.passed + sum(self.waits)

    def version_of(self, _call: Any) -> str:
        """Return the version of the API, as a client does."""
        return "2.0"

    async def renew_credentials(self, _error: JobsAPIError) -> None:
        """Do nothing."""

    async def send(self, call: Any, *, retries: Any, rate_limit: Any) -> Any:
        """Answer a call within the rate limit, as a client does."""
        assert retries.max_attempts == 1
        async with rate_limit():
            self.passed += self.request_seconds
            if call.path == "runs/list":
                self.asked.append("active" if call.parameters.get("active_only") else "ended")
                if self.list_errors:
                    raise self.list_errors.pop(0)
                if self.list_error is not None:
                    raise self.list_error
                active = self.asked[-1] == "active"
                runs = [self.run(run_id) for run_id in self.listed] if active else []
                return Page(runs)
            run_id = call.parameters["run_id"]
            self.asked.append(run_id)
            answer, run = self.answers.get(run_id), self.run(run_id)
            self.after_read(run_id)
            if isinstance(answer, Exception):
                raise answer
            return run

    def run(self, run_id: int) -> Any:
        """Return a run as the service has it."""
        state = self.answers.get(run_id) or RUNNING
        return {"run_id": run_id, "start_time": run_id, "state": state}

    def wait(self, *run_ids: int, due: float = NOW, period: float = 100.0) -> list[Waiter]:
        """Wait for changes of runs that are RUNNING."""
        made = []
        for run_id in run_ids:
            future = asyncio.get_running_loop().create_future()
            one = Waiter(run_id, period, due, float("inf"), ("RUNNING", None), future)
            self.waiters.add(one)
            made.append(one)
        return made

    async def poll(self) -> list[Any]:
        """Poll once; return what was asked."""
        self.asked = []
        await self.reader.poll()
        return self.asked


@contextmanager
def reader_bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ReaderBench]:
    """Make a reader in a time of its own, without a limit of its rate."""
    monkeypatch.setattr(rate_limiter, "REQUESTS_PER_SECOND", 1e9)
    with no_waiting() as waits:
        one = ReaderBench(waits)
        for module in (list_pages, outages, publisher, reader, run_lists, sender, slow_reads):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=one.now))
        yield one
