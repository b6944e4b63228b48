"""The rate limiter: spacing, requests in flight, the pause and the slower rate after a 429."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest

from airflow_jobs_provider.triggers.polling import rate_limiter
from airflow_jobs_provider.triggers.polling.rate_limiter import (
    LOWEST_REQUESTS_PER_SECOND,
    REQUESTS_AT_ONCE,
    RateLimiter,
)


async def request(limiter: RateLimiter) -> float:
    """Send nothing, within the limit; return when it was allowed."""
    async with limiter.acquire() as sent_at:
        return sent_at


async def test_requests_are_spaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each one is allowed a period after the one before."""
    monkeypatch.setattr(rate_limiter, "REQUESTS_PER_SECOND", 50.0)
    limiter = RateLimiter()
    sent = sorted(await asyncio.gather(*(request(limiter) for _ in range(6))))
    assert all(later - earlier >= 0.02 for earlier, later in itertools.pairwise(sent))


async def test_requests_in_flight_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than are allowed waits until another one has ended."""
    monkeypatch.setattr(rate_limiter, "REQUESTS_PER_SECOND", 100_000.0)
    limiter = RateLimiter()
    answer, in_flight = asyncio.Event(), 0

    async def slow_request() -> None:
        nonlocal in_flight
        async with limiter.acquire():
            in_flight += 1
            await answer.wait()
            in_flight -= 1

    requests = [asyncio.create_task(slow_request()) for _ in range(REQUESTS_AT_ONCE + 1)]
    await asyncio.wait(requests, timeout=0.1)
    assert in_flight == REQUESTS_AT_ONCE
    answer.set()
    await asyncio.gather(*requests)


async def test_slowing_down_pauses_all_requests() -> None:
    """Nobody may send before the pause is over, whoever got the 429."""
    limiter = RateLimiter()
    refused_at = await request(limiter)
    began = time.monotonic()
    limiter.slow_down(0.3, sent_at=refused_at)
    sent = await asyncio.gather(*(request(limiter) for _ in range(2)))
    assert min(sent) - began >= 0.3


async def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    """Two requests were refused; the later one asked for less."""
    limiter = RateLimiter()
    began = time.monotonic()
    limiter.slow_down(0.3, sent_at=began)
    limiter.slow_down(0.0, sent_at=began)
    assert await request(limiter) - began >= 0.3


async def test_slowing_down_halves_the_rate() -> None:
    """Once for all requests that were sent at the old rate, down to a floor."""
    limiter = RateLimiter()
    full = limiter.requests_per_second
    sent_at = await request(limiter)
    limiter.slow_down(0.0, sent_at=sent_at)
    assert limiter.requests_per_second == full / 2
    limiter.slow_down(0.0, sent_at=sent_at)
    assert limiter.requests_per_second == full / 2
    for _ in range(20):
        limiter.slow_down(0.0, sent_at=time.monotonic())
    assert limiter.requests_per_second == LOWEST_REQUESTS_PER_SECOND


async def test_the_halved_rate_spaces_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come at half the rate after a 429."""
    monkeypatch.setattr(rate_limiter, "REQUESTS_PER_SECOND", 20.0)
    limiter = RateLimiter()
    limiter.slow_down(0.0, sent_at=time.monotonic())
    first, second = await request(limiter), await request(limiter)
    assert second - first >= 0.099


async def test_the_rate_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    """It grows with the time, up to the full one and no further."""
    monkeypatch.setattr(rate_limiter, "RECOVERY_SECONDS", 3.0)
    limiter = RateLimiter()
    full = limiter.requests_per_second
    limiter.slow_down(0.0, sent_at=time.monotonic())
    limiter.slow_down(0.1, sent_at=time.monotonic())
    assert limiter.requests_per_second == full / 4
    await request(limiter)
    assert full / 4 < limiter.requests_per_second < full
    while limiter.requests_per_second < full:
        await request(limiter)
    await request(limiter)
    assert limiter.requests_per_second == full
