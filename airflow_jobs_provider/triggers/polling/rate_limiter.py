"""The rate limit for requests to one host, shared by all pollers of an event loop.

To change the pollers' pace, change :data:`REQUESTS_PER_SECOND` and :data:`REQUESTS_AT_ONCE` here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from airflow_jobs_provider.api.retry import seconds_to_wait

__all__ = ["REQUESTS_AT_ONCE", "REQUESTS_PER_SECOND", "RateLimiter"]

# Requests per second, and requests in flight, to one host, without launches. The published limits
# are higher, but others use the workspace, too.
REQUESTS_PER_SECOND = 20.0
REQUESTS_AT_ONCE = 8
# Urgent requests in flight, beside those.
URGENT_AT_ONCE = 12
# After so many urgent requests in a row one other request is sent, if any waits. At the full rate
# these are two a second: as many as the lists of ten thousand runs take.
URGENT_IN_A_ROW = 9
# A 429 halves the rate, down to this many requests per second.
LOWEST_REQUESTS_PER_SECOND = 1.0
# After a 429 and its pause the rate grows to this fraction of the refused rate in so many seconds.
QUICK_FRACTION = 0.9
QUICK_SECONDS = 5.0
# Beyond that it may meet the service's limit again. So it grows by so many requests per second in
# the first minute, four times as much in two minutes, and so on.
SLOW_GROWTH = 1.0


class RateLimiter:
    """Limits the rate of the requests to one host, and pauses those to an endpoint after its 429.

    The service limits each endpoint by itself, and ``Retry-After`` is about the endpoint that was
    asked. So a refused list does not hold back a cancel. All requests become slower after a 429.
    This happens only once if an endpoint refuses one request after the other.

    An urgent request, such as a cancel, does not wait for reads: neither for those that wait for
    their turn, nor for those in flight, which the service may leave without a response. If many
    urgent ones wait, one of ten requests is a read: else a thousand cancels would hold back the
    events of all other runs.

    :param requests_per_second: the full rate; default :data:`REQUESTS_PER_SECOND`.
    :param at_once: requests in flight at most; default :data:`REQUESTS_AT_ONCE`.
    """

    def __init__(
        self, requests_per_second: float | None = None, at_once: int | None = None
    ) -> None:
        self._next_request_at = self._slowed_down_at = 0.0
        # When the pause of each endpoint ends.
        self._paused_until: dict[str, float] = {}
        # The endpoints whose latest answer was a 429.
        self._refused = set[str]()
        # When the pause after the latest 429 ends; None if there was none.
        self._resumed_at: float | None = None
        self._rate = self._full_rate = requests_per_second or REQUESTS_PER_SECOND
        self._refused_rate = self._full_rate
        self._in_flight = asyncio.Semaphore(at_once or REQUESTS_AT_ONCE)
        self._urgent_in_flight = asyncio.Semaphore(URGENT_AT_ONCE)
        self._urgent_turns = asyncio.Lock()
        # Other requests that wait for their turn, and urgent ones since the last of them had it.
        self._waiting = 0
        self._urgent_in_a_row = 0

    @property
    def requests_per_second(self) -> float:
        """The rate at present."""
        return self._rate

    @asynccontextmanager
    async def acquire(self, endpoint: str = "", *, is_urgent: bool = False) -> AsyncIterator[float]:
        """Wait until a request may be sent, and count it as in flight within the context.

        Yields the time at which it was allowed (monotonic clock).

        :param endpoint: the endpoint, such as ``runs/list``. Default: one for all requests.
        :param is_urgent: whether it does not wait for others that are not; default False.
        """
        while True:
            if (pause := self._paused_until.get(endpoint, 0.0) - time.monotonic()) > 0:
                # Not in flight meanwhile: requests to other endpoints are sent.
                await asyncio.sleep(pause)
                continue
            async with self._urgent_in_flight if is_urgent else self._in_flight:
                turn = self._urgent_turn(endpoint) if is_urgent else self._turn(endpoint)
                if (now := await turn) is not None:
                    yield now
                    self._refused.discard(endpoint)
                    self._recover(now)
                    return

    async def _turn(self, endpoint: str) -> float | None:
        """Wait for the time of the next request; return None if the endpoint is paused by then."""
        self._waiting += 1
        try:
            while (now := time.monotonic()) < self._next_request_at:  # noqa: ASYNC110 - it may move
                await asyncio.sleep(self._next_request_at - now)
        finally:
            self._waiting -= 1
            self._urgent_in_a_row = 0
        if self._is_paused(endpoint, now):
            return None
        self._next_request_at = now + 1 / self._rate
        return now

    async def _urgent_turn(self, endpoint: str) -> float | None:
        """Take the time of the next request, so that those that wait for it are sent later.

        Returns None if the endpoint is paused by then.
        """
        # One after the other: a pause may begin, and times that are taken delay other endpoints.
        async with self._urgent_turns:
            # Until another request has had its turn: it waits for the same time.
            while self._waiting and self._urgent_in_a_row >= URGENT_IN_A_ROW:  # noqa: ASYNC110
                await asyncio.sleep(max(0.0, self._next_request_at - time.monotonic()))
            self._urgent_in_a_row += 1
            now = time.monotonic()
            if self._is_paused(endpoint, now):
                return None
            turn = max(now, self._next_request_at)
            self._next_request_at = turn + 1 / self._rate
            if turn > now:
                await asyncio.sleep(turn - now)
        return None if self._is_paused(endpoint, turn) else turn

    def _is_paused(self, endpoint: str, now: float) -> bool:
        return now < self._paused_until.get(endpoint, 0.0)

    def slow_down(self, seconds: float, sent_at: float, endpoint: str = "") -> None:
        """Pause the requests to an endpoint, and halve the rate of all requests.

        The rate stays as it is if the latest answer of the endpoint was a 429, too.

        :param seconds: length of the pause.
        :param sent_at: when the refused request was sent (monotonic clock). The rate stays as it is
            if that was before it was halved last: the request tells nothing about the new rate.
        :param endpoint: the endpoint that refused it, as for :meth:`acquire`.
        """
        now = time.monotonic()
        paused_until = max(self._paused_until.get(endpoint, 0.0), now + seconds_to_wait(seconds))
        self._paused_until[endpoint] = paused_until
        if endpoint in self._refused:
            # It has answered nothing else since the rate was halved: that is no matter of the rate.
            return
        if endpoint:
            self._refused.add(endpoint)
        if sent_at >= self._slowed_down_at:
            lowest = min(LOWEST_REQUESTS_PER_SECOND, self._full_rate)
            self._refused_rate = self._rate
            self._rate = max(lowest, self._rate / 2)
            self._slowed_down_at = now
        # Not the end of a longer pause of another endpoint: what is sent meanwhile is not refused.
        self._resumed_at = paused_until

    def _recover(self, sent_at: float) -> None:
        """Raise the rate again, since a request was answered.

        :param sent_at: when it was sent (monotonic clock).
        """
        if self._resumed_at is None:
            return
        if sent_at >= self._slowed_down_at:
            # What another endpoint answers during a pause shows that this rate is allowed.
            self._resumed_at = min(self._resumed_at, sent_at)
        seconds = max(0.0, time.monotonic() - self._resumed_at)
        quick = (QUICK_FRACTION - 0.5) * min(1.0, seconds / QUICK_SECONDS)
        slow = SLOW_GROWTH * (max(0.0, seconds - QUICK_SECONDS) / 60) ** 2
        rate = self._refused_rate * (0.5 + quick) + slow
        self._rate = min(self._full_rate, max(self._rate, rate))
