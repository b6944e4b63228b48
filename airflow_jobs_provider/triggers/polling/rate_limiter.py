"""The pace at which a host is asked, by all pollers of an event loop together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["REQUESTS_AT_ONCE", "REQUESTS_PER_SECOND", "RateLimiter"]

# Requests a second and under way at once for a host. The published limits are higher, but others
# use the workspace, too. A 429 halves the rate.
REQUESTS_PER_SECOND = 20.0
REQUESTS_AT_ONCE = 8
LOWEST_RATE = 1.0
# How long a rate takes to grow from nothing to the full one: slowly, since on the way there it
# meets the service's limit again.
RECOVERY_SECONDS = 600.0


class RateLimiter:
    """Keeps the requests to one host apart, and stops them all after a 429."""

    def __init__(self) -> None:
        self._next = self._slowed_at = self._grown_at = 0.0
        self._rate = REQUESTS_PER_SECOND
        self._at_once = asyncio.Semaphore(REQUESTS_AT_ONCE)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[float]:
        """Wait for a turn to ask, and hold it while asking; the moment at which it began."""
        async with self._at_once:
            while True:
                now = time.monotonic()
                if now >= self._next:
                    self._next = now + 1 / self._rate
                    break
                await asyncio.sleep(self._next - now)
            yield now
            self._grow()

    def slow_down(self, seconds: float, asked_at: float) -> None:
        """Let nobody ask for so long, and then less often.

        :param asked_at: when the request began that was too much. One that began before the pace
            was slowed down last says nothing new.
        """
        now = time.monotonic()
        self._next = max(self._next, now + seconds)
        if asked_at >= self._slowed_at:
            self._rate = max(LOWEST_RATE, self._rate / 2)
            self._slowed_at = self._grown_at = now

    def _grow(self) -> None:
        now = time.monotonic()
        if self._rate < REQUESTS_PER_SECOND:
            grown = REQUESTS_PER_SECOND * (now - self._grown_at) / RECOVERY_SECONDS
            self._rate = min(REQUESTS_PER_SECOND, self._rate + grown)
        self._grown_at = now
