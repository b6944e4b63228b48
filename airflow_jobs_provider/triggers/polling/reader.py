"""Reading the runs that are due: from lists where that costs less, else each by its id.

Lists may fail while single runs can be read. Then the due runs are read by their ids, the longest
due first, within the rate limit, and only until the lists are read again:

* A page that is awaited for longer than :data:`SLOW_PAGE_SECONDS`, because of a Retry-After, a 5xx
  or a response that does not come: until it has come, or was given up.
* A list that failed: for a polling period, then until :meth:`.RunLists.suspend` is over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

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
from airflow_jobs_provider.triggers.polling.list_pages import ListPageReader
from airflow_jobs_provider.triggers.polling.publisher import Publisher
from airflow_jobs_provider.triggers.polling.rate_limiter import REQUESTS_AT_ONCE
from airflow_jobs_provider.triggers.polling.run_changes import SHORTEST_SECONDS
from airflow_jobs_provider.triggers.polling.run_lists import RunLists
from airflow_jobs_provider.triggers.polling.slow_reads import SlowReads

if TYPE_CHECKING:
    from airflow_jobs_provider.api.calls import Call, Page
    from airflow_jobs_provider.api.schema.types import Run
    from airflow_jobs_provider.triggers.polling.outages import UnreadableRuns
    from airflow_jobs_provider.triggers.polling.sender import Sender
    from airflow_jobs_provider.triggers.polling.waiters import Waiters

__all__ = ["RunReader"]

log = logging.getLogger(__name__)

# Where lists are read, a run that is due this soon, as a fraction of its period, is read with them.
EARLY_FRACTION = 0.25
# A page that is awaited for longer delays no events: the due runs are read by their ids meanwhile.
SLOW_PAGE_SECONDS = 10.0
# How long nothing is read meanwhile, at most, though no run is due: one may be added.
IDLE_SECONDS = 1.0
# Errors that may concern one run, or one list, while all others can be read.
_MAY_CONCERN_ONE = (
    AuthenticationError,
    UnexpectedResponseError,
    ResponseLostError,
    ServerError,
    ConflictError,
)


class RunReader:
    """Reads the due runs of a poller and publishes them.

    :param waiters: the waiters for runs.
    :param sender: sends the requests.
    :param unreadable_runs: the runs that cannot be read while others can.
    """

    def __init__(self, waiters: Waiters, sender: Sender, unreadable_runs: UnreadableRuns) -> None:
        self._waiters = waiters
        self._sender = sender
        self._unreadable_runs = unreadable_runs
        self._publisher = Publisher(waiters, sender, unreadable_runs)
        self._slow_reads = SlowReads()
        self._pages = ListPageReader(sender, waiting_runs=lambda: len(waiters))
        self._lists = RunLists(sender.client, self._read_page, waiters.needed_part)
        self._awaited_pages = 0
        self._reads_until_page = False
        self._warned_of_late_reads = False

    @property
    def publisher(self) -> Publisher:
        """Gives runs that were read to their waiters."""
        return self._publisher

    def cancel(self) -> None:
        """Cancel the reads that are in progress."""
        self._slow_reads.cancel()

    async def poll(self) -> None:
        """Read the runs that are due, and publish those that have changed."""
        now = time.monotonic()
        due = self._due_runs(now, early=EARLY_FRACTION)
        if not due:
            return
        self._sender.outage_seconds = 0.0
        self._lists.changes.forget_others(self._waiters.run_ids())
        self._slow_reads.forget_others(self._waiters.run_ids())
        list_error: JobsAPIError | None = None
        lists_read = is_full = False
        try:
            if self._lists.are_cheaper_than(len(due), self._waiters.shortest_period()):
                try:
                    due, is_full = await self._read_lists(due)
                    lists_read = True
                except _MAY_CONCERN_ONE as error:
                    list_error = error
                    due = self._due_runs(now)
            else:
                # By their ids there is no gain in reading runs early.
                due = self._due_runs(now)
            if lists_read or list_error is not None:
                seconds_by_id = self._seconds_by_id()
            else:
                seconds_by_id = self._lists.suspended_seconds
            try:
                await self._read_by_id(due, seconds_by_id)
            except RateLimitError:
                # What the lists show does not wait for it: the rate limiter pauses these reads.
                if not lists_read:
                    raise
            if list_error is not None and due:
                self._lists.suspend(list_error)
        except JobsAPIError as error:
            if not await self._sender.wait_out(error, len(self._waiters)):
                await self._waiters.fail_all(error)
        else:
            if (lists_read and not due) or self._slow_reads.any_finished:
                self._sender.outage.record_success()
            seconds = time.monotonic() - now - self._sender.outage_seconds
            self._publisher.poll_seconds = seconds
            if self._sender.metrics is not None:
                self._sender.metrics.connection.polled(seconds)
            if is_full:
                self._lists.changes.record_full_read(now, seconds)
            self._warn_of_late_reads(seconds)

    async def _read_lists(self, due: set[int]) -> tuple[set[int], bool]:
        """Read lists; return the due runs to read by their ids, and whether all lists were read."""
        period = self._waiters.shortest_period()
        publish = self._publisher.publish_page
        if not self._lists.changes.are_wanted(period):
            due = await self._lists.read(due, self._waiters.run_ids(), publish, period)
            return due, True
        each_read = {run_id for run_id in due if self._waiters.wants_each_read(run_id)}
        left = await self._lists.read_changes(
            due,
            each_read,
            self._waiters.run_ids(),
            period,
            publish,
            self._publisher.postpone,
            self._read_among_lists,
        )
        return left, False

    def _due_runs(self, now: float, *, early: float = 0.0) -> set[int]:
        """Return the runs to be read now, or early by this fraction of their period."""
        not_before = self._unreadable_runs.not_before() | self._slow_reads.not_before()
        return self._waiters.due_runs(now, early=early, not_before=not_before)

    def _warn_of_late_reads(self, seconds: float) -> None:
        """Log once that the polling periods cannot be kept, if they cannot."""
        if self._warned_of_late_reads or not self._waiters:
            return
        shortest = self._waiters.shortest_period()
        if seconds > max(shortest, 1.0):
            self._warned_of_late_reads = True
            log.warning(
                "Reading the %d runs that are waited for took %.0f s, as fast as the service's "
                "pages and limits allow: longer than the shortest polling period, %g s. "
                "The runs are read one after the other, as often as that can be done.",
                len(self._waiters),
                seconds,
                shortest,
            )

    def _seconds_by_id(self) -> float | None:
        """How long runs are read by their ids, before the lists are read again."""
        return max(self._waiters.shortest_period(), SHORTEST_SECONDS) if self._waiters else None

    async def _read_page(
        self, call: Call[Page[Run]], *, waits_out_outages: bool = True
    ) -> Page[Run]:
        """Read a page of a list; while that takes long, read the due runs by their ids."""
        if not self._awaited_pages:
            self._publisher.read_at.clear()
        self._awaited_pages += 1
        page = asyncio.create_task(self._pages.read(call, waits_out_outages=waits_out_outages))
        try:
            await asyncio.wait({page}, timeout=SLOW_PAGE_SECONDS)
            if not page.done():
                with self._sender.counted_as_outage():
                    await self._read_until(page)
            return await page
        finally:
            page.cancel()
            self._awaited_pages -= 1

    async def _read_until(self, page: asyncio.Task[Page[Run]]) -> None:
        """Read the runs that are due by their ids, until a page has come or was given up."""
        while self._reads_until_page and not page.done():
            # Another page is awaited, too. It may come before this one.
            await asyncio.wait({page}, timeout=IDLE_SECONDS)
        if page.done():
            return
        self._reads_until_page = True
        can_be_read, failures = False, 0
        try:
            while not page.done():
                due = self._due_runs(time.monotonic())
                if due and not can_be_read:
                    # One tells whether there is an outage.
                    due = {min(due, key=self._waiters.due_time)}
                try:
                    await self._read_by_id(due, is_over=page.done)
                except JobsAPIError as error:
                    can_be_read, failures = False, failures + 1
                    wait = max(1.0, self._sender.retries.wait_seconds(error, failures))
                else:
                    next_due = self._waiters.next_due() if self._waiters else float("inf")
                    wait = min(next_due - time.monotonic(), IDLE_SECONDS)
                    # Without a response to the first one there may be an outage.
                    if due and not can_be_read and self._slow_reads.any_finished:
                        can_be_read, failures = True, 0
                        self._log_reads_by_id()
                await asyncio.wait({page}, timeout=max(0.0, wait))
        finally:
            self._reads_until_page = False

    def _log_reads_by_id(self) -> None:
        log.info(
            "%d runs are read one by one until a list of them is answered.", len(self._waiters)
        )

    async def _read_by_id(
        self,
        run_ids: Iterable[int],
        max_seconds: float | None = None,
        *,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        """Read runs by their ids; those that are not read within the time stay due.

        :param run_ids: the runs.
        :param max_seconds: the time; default None: as long as it takes.
        :param is_over: returns whether the time is over before that; default: it is not.
        """
        began = time.monotonic()
        # In portions, so that an outage stops the rest. The runs that are due longest come first.
        pending = sorted(run_ids, key=self._waiters.due_time)
        for start in range(0, len(pending), REQUESTS_AT_ONCE):
            seconds = time.monotonic() - began
            if is_over() or (max_seconds is not None and seconds > max_seconds):
                # The lists are read again first: they show a thousand ended runs in one request.
                return
            portion = pending[start : start + REQUESTS_AT_ONCE]
            results = await self._slow_reads.read(portion, self._read_run)
            failed: dict[int, JobsAPIError] = {}
            for run_id, result in results.items():
                if isinstance(result, _MAY_CONCERN_ONE):
                    failed[run_id] = result
                elif isinstance(result, BaseException):
                    raise result
            if failed:
                # An answer in JSON, be it an invalid one, shows that there is no outage.
                answered = True in results.values() or any(map(_is_invalid, failed.values()))
                if not answered and not await self._can_read_another(failed):
                    raise next(iter(failed.values()))
                # A run may have lost its waiter since it was asked for.
                failed = {r: error for r, error in failed.items() if r in self._waiters}
                given_up = self._unreadable_runs.record_failure(failed, self._sender.retries)
                for run_id, error in given_up.items():
                    self._waiters.fail(run_id, error)

    async def _read_among_lists(self, run_ids: Iterable[int]) -> bool:
        """Read runs by their ids while lists are read; return whether they were read.

        A 429 does not end the reading of the lists. The runs stay due.
        """
        try:
            await self._read_by_id(run_ids)
        except RateLimitError as error:
            if not await self._sender.wait_out(error, len(self._waiters)):
                raise
            return False
        return True

    async def _read_run(self, run_id: int) -> bool:
        """Read a run and publish it; return whether the service answered for it."""
        if run_id not in self._waiters:
            return False
        call, asked_at = get_run(run_id), self._publisher.asked_at
        sent_at = 0.0

        @asynccontextmanager
        async def rate_limit() -> AsyncIterator[None]:
            nonlocal sent_at
            async with self._sender.rate_limit(call.name):
                asked_at[run_id] = sent_at = time.monotonic()
                yield

        try:
            run = await self._sender.send_once(call, rate_limit)
            self._lists.changes.record_start_of_unlisted(run)
            # Not if a page has shown the run since, or a later read was sent.
            if asked_at.get(run_id) == sent_at:
                if self._awaited_pages:
                    self._publisher.read_at[run_id] = sent_at
                self._publisher.publish_run(run_id, run)
        except BadRequestError as error:
            # This run only: it was deleted, or is older than the service keeps runs.
            if self._sender.retries.backoff_for(error, idempotent=True) is not None:
                raise
            self._waiters.fail(run_id, error)
        finally:
            if asked_at.get(run_id) == sent_at:
                del asked_at[run_id]
        return True

    async def _can_read_another(self, failed: Mapping[int, JobsAPIError]) -> bool:
        """Read one of the other runs, to tell an outage from runs that cannot be read."""
        others = [
            run_id
            for run_id in (*self._publisher.latest_run_ids(), *self._waiters.run_ids())
            if run_id in self._waiters
            and run_id not in failed
            and run_id not in self._unreadable_runs
        ]
        try:
            return bool(others) and await self._read_run(others[0])
        except _MAY_CONCERN_ONE:
            return False


def _is_invalid(error: JobsAPIError) -> bool:
    return isinstance(error, UnexpectedResponseError) and error.does_not_fit
