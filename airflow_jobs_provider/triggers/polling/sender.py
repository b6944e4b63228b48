"""Sending the requests of a poller: through one client, within the rate limit, through outages."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_jobs_provider.api.errors import (
    AuthenticationError,
    JobsAPIError,
    RateLimitError,
    TokenRefusedError,
)
from airflow_jobs_provider.api.retry import RetryPolicy, async_sleep
from airflow_jobs_provider.triggers.polling.outages import ServiceOutage

if TYPE_CHECKING:
    from airflow_jobs_provider.api.calls import Call
    from airflow_jobs_provider.api.client import AsyncJobsClient
    from airflow_jobs_provider.triggers.polling.rate_limiter import RateLimiter

__all__ = ["Sender"]

T = TypeVar("T")
RateLimit = Callable[[], AbstractAsyncContextManager[Any]]

_ONE_TRY = RetryPolicy(max_attempts=1)


class Sender:
    """Sends calls through one client and one rate limiter.

    :param client: client of the workspace.
    :param rate_limiter: limiter of its host.
    :param retries: retry policy for polling.

    :ivar retries: the same; after the first answer an answer that is not the API's is an outage.
    :ivar outage: whether the service answers the poller's own requests.
    :ivar outage_seconds: how long :meth:`wait_out` has waited in outages other than a 429.
    """

    def __init__(
        self, client: AsyncJobsClient, rate_limiter: RateLimiter, retries: RetryPolicy
    ) -> None:
        self.client = client
        self.retries = retries
        self.outage = ServiceOutage()
        self.outage_seconds = 0.0
        self._rate_limiter = rate_limiter

    async def send(self, call: Call[T], retries: RetryPolicy | None = None) -> T:
        """Send a call, with retries.

        :param call: what to send.
        :param retries: when to try again; default the client's policy.
        """
        # Each try is within the limit by itself: a wait between two of them delays no other call.
        return await self.client.send(call, retries=retries, rate_limit=self.rate_limit)

    async def send_once(self, call: Call[T], rate_limit: RateLimit | None = None) -> T:
        """Send a call without retries.

        :param call: what to send.
        :param rate_limit: what to send it within; default :meth:`rate_limit`.
        """
        return await self.client.send(
            call, retries=_ONE_TRY, rate_limit=rate_limit or self.rate_limit
        )

    @asynccontextmanager
    async def rate_limit(self) -> AsyncIterator[None]:
        """Wait until a request may be sent. A 429 within the context slows down all pollers."""
        sent_at = 0.0
        try:
            async with self._rate_limiter.acquire() as sent_at:
                yield
        except RateLimitError as error:
            seconds = self.retries.wait_seconds(error, self.outage.failures + 1)
            self._rate_limiter.slow_down(seconds, sent_at=sent_at)
            raise

    async def wait_out(self, error: JobsAPIError, runs: int) -> bool:
        """Wait before the next try, for all runs together.

        :param error: why the latest try failed.
        :param runs: the number of runs that are waited for.
        :returns: False, without a wait, if another try cannot help.
        """
        began = time.monotonic()
        self.outage.record_failure(error, runs)
        seconds = self.retries.wait_seconds(error, self.outage.failures)
        if not self.retries.should_retry(error, self.outage.consecutive, seconds):
            return False
        await async_sleep(seconds)
        if not isinstance(error, RateLimitError):
            self.outage_seconds += time.monotonic() - began
        await self.renew_credentials(error)
        return True

    async def renew_credentials(self, error: JobsAPIError) -> None:
        """Take fresh credentials, if the error says that the present ones were refused."""
        if isinstance(error, (AuthenticationError, TokenRefusedError)):
            await self.client.renew_credentials()

    def record_answer(self) -> None:
        """Record that the API has answered at this address."""
        self.retries = self.retries.with_known_host()
