"""Sending the requests of a poller: with which retries, within which limit, through outages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobs_provider.api.attempts import ignore_attempt
from airflow_jobs_provider.api.endpoints import cancel_run, get_run, run_now
from airflow_jobs_provider.api.errors import (
    AuthenticationError,
    BadRequestError,
    JobsAPIError,
    RateLimitError,
    ServerError,
    UnexpectedResponseError,
)
from airflow_jobs_provider.api.retry import RetryPolicy, no_waiting
from airflow_jobs_provider.triggers.polling import sender as sender_module
from airflow_jobs_provider.triggers.polling.sender import Sender

CALL: Any = get_run(7)
CANCEL: Any = cancel_run(7)
LAUNCH: Any = run_now({"job_id": 7})
DOWN, SLOWER = ServerError(status=503), RateLimitError(status=429)
FORBIDDEN = AuthenticationError(status=403)


class Client:
    """A client that answers every call, and notes how it was sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.renewed = 0

    async def send(self, call: Any, **how: Any) -> str:
        """Answer a call."""
        assert call in (CALL, CANCEL, LAUNCH)
        self.sent.append(how)
        return "answer"

    async def renew_credentials(self, _error: JobsAPIError) -> None:
        """Count it."""
        self.renewed += 1


class Limiter:
    """A rate limiter that notes when it was told to slow down."""

    def __init__(self) -> None:
        self.slowed_down: list[tuple[float, float]] = []
        self.paused: list[str] = []
        self.acquired: list[tuple[str, ...]] = []
        self.urgent: list[bool] = []

    @asynccontextmanager
    async def acquire(self, *turn: str, is_urgent: bool = False) -> AsyncIterator[float]:
        """Allow a request at 900."""
        self.urgent.append(is_urgent)
        self.acquired.append(turn)
        yield 900.0

    def slow_down(self, seconds: float, sent_at: float, endpoint: str = "") -> None:
        """Note it."""
        self.paused.append(endpoint)
        self.slowed_down.append((seconds, sent_at))


class Bench:
    """A sender with a client, a limiter and a clock that runs only in waits."""

    def __init__(self, waits: list[float], **policy: Any) -> None:
        self.waits = waits
        self.client, self.limiter, self.launches = Client(), Limiter(), Limiter()
        policy = {"no_deadline": True, "random": lambda: 0.0, "clock": self.now, **policy}
        client: Any = self.client
        limiter: Any = self.limiter
        self.submits = Limiter()
        launches: Any = {"run-now": self.launches, "runs/submit": self.submits}
        self.sender = Sender(client, limiter, RetryPolicy(**policy), launches)

    def now(self) -> float:
        """Return the time."""
        return 1_000.0 + sum(self.waits)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The waits, which end at once."""
    with no_waiting() as recorded:
        clock = SimpleNamespace(monotonic=lambda: 1_000.0 + sum(recorded))
        monkeypatch.setattr(sender_module, "time", clock)
        yield recorded


async def test_a_call_is_sent_with_the_clients_retries_or_its_own(waits: list[float]) -> None:
    """Each of its tries is within the rate limit."""
    bench = Bench(waits)
    own = RetryPolicy(max_attempts=3)
    assert await bench.sender.send(CALL) == "answer"
    told: Any = object()
    assert await bench.sender.send(CALL, own, on_attempt=told) == "answer"
    for how in bench.client.sent:
        async with how.pop("rate_limit")():
            pass
    assert bench.limiter.acquired == [("runs/get",)] * 2
    assert bench.client.sent == [
        {"retries": None, "on_attempt": ignore_attempt},
        {"retries": own, "on_attempt": told},
    ]


async def test_all_but_reads_are_urgent(waits: list[float]) -> None:
    """A read is urgent where that is said. A launch waits for its turn among launches only."""
    bench = Bench(waits)
    for call, urgent in ((CALL, False), (CANCEL, False), (LAUNCH, False), (CALL, True)):
        await bench.sender.send(call, is_urgent=urgent)
    for how in bench.client.sent:
        async with how["rate_limit"]():
            pass
    assert bench.limiter.urgent == [False, True, True]
    assert bench.launches.urgent == [False]


async def test_watchers_have_outages_of_their_own(
    waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """The runs that are waited for may be read meanwhile. The limits are the same."""
    bench = Bench(waits)
    watchers = bench.sender.for_watchers()
    assert await watchers.wait_out(DOWN, 2)
    assert watchers.outage.failures == 1
    assert (bench.sender.outage.failures, bench.sender.outage_seconds) == (0, 0.0)
    assert "2 watchers cannot be followed for now" in caplog.text
    with pytest.raises(RateLimitError):
        async with watchers.rate_limit("runs/list"):
            raise SLOWER
    assert len(bench.limiter.slowed_down) == 1


async def test_a_call_that_is_sent_once_has_no_retries(waits: list[float]) -> None:
    """It is within the rate limit, or within another one that is given."""
    bench = Bench(waits)
    other: Any = object()
    assert await bench.sender.send_once(CALL) == "answer"
    assert await bench.sender.send_once(CALL, other) == "answer"
    first, second = [how["rate_limit"] for how in bench.client.sent]
    assert second is other
    async with first():
        pass
    assert bench.limiter.acquired == [("runs/get",)]
    assert [how["retries"].max_attempts for how in bench.client.sent] == [1, 1]


async def test_a_429_slows_down_all_pollers_of_the_host(waits: list[float]) -> None:
    """By the wait of the retry policy, which grows with the failures of the outage."""
    bench = Bench(waits)
    for failures, seconds in ((0, 1.0), (1, 2.0), (2, 4.0)):
        assert bench.sender.outage.failures == failures
        with pytest.raises(RateLimitError):
            async with bench.sender.rate_limit("runs/list"):
                raise SLOWER
        assert bench.limiter.slowed_down[-1] == (seconds, 900.0)
        bench.sender.outage.record_failure(SLOWER, 1)
    assert len(bench.limiter.slowed_down) == 3
    assert set(bench.limiter.paused) == {"runs/list"}


async def test_a_launch_waits_for_its_turn_too(waits: list[float]) -> None:
    """Each of its tries is within that limit only. Its 429 slows down launches of its kind only."""
    bench = Bench(waits)
    assert await bench.sender.send(LAUNCH, dag_id="sales") == "answer"
    (how,) = bench.client.sent
    for _ in range(2):
        with pytest.raises(RateLimitError):
            async with how["rate_limit"]():
                raise SLOWER
    assert bench.launches.acquired == [("sales",)] * 2
    assert bench.launches.slowed_down == [(1.0, 900.0)] * 2
    assert (bench.submits.acquired, bench.submits.slowed_down) == ([], [])
    assert (bench.limiter.acquired, bench.limiter.slowed_down) == ([], [])


async def test_other_results_do_not_slow_down(waits: list[float]) -> None:
    """An answer, and an error that is not about the rate."""
    bench = Bench(waits)
    async with bench.sender.rate_limit("runs/list"):
        pass
    with pytest.raises(ServerError):
        async with bench.sender.rate_limit("runs/list"):
            raise DOWN
    assert bench.limiter.slowed_down == []


async def test_an_outage_is_waited_out_as_the_policy_says(waits: list[float]) -> None:
    """Its seconds are added up; those of a 429 are no outage."""
    bench = Bench(waits)
    assert bench.sender.outage_seconds == 0
    assert await bench.sender.wait_out(DOWN, 5) is True
    assert await bench.sender.wait_out(DOWN, 5) is True
    assert waits == [30, 60]
    assert bench.sender.outage_seconds == 90
    assert await bench.sender.wait_out(SLOWER, 5) is True
    assert waits == [30, 60, 4]
    assert bench.sender.outage_seconds == 90
    assert bench.sender.outage.failures == 3
    assert bench.client.renewed == 0


async def test_waits_at_the_same_time_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four parts of a sweep wait out one outage: the first wait is no longer for it."""
    now = 1_000.0
    clock = SimpleNamespace(monotonic=lambda: now)
    woken, waits = asyncio.Event(), list[float]()

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        await woken.wait()

    monkeypatch.setattr(sender_module, "time", clock)
    monkeypatch.setattr(sender_module, "async_sleep", wait)
    sender = Bench([]).sender
    waiting = [asyncio.create_task(sender.wait_out(DOWN, 5)) for _ in range(4)]
    await asyncio.sleep(0)
    now += 30
    woken.set()
    assert await asyncio.gather(*waiting) == [True] * 4
    assert sender.outage_seconds == 30
    assert waits == [30] * 4
    assert await sender.wait_out(DOWN, 5) is True
    assert waits[4:] == [60]


async def test_the_log_says_how_many_runs_are_concerned(
    waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """When the outage begins."""
    await Bench(waits).sender.wait_out(DOWN, 5)
    assert caplog.messages == [f"5 runs cannot be followed for now: {DOWN}"]


async def test_an_error_that_no_further_try_helps_is_not_waited_out(waits: list[float]) -> None:
    """There is no wait, and it is a failure all the same."""
    bench = Bench(waits)
    assert await bench.sender.wait_out(BadRequestError(status=400), 5) is False
    assert waits == []
    assert (bench.sender.outage.failures, bench.sender.outage_seconds) == (1, 0)


async def test_the_next_wait_must_end_within_the_limit(waits: list[float]) -> None:
    """Refused credentials are tried again for 15 minutes."""
    bench = Bench(waits)
    waited_out = 0
    while await bench.sender.wait_out(FORBIDDEN, 5):
        waited_out += 1
    assert (waited_out, sum(waits)) == (15, 870)
    assert bench.client.renewed == 15


async def test_the_limit_begins_anew_once_nobody_was_waiting(waits: list[float]) -> None:
    """A poller that watchers keep open may be without waits for days."""
    bench = Bench(waits)
    assert await bench.sender.wait_out(FORBIDDEN, 5) is True
    bench.sender.forget_outage()
    waits.append(3 * 86_400)
    assert await bench.sender.wait_out(FORBIDDEN, 1) is True


@pytest.mark.parametrize(("error", "renewals"), [(FORBIDDEN, 1), (DOWN, 0), (SLOWER, 0)])
async def test_refused_credentials_are_renewed(
    waits: list[float], error: JobsAPIError, renewals: int
) -> None:
    """Other errors say nothing about them."""
    bench = Bench(waits)
    await bench.sender.renew_credentials(error)
    assert bench.client.renewed == renewals


async def test_after_an_answer_an_unexpected_response_is_an_outage(waits: list[float]) -> None:
    """Before it the address may be wrong."""
    bench, page = Bench(waits), UnexpectedResponseError(status=404)
    assert await bench.sender.wait_out(page, 5) is False
    bench.sender.record_answer()
    assert await bench.sender.wait_out(page, 5) is True
