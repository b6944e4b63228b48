"""The rate limit for requests to one host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobs_provider.triggers.polling import rate_limiter
from airflow_jobs_provider.triggers.polling.rate_limiter import RateLimiter
from tests.helpers.virtual_time import VirtualTimeLoop, run_in_virtual_time


class Clock:
    """A clock that runs only while somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        faked_asyncio = SimpleNamespace(
            sleep=self.sleep, Semaphore=asyncio.Semaphore, Lock=asyncio.Lock
        )
        monkeypatch.setattr(rate_limiter, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(rate_limiter, "asyncio", faked_asyncio)

    async def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        assert seconds > 0
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock in place of the real one."""
    return Clock(monkeypatch)


async def sent_at(limiter: RateLimiter, count: int) -> list[float]:
    """Return when so many requests, one after the other, may be sent."""
    times = []
    for _ in range(count):
        async with limiter.acquire() as now:
            times.append(now)
    return times


def test_the_limits_are_below_the_published_ones() -> None:
    """20 requests per second and 8 in flight."""
    assert (rate_limiter.REQUESTS_PER_SECOND, rate_limiter.REQUESTS_AT_ONCE) == (20, 8)


async def test_requests_are_spread_evenly(clock: Clock) -> None:
    """The first one is sent at once, each further one a twentieth of a second later."""
    limiter = RateLimiter()
    assert limiter.requests_per_second == 20
    assert await sent_at(limiter, 3) == pytest.approx([1000.0, 1000.05, 1000.1])
    clock.now = 2_000.0
    assert await sent_at(limiter, 2) == pytest.approx([2000.0, 2000.05])


async def test_the_first_request_is_sent_at_once_on_a_machine_that_has_just_started(
    clock: Clock,
) -> None:
    """The monotonic clock of such a machine begins at 0."""
    clock.now = 0.0
    assert await sent_at(RateLimiter(), 1) == [0.0]
    limiter = RateLimiter()
    limiter.slow_down(0, sent_at=0.0)
    assert limiter.requests_per_second == 10


async def test_a_429_pauses_and_halves_the_rate(clock: Clock) -> None:
    """Nothing is sent during the pause; after it requests are twice as far apart."""
    limiter = RateLimiter()
    limiter.slow_down(3, sent_at=clock.now)
    assert limiter.requests_per_second == 10
    first, second = await sent_at(limiter, 2)
    assert first == 1003.0
    assert second - first == pytest.approx(0.1, rel=0.05)


async def test_only_the_endpoint_that_refused_a_request_is_paused(clock: Clock) -> None:
    """A cancel does not wait for the Retry-After of a list. It is slower: the rate is halved."""
    limiter = RateLimiter()
    limiter.slow_down(60, sent_at=clock.now, endpoint="runs/list")
    sent = []
    for endpoint in ("runs/cancel", "runs/get", "runs/list"):
        async with limiter.acquire(endpoint) as now:
            sent.append(now)
    assert sent == pytest.approx([1000.0, 1000.1, 1060.0])


async def test_requests_to_a_paused_endpoint_are_not_in_flight() -> None:
    """However many of them wait, a request to another endpoint is sent."""
    limiter = RateLimiter()
    limiter.slow_down(60, sent_at=0.0, endpoint="runs/list")

    async def send() -> None:
        async with limiter.acquire("runs/list"):
            pytest.fail("it is paused")

    paused = [asyncio.create_task(send()) for _ in range(2 * rate_limiter.REQUESTS_AT_ONCE)]
    await asyncio.sleep(0)
    async with asyncio.timeout(10), limiter.acquire("runs/cancel"):
        pass
    for task in paused:
        task.cancel()
    await asyncio.gather(*paused, return_exceptions=True)


async def test_a_pause_that_begins_before_the_turn_of_a_request(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request waits for its end."""
    limiter = RateLimiter(1)
    assert await sent_at(limiter, 1) == [1000.0]
    sleeps = []

    async def sleep(seconds: float) -> None:
        clock.now += seconds
        sleeps.append(seconds)
        if len(sleeps) == 1:
            limiter.slow_down(5, sent_at=clock.now)

    faked = SimpleNamespace(sleep=sleep, Semaphore=asyncio.Semaphore)
    monkeypatch.setattr(rate_limiter, "asyncio", faked)
    assert await sent_at(limiter, 1) == [1006.0]
    assert sleeps == [1.0, 5.0]


async def test_a_shorter_pause_does_not_replace_a_longer_one(clock: Clock) -> None:
    """The later end of both counts."""
    limiter = RateLimiter()
    limiter.slow_down(60, sent_at=clock.now)
    limiter.slow_down(1, sent_at=clock.now)
    assert await sent_at(limiter, 1) == [1060.0]


def test_a_request_of_before_the_halving_tells_nothing_of_the_new_rate(clock: Clock) -> None:
    """Eight requests in flight that are all refused halve the rate once."""
    limiter = RateLimiter()
    sent = clock.now
    clock.now += 1
    for _ in range(8):
        limiter.slow_down(1, sent_at=sent)
    assert limiter.requests_per_second == 10
    limiter.slow_down(1, sent_at=clock.now)
    assert limiter.requests_per_second == 5
    clock.now += 1
    limiter.slow_down(1, sent_at=clock.now - 0.5)
    assert limiter.requests_per_second == 2.5


def test_the_rate_has_a_lower_bound(clock: Clock) -> None:
    """One request per second."""
    limiter = RateLimiter()
    for _ in range(9):
        limiter.slow_down(0, sent_at=clock.now)
    assert limiter.requests_per_second == 1


async def test_the_rate_recovers_with_time(clock: Clock) -> None:
    """Soon to 90 % of the rate that was refused, then slowly, and never above the full rate."""
    limiter = RateLimiter()
    clock.now += 500
    limiter.slow_down(0, sent_at=clock.now)
    for seconds, rate in ((2.5, 14), (2.5, 18), (30, 18.25), (30, 19), (600, 20)):
        clock.now += seconds
        await sent_at(limiter, 1)
        assert limiter.requests_per_second == pytest.approx(rate)
    clock.now += 600
    await sent_at(limiter, 1)
    clock.now += 60
    limiter.slow_down(0, sent_at=clock.now)
    assert limiter.requests_per_second == 10


async def test_a_service_that_allows_half_the_rate_is_asked_nearly_as_often_as_it_allows(
    clock: Clock,
) -> None:
    """After two refusals it is 9 requests a second for a while."""
    limiter = RateLimiter()
    limiter.slow_down(0, sent_at=clock.now)
    limiter.slow_down(0, sent_at=clock.now)
    assert limiter.requests_per_second == 5
    for seconds, rate in ((2.5, 7), (2.5, 9), (30, 9.25), (30, 10)):
        clock.now += seconds
        await sent_at(limiter, 1)
        assert limiter.requests_per_second == pytest.approx(rate)


async def test_the_rate_recovers_after_the_pause(clock: Clock) -> None:
    """A pause tells nothing of the rate that the service allows."""
    limiter = RateLimiter()
    limiter.slow_down(300, sent_at=clock.now)
    assert await sent_at(limiter, 1) == [1300.0]
    assert limiter.requests_per_second == pytest.approx(10)
    clock.now += 5
    await sent_at(limiter, 1)
    assert limiter.requests_per_second == pytest.approx(18)


async def test_a_long_pause_of_one_endpoint_does_not_slow_down_others_for_as_long(
    clock: Clock,
) -> None:
    """The rate grows after the pause of the latest 429, not after the longest pause."""
    limiter = RateLimiter()
    limiter.slow_down(300, sent_at=clock.now, endpoint="runs/list")
    clock.now += 10
    limiter.slow_down(1, sent_at=clock.now, endpoint="runs/get")
    assert limiter.requests_per_second == 5
    clock.now += 6
    async with limiter.acquire("runs/get"):
        pass
    assert limiter.requests_per_second == pytest.approx(9)


async def test_eight_requests_are_in_flight_at_most() -> None:
    """The ninth waits until one of them is answered."""
    limiter = RateLimiter()
    limiter._rate = 1_000_000.0
    in_flight, answered, most = 0, asyncio.Event(), 0

    async def send() -> None:
        nonlocal in_flight, most
        async with limiter.acquire():
            in_flight += 1
            most = max(most, in_flight)
            if in_flight == 8:
                answered.set()
            await answered.wait()
            in_flight -= 1

    async with asyncio.timeout(10):
        await asyncio.gather(*(send() for _ in range(20)))
    assert most == 8


Scenario = Callable[[], Coroutine[Any, Any, None]]
Play = Callable[[Scenario], None]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Plays a scenario in a time of its own, in which a busy machine is late for nothing."""

    def start(scenario: Scenario) -> None:
        loop = VirtualTimeLoop()
        monkeypatch.setattr(rate_limiter, "time", SimpleNamespace(monotonic=loop.time))
        run_in_virtual_time(scenario(), loop)

    return start


def test_an_urgent_request_does_not_wait_for_reads_in_flight(play: Play) -> None:
    """There is room for eight of them beside eight others."""
    in_flight = {True: 0, False: 0}

    async def scenario() -> None:
        limiter = RateLimiter(1_000_000.0)
        answered = asyncio.Event()

        async def send(*, is_urgent: bool) -> None:
            async with limiter.acquire(is_urgent=is_urgent):
                in_flight[is_urgent] += 1
                await answered.wait()

        tasks = [asyncio.create_task(send(is_urgent=n % 2 == 0)) for n in range(28)]
        await asyncio.sleep(60)
        assert in_flight == {True: 12, False: 8}
        answered.set()
        await asyncio.gather(*tasks)

    play(scenario)
    assert in_flight == {True: 14, False: 14}


def test_an_urgent_request_is_sent_before_those_that_wait(play: Play) -> None:
    """The rate stays the same: it delays the others."""
    sent = list[tuple[str, float]]()

    async def scenario() -> None:
        limiter, loop = RateLimiter(10), asyncio.get_running_loop()
        began = loop.time()

        async def send(name: str, *, is_urgent: bool) -> None:
            async with limiter.acquire(is_urgent=is_urgent):
                sent.append((name, loop.time() - began))

        tasks = [asyncio.create_task(send("read", is_urgent=False)) for _ in range(5)]
        await asyncio.sleep(0.01)
        tasks += [asyncio.create_task(send("cancel", is_urgent=True)) for _ in range(2)]
        await asyncio.gather(*tasks)

    play(scenario)
    assert [name for name, _ in sent] == ["read", "cancel", "cancel", *["read"] * 4]
    assert [moment for _, moment in sent] == pytest.approx([0.1 * turn for turn in range(7)])


def test_one_of_ten_requests_is_a_read_while_many_urgent_ones_wait(play: Play) -> None:
    """Without a read that waits for its turn, all are urgent ones."""

    async def scenario() -> None:
        limiter, sent = RateLimiter(200), list[str]()

        async def send(name: str, *, is_urgent: bool) -> None:
            async with limiter.acquire(is_urgent=is_urgent):
                sent.append(name)

        tasks = [asyncio.create_task(send("cancel", is_urgent=True)) for _ in range(30)]
        await asyncio.sleep(0.01)
        tasks += [asyncio.create_task(send("read", is_urgent=False)) for _ in range(2)]
        async with asyncio.timeout(10):
            await asyncio.gather(*tasks)
        first, second = (place for place, name in enumerate(sent) if name == "read")
        assert first <= 10
        assert second - first == 10

    play(scenario)


async def test_a_read_that_is_canceled_holds_back_no_urgent_request() -> None:
    """It has waited for its turn when the urgent ones have had theirs."""
    limiter = RateLimiter(20)
    limiter._urgent_in_a_row = rate_limiter.URGENT_IN_A_ROW
    async with limiter.acquire():
        pass
    limiter._urgent_in_a_row = rate_limiter.URGENT_IN_A_ROW

    async def send(*, is_urgent: bool) -> None:
        async with limiter.acquire(is_urgent=is_urgent):
            pass

    read = asyncio.create_task(send(is_urgent=False))
    await asyncio.sleep(0)
    cancel = asyncio.create_task(send(is_urgent=True))
    await asyncio.sleep(0)
    read.cancel()
    async with asyncio.timeout(10):
        await cancel


@pytest.mark.parametrize("is_urgent", [True, False])
def test_requests_that_meet_a_pause_delay_no_other_endpoint(*, is_urgent: bool, play: Play) -> None:
    """Many wait for those in flight when the first 429 comes. None of them takes a turn in vain."""
    sent = list[str]()

    async def scenario() -> None:
        limiter = RateLimiter(20)

        async def send(endpoint: str) -> None:
            async with limiter.acquire(endpoint, is_urgent=is_urgent) as sent_at:
                sent.append(endpoint)
                await asyncio.sleep(0.01)
                limiter.slow_down(60, sent_at, endpoint)

        refused = [asyncio.create_task(send("runs/cancel")) for _ in range(100)]
        await asyncio.sleep(0.03)
        assert sent == ["runs/cancel"]
        # One of them has had its turn already.
        async with asyncio.timeout(0.2), limiter.acquire("run-now", is_urgent=is_urgent):
            pass
        for task in refused:
            task.cancel()
        await asyncio.gather(*refused, return_exceptions=True)

    play(scenario)
    assert sent == ["runs/cancel"]


async def test_an_endpoint_that_refuses_all_requests_halves_the_rate_once(clock: Clock) -> None:
    """Until it answers one: then a further 429 may be a matter of the rate."""
    limiter = RateLimiter()
    limiter.slow_down(12, sent_at=clock.now, endpoint="runs/list")
    clock.now += 12
    limiter.slow_down(12, sent_at=clock.now, endpoint="runs/list")
    assert limiter.requests_per_second == 10
    async with limiter.acquire("runs/list") as sent_at:
        assert sent_at == 1024
    limiter.slow_down(12, sent_at=clock.now, endpoint="runs/list")
    assert limiter.requests_per_second == pytest.approx(18 / 2, rel=0.01)
