"""Reading many runs at once from lists, with an estimate of what that costs.

The service lists runs by pages, latest start first; active runs and ended runs are separate lists.
A page of offset and limit is a window on a list that moves: each active run that ends between two
pages moves what follows one place forward, out of the next page. So the next page begins some runs
before the end of the last one, and the more the list was seen to move, the earlier. Where two pages
do not overlap, the page is read again from further back. Pages by token begin where the last one
ended, whatever moves.

A run that is in none of the lists is returned to the caller. Nothing is concluded from that.

Where reading both lists takes too long for the polling period, only what has changed is read: see
:mod:`.run_changes`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any, Protocol

from airflow_jobs_provider.api.endpoints import list_runs
from airflow_jobs_provider.api.errors import BadRequestError, ConflictError, InvalidRequestError
from airflow_jobs_provider.api.pagination import Paginator
from airflow_jobs_provider.api.versions import OLDEST_API_VERSION
from airflow_jobs_provider.triggers.polling.run_changes import WINDOW_ERRORS, RunChanges
from airflow_jobs_provider.triggers.polling.window_sweep import ListEnd, start_of

if TYPE_CHECKING:
    from airflow_jobs_provider.api.calls import Call, Page
    from airflow_jobs_provider.api.client import AsyncJobsClient
    from airflow_jobs_provider.api.errors import JobsAPIError
    from airflow_jobs_provider.api.schema.types import Run
    from airflow_jobs_provider.triggers.polling.window_sweep import Postpone, Publish, ReadById

__all__ = ["RunLists"]

log = logging.getLogger(__name__)

# The unit of cost is one request. A page of this size costs one more, for the work of reading it.
BYTES_PER_UNIT_OF_COST = 1_000_000
# Parsing a larger page would block the event loop for too long.
MAX_PAGE_BYTES = 3_000_000
# Runs per page, at most, in version 2.0 and in later versions.
MAX_PAGE_RUNS = 1000
MAX_PAGE_RUNS_SINCE_2_1 = 25
MIN_PAGE_RUNS = 25
# Before a page was measured: bytes of a run, and runs of the first page.
ASSUMED_RUN_BYTES = 1_500.0
FIRST_PAGE_RUNS = 100
# Runs of the last page that are read again, at least, where pages go by offset.
MIN_OVERLAP_RUNS = 10
# The service answers a larger offset with an error.
MAX_OFFSET = 10_000
# What may be spent in vain on the list of ended runs, as a fraction of the cost of reading each of
# the due runs by its id.
SEARCH_COST_FRACTION = 0.1
# How long no list is read after the service has refused one.
REFUSED_SECONDS = 600.0
# The same after a list could not be read although runs could. It doubles each time, up to the
# second: by its id, each run is a request, and ten thousand take minutes.
SUSPEND_SECONDS = 10.0
LONGEST_SUSPEND_SECONDS = 60.0


# Names of the lists, where a later version is asked for a window of start times.
_OF_LATER_VERSION = {"active": "active, of a later version", "ended": "ended, of a later version"}


class ReadPage(Protocol):
    """Reads a page, as :meth:`.ListPageReader.read` does."""

    def __call__(
        self, call: Call[Page[Run]], *, waits_out_outages: bool
    ) -> Awaitable[Page[Run]]: ...


class RunLists:
    """Reads the lists of active and of ended runs, with as few and as small pages as will do.

    :param client: client of the workspace.
    :param read_page: reads a page.
    :param item_hook: takes each listed run and returns what is needed of it; default None: all of
        it.

    :ivar changes: reads what has changed, where reading all takes too long.
    """

    def __init__(
        self,
        client: AsyncJobsClient,
        read_page: ReadPage,
        item_hook: Callable[[Any], Any] | None = None,
    ) -> None:
        self._client = client
        self._read_page = read_page
        self._item_hook = item_hook
        self._version = client.version_of(list_runs())
        # None if the connection's api_version has no windows of start times.
        self._window_version = self._find_window_version()
        self._since_2_1 = self._version != OLDEST_API_VERSION
        self._max_page_runs = MAX_PAGE_RUNS_SINCE_2_1 if self._since_2_1 else MAX_PAGE_RUNS
        # Bytes of a run, by list, as measured.
        self._run_bytes: dict[str, float] = {}
        # Length of the list of active runs, as far as it was read last.
        self._active_runs = 0.0
        self._overlap = MIN_OVERLAP_RUNS
        self._suspended_until = 0.0
        # None as long as lists work.
        self._suspend_seconds: float | None = None
        self.changes = RunChanges(
            self._pages,
            self._max_page_runs,
            window_page_runs=MAX_PAGE_RUNS_SINCE_2_1 if self._window_version else None,
        )

    def are_cheaper_than(self, reads: int, period: float) -> bool:
        """Whether reading lists costs less than reading runs by their ids.

        :param reads: how many runs would be read by their ids.
        :param period: the shortest polling period, in seconds.
        """
        if time.monotonic() < self._suspended_until:
            return False
        if self.changes.are_wanted(period):
            requests = self.changes.expected_requests(reads)
            if requests is not None:
                if 1 < reads <= requests:
                    self.changes.expect_fewer_requests()
                return requests < reads
        listed = max(int(self._active_runs), reads)
        pages = -(-listed // self._page_limit("active"))
        if pages + listed * self._bytes_per_run("active") / BYTES_PER_UNIT_OF_COST < reads:
            return True
        # The list grows shorter as runs end, so its measured length counts less each time.
        self._active_runs *= 0.95
        return False

    async def read(
        self, due: set[int], waited_for: Collection[int], publish: Publish, period: float
    ) -> set[int]:
        """Read the active runs, then the latest that ended; return the due ones in neither list.

        :param due: ids of the runs that are to be read now.
        :param waited_for: ids of all runs with a waiter.
        :param period: the shortest polling period, in seconds.
        :param publish: takes the runs of a page; returns the ids of those with a waiter.
        :raises JobsAPIError: a page cannot be read, though lists are not refused.
        """
        seen: set[int] = set()
        try:
            is_complete = await self._read_active(len(due), seen, publish, period)
            # A run that is not in the complete list of active runs has ended, was deleted, or is
            # beyond the list's reach. That holds as well for runs that are not due yet: they would
            # be missing from the list again in a moment.
            missing = (set(waited_for) if is_complete else due) - seen
            if due - seen and len(missing) > self._cost("ended", len(missing)):
                max_waste = SEARCH_COST_FRACTION * len(due - seen)
                await self._read_ended(missing, seen, publish, max_waste)
            if self.changes.has_all_active:
                self.changes.record_missing(due - seen)
            self._record_read()
        except ConflictError:
            raise
        except BadRequestError as error:
            self._refused(error)
        return due - seen

    async def read_changes(
        self,
        due: set[int],
        each_read: set[int],
        waited_for: Collection[int],
        period: float,
        publish: Publish,
        postpone: Postpone,
        read_by_id: ReadById,
    ) -> set[int]:
        """Read what has changed; return the due runs of which that is not known.

        The parameters are those of :meth:`.RunChanges.read`.
        """
        try:
            left = await self.changes.read(
                due, each_read, waited_for, period, publish, postpone, read_by_id
            )
            self._record_read()
        except ConflictError:
            raise
        except BadRequestError as error:
            self._refused(error)
            return due
        return left

    @property
    def suspended_seconds(self) -> float | None:
        """How long no list is read; None if lists may be read."""
        seconds = self._suspended_until - time.monotonic()
        return seconds if seconds > 0 else None

    def _refused(self, error: BadRequestError) -> None:
        # Lists are not allowed, or not with these parameters. The runs can still be read.
        self._suspended_until = time.monotonic() + REFUSED_SECONDS
        log.info("Runs are read one by one, since listing them is refused: %s", error)

    def suspend(self, error: JobsAPIError) -> None:
        """Read no lists for a while, since one could not be read although runs can.

        :param error: why it could not be read.
        """
        if self._suspend_seconds is None:
            self._suspend_seconds = SUSPEND_SECONDS
            log.info(
                "Runs are read one by one for now, since listing them does not work: %s", error
            )
        self._suspended_until = time.monotonic() + self._suspend_seconds
        self._suspend_seconds = min(2 * self._suspend_seconds, LONGEST_SUSPEND_SECONDS)

    def _record_read(self) -> None:
        """Record that lists can be read."""
        if self._suspend_seconds is not None:
            self._suspend_seconds = None
            log.info("The lists of runs can be read again.")

    async def _read_active(
        self, max_cost: int, seen: set[int], publish: Publish, period: float
    ) -> bool:
        """Read the active runs; False if that was stopped because it costs too much."""
        listed, cost, end = 0, 0.0, ListEnd()
        self.changes.begin_full_read()
        async for page in self.active_pages(end):
            listed += len(page)
            found = await publish(page)
            self.changes.record_starts(page, found)
            seen |= found
            cost += self._cost("active", len(page))
            if cost > max_cost:
                # It is assumed that there is at least one more page.
                self._active_runs = listed + self._page_limit("active")
                self.changes.end_active_list(is_complete=False)
                return False
            await self.changes.read_ended_meanwhile(period, publish)
        self._active_runs = listed
        # Not if it is longer than the service's largest offset.
        self.changes.end_active_list(is_complete=end.is_complete)
        return True

    def active_pages(self, end: ListEnd) -> AsyncIterator[list[Run]]:
        """Read the active runs, all of them.

        :param end: is told whether the last page was read.
        """
        return self._all_pages("active", MAX_PAGE_RUNS, end)

    def ended_pages(self, limit: int, end: ListEnd) -> AsyncIterator[list[Run]]:
        """Read the ended runs, from the latest start on.

        :param limit: runs of the first page, at most. The limit doubles with each further page.
        :param end: is told whether the last page was read.
        """
        return self._all_pages("ended", limit, end)

    async def _all_pages(self, which: str, limit: int, end: ListEnd) -> AsyncIterator[list[Run]]:
        """Read a list, beyond the largest offset by windows of a later version."""
        earliest = 0
        async for page in self._pages(which, limit, end=end):
            if page:
                earliest = start_of(page[-1])
            yield page
        if end.is_complete or self._since_2_1 or not earliest:
            return
        if not self.changes.can_read_windows:
            return
        try:
            async for page in self._pages(which, MAX_PAGE_RUNS, end=end, start_time_to=earliest):
                yield page
        except WINDOW_ERRORS as error:
            self.changes.suspend_windows(error)
        else:
            self.changes.record_windows_read()

    async def _read_ended(
        self, missing: set[int], seen: set[int], publish: Publish, max_waste: float
    ) -> None:
        """Read the ended runs, as long as that finds missing ones.

        :param missing: ids of the runs to find.
        :param seen: is given the ids that were found.
        :param publish: takes the runs of a page.
        :param max_waste: the cost that pages may have beyond what they find. The list is in order
            of start, not of end, so a page that finds little does not end the search at once.
        """
        limit, density = max(MIN_PAGE_RUNS, 2 * len(missing)), 1.0
        async for page in self._pages("ended", limit):
            listed = len(page)
            published = await publish(page)
            found = len(missing & published)
            missing = missing - published
            seen |= published
            max_waste -= max(0.0, self._cost("ended", listed) - found)
            density = (density + (found / listed if listed else 0.0)) / 2
            limit = min(2 * limit, self._page_limit("ended"))
            cost = self._cost("ended", limit)
            if len(missing) <= cost or (density * limit <= cost and max_waste < cost):
                break

    # -- costs ---------------------------------------------------------------------------------

    def _bytes_per_run(self, which: str) -> float:
        return max(1.0, self._run_bytes.get(which, ASSUMED_RUN_BYTES))

    def _page_limit(self, which: str) -> int:
        """Return the largest number of runs to read with one page."""
        limit = FIRST_PAGE_RUNS
        if which in self._run_bytes:
            limit = int(MAX_PAGE_BYTES / self._bytes_per_run(which))
        most = self._max_page_runs
        if which in _OF_LATER_VERSION.values():
            most = min(most, MAX_PAGE_RUNS_SINCE_2_1)
        return min(most, max(MIN_PAGE_RUNS, limit))

    def _cost(self, which: str, runs: int) -> float:
        """Return the cost of a page with so many runs, in requests."""
        return 1 + runs * self._bytes_per_run(which) / BYTES_PER_UNIT_OF_COST

    # -- pages ---------------------------------------------------------------------------------

    async def _pages(
        self, which: str, limit: int, *, end: ListEnd | None = None, **filters: int
    ) -> AsyncIterator[list[Run]]:
        """Read a list page by page, so that no run is missed between two pages.

        :param which: ``active`` or ``ended``.
        :param limit: runs of the first page, at most. The limit doubles with each further page.
        :param end: is told whether the last page was read.
        :param filters: further parameters of the request.
        """
        call = self._call(which, is_window=bool(filters)).with_parameters(**filters)
        if filters and not self._since_2_1:
            which = _OF_LATER_VERSION[which]
        pages = Paginator(call)
        previous_ids: set[int] = set()
        overlap = 0
        while not pages.is_exhausted:
            limit = min(limit, self._page_limit(which))
            position = pages.offset
            page = await self._next_page(which, pages, limit)
            if page is None:
                return
            ids = page.ids
            pages.add_page(page)
            limit *= 2
            yield page.items
            # To keep no page in memory while the next one is read.
            page.items.clear()
            if overlap:
                # How many of its first runs the previous page had, too.
                shared = max(
                    (n for n, run_id in enumerate(ids, 1) if run_id in previous_ids), default=0
                )
                max_overlap = min(len(previous_ids), len(ids)) // 2
                if not shared and overlap < max_overlap:
                    position += overlap
                    overlap = self._overlap = min(4 * overlap, max_overlap)
                    pages.seek(position - overlap)
                    continue
                moved = overlap - shared
                self._overlap = max(MIN_OVERLAP_RUNS, 2 * moved, self._overlap * 9 // 10)
            if end is not None:
                end.is_complete = pages.is_exhausted
            if pages.is_exhausted or pages.token is not None:
                continue
            if position >= MAX_OFFSET:
                return
            # The list of ended runs never moves forward: runs are only added to it.
            overlap = min(self._overlap, len(ids) // 2) if which == "active" else 0
            pages.seek(min(pages.offset - overlap, MAX_OFFSET))
            previous_ids = set(ids)

    def _find_window_version(self) -> str | None:
        """Return the version whose lists take a window of start times; None if there is none."""
        try:
            return self._client.version_of(list_runs().with_parameters(start_time_from=0))
        except InvalidRequestError:
            return None  # the connection's api_version is 2.0

    def _call(self, which: str, *, is_window: bool) -> Call[Page[Run]]:
        call = list_runs(
            active_only=which == "active" or None,
            completed_only=which == "ended" or None,
            check_items=False,
            item_hook=self._item_hook,
        )
        if (self._since_2_1 or is_window) and which == "ended":
            # Without this the runs have no tasks, whose output will be read.
            call = call.with_parameters(expand_tasks=True)
        # Else each list would have its version found out anew, by all rules of requests.
        version = self._window_version if is_window else self._version
        return call._replace(default_api_version=version)

    async def _next_page(self, which: str, pages: Paginator[Run], limit: int) -> Page[Run] | None:
        """Read one page; None if the rest of the list cannot be read."""
        pages.limit = limit
        # Without the windows of a later version the lists of 2.0 are still of use.
        is_optional = which in _OF_LATER_VERSION.values()
        # Nor is it an outage if a list that failed before, while runs could be read, fails again.
        waits_out_outages = not is_optional and self._suspend_seconds is None
        while True:
            try:
                page = await self._read_page(pages.call(), waits_out_outages=waits_out_outages)
                break
            except ConflictError:
                raise
            except BadRequestError as error:
                if not is_optional and pages.reduce_limit(error):
                    self._max_page_runs = pages.limit
                    continue
                if pages.offset or pages.token is not None:
                    return None  # beyond the largest offset, or the token has expired
                raise
        if page.items:
            size = self._client.last_response_bytes / len(page.items)
            # A larger size counts at once, a smaller one by and by.
            self._run_bytes[which] = max(size, (size + self._run_bytes.get(which, size)) / 2)
        return page
