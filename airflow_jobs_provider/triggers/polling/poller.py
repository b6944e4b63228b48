"""One poller for all runs that are waited for on a workspace in this event loop.

A thousand triggers that each ask for their own run are a thousand requests a poll. Here each joins
the poller of its connection, and the poller reads lists of runs (:mod:`.run_lists`), a page of
which tells a thousand, whenever that costs less than asking for the due runs one by one; it knows
from what it measured before. Whoever waits gets the run as it was read, and only then: being
missing from a list means nothing, a run is asked for by its id before anything is concluded.

Each waiter's polling period is kept: a run is read at least that often, as long as the service
answers and its limits allow. Requests are paced (:mod:`.rate_limiter`), below the service's
limits, for all pollers of a host together. Trouble slows all of them down together, too, and is
one line in the log when it starts and one when it ends. A run that alone cannot be read while
others can, such as one that the user may not see, is its own waiters' trouble; a list that does
not work is nobody's.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_jobs_provider.api.endpoints import get_run
from airflow_jobs_provider.api.errors import (
    AuthenticationError,
    BadRequestError,
    ConflictError,
    JobsAPIError,
    RateLimitError,
    ResponseLostError,
    ServerError,
    UnexpectedResponseError,
)
from airflow_jobs_provider.api.responses import InvalidResponseError, parse_run, parse_states
from airflow_jobs_provider.api.retry import RetryPolicy, async_sleep
from airflow_jobs_provider.api.workflows.base import OnEvent, Workflow, run_workflow_async
from airflow_jobs_provider.triggers.polling.outages import ServiceOutage, UnreadableRuns
from airflow_jobs_provider.triggers.polling.rate_limiter import REQUESTS_AT_ONCE, RateLimiter
from airflow_jobs_provider.triggers.polling.run_lists import (
    PageTimeoutError,
    RunLists,
    is_whole,
    page_deadline,
)
from airflow_jobs_provider.triggers.polling.slow_reads import SlowReads
from airflow_jobs_provider.triggers.polling.waiters import Waiter, Waiters, without_details

if TYPE_CHECKING:
    from airflow_jobs_provider.api.client import AsyncJobsClient
    from airflow_jobs_provider.api.endpoints import Call, Page
    from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook

__all__ = ["RunPoller"]

Run = dict[str, Any]
T = TypeVar("T")
Turn = Callable[[], AbstractAsyncContextManager[Any]]
log = logging.getLogger(__name__)

# A waiter that is due so soon, as a part of its period, is read along with those that are due now,
# where lists are read.
EARLY = 0.25
# Waiters woken at once, before the loop has its turn.
WAKE_AT_ONCE = 50
# How long a poller without waiters keeps its connections.
LINGER_SECONDS = 30.0
# A waiter hears of a run that does not change after so long, for a sign of life in its log.
SIGN_OF_LIFE_SECONDS = 600.0
# Trouble that is over so soon does not start a list over.
PASSING_TROUBLE_SECONDS = 60.0
# After a refusal or an odd answer a list gets one more try, so much later.
SECOND_TRY_SECONDS = 1.0
# What may be wrong with one run, or one list, while all others can be read.
_ODD = (AuthenticationError, UnexpectedResponseError)
_OF_ONE_THING = (*_ODD, ResponseLostError, ServerError, ConflictError)
_ONE_TRY = RetryPolicy(max_attempts=1)


class RunPoller:
    """Reads the runs that are waited for with one connection; made by :func:`.registry.poller_of`.

    :param hook: hook of the connection.
    :param paces: of the hosts that this event loop asks; the host's is shared with its other
        pollers.
    :param on_idle: told, perhaps more than once, when the poller takes no more waiters: after a
        while without any, or when it cannot go on.
    """

    def __init__(
        self, hook: DatabricksJobsHook, paces: dict[str, RateLimiter], on_idle: Callable[[], None]
    ) -> None:
        self._hook = hook
        self._paces = paces
        self._rate_limiter = RateLimiter()
        self._on_idle = on_idle
        self._waiters = Waiters()
        # Workflows and calls under way: who is between two looks still counts on this poller.
        self._users = 0
        self._broke: Exception | None = None
        self._joined = asyncio.Event()
        self._planned = float("inf")
        self._client: asyncio.Future[AsyncJobsClient] = asyncio.get_running_loop().create_future()
        self._retries = hook.retry_policy().without_deadline()
        self._cycle_seconds = self._paused = 0.0
        self._cannot_keep_up = False
        self._outage = ServiceOutage()
        self._unreadable_runs = UnreadableRuns()
        self._slow_reads = SlowReads()
        self._latest_read: deque[int] = deque(maxlen=20)
        # A context of its own: the first waiter's would have the poller's log lines in its task's.
        self._task = asyncio.get_running_loop().create_task(
            self._run(), context=contextvars.Context()
        )

    # -- for waiters ---------------------------------------------------------------------------

    async def next_change(
        self,
        run_id: int,
        *,
        period: float,
        known: Mapping[str, Any] | None = None,
        at_the_latest: float | None = None,
        first: bool = True,
    ) -> Run:
        """Return the run, read from now on, as soon as its states are not the known ones.

        :param run_id: the run.
        :param period: seconds within which the run is to be read, again and again.
        :param known: the run as last seen; None returns the first reading.
        :param at_the_latest: seconds after which a reading is returned though nothing changed.
        :param first: whether it is the caller's first wait, which may be shorter than the period.
        :raises JobsAPIError: the run cannot be read, now or ever.
        """
        if self._broke is not None:
            raise self._broke
        now = time.monotonic()
        waiter = Waiter(
            run_id=run_id,
            period=period,
            # Not all at the same moment: runs deferred together would be read together.
            due=now + period * (random.uniform(0.8, 1.0) if first else 1.0),  # noqa: S311
            wake_at=float("inf") if at_the_latest is None else now + at_the_latest,
            known=None if known is None else parse_states(dict(known)),
            future=asyncio.get_running_loop().create_future(),
        )
        self._waiters.join(waiter)
        if waiter.due < self._planned:
            self._joined.set()
        try:
            return await waiter.future
        finally:
            if not self._waiters.leave(waiter):
                self._unreadable_runs.forget(run_id)

    async def run(
        self,
        steps: Workflow[T],
        *,
        period: float,
        life_cycle_state: str | None = None,
        wake_each_time: bool = False,
        on_event: OnEvent = lambda _event: None,
    ) -> T:
        """Execute a workflow as a client does, but take its reads of runs from the poller's.

        :param steps: the workflow, such as
            :func:`~airflow_jobs_provider.api.workflows.follow.follow_run`.
        :param period: seconds within which a run is to be read for the first time.
        :param life_cycle_state: the first run's, where it is known; default None.
        :param wake_each_time: resume the workflow with each reading, not only with those that have
            another state; default False.
        :param on_event: called with each event of the workflow.
        """
        known: Run | None = None
        if life_cycle_state is not None:
            known = {"state": {"life_cycle_state": life_cycle_state}}
        wait = 0.0

        async def read(run_id: int) -> Run:
            nonlocal known
            if known is not None and known.get("run_id", run_id) != run_id:
                known = None
            run = await self.next_change(
                run_id,
                period=wait or period,
                known=None if wake_each_time else known,
                at_the_latest=SIGN_OF_LIFE_SECONDS,
                first=not wait,
            )
            known = without_details(run)
            return known

        async def send(call: Call[Any]) -> Any:
            nonlocal wait
            try:
                if call.path == "runs/get" and call.parameters.keys() == {"run_id"}:
                    return await read(int(call.parameters["run_id"]))
                await asyncio.sleep(wait)
                return await self.send(call)
            finally:
                wait = 0.0

        async def wait_before_next_call(seconds: float) -> None:
            # A read of a run waits for the poller's next change instead of for the time.
            nonlocal wait
            wait = seconds

        with self._in_use():
            return await run_workflow_async(
                steps, send=send, wait=wait_before_next_call, on_event=on_event
            )

    async def send(
        self, call: Call[T], *, without_deadline: bool = True, retries: RetryPolicy | None = None
    ) -> T:
        """Send another call through the poller's client and rate limiter.

        :param call: what to ask.
        :param without_deadline: wait out any outage, as for what is known to be there; default
            True.
        :param retries: a policy for this call only, in place of that.
        """
        with self._in_use():
            client = await asyncio.shield(self._client)
            # A turn for each try: whoever held one while waiting would hold up all others.
            if retries is None and without_deadline:
                retries = self._retries
            return await client.send(call, retries=retries, rate_limit=self._turn)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1

    # -- the loop ------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            async with self._hook.async_client() as client:
                self._rate_limiter = self._paces.setdefault(client.host, self._rate_limiter)
                self._client.set_result(client)
                lists = RunLists(client, lambda call: self._ask_page(client, call))
                while await self._is_needed():
                    await self._sleep_until_due()
                    await self._cycle(client, lists)
                # Before anything is awaited: who comes now gets another poller.
                self._on_idle()
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            self._on_idle()
            self._broke = error
            if not self._client.done():
                self._client.set_exception(error)
                self._client.exception()
            await self._waiters.fail_all(error)
        finally:
            self._slow_reads.cancel()
            self._on_idle()

    async def _is_needed(self) -> bool:
        """Wait for a waiter; False where none comes for a while and nobody else counts on this."""
        while not self._waiters:
            self._planned = float("inf")
            self._joined.clear()
            try:
                async with asyncio.timeout(LINGER_SECONDS):
                    await self._joined.wait()
            except TimeoutError:
                if not self._users:
                    return bool(self._waiters)
        return True

    async def _sleep_until_due(self) -> None:
        while self._waiters:
            self._planned = self._waiters.next_due()
            wait = self._planned - time.monotonic()
            if wait <= 0:
                return
            self._joined.clear()
            try:
                # Somebody who joins may be due earlier.
                async with asyncio.timeout(wait):
                    await self._joined.wait()
                # Many join at once; the smallest period is looked for once for all of them.
                await asyncio.sleep(min(wait, 0.05))
            except TimeoutError:
                return

    async def _cycle(self, client: AsyncJobsClient, lists: RunLists) -> None:
        now = time.monotonic()
        due = self._due_runs(now, early=EARLY)
        if not due:
            return
        self._paused = 0.0
        failed_list: JobsAPIError | None = None
        try:
            if lists.are_cheaper_than(len(due)):
                try:
                    due = await lists.read(due, self._waiters.run_ids(), self._publish)
                except _OF_ONE_THING as error:
                    failed_list = error
                    due = self._due_runs(now)
            else:
                # Each for itself, when it is due and no earlier: to be early saves nothing.
                due = self._due_runs(now)
            await self._read_one_by_one(client, due)
            if failed_list is not None and due:
                lists.do_not_work(failed_list)
        except JobsAPIError as error:
            if not await self._wait_out(client, error):
                await self._waiters.fail_all(error)
        else:
            if not due or self._slow_reads.some_ended:
                self._outage.record_success()
            self._cycle_seconds = time.monotonic() - now - self._paused
            self._note_pace()

    def _due_runs(self, now: float, *, early: float = 0.0) -> set[int]:
        """Return the runs to be read now, or so early as a part of their period."""
        not_before = self._unreadable_runs.again_at() | self._slow_reads.again_at()
        return self._waiters.due_runs(now, early=early, not_before=not_before)

    def _note_pace(self) -> None:
        """Say once that the polling periods cannot be kept, where they cannot."""
        if self._cannot_keep_up or not self._waiters:
            return
        shortest = self._waiters.shortest_period()
        if self._cycle_seconds > max(shortest, 1.0):
            self._cannot_keep_up = True
            log.warning(
                "Reading the %d runs that are waited for took %.0f s, as fast as the service's "
                "pages and limits allow: longer than the shortest polling period, %g s. "
                "The runs are read one after the other, as often as that can be done.",
                len(self._waiters),
                self._cycle_seconds,
                shortest,
            )

    async def _wait_out(self, client: AsyncJobsClient, error: JobsAPIError) -> bool:
        """Wait before the next try, for all waiters together; False where waiting will not help."""
        now = time.monotonic()
        self._outage.record_failure(error, len(self._waiters))
        seconds = self._retries.wait_seconds(error, self._outage.failures)
        if not self._retries.should_retry(error, self._outage.in_a_row, seconds):
            return False
        await async_sleep(seconds)
        if not isinstance(error, RateLimitError):
            self._paused += time.monotonic() - now
        if isinstance(error, AuthenticationError):
            await client.renew_credentials()
        return True

    # -- reading -------------------------------------------------------------------------------

    async def _ask(
        self, client: AsyncJobsClient, call: Call[T], rate_limit: Turn | None = None
    ) -> T:
        """Send a call when it is its turn, once."""
        return await client.send(call, retries=_ONE_TRY, rate_limit=rate_limit or self._turn)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Hold a turn for one try; a 429 slows down whoever else waits for a turn."""
        began = 0.0
        try:
            async with self._rate_limiter.acquire() as began:
                yield
        except RateLimitError as error:
            seconds = self._retries.wait_seconds(error, self._outage.failures + 1)
            self._rate_limiter.slow_down(seconds, asked_at=began)
            raise

    @asynccontextmanager
    async def _turn_for_page(self) -> AsyncIterator[None]:
        async with self._turn(), page_deadline():
            yield

    async def _ask_page(self, client: AsyncJobsClient, call: Call[Page[Run]]) -> Page[Run]:
        """Read a page of a list, again after trouble that passes: the pages before stay read."""
        had_second_try = False
        while True:
            try:
                page = await self._ask(client, call, self._turn_for_page)
            except PageTimeoutError:
                # All wait for it, so it has no second try.
                raise
            except _ODD as error:
                # Not all are to wait for long: where a list does not work, runs may.
                if had_second_try or not self._waiters:
                    raise
                had_second_try = True
                await async_sleep(SECOND_TRY_SECONDS)
                if isinstance(error, AuthenticationError):
                    await client.renew_credentials()
            except JobsAPIError as error:
                passes = self._retries.backoff_for(error, idempotent=True) is not None and (
                    isinstance(error, RateLimitError)
                    or self._outage.seconds < PASSING_TROUBLE_SECONDS
                )
                if not passes or not self._waiters or not await self._wait_out(client, error):
                    raise
            else:
                self._outage.record_success()
                return page

    async def _read_one_by_one(self, client: AsyncJobsClient, run_ids: Iterable[int]) -> None:
        # In portions, so that trouble stops the rest; who has waited longest comes first.
        pending = sorted(run_ids, key=self._waiters.due_of)
        for start in range(0, len(pending), REQUESTS_AT_ONCE):
            portion = pending[start : start + REQUESTS_AT_ONCE]
            results = await self._slow_reads.read(portion, lambda id_: self._read(client, id_))
            failed: dict[int, JobsAPIError] = {}
            for run_id, result in results.items():
                if isinstance(result, _OF_ONE_THING):
                    failed[run_id] = result
                elif isinstance(result, BaseException):
                    raise result
            if failed:
                # Who answers in JSON, if with something that does not fit, is in no trouble.
                answered = True in results.values() or any(map(_does_not_fit, failed.values()))
                if not answered and not await self._another_can_be_read(client, failed):
                    raise next(iter(failed.values()))
                for run_id, error in self._unreadable_runs.record_failure(
                    failed, self._retries
                ).items():
                    self._waiters.fail(run_id, error)

    async def _read(self, client: AsyncJobsClient, run_id: int) -> bool:
        """Read a run; whether the service answered for it."""
        if run_id not in self._waiters:
            return False
        try:
            run = await self._ask(client, get_run(run_id))
            self._note_reading(run_id)
            # By the id that was asked for, whatever the run says.
            now, states = time.monotonic(), parse_states(run)
            self._waiters.give(run_id, run, states, now, lambda period: period)
        except BadRequestError as error:
            # Of this run only: deleted, or older than the service remembers.
            if self._retries.backoff_for(error, idempotent=True) is not None:
                raise
            self._waiters.fail(run_id, error)
        return True

    async def _another_can_be_read(
        self, client: AsyncJobsClient, failed: Mapping[int, JobsAPIError]
    ) -> bool:
        """Read one of the other runs, to tell trouble of some runs from the service's."""
        others = [
            run_id
            for run_id in (*reversed(self._latest_read), *self._waiters.run_ids())
            if run_id in self._waiters
            and run_id not in failed
            and run_id not in self._unreadable_runs
        ]
        try:
            return bool(others) and await self._read(client, others[0])
        except _OF_ONE_THING:
            return False

    # -- telling -------------------------------------------------------------------------------

    async def _publish(self, runs: Iterable[Run]) -> set[int]:
        """Give the runs of a list to those who wait for them; return the ids of those given.

        A run of which the list does not tell enough, or what does not fit, is not given to anybody:
        it is asked for by its id.
        """
        now = time.monotonic()
        # Ten triggerers that were started together do not ask together for long.
        part = random.uniform(0.85, 0.97)  # noqa: S311

        def wait(period: float) -> float:
            # Who is read last in a cycle is to be read in time, too; but a service that takes
            # long is not asked the more often for it.
            return max(period * part - self._cycle_seconds, period * 0.7)

        self._retries = self._retries.with_known_host()
        told: set[int] = set()
        woken = 0
        for run in runs:
            run_id = run["run_id"]
            if run_id not in self._waiters:
                continue
            try:
                states = parse_states(run)
                # All of it is checked only where somebody gets it: pages have a thousand runs.
                if self._waiters.want(run_id, states, now) and not is_whole(parse_run(run)):
                    continue
            except InvalidResponseError:
                continue
            told.add(run_id)
            self._note_reading(run_id)
            woken += self._waiters.give(run_id, run, states, now, wait)
            if woken >= WAKE_AT_ONCE:
                woken = 0
                await asyncio.sleep(0)
        return told

    def _note_reading(self, run_id: int) -> None:
        self._retries = self._retries.with_known_host()
        self._latest_read.append(run_id)
        self._unreadable_runs.record_success(run_id)


def _does_not_fit(error: JobsAPIError) -> bool:
    return isinstance(error, UnexpectedResponseError) and error.does_not_fit
