"""Reading what has changed of many runs, where reading all of them takes too long.

Ten thousand active runs are 400 pages of 25: 40 seconds at ten requests a second. An active run
need not be seen again until it ends, and ends can be read without reading the active runs:

* The list of ended runs is in order of start. It is read from the latest start on. A run that had
  started after the last run of a page, and is on no page so far, has not ended. So one page of 25
  ended runs tells of all active runs that started between them, be it 10 or 1,000.
* Where more ended runs than active ones lie between two starts, the active ones are read instead
  (versions with time filters). One that is missing there has ended, and is read by its id.
* Runs whose start is not known yet are at the top of the list of active runs.

What is concluded from an absence is only that a run has not ended. Nothing is concluded of a run
that was active although the whole list of active runs did not have it: it is read by its id. All
lists are read again after :data:`FULL_READ_SECONDS`.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from airflow_jobs_provider.api.schema.types import Run

__all__ = ["SHORTEST_SECONDS", "ListEnd", "Publish", "RunChanges"]

Publish: TypeAlias = "Callable[[Iterable[Run]], Awaitable[set[int]]]"
Postpone: TypeAlias = "Callable[[Iterable[int]], None]"

# Changes are read if reading all runs took longer than this fraction of the polling period.
SLOW_FRACTION = 0.5
# All lists are read again after this time. An active run cannot be deleted, but what the caller may
# list can change.
FULL_READ_SECONDS = 1800.0
# How long all lists are read after a list that was not in order of start.
SUSPEND_SECONDS = 600.0
# A list is read as long as this many pages save at least as many requests.
PAGES_TO_JUDGE = 8
# For runs whose start is not known, the list of ended runs is read no more often than after this
# fraction of the polling period.
AGAIN_FRACTION = 0.6
# While all lists are being read, that of the ended runs is read no more often than this.
SHORTEST_SECONDS = 5.0
# A run has its final start_time in these states; a queued one may get another.
_STARTED = ("RUNNING", "TERMINATING")


class ListEnd:
    """Says how the reading of a list ended.

    :ivar is_complete: whether its last page was read.
    """

    is_complete = False


class Pages(Protocol):
    """Reads a list page by page."""

    def __call__(
        self, which: str, limit: int, *, end: ListEnd, **filters: int
    ) -> AsyncIterator[list[Run]]: ...


class RunChanges:
    """Reads the runs that have ended or started, of runs that were read before.

    :param pages: reads a list page by page.
    :param max_page_runs: runs on a page at most.
    :param has_time_filters: whether lists can be limited to a time of start (API 2.1 and later).
    """

    def __init__(self, pages: Pages, max_page_runs: int, *, has_time_filters: bool) -> None:
        self._pages = pages
        self._max_page_runs = max_page_runs
        self._has_time_filters = has_time_filters
        # Start of each run that is waited for, in milliseconds, once it is known.
        self._starts: dict[int, int] = {}
        self._full_read_at = self._ended_read_at = float("-inf")
        self._full_read_seconds = 0.0
        self._suspended_until = 0.0
        self._has_all_active = False

    def are_wanted(self, period: float) -> bool:
        """Whether changes are to be read, since reading all runs takes too long.

        :param period: the shortest polling period, in seconds.
        """
        now = time.monotonic()
        return (
            self._full_read_seconds > SLOW_FRACTION * period
            and now >= self._suspended_until
            and now - self._full_read_at < FULL_READ_SECONDS
        )

    def begin_full_read(self) -> None:
        """Begin to read all lists, of which that of the ended runs comes last."""
        self._ended_read_at = time.monotonic()

    def end_active_list(self, *, is_complete: bool) -> None:
        """Record whether the whole list of active runs was read."""
        self._has_all_active = is_complete

    def record_full_read(self, began: float, seconds: float, waited_for: Collection[int]) -> None:
        """Record that all lists were read.

        :param began: when (monotonic clock).
        :param seconds: how long that took, with the runs that were read by their ids.
        :param waited_for: ids of all runs with a waiter.
        """
        self._full_read_at, self._full_read_seconds = began, seconds
        self._starts = {r: start for r, start in self._starts.items() if r in waited_for}

    def record_starts(self, runs: Iterable[Run], run_ids: Collection[int]) -> None:
        """Record when runs have started.

        :param runs: runs that were read.
        :param run_ids: those of them that are waited for.
        """
        for run in runs:
            # Nothing of the run was checked, except its id.
            start, state, run_id = run.get("start_time"), run.get("state"), run["run_id"]
            has_started = isinstance(state, dict) and state.get("life_cycle_state") in _STARTED
            if run_id in run_ids and has_started and type(start) is int and start > 0:
                self._starts[run_id] = start

    def record_start_of_unlisted(self, run: Run) -> None:
        """Record when a run has started that was read by its id: no list had it.

        Where the list of active runs was too long to be read, it may be on a page further on.
        Otherwise the lists do not show this run, and say nothing of its end.
        """
        if self._has_all_active:
            self._starts.pop(run["run_id"], None)
        else:
            self.record_starts([run], {run["run_id"]})

    async def read(
        self,
        due: set[int],
        each_read: set[int],
        period: float,
        publish: Publish,
        postpone: Postpone,
    ) -> set[int]:
        """Read what has changed; return the due runs of which it is not known.

        :param due: ids of the runs that are to be read now.
        :param each_read: those of them that are to be read although they have not changed.
        :param period: the shortest polling period, in seconds.
        :param publish: takes the runs of a page; returns the ids of those with a waiter.
        :param postpone: takes the ids of runs that have not ended.
        :raises JobsAPIError: a page cannot be read.
        """
        # Also of runs that are not due yet: the same pages tell of them.
        known = {r: start for r, start in self._starts.items() if r not in each_read}
        due = set(due)
        now = time.monotonic()
        is_new_period = now - self._ended_read_at >= AGAIN_FRACTION * period
        if is_new_period or not due.isdisjoint(known):
            self._ended_read_at = now
            found: set[int] = set()
            reach = await self._read_ended(known, found, publish, all_known=due <= known.keys())
            unchanged = {r for r, start in known.items() if start > reach} - found
            postpone(unchanged)
            due -= unchanged | found
        old = {r: known[r] for r in due if r in known}
        if self._has_time_filters and len(old) > 1:
            await self._read_old(old, due, publish)
        await self._read_new(due - old.keys(), due, publish)
        return due

    async def read_ended_meanwhile(self, period: float, publish: Publish) -> None:
        """Read the ended runs once a period, while all lists are being read for longer than that.

        :param period: the shortest polling period, in seconds.
        :param publish: see :meth:`read`.
        """
        now = time.monotonic()
        if now - self._ended_read_at >= max(period, SHORTEST_SECONDS):
            self._ended_read_at = now
            await self._read_ended(self._starts, set(), publish, all_known=False)

    async def _read_ended(
        self, known: dict[int, int], found: set[int], publish: Publish, *, all_known: bool
    ) -> int:
        """Read the ended runs, from the latest start on, as long as that saves requests.

        :param known: starts of the runs that are waited for.
        :param found: is given the runs that are found.
        :param all_known: whether the start of all due runs is known: none is older.
        :returns: the start, in milliseconds, after which all ended runs have been read.
        """
        starts = sorted(known.values())
        oldest = starts[0] if starts else 0
        is_bounded = all_known and bool(starts)
        filters = {"start_time_from": oldest} if is_bounded and self._has_time_filters else {}
        end, reach = ListEnd(), max(starts, default=0)
        saved: deque[float] = deque(maxlen=PAGES_TO_JUDGE)
        latest: float = float("inf")
        async for page in self._pages("ended", self._max_page_runs, end=end, **filters):
            times = [_start_of(run) for run in page]
            if not times:
                continue
            if not _is_in_order(times):
                self._suspended_until = time.monotonic() + SUSPEND_SECONDS
                return max(starts, default=0)
            published = await publish(page)
            passed = max(0, bisect_left(starts, latest) - bisect_right(starts, times[-1]))
            saved.append(len(published) + passed / self._max_page_runs)
            found |= published
            # A page by offset may begin with runs of the page before.
            latest = min(latest, times[-1])
            reach = min(reach, times[-1])
            if is_bounded and latest < oldest:
                break
            if len(saved) == PAGES_TO_JUDGE and sum(saved) < PAGES_TO_JUDGE:
                break
        return oldest - 1 if end.is_complete else reach

    async def _read_old(self, old: dict[int, int], due: set[int], publish: Publish) -> None:
        """Read the active runs among which there are more ended ones.

        :param old: their starts.
        :param due: loses the runs that are found.
        """
        filters = {"start_time_from": min(old.values()), "start_time_to": max(old.values())}
        saved: deque[int] = deque(maxlen=PAGES_TO_JUDGE)
        async for page in self._pages("active", self._max_page_runs, end=ListEnd(), **filters):
            found = await publish(page)
            saved.append(len(found & due))
            due -= found
            if len(saved) == PAGES_TO_JUDGE and sum(saved) < PAGES_TO_JUDGE:
                break
        missing = {start for run_id, start in old.items() if run_id in due}
        if len(missing) < PAGES_TO_JUDGE:
            return
        # These have ended. The list shows several of them on a page, if they are that many.
        filters = {"start_time_from": min(missing), "start_time_to": max(missing)}
        saved.clear()
        async for page in self._pages("ended", self._max_page_runs, end=ListEnd(), **filters):
            found = await publish(page)
            saved.append(len(found))
            due -= found
            if len(saved) == PAGES_TO_JUDGE and sum(saved) < PAGES_TO_JUDGE:
                return

    async def _read_new(self, new: set[int], due: set[int], publish: Publish) -> None:
        """Read the latest active runs, to find those whose start is not known.

        :param new: these runs.
        :param due: loses the runs that are found.
        """
        if len(new) < 2:
            return
        newest = max(self._starts.values(), default=0)
        async for page in self._pages("active", self._max_page_runs, end=ListEnd()):
            found = await publish(page)
            self.record_starts(page, found)
            due -= found
            is_found = bool(found & new)
            new = new - found
            is_newer = bool(page) and _start_of(page[-1]) > newest
            if not new or not (is_found or is_newer):
                return


def _start_of(run: Run) -> int:
    start = run.get("start_time")
    return start if isinstance(start, int) else 0


def _is_in_order(times: list[int]) -> bool:
    return times[-1] > 0 and all(later >= earlier for later, earlier in pairwise(times))
