"""Reading what has changed by windows of start times (API 2.1 and later).

These versions list at most 25 runs on a page, and can limit a list to a window of start times. Both
lists, that of the active and that of the ended runs, tell about the same runs:

* A page of ended runs tells that each run that started in its window, and is not on it, has not
  ended.
* A page of active runs tells that each run that started in its window, and is not on it, has ended.
  That run must still be read, by its id or on a page of ended runs.

So a sweep goes from the latest start to the earliest one. For each window it reads the list of
which one request tells about more of the runs that are waited for. A page of ended runs tells about
many where few runs have ended. Where most have ended, a page of active runs tells about more.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from itertools import accumulate, pairwise, repeat
from math import ceil
from operator import neg
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from airflow_jobs_provider.api.ids import parse_id

if TYPE_CHECKING:
    from airflow_jobs_provider.api.schema.types import Run

__all__ = [
    "ListEnd",
    "Pages",
    "Postpone",
    "Publish",
    "ReadById",
    "UnorderedListError",
    "WindowSweep",
    "is_in_order",
    "start_of",
]

Publish: TypeAlias = "Callable[[Iterable[Run]], Awaitable[set[int]]]"
Postpone: TypeAlias = "Callable[[Collection[int]], None]"
ReadById: TypeAlias = "Callable[[Collection[int]], Awaitable[bool]]"

# Where it is not known how many runs a page of ended runs tells about, one is read after so many
# pages of active runs.
PROBE_AFTER_PAGES = 10
# After so many pages of ended runs that told nothing the active ones are read.
PAGES_THAT_TELL_NOTHING = 4
# Runs that have ended are read by their ids unless one page is expected to have so many of them.
RUNS_WORTH_A_PAGE = 1.3
# A list is read on after a page that told about so many runs. Else there is a new window.
RUNS_WORTH_READING_ON = 4
# So many runs that have ended are read together.
READ_TOGETHER = 16
# What a sweep took counts less by this factor each time that it prevents another one.
COUNTS_LESS = 0.95
# The weight of the latest page in what is expected of the next one.
LATEST_WEIGHT = 0.2
# A sweep is divided into parts of about so many requests. So many parts are read at the same time,
# in order of start: each run is to be read again after about the same time.
REQUESTS_OF_A_PART = 25
PARTS_AT_ONCE = 4
# Each active run is seen on a page of active runs once in this time: what the caller may list can
# change, and then the list of ended runs does not show its end.
CONFIRM_SECONDS = 1800.0
# What a page of ended runs tells is kept for each run. Of integers up to 256 Python has one object
# each.
MAX_TELLS = 255
_NEVER = float("inf")


class ListEnd:
    """Says how the reading of a list ended.

    :ivar is_complete: whether its last page was read.
    """

    is_complete = False


class Pages(Protocol):
    """Reads a list page by page."""

    def __call__(  # noqa: D102
        self, which: str, limit: int, *, end: ListEnd, **filters: int
    ) -> AsyncIterator[list[Run]]: ...


class UnorderedListError(Exception):
    """A list is not in order of start."""


class _Expected:
    """What is expected of the next page, as the latest ones were.

    :ivar ended_page_tells: for each run, about how many runs a page of ended runs told with this
        one in its window. At most :data:`MAX_TELLS`.
    :ivar active_page_tells: about how many runs a page of active runs tells.
    :ivar ended_fraction: the fraction of the runs that has ended since the sweep before.
    :ivar requests_per_ended: requests to read a run that has ended.
    """

    def __init__(self, page_runs: int) -> None:
        self.ended_page_tells: dict[int, int] = {}
        self.active_page_tells = float(page_runs)
        self.ended_fraction = 0.0
        self.requests_per_ended = 1.0

    def forget_others(self, run_ids: dict[int, int]) -> None:
        """Forget the runs that are not among these."""
        for run_id in self.ended_page_tells.keys() - run_ids.keys():
            del self.ended_page_tells[run_id]

    def requests_per_active_run(self) -> float:
        """Return the cost of a page of active runs for each run that it tells about."""
        return 1 / self.active_page_tells + self.ended_fraction * self.requests_per_ended

    def record(self, name: str, value: float) -> None:
        """Record what the latest page was like."""
        expected = getattr(self, name)
        setattr(self, name, expected + LATEST_WEIGHT * (value - expected))


class WindowSweep:
    """Reads windows of start times.

    :param pages: reads a list page by page.
    :param page_runs: runs on a page at most.
    """

    def __init__(self, pages: Pages, page_runs: int) -> None:
        self._pages = pages
        self._page_runs = page_runs
        self._expected = _Expected(page_runs)
        # Runs that started before this are seen on pages of active runs next.
        self._confirm_before: float = _NEVER
        self._confirmed_at: float | None = None
        #: Requests that the latest sweep took, divided by its runs; None before the first sweep.
        self.requests_per_run: float | None = None
        #: How many runs the latest sweep had.
        self.runs = 0

    async def read(
        self,
        starts: dict[int, int],
        now: float,
        publish: Publish,
        postpone: Postpone,
        read_by_id: ReadById,
        *,
        has_new: bool = False,
    ) -> set[int]:
        """Read what has changed; return the runs of which it is known now.

        :param starts: when each run that is waited for has started, in milliseconds.
        :param now: the time (monotonic clock).
        :param publish: takes the runs of a page; returns the ids of those with a waiter.
        :param postpone: takes the ids of runs that have not ended.
        :param read_by_id: reads runs by their ids; returns whether they were read.
        :param has_new: whether there are further runs, of unknown start. Those of them that have
            ended are looked for above the window of the others; default False.
        :raises UnorderedListError: a list is not in order of start.
        """
        self._expected.forget_others(starts)
        # The event loop stands still here: no Python code is executed for each of the runs.
        ids = sorted(starts)
        ids.sort(key=starts.__getitem__, reverse=True)
        keys = list(map(neg, map(starts.__getitem__, ids)))
        slices = [slice(first, last) for first, last in pairwise(self._borders(ids))]
        if to_confirm := self._next_to_confirm(keys, now):
            slices.append(to_confirm)
        parts = [
            _Part(self._pages, self._page_runs, self._expected, ids[runs], keys[runs])
            for runs in slices
        ]
        for part in parts:
            part.publish, part.postpone, part.read_by_id = publish, postpone, read_by_id
        parts[0].has_new = has_new
        if has_new:
            for before, part in pairwise(parts):
                part.reached = before.earliest
        parts[-1].is_confirmation = bool(to_confirm)
        await _run_in_order(part.read for part in parts)
        self.runs = len(ids)
        self.requests_per_run = sum(part.requests for part in parts) / self.runs
        return set().union(*(part.learned for part in parts))

    def expect_fewer_requests(self) -> None:
        """Let what the latest sweep took count less. The runs may be others by now."""
        if self.requests_per_run is not None:
            self.requests_per_run *= COUNTS_LESS

    def _borders(self, ids: list[int]) -> list[int]:
        """Divide the runs, in order of start, into parts that take about as many requests each."""
        active, tells = self._expected.requests_per_active_run(), self._expected.ended_page_tells
        # The cost of a run, by what a page of ended runs tells.
        cost = [min(active, 1 / max(1, told)) for told in range(MAX_TELLS + 1)]
        told = map(tells.get, ids, repeat(MAX_TELLS))
        costs = list(accumulate(map(cost.__getitem__, told)))
        # The ended runs have become more since the latest pages of each place.
        requests = max(costs[-1], len(ids) * (self.requests_per_run or 0.0))
        parts = max(1, int(requests / REQUESTS_OF_A_PART))
        borders = {bisect_left(costs, costs[-1] * n / parts) for n in range(1, parts)}
        return sorted({0, len(ids)} | borders)

    def _next_to_confirm(self, keys: list[int], now: float) -> slice | None:
        """Return which runs are to be seen on pages of active runs, if any.

        :param keys: starts, negative, of all runs, in order.
        """
        if self._confirmed_at is None:
            # All of them were, a moment ago.
            self._confirmed_at = now
        fraction = min(1.0, (now - self._confirmed_at) / CONFIRM_SECONDS)
        runs = ceil(len(keys) * fraction)
        if runs < self._page_runs and fraction < 1:
            return None
        self._confirmed_at = now
        first = bisect_left(keys, -self._confirm_before)
        last = first + runs
        self._confirm_before = _NEVER if last >= len(keys) else -keys[last]
        return slice(first, last) if first < len(keys) else None


class _Part:
    """One part of a sweep.

    :param pages: reads a list page by page.
    :param page_runs: runs on a page at most.
    :param expected: what is expected of the pages.
    :param ids: ids of the runs, in order of start.
    :param keys: starts of the runs, negative, in the same order.

    :ivar has_new: whether runs that started later are looked for on pages of ended runs.
    :ivar is_confirmation: whether only pages of active runs are read.
    :ivar reached: pages of ended runs begin at this start, in milliseconds, so that they have the
        runs whose start is not known; default None: at the first run's.
    :ivar earliest: when the last run has started, in milliseconds.
    :ivar learned: the runs of which it is known whether they have ended.
    :ivar requests: how many requests were sent.
    """

    publish: Publish
    postpone: Postpone
    read_by_id: ReadById
    has_new = False
    is_confirmation = False
    reached: int | None = None

    def __init__(
        self, pages: Pages, page_runs: int, expected: _Expected, ids: list[int], keys: list[int]
    ) -> None:
        self.learned: set[int] = set()
        self.requests = 0
        self._pages = pages
        self._page_runs = page_runs
        self._expected = expected
        self._ids, self._keys = ids, keys
        self.earliest = -keys[-1]
        self._key_of: dict[int, int] = {}
        # Place of the first run that the sweep has not come to.
        self._place = 0
        # Runs that have ended and must still be read.
        self._unread: set[int] = set()
        self._ended_page_tells: int | None = None
        # Pages of the present list since it told about a run: several runs may start at once.
        self._pages_at_place = 0
        self._pages_since_probe = 0

    async def read(self) -> None:
        """Read all windows."""
        # Not for all parts at the same time.
        self._key_of = dict(zip(self._ids, self._keys, strict=True))
        if self.has_new:
            await self._read_newest()
        while self._place < len(self._ids):
            if not await self._read_list(self._better_list()):
                break
            if len(self._unread) >= READ_TOGETHER:
                await self._read_ended()
        await self._read_ended()

    async def _read_newest(self) -> None:
        """Read the latest ended runs, down to the window of the others, if they are waited for."""
        async for page in self._ordered_pages("ended", ListEnd(), self.earliest):
            found = await self.publish(page)
            self._take("ended", page, -start_of(page[-1]), found)
            if self._place or not found:
                return

    async def _read_list(self, which: str) -> bool:
        """Read a list from the present place on; return False if it cannot be read to its end.

        Where a page tells about few runs, the next window begins at the next run: nothing need be
        known of the runs in between.
        """
        self._pages_at_place = pages_that_tell_nothing = 0
        began, end = self._place, ListEnd()
        oldest, newest = self.earliest, -self._keys[began]
        if which == "ended" and self.reached is not None:
            newest = max(newest, self.reached)
        async for page in self._ordered_pages(which, end, oldest, newest):
            found = await self.publish(page)
            self._take(which, page, -start_of(page[-1]), found)
            if self._place > began:
                if self._is_worth_reading_on(which, self._place - began):
                    began = self._place
                    continue
                return True
            pages_that_tell_nothing += not found
            if which == "ended" and pages_that_tell_nothing >= PAGES_THAT_TELL_NOTHING:
                self._expect_nothing_of_ended_pages()
                return True
        if end.is_complete:
            self._take(which, (), None, set())
        return end.is_complete

    def _is_worth_reading_on(self, which: str, passed: int) -> bool:
        """Whether to read the next page of a list, of which a page has just told about runs."""
        if self._place >= len(self._ids) or len(self._unread) >= READ_TOGETHER:
            return False
        return passed >= RUNS_WORTH_READING_ON and self._better_list() == which

    async def _ordered_pages(
        self, which: str, end: ListEnd, oldest: int, newest: int | None = None
    ) -> AsyncIterator[list[Run]]:
        """Read a window of a list; yield the pages that are not empty."""
        window = {"start_time_from": oldest}
        if newest is not None:
            window["start_time_to"] = newest
        async for page in self._pages(which, self._page_runs, end=end, **window):
            self.requests += 1
            if page:
                if not is_in_order([start_of(run) for run in page]):
                    raise UnorderedListError
                yield page

    def _better_list(self) -> str:
        """Return the list of which a request tells about more runs."""
        if self.is_confirmation:
            return "active"
        told = self._expected.ended_page_tells
        tells: float | None = told.get(self._ids[self._place])
        if tells is None:
            tells = self._ended_page_tells
            if tells is None or self._pages_since_probe >= PROBE_AFTER_PAGES:
                return "ended"
        elif (after := self._place + int(tells)) < len(self._ids):
            # With the page after it: what one page tells depends on chance.
            tells = (tells + told.get(self._ids[after], tells)) / 2
        return "ended" if tells * self._expected.requests_per_active_run() > 1 else "active"

    def _expect_nothing_of_ended_pages(self) -> None:
        """Read the active runs from here on, for as long as no page of ended runs is due."""
        self._ended_page_tells = 0
        for run_id in self._ids[self._place : self._place + PROBE_AFTER_PAGES * self._page_runs]:
            self._expected.ended_page_tells[run_id] = 0

    def _take(self, which: str, page: Collection[Run], key: int | None, found: set[int]) -> None:
        """Conclude from a page, and from the absence of runs on it.

        :param key: start of its last run, negative; None for the end of the list.
        :param found: the runs of the page that were published.
        """
        began = self._place
        if key is not None and (self.has_new or self.reached is not None):
            self.reached = -key
        self.learned |= found
        self._place = len(self._ids) if key is None else max(began, bisect_left(self._keys, key))
        passed = self._ids[began : self._place]
        self._pages_at_place += key is not None
        tells = len(passed) / max(1, self._pages_at_place)
        absent = [run_id for run_id in passed if run_id not in self.learned]
        if which == "ended":
            # Those that are listed but were not published lack something.
            listed = {run["run_id"] for run in page if run["run_id"] in self._key_of}
            self._unread |= listed - self.learned
            self.postpone([run_id for run_id in absent if run_id not in self._unread])
            self.learned.update(absent)
            self._pages_since_probe = 0
            if passed:
                self._ended_page_tells = min(int(tells), MAX_TELLS)
                for run_id in passed:
                    self._expected.ended_page_tells[run_id] = self._ended_page_tells
        else:
            self._unread.update(absent)
            self._pages_since_probe += 1
            if passed:
                self._expected.record("active_page_tells", max(1.0, tells))
        if passed:
            self._pages_at_place = 0
            ended = found if which == "ended" else absent
            self._expected.record("ended_fraction", min(1.0, len(ended) / len(passed)))

    async def _read_ended(self) -> None:
        """Read the runs that have ended: from pages that have several of them, or by their ids."""
        pending = sorted(self._unread, key=self._key_of.__getitem__, reverse=True)
        began, runs, by_id = self.requests, len(pending), []
        self._unread = set()
        while pending:
            newest = pending.pop()
            told = self._expected.ended_page_tells.get(newest, self._ended_page_tells or MAX_TELLS)
            if pending and 1 + told * self._expected.ended_fraction >= RUNS_WORTH_A_PAGE:
                found, reach = await self._read_ended_page(pending[0], newest)
                while pending and self._key_of[pending[-1]] < reach:
                    if (run_id := pending.pop()) not in found:
                        by_id.append(run_id)
                pending = [run_id for run_id in pending if run_id not in found]
                if newest in found:
                    continue
            by_id.append(newest)
        if by_id:
            self.requests += len(by_id)
            if await self.read_by_id(by_id):
                self.learned.update(by_id)
        if runs:
            self._expected.record("requests_per_ended", (self.requests - began) / runs)

    async def _read_ended_page(self, oldest: int, newest: int) -> tuple[set[int], float]:
        """Read a page of ended runs from a run's start on; more if many started at that time.

        :returns: the runs that were found, and up to which start (negative) all were read.
        """
        end, key, found = ListEnd(), self._key_of[newest], set[int]()
        async for page in self._ordered_pages("ended", end, -self._key_of[oldest], -key):
            reach = -start_of(page[-1])
            found |= await self.publish(page)
            self.learned |= found
            if reach > key:
                return found, reach
        return found, _NEVER if end.is_complete else key


async def _run_in_order(steps: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Run coroutines in order, some at the same time. The first error ends all, and is raised."""
    remaining = iter(steps)

    async def run() -> None:
        for step in remaining:
            await step()

    tasks = [asyncio.create_task(run()) for _ in range(PARTS_AT_ONCE)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def start_of(run: Mapping[str, Any]) -> int:
    """Return when a run has started, in milliseconds; 0 if that is not known.

    :param run: the run, of which nothing was checked.
    """
    return parse_id(run.get("start_time")) or 0


def is_in_order(times: list[int]) -> bool:
    """Whether the runs of a page, which start at these times, are in order, the latest first."""
    return times[-1] > 0 and all(later >= earlier for later, earlier in pairwise(times))
