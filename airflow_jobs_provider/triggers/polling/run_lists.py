"""Reading many runs at once, from lists, and knowing what that costs.

The service lists runs by pages, latest start first, the active ones and those that have ended
apart. A page of offset and limit is a window on a list that moves: each active run that ends
between two pages draws what follows one place forward, out of the next page. So the next page
begins some runs before the end of the last one, the more the further the list was seen to move;
where the two pages do not touch, the page is read again from further back. Pages by token begin
where the last one ended, whatever moves.

What is missing from the lists is told to whoever asked: it means nothing but that.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_jobs_provider.api.endpoints import list_runs
from airflow_jobs_provider.api.errors import BadRequestError, ConflictError, ResponseLostError
from airflow_jobs_provider.api.pagination import Paginator
from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.api.versions import OLDEST_API_VERSION

if TYPE_CHECKING:
    from airflow_jobs_provider.api.client import AsyncJobsClient
    from airflow_jobs_provider.api.endpoints import Call, Page
    from airflow_jobs_provider.api.errors import JobsAPIError

__all__ = ["PageTimeoutError", "RunLists", "is_whole", "page_deadline"]

Run: TypeAlias = "dict[str, Any]"
Tell: TypeAlias = "Callable[[Iterable[Run]], Awaitable[set[int]]]"
log = logging.getLogger(__name__)

# A page of so many bytes costs as much as one more request: its reading is work here and there.
BYTES_LIKE_A_REQUEST = 1_000_000
# A page larger than this would keep the event loop from everybody else for too long.
PAGE_BYTES = 3_000_000
# A page that takes longer is given up: all runs wait for it, and each can be read by itself.
PAGE_SECONDS = 30.0
LARGEST_PAGE = 1000
LARGEST_PAGE_SINCE_2_1 = 25
SMALLEST_PAGE = 25
# Before anything was measured.
ASSUMED_RUN_BYTES = 1_500.0
FIRST_PAGE = 100
# Runs of the last page that are read again at the least, where pages go by offset.
LEAST_OVERLAP = 10
# The service lists no further than this (an offset over it is an error).
LAST_OFFSET = 10_000
# What a search in the list of ended runs may cost in vain, as a part of what asking for each of the
# due runs would.
SEARCH = 0.1
# How long lists are left alone after the service refused one, and at first where one did not work
# though the runs themselves could be read: twice as long each time.
REFUSED_SECONDS = 600.0
DOES_NOT_WORK_SECONDS = 60.0


class RunLists:
    """Reads the lists of active and of ended runs, in as few and as small pages as will do.

    :param client: of the workspace.
    :param ask: sends a call for a page, at the workspace's rate_limiter.
    """

    def __init__(
        self,
        client: AsyncJobsClient,
        ask: Callable[[Call[Page[Run]]], Awaitable[Page[Run]]],
    ) -> None:
        self._client = client
        self._ask = ask
        self._since_2_1 = client.version_of(list_runs()) != OLDEST_API_VERSION
        self._largest_page = LARGEST_PAGE_SINCE_2_1 if self._since_2_1 else LARGEST_PAGE
        self._measured: dict[str, float] = {}
        self._listed_active = 0.0
        self._overlap = LEAST_OVERLAP
        self._refused_until = 0.0
        self._leave_alone_seconds = DOES_NOT_WORK_SECONDS

    def are_cheaper_than(self, readings: int) -> bool:
        """Whether the list of active runs, as last read, costs less than so many readings."""
        if time.monotonic() < self._refused_until:
            return False
        listed = max(int(self._listed_active), readings)
        pages = -(-listed // self._limit("active"))
        if pages + listed * self._bytes("active") / BYTES_LIKE_A_REQUEST < readings:
            return True
        # Others' runs end, so what was measured is trusted less and less.
        self._listed_active *= 0.95
        return False

    async def read(self, due: set[int], waited_for: Collection[int], tell: Tell) -> set[int]:
        """Read the active runs, then the latest that ended; return the due ones in neither.

        :param due: ids of the runs that are to be read now.
        :param waited_for: ids of all runs that somebody waits for.
        :param tell: takes the runs of a page and returns the ids of those that are waited for.
        """
        seen: set[int] = set()
        try:
            to_its_end = await self._read_active(len(due), seen, tell)
            # What is in no list of active runs has ended, or is beyond its reach, or was deleted:
            # also what is not due yet, and would be missing again in a moment.
            missing = (set(waited_for) if to_its_end else due) - seen
            if due - seen and len(missing) > self._cost("ended", len(missing)):
                await self._read_ended(missing, seen, tell, SEARCH * len(due - seen))
            self._leave_alone_seconds = DOES_NOT_WORK_SECONDS
        except ConflictError:
            raise
        except BadRequestError as error:
            # Not allowed, or not in the way it was asked: the runs themselves can be read.
            self._refused_until = time.monotonic() + REFUSED_SECONDS
            log.info("Runs are read one by one, since listing them is refused: %s", error)
        return due - seen

    def do_not_work(self, error: JobsAPIError) -> None:
        """Leave lists alone for a while, since one did not work although runs can be read."""
        seconds = self._leave_alone_seconds
        if seconds == DOES_NOT_WORK_SECONDS:
            log.info(
                "Runs are read one by one for now, since listing them does not work: %s", error
            )
        self._refused_until = time.monotonic() + seconds
        self._leave_alone_seconds = min(2 * seconds, REFUSED_SECONDS)

    async def _read_active(self, worth: int, seen: set[int], tell: Tell) -> bool:
        """Read the active runs; False where it was given up since it costs more than its worth."""
        listed, cost = 0, 0.0
        async for page in self._pages("active", LARGEST_PAGE):
            listed += len(page)
            seen |= await tell(page)
            cost += self._cost("active", len(page))
            if cost > worth:
                # There is at least one more page, it seems.
                self._listed_active = listed + self._limit("active")
                return False
        self._listed_active = listed
        return True

    async def _read_ended(
        self, missing: set[int], seen: set[int], tell: Tell, spare: float
    ) -> None:
        """Read the runs that ended as long as that finds missing ones.

        :param spare: what reading may cost in vain: the latest to end need not be the latest to
            start, so pages that find little do not end the search at once.
        """
        limit, density = max(SMALLEST_PAGE, 2 * len(missing)), 1.0
        async for page in self._pages("ended", limit):
            read = len(page)
            told = await tell(page)
            found = len(missing & told)
            missing = missing - told
            seen |= told
            spare -= max(0.0, self._cost("ended", read) - found)
            density = (density + (found / read if read else 0.0)) / 2
            limit = min(2 * limit, self._limit("ended"))
            cost = self._cost("ended", limit)
            if len(missing) <= cost or (density * limit <= cost and spare < cost):
                break

    def _bytes(self, which: str) -> float:
        """Size of a run in a list, as measured."""
        return max(1.0, self._measured.get(which, ASSUMED_RUN_BYTES))

    def _limit(self, which: str) -> int:
        limit = int(PAGE_BYTES / self._bytes(which)) if which in self._measured else FIRST_PAGE
        return min(self._largest_page, max(SMALLEST_PAGE, limit))

    def _cost(self, which: str, runs: int) -> float:
        return 1 + runs * self._bytes(which) / BYTES_LIKE_A_REQUEST

    async def _pages(self, which: str, limit: int) -> AsyncIterator[list[Run]]:
        """Read a list page by page, so that no run slips through between two pages.

        :param limit: runs on the first page; each further one may have twice as many as the last.
        """
        pages = Paginator(self._call(which))
        before: set[int] = set()
        overlap = 0
        while not pages.is_exhausted:
            limit = min(limit, self._limit(which))
            position = pages.offset
            page = await self._page(which, pages, limit)
            if page is None:
                return
            ids = page.ids
            pages.add_page(page)
            limit *= 2
            yield page.items
            # A page is not kept while the next one is read.
            page.items.clear()
            if overlap:
                # How far down the new page the last one reaches.
                touching = max(
                    (n for n, run_id in enumerate(ids, 1) if run_id in before), default=0
                )
                most = min(len(before), len(ids)) // 2
                if not touching and overlap < most:
                    position += overlap
                    overlap = self._overlap = min(4 * overlap, most)
                    pages.seek(position - overlap)
                    continue
                moved = overlap - touching
                self._overlap = max(LEAST_OVERLAP, 2 * moved, self._overlap * 9 // 10)
            if pages.is_exhausted or pages.token is not None:
                continue
            if position >= LAST_OFFSET:
                return
            # Of the list of ended runs nothing is drawn forward: what ends comes in.
            overlap = min(self._overlap, len(ids) // 2) if which == "active" else 0
            pages.seek(min(pages.offset - overlap, LAST_OFFSET))
            before = set(ids)

    def _call(self, which: str) -> Call[Page[Run]]:
        call = list_runs(
            active_only=which == "active" or None,
            completed_only=which == "ended" or None,
            check_items=False,
        )
        if self._since_2_1 and which == "ended":
            # Else the runs would come without their tasks, whose output is to be read.
            call = call.with_parameters(expand_tasks=True)
        return call

    async def _page(self, which: str, pages: Paginator[Run], limit: int) -> Page[Run] | None:
        """Read one page; None where a list that was begun cannot be read on."""
        pages.limit = limit
        while True:
            try:
                page = await self._ask(pages.call())
                break
            except ConflictError:
                raise
            except BadRequestError as error:
                if pages.reduce_limit(error):
                    self._largest_page = pages.limit
                    continue
                if pages.offset or pages.token is not None:
                    return None  # beyond the list's reach, or a token that has grown old
                raise
        if page.items:
            size = self._client.last_response_bytes / len(page.items)
            # Larger runs are believed at once, smaller ones by and by.
            self._measured[which] = max(size, (size + self._measured.get(which, size)) / 2)
        return page


class PageTimeoutError(ResponseLostError):
    """A page of a list did not come within :data:`PAGE_SECONDS`."""


@asynccontextmanager
async def page_deadline() -> AsyncIterator[None]:
    """Bound the time of one request for a page, and of its answer.

    :raises PageTimeoutError: it took too long.
    """
    try:
        async with asyncio.timeout(PAGE_SECONDS):
            yield
    except TimeoutError:
        raise PageTimeoutError(f"a page did not come within {PAGE_SECONDS:g} s") from None


def is_whole(run: Run) -> bool:
    """Whether a listed run has all that will be asked of it: lists may leave out tasks."""
    if run.get("format") != "MULTI_TASK" or not RunState.from_run(run).is_terminal:
        return True
    return bool(run.get("tasks")) and not run.get("has_more")
