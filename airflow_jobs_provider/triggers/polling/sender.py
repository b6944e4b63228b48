"""Sending the requests of a poller: through one client, within the rate limit, through outages."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_jobs_provider.api.attempts import ignore_attempt
from airflow_jobs_provider.api.errors import (
    AuthenticationError,
    JobsAPIError,
    RateLimitError,
    TokenRefusedError,
)
from airflow_jobs_provider.api.retry import RetryPolicy, async_sleep, skipped_seconds
from airflow_jobs_provider.triggers.polling.outages import ServiceOutage

if TYPE_CHECKING:
    from airflow_jobs_provider.api.attempts import OnAttempt
    from airflow_jobs_provider.api.calls import Call
    from airflow_jobs_provider.api.client import AsyncJobsClient
    from airflow_jobs_provider.metrics import ConnectionMetrics, PollerMetrics
    from airflow_jobs_provider.triggers.polling.launch_limiter import LaunchLimiter
    from airflow_jobs_provider.triggers.polling.rate_limiter import RateLimiter

__all__ = ["BeforeLaunch", "Sender"]

T = TypeVar("T")
RateLimit = Callable[[], AbstractAsyncContextManager[Any]]
BeforeLaunch = Callable[[], Awaitable[None]]

_ONE_TRY = RetryPolicy(max_attempts=1)
# A turn that comes at once takes this long at most.
_SHORTEST_WAIT_SECONDS = 0.001


class Sender:
    """Sends calls through one client and the rate limiters of its host.

    :param client: client of the workspace.
    :param rate_limiter: limiter of all requests but launches.
    :param retries: retry policy for polling.
    :param launch_limiters: limiters of launches, by the path of their endpoint. The service's
        limits for them are lower than for other requests.
    :param metrics: what metrics are sent through; default None: Airflow sends none.
    :param followed: what is followed with the requests, for the log; default ``runs``.

    :ivar retries: the same; after the first answer an answer that is not the API's is an outage.
    :ivar metrics: the same.
    :ivar outage: whether the service answers the poller's own requests.
    :ivar outage_seconds: how long :meth:`wait_out` has waited in outages other than a 429, with all
        else within :meth:`counted_as_outage`. What happens at the same time counts once.
    """

    def __init__(
        self,
        client: AsyncJobsClient,
        rate_limiter: RateLimiter,
        retries: RetryPolicy,
        launch_limiters: Mapping[str, LaunchLimiter],
        metrics: PollerMetrics | None = None,
        *,
        followed: str = "runs",
    ) -> None:
        self.client = client
        self.retries = retries
        self.metrics = metrics
        on_outage_end = None if metrics is None else functools.partial(metrics.outage_ended, self)
        self.outage = ServiceOutage(on_outage_end, followed)
        self.outage_seconds = 0.0
        self._next_try_at = 0.0
        # The waits in such outages that are going on, and when the first of them began.
        self._outage_waits = 0
        self._outage_waits_began = 0.0
        self._rate_limiter = rate_limiter
        self._launch_limiters = launch_limiters

    def for_watchers(self) -> Sender:
        """Return a sender with the same client and limits, and with outages of its own.

        What cannot be read for watchers says nothing about the runs that are waited for.
        """
        return Sender(
            self.client,
            self._rate_limiter,
            self.retries,
            self._launch_limiters,
            self.metrics,
            followed="watchers",
        )

    async def send(
        self,
        call: Call[T],
        retries: RetryPolicy | None = None,
        *,
        dag_id: str = "",
        is_urgent: bool = False,
        before_launch: BeforeLaunch | None = None,
        on_attempt: OnAttempt = ignore_attempt,
    ) -> T:
        """Send a call, with retries. A launch waits for its turn.

        All but reads are urgent: they do not wait for reads, which may stay without a response.

        :param call: what to send.
        :param retries: when to try again; default the client's policy.
        :param dag_id: the DAG that launches a run. DAGs launch in turn. Default: one for all.
        :param is_urgent: whether a read is urgent, too; default False.
        :param before_launch: awaited before each attempt to send a launch, once that has its turn.
            What it raises is raised, and nothing is sent. Default: nothing.
        :param on_attempt: called before and after each attempt, see :meth:`AsyncJobsClient.send`.
        """
        rate_limit: RateLimit = functools.partial(
            self.rate_limit, call.name, is_urgent=is_urgent or call.verb != "GET"
        )
        if (launches := self._launch_limiters.get(call.path)) is not None:
            rate_limit = functools.partial(self._launch_rate_limit, launches, dag_id, before_launch)
        outage = None if self.metrics is None else _CallOutage(self.metrics, on_attempt)
        try:
            # Each try is within the limit by itself: a wait between two of them delays no other
            # call.
            return await self.client.send(
                call, retries=retries, rate_limit=rate_limit, on_attempt=outage or on_attempt
            )
        finally:
            if outage is not None:
                outage.end()

    async def send_once(self, call: Call[T], rate_limit: RateLimit | None = None) -> T:
        """Send a call without retries.

        :param call: what to send.
        :param rate_limit: what to send it within; default :meth:`rate_limit` of its endpoint.
        """
        rate_limit = rate_limit or functools.partial(self.rate_limit, call.name)
        return await self.client.send(call, retries=_ONE_TRY, rate_limit=rate_limit)

    @asynccontextmanager
    async def rate_limit(self, endpoint: str, *, is_urgent: bool = False) -> AsyncIterator[None]:
        """Wait until a request may be sent.

        A 429 within the context slows down all pollers, and pauses what they send to the endpoint.

        :param endpoint: the endpoint, such as ``runs/list``.
        :param is_urgent: see :meth:`.RateLimiter.acquire`.
        """
        limiter = self._rate_limiter
        turn = self._timed("requests", limiter.acquire(endpoint, is_urgent=is_urgent))
        slow_down = functools.partial(limiter.slow_down, endpoint=endpoint)
        async with _slowed_by_429(slow_down, turn, self._pause):
            yield

    @asynccontextmanager
    async def _launch_rate_limit(
        self, launches: LaunchLimiter, dag_id: str, before_launch: BeforeLaunch | None
    ) -> AsyncIterator[None]:
        """Wait until a launch may be sent. A 429 within the context slows down those that follow.

        It slows down neither the pollers nor other launches: the service limits each endpoint by
        itself. So launches do not count among the requests of the pollers, either: a thousand
        launches would delay the reads of runs that have ended by a minute.
        """
        turn = self._timed("launches", launches.acquire(dag_id))
        async with _slowed_by_429(launches.slow_down, turn, self._pause):
            if before_launch is not None:
                await before_launch()
            yield

    def _timed(
        self, limit: str, turn: AbstractAsyncContextManager[float]
    ) -> AbstractAsyncContextManager[float]:
        """Return a limiter's context; the time that it waits is recorded if there are metrics."""
        return turn if self.metrics is None else _recorded(turn, limit, self.metrics.connection)

    def _pause(self, error: RateLimitError) -> float:
        return self.retries.wait_seconds(error, self.outage.failures + 1)

    async def wait_out(self, error: JobsAPIError, runs: int) -> bool:
        """Wait before the next try, for all runs together.

        :param error: why the latest try failed.
        :param runs: the number of runs that are waited for.
        :returns: False, without a wait, if another try cannot help.
        """
        now = time.monotonic() + skipped_seconds()
        # What fails before the next try was sent at the same time: the waits do not grow for it.
        is_further = now >= self._next_try_at
        self.outage.record_failure(error, runs, is_further=is_further)
        seconds = self.retries.wait_seconds(error, self.outage.failures)
        if not self.retries.should_retry(error, self.outage.consecutive, seconds):
            return False
        if is_further:
            self._next_try_at = now + seconds
        if self.metrics is not None:
            seconds_out = 0.0 if self.outage.is_rate_limit else self.outage.seconds
            self.metrics.poll_failed(self, seconds_out)
        with nullcontext() if isinstance(error, RateLimitError) else self.counted_as_outage():
            await async_sleep(seconds)
        await self.renew_credentials(error)
        return True

    @contextmanager
    def counted_as_outage(self) -> Iterator[None]:
        """Add the time within the context to ``outage_seconds``."""
        if not self._outage_waits:
            self._outage_waits_began = time.monotonic()
        self._outage_waits += 1
        try:
            yield
        finally:
            self._outage_waits -= 1
            if not self._outage_waits:
                self.outage_seconds += time.monotonic() - self._outage_waits_began

    async def renew_credentials(self, error: JobsAPIError) -> None:
        """Take fresh credentials, if the error says that the present ones were refused."""
        if isinstance(error, (AuthenticationError, TokenRefusedError)):
            await self.client.renew_credentials(error)

    def forget_outage(self) -> None:
        """Forget an outage, also in the metrics: nothing is followed any more."""
        self.outage.forget()
        if self.metrics is not None:
            self.metrics.forget_outage(self)

    def record_answer(self) -> None:
        """Record that the API has answered at this address."""
        self.retries = self.retries.with_known_host()


class _CallOutage:
    """Records the outage that one call waits out. It is the call's ``on_attempt``.

    :param metrics: what it is sent through.
    :param on_attempt: what is called as well.
    """

    def __init__(self, metrics: PollerMetrics, on_attempt: OnAttempt) -> None:
        self._metrics = metrics
        self._on_attempt = on_attempt
        self._since: float | None = None

    def __call__(self, call: Call[Any], error: JobsAPIError | None) -> None:
        """Record an attempt that failed. A rate limit is no outage."""
        self._on_attempt(call, error)
        if error is not None and not isinstance(error, RateLimitError):
            now = time.monotonic()
            self._since = now if self._since is None else self._since
            self._metrics.call_failed(self, now - self._since)

    def end(self) -> None:
        """Record that the call was answered, or given up."""
        if self._since is not None:
            self._metrics.forget_outage(self)


@asynccontextmanager
async def _recorded(
    turn: AbstractAsyncContextManager[float], limit: str, metrics: ConnectionMetrics
) -> AsyncIterator[float]:
    began = time.monotonic()
    async with turn as sent_at:
        waited = time.monotonic() - began
        if waited >= _SHORTEST_WAIT_SECONDS:
            metrics.rate_limited(limit, waited)
        yield sent_at


@asynccontextmanager
async def _slowed_by_429(
    slow_down: Callable[[float, float], None],
    turn: AbstractAsyncContextManager[float],
    pause: Callable[[RateLimitError], float],
) -> AsyncIterator[None]:
    """Enter a limiter's context, and slow the limiter down after a 429 within it.

    :param slow_down: slows the limiter down; takes the seconds to pause, and when the refused
        request was sent.
    :param turn: its context.
    :param pause: returns the seconds to pause after a 429.
    """
    sent_at = 0.0
    try:
        async with turn as sent_at:
            yield
    except RateLimitError as error:
        slow_down(pause(error), sent_at)
        raise
