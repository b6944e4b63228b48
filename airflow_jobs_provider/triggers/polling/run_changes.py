"""Reading what has changed of many runs, where reading all of them takes too long.

Ten thousand active runs are 400 pages of 25: 40 seconds at ten requests a second. An active run
need not be seen again until it ends, and ends can be read without reading the active runs:

* The list of ended runs is in order of start. It is read from the latest start on. A run that had
  started after the last run of a page, and is on no page so far, has not ended. So one page of 25
  ended runs tells of all active runs that started between them, be it 10 or 1,000.
* Where pages have 25 runs, and for runs that 2.0 does not list, windows of start times are read
  instead: see :mod:`.window_sweep`.
* Runs whose start is not known yet are at the top of the list of active runs.

What is concluded from an absence is only that a run has not ended. Nothing is concluded of a run
that was active although the whole list of active runs did not have it: it is read by its id. All
lists are read again after :data:`FULL_READ_SECONDS`, unless a sweep of windows sees all runs.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Awaitable, Collection, Iterable
from typing import TYPE_CHECKING

from airflow_jobs_provider.api.errors import (
    AuthenticationError,
    BadRequestError,
    ConflictError,
    ResponseLostError,
    ServerError,
    UnexpectedResponseError,
)
from airflow_jobs_provider.api.states import RunState, RunStatus
from airflow_jobs_provider.triggers.polling.list_pages import PageRuns
from airflow_jobs_provider.triggers.polling.window_sweep import (
    ListEnd,
    UnorderedListError,
    WindowSweep,
    is_in_order,
    start_of,
)

if TYPE_CHECKING:
    from airflow_jobs_provider.api.errors import JobsAPIError
    from airflow_jobs_provider.api.schema.types import Run
    from airflow_jobs_provider.triggers.polling.window_sweep import (
        Pages,
        Postpone,
        Publish,
        ReadById,
    )

__all__ = ["SHORTEST_SECONDS", "WINDOW_ERRORS", "RunChanges"]

log = logging.getLogger(__name__)

# Errors that show that a service does not know a later version, or its parameters.
_REFUSALS = (AuthenticationError, BadRequestError, UnexpectedResponseError)
# Errors of a window that say nothing of the lists of 2.0. A ConnectError is about the host.
WINDOW_ERRORS = (*_REFUSALS, ServerError, ResponseLostError)
# Changes are read if reading all runs took longer than this fraction of the polling period.
SLOW_FRACTION = 0.5
# All lists are read again after this time. An active run cannot be deleted, but what the caller may
# list can change.
FULL_READ_SECONDS = 1800.0
# How long all lists are read after a list that was not in order of start, and how long no windows
# are read after a service has refused them.
SUSPEND_SECONDS = 600.0
# How long no windows are read after a 5xx or a lost response. It doubles each time, up to
# SUSPEND_SECONDS.
WINDOW_OUTAGE_SECONDS = 60.0
# A list is read as long as this many pages save at least as many requests.
PAGES_TO_JUDGE = 8
# For runs whose start is not known, the list of ended runs is read no more often than after this
# fraction of the polling period.
AGAIN_FRACTION = 0.6
# While all lists are being read, that of the ended runs is read no more often than this.
SHORTEST_SECONDS = 5.0
# A run has its final start_time in these states; a queued one may get another.
_STARTED = ("RUNNING", "TERMINATING")


class RunChanges:
    """Reads the runs that have ended or started, of runs that were read before.

    :param pages: reads a list page by page.
    :param page_runs: runs on a page at most.
    :param window_page_runs: the same for a list that is limited to a window of start times (API 2.1
        and later); None if no such version may be used.

    :ivar has_all_active: whether the whole list of active runs was read, when all lists were last.
    """

    def __init__(self, pages: Pages, page_runs: int, *, window_page_runs: int | None) -> None:
        self._pages = pages
        self._page_runs = page_runs
        self._windows: WindowSweep | None = None
        if window_page_runs is not None:
            self._windows = WindowSweep(pages, window_page_runs)
        # Whether windows are read from the start. Larger pages are read first.
        self._has_windows_only = page_runs == window_page_runs
        # Start of each run that is waited for, in milliseconds, once it is known.
        self._starts: dict[int, int] = {}
        self._full_read_at = self._ended_read_at = float("-inf")
        self._full_read_seconds = self._ended_seconds = 0.0
        self._suspended_until = self._windows_suspended_until = 0.0
        self._window_outage_seconds = WINDOW_OUTAGE_SECONDS
        self.has_all_active = False
        # Runs that were not on a list that has each active run.
        self._missing: set[int] = set()
        # Active runs that no list showed. They are read by their ids.
        self._unlisted: set[int] = set()

    def are_wanted(self, period: float) -> bool:
        """Whether changes are to be read, since reading all runs takes too long.

        :param period: the shortest polling period, in seconds.
        """
        now = time.monotonic()
        return (
            self._full_read_seconds > SLOW_FRACTION * period
            and now >= self._suspended_until
            and (now - self._full_read_at < FULL_READ_SECONDS or not self._needs_full_reads)
        )

    def expected_requests(self, runs: int) -> float | None:
        """Return how many requests it takes to read what has changed; None if that is not known.

        What the latest sweep took says little of many more runs: a page tells about more of them.

        :param runs: how many runs are due.
        """
        windows = self._windows
        if windows is None or windows.requests_per_run is None or not self._has_windows_only:
            return None
        return 1 + runs * windows.requests_per_run if runs <= 2 * windows.runs else None

    def expect_fewer_requests(self) -> None:
        """Let what the latest sweep took count less, since no sweep is read for it."""
        if self._windows is not None:
            self._windows.expect_fewer_requests()

    @property
    def _needs_full_reads(self) -> bool:
        # A sweep of windows sees each active run now and then, if the lists show it.
        return not self._has_windows_only or bool(self._unlisted)

    def forget_others(self, waited_for: Collection[int]) -> None:
        """Forget the runs that nobody waits for any more.

        :param waited_for: ids of all runs with a waiter.
        """
        for run_id in self._starts.keys() - waited_for:
            del self._starts[run_id]
        self._unlisted.intersection_update(waited_for)
        self._missing.intersection_update(waited_for)

    def begin_full_read(self) -> None:
        """Begin to read all lists, of which that of the ended runs comes last."""
        self._ended_read_at = time.monotonic()

    def end_active_list(self, *, is_complete: bool) -> None:
        """Record whether the whole list of active runs was read."""
        self.has_all_active = is_complete

    def record_full_read(self, began: float, seconds: float) -> None:
        """Record that all lists were read.

        :param began: when (monotonic clock).
        :param seconds: how long that took, with the runs that were read by their ids.
        """
        self._full_read_at, self._full_read_seconds = began, seconds

    def record_starts(self, runs: Iterable[Run], run_ids: Collection[int]) -> None:
        """Record when runs have started.

        :param runs: runs that were read.
        :param run_ids: those of them that are waited for.
        """
        for run in runs:
            # Nothing of the run was checked, except its id.
            start, state, run_id = start_of(run), run.get("state"), run["run_id"]
            has_started = isinstance(state, dict) and state.get("life_cycle_state") in _STARTED
            if run_id in run_ids and has_started and start:
                self._starts[run_id] = start
                self._unlisted.discard(run_id)

    def record_missing(self, run_ids: Iterable[int]) -> None:
        """Record that runs were not on a list that has each active run.

        :param run_ids: the runs. They are read by their ids next.
        """
        self._missing.update(run_ids)

    def record_start_of_unlisted(self, run: Run) -> None:
        """Record when a run has started that was read by its id: no list had it.

        Where the list of active runs was too long to be read, it may be on a page further on.
        Otherwise the lists do not show this run, and say nothing of its end.
        """
        run_id = run["run_id"]
        if run_id in self._missing:
            self._missing.discard(run_id)
            self._starts.pop(run_id, None)
            self._unlisted.add(run_id)
        elif not self.has_all_active:
            self.record_starts([run], {run_id})
        elif run_id not in self._starts:
            self._unlisted.add(run_id)

    async def read(
        self,
        due: set[int],
        each_read: set[int],
        waited_for: Collection[int],
        period: float,
        publish: Publish,
        postpone: Postpone,
        read_by_id: ReadById,
    ) -> set[int]:
        """Read what has changed; return the due runs of which it is not known.

        :param due: ids of the runs that are to be read now.
        :param each_read: those of them that are to be read although they have not changed.
        :param waited_for: ids of all runs with a waiter.
        :param period: the shortest polling period, in seconds.
        :param publish: takes the runs of a page; returns the ids of those with a waiter.
        :param postpone: takes the ids of runs that have not ended.
        :param read_by_id: reads runs by their ids; returns whether they were read.
        :raises JobsAPIError: a page cannot be read.
        """
        self.forget_others(waited_for)
        due = set(due)
        now = time.monotonic()
        if self._has_windows_only:
            await self._read_new(due - self._known(each_read).keys(), due, publish)
        known = self._known(each_read)
        is_new_period = now - self._ended_read_at >= AGAIN_FRACTION * period
        if is_new_period or not due.isdisjoint(known):
            self._ended_read_at = now
            left = known
            if not self._has_windows_only:
                found, listed = set[int](), set[int]()
                reach = await self._read_ended(
                    known, found, publish, all_known=due <= known.keys(), listed=listed
                )
                # A run that is listed but was not published has ended, and lacks something.
                unchanged = {r for r, start in known.items() if start > reach} - found - listed
                postpone(unchanged)
                decided = unchanged | found
                due -= decided
                left = {r: known[r] for r in known.keys() - decided}
            has_new = self._has_windows_only and len(due - known.keys()) > 1
            if has_new and len(left) <= 1:
                await self._read_latest_ended(due, publish)
            elif self._windows is not None and self.can_read_windows and len(left) > 1:
                reads = (publish, postpone, read_by_id)
                due -= await self._read_windows(self._windows, left, *reads, has_new=has_new)
        if not self._has_windows_only:
            await self._read_new(due - known.keys(), due, publish)
        return due

    async def _read_windows(
        self,
        windows: WindowSweep,
        starts: dict[int, int],
        publish: Publish,
        postpone: Postpone,
        read_by_id: ReadById,
        *,
        has_new: bool,
    ) -> set[int]:
        """Read windows of start times; return the runs of which it is known now."""
        if not self._has_windows_only:
            if (each := windows.requests_per_run) is None:
                each = 0.0
            if each >= 1 or len(starts) < PAGES_TO_JUDGE:
                # Few of the runs of a page are waited for. That may have changed after a while.
                windows.expect_fewer_requests()
                return set()
            publish = _Successful(publish)

        by_id_error: JobsAPIError | None = None

        async def read_missing(run_ids: Collection[int]) -> bool:
            nonlocal by_id_error
            self.record_missing(run_ids)
            try:
                return await read_by_id(run_ids)
            except WINDOW_ERRORS as error:
                by_id_error = error
                raise

        try:
            learned = await windows.read(
                starts, time.monotonic(), publish, postpone, read_missing, has_new=has_new
            )
        except UnorderedListError:
            self._suspended_until = time.monotonic() + SUSPEND_SECONDS
            return set()
        except WINDOW_ERRORS as error:
            if error is by_id_error:
                # Runs cannot be read at all. That says nothing of windows.
                raise
            self.suspend_windows(error)
            return set()
        self.record_windows_read()
        return learned

    @property
    def can_read_windows(self) -> bool:
        """Whether lists can be limited to a window of start times."""
        return self._windows is not None and time.monotonic() >= self._windows_suspended_until

    def suspend_windows(self, error: JobsAPIError) -> None:
        """Read no windows for a while, since one could not be read.

        :param error: one of :data:`WINDOW_ERRORS`. It is raised if runs are read from windows only.
        """
        if self._has_windows_only or isinstance(error, ConflictError):
            raise error
        log.info("Runs that 2.0 does not list are read one by one for now: %s", error)
        seconds = SUSPEND_SECONDS
        if not isinstance(error, _REFUSALS):
            seconds = self._window_outage_seconds
            self._window_outage_seconds = min(2 * seconds, SUSPEND_SECONDS)
        self._windows_suspended_until = time.monotonic() + seconds

    def record_windows_read(self) -> None:
        """Record that windows can be read."""
        self._window_outage_seconds = WINDOW_OUTAGE_SECONDS

    def _known(self, each_read: set[int]) -> dict[int, int]:
        """Return the starts, also of runs that are not due yet: the same pages tell of them."""
        known = dict(self._starts)
        for run_id in each_read:
            known.pop(run_id, None)
        return known

    async def read_ended_meanwhile(self, period: float, publish: Publish) -> None:
        """Read the ended runs once a period, while all lists are being read for longer than that.

        That takes half of the time at most, so that the other lists are read to their end.

        :param period: the shortest polling period, in seconds.
        :param publish: see :meth:`read`.
        """
        now = time.monotonic()
        if now - self._ended_read_at >= max(period, SHORTEST_SECONDS, self._ended_seconds * 2):
            self._ended_read_at = now
            await self._read_ended(self._starts, set(), publish, all_known=False)
            self._ended_seconds = time.monotonic() - now

    async def _read_ended(
        self,
        known: dict[int, int],
        found: set[int],
        publish: Publish,
        *,
        all_known: bool,
        listed: set[int] | None = None,
    ) -> int:
        """Read the ended runs, from the latest start on, as long as that saves requests.

        :param known: starts of the runs that are waited for.
        :param found: is given the runs that are found.
        :param all_known: whether the start of all due runs is known: none is older.
        :param listed: is given all runs of the pages.
        :returns: the start, in milliseconds, after which all ended runs have been read.
        """
        starts = sorted(known.values())
        oldest = starts[0] if starts else 0
        is_bounded = all_known and bool(starts)
        # Only a version that has no larger pages takes the filter.
        filters = {"start_time_from": oldest} if is_bounded and self._has_windows_only else {}
        end, reach = ListEnd(), max(starts, default=0)
        saved: deque[float] = deque(maxlen=PAGES_TO_JUDGE)
        latest: float = float("inf")
        async for page in self._pages("ended", self._page_runs, end=end, **filters):
            times = [start_of(run) for run in page]
            if not times:
                continue
            if not is_in_order(times):
                self._suspended_until = time.monotonic() + SUSPEND_SECONDS
                return max(starts, default=0)
            if listed is not None:
                listed.update(run["run_id"] for run in page)
            published = await publish(page)
            passed = max(0, bisect_left(starts, latest) - bisect_right(starts, times[-1]))
            saved.append(len(published) + passed / self._page_runs)
            found |= published
            # A page by offset may begin with runs of the page before.
            latest = min(latest, times[-1])
            reach = min(reach, times[-1])
            if is_bounded and latest < oldest:
                break
            if len(saved) == PAGES_TO_JUDGE and sum(saved) < PAGES_TO_JUDGE:
                break
        return oldest - 1 if end.is_complete else reach

    async def _read_latest_ended(self, due: set[int], publish: Publish) -> None:
        """Read the latest ended runs, as long as they are waited for.

        :param due: loses the runs that are found.
        """
        async for page in self._pages("ended", self._page_runs, end=ListEnd()):
            found = await publish(page)
            due -= found
            if not found:
                return

    async def _read_new(self, new: set[int], due: set[int], publish: Publish) -> None:
        """Read the latest active runs, to find those whose start is not known.

        No more pages are read than there are such runs: each can be read by its id.

        :param new: these runs.
        :param due: loses the runs that are found.
        """
        if len(new) < 2:
            return
        pages_left = len(new)
        newest = max(self._starts.values(), default=0)
        async for page in self._pages("active", self._page_runs, end=ListEnd()):
            found = await publish(page)
            self.record_starts(page, found)
            due -= found
            is_found = bool(found & new)
            new = new - found
            is_newer = bool(page) and start_of(page[-1]) > newest
            pages_left -= 1
            if not new or not (is_found or is_newer) or not pages_left:
                return


class _Successful:
    """Publishes the active runs of a page, and those that succeeded.

    For pages of a later version than the one that runs are read from. The others are left to be
    read by their ids: the service's own retries of a run look different there.

    :param publish: publishes the runs of a page.
    """

    def __init__(self, publish: Publish) -> None:
        self._publish = publish

    def __call__(self, runs: Iterable[Run]) -> Awaitable[set[int]]:
        """Publish the runs of a page; return the ids of those with a waiter."""
        left = [run for run in runs if _is_active_or_successful(run)]
        return self._publish(PageRuns(left, runs.asked_at) if isinstance(runs, PageRuns) else left)


def _is_active_or_successful(run: Run) -> bool:
    # Nothing of the run was checked, except its id.
    if not isinstance(run.get("state"), dict):
        return False
    return RunState.from_run(run).status in (RunStatus.ACTIVE, RunStatus.SUCCEEDED)
