"""Reading the lists of runs for watches: all active runs, and all that have ended since.

The list of active runs is read to its end. A run that was on it before and is not now has ended,
was deleted, or cannot be seen any more. The list of ended runs is read from the latest start back
to the time up to which it was read before. So it has each run that started and ended meanwhile. A
run that has ended and started earlier is looked for on the next pages, where several are, or is
read by its id.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.api.endpoints import get_run
from airflow_jobs_provider.api.errors import BadRequestError, ConflictError, JobsAPIError
from airflow_jobs_provider.api.ids import parse_id
from airflow_jobs_provider.api.responses import InvalidResponseError, parse_states
from airflow_jobs_provider.api.states import RunLifeCycleState, RunState
from airflow_jobs_provider.triggers.polling.rate_limiter import REQUESTS_AT_ONCE
from airflow_jobs_provider.triggers.polling.watch_position import end_of
from airflow_jobs_provider.triggers.polling.window_sweep import ListEnd, start_of

if TYPE_CHECKING:
    from airflow_jobs_provider.api.schema.types import Run
    from airflow_jobs_provider.triggers.polling.run_lists import RunLists
    from airflow_jobs_provider.triggers.polling.sender import Sender
    from airflow_jobs_provider.triggers.polling.window_sweep import Publish

__all__ = ["EVENT_FIELDS", "ActiveRun", "AllRunLists", "Lists"]

log = logging.getLogger(__name__)

# What is kept of a listed run: no settings, which may be large or have secrets.
EVENT_FIELDS = (
    "run_id",
    "job_id",
    "run_name",
    "run_type",
    "trigger",
    "state",
    "start_time",
    "end_time",
    "setup_duration",
    "execution_duration",
    "cleanup_duration",
    "run_duration",
    "run_page_url",
    "number_in_job",
    "original_attempt_run_id",
    "attempt_number",
    "creator_user_name",
)
# Runs of the first page of ended runs. The limit doubles with each further page.
FIRST_PAGE_RUNS = 25
# More pages of ended runs are read for runs that have left the list of active runs, as long as
# a page has so many of them. The others are read by their ids.
RUNS_WORTH_A_PAGE = 5
# Pages that are read back to a look-back, when there is no stored position.
MAX_FIRST_PAGES = 100
# Where runs cannot be read by their ids although the lists can, that is an outage at first. After
# so many reads in a row it concerns these runs only.
MAX_FAILED_READS = 3
# Runs beyond the end of an incomplete list of active runs that are read by their ids at a time.
UNLISTED_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class ActiveRun:
    """An active run.

    :ivar start: when it has started, in milliseconds; 0 if that is not known.
    :ivar is_terminating: whether it is ``TERMINATING``.
    :ivar job_id: its job; None if that is not known.
    """

    start: int = 0
    is_terminating: bool = False
    job_id: int | None = None

    @classmethod
    def from_run(cls, run: Mapping[str, Any]) -> ActiveRun:
        """Return what is kept of an active run."""
        state = RunState.from_run(run).life_cycle_state
        is_terminating = state == RunLifeCycleState.TERMINATING
        return cls(start_of(run), is_terminating, parse_id(run.get("job_id")))


@dataclass(slots=True)
class Lists:
    """What one read of the lists has shown.

    :ivar active: the active runs, by id.
    :ivar ended: the runs that have ended, by id.
    :ivar latest: the latest time in the lists, in milliseconds.
    :ivar latest_start: the latest start.
    :ivar is_complete: whether the list of ended runs was read back as far as asked.
    """

    active: dict[int, ActiveRun] = field(default_factory=dict)
    ended: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    latest: int = 0
    latest_start: int = 0
    is_complete: bool = False

    def add(self, run: Mapping[str, Any]) -> None:
        """Add a run that was listed, or read by its id."""
        run_id, start = int(run["run_id"]), start_of(run)
        try:
            parse_states(run)
        except InvalidResponseError:
            return
        if not RunState.from_run(run).is_terminal:
            self.active[run_id] = ActiveRun.from_run(run)
        else:
            # It may have ended after the list of active runs was read.
            self.active.pop(run_id, None)
            self.ended[run_id] = {name: run[name] for name in EVENT_FIELDS if name in run}
            self.latest = max(self.latest, end_of(run))
        self.latest_start = max(self.latest_start, start)
        self.latest = max(self.latest, start)


class AllRunLists:
    """Reads all lists of runs.

    :param lists: reads a list page by page.
    :param sender: sends the reads of single runs.
    :param publish: takes the runs of each page, for the waits of other triggers.
    """

    def __init__(self, lists: RunLists, sender: Sender, publish: Publish) -> None:
        self._lists = lists
        self._sender = sender
        self._publish = publish
        # Runs that could not be read by their ids, while others could.
        self._unreadable: set[int] = set()
        # Reads of the lists in a row after which runs could not be read by their ids.
        self._failed_reads = 0

    async def read(
        self, expected: Mapping[int, ActiveRun], started_from: int, first_started_from: int
    ) -> Lists:
        """Read the lists.

        :param expected: the runs that were active before.
        :param started_from: read the ended runs that started at this time or later, in
            milliseconds.
        :param first_started_from: the same for watches without a stored position, of which only
            :data:`MAX_FIRST_PAGES` pages are read.
        :raises JobsAPIError: a list cannot be read.
        """
        found = Lists()
        end = ListEnd()
        earliest = 0
        async for page in self._lists.active_pages(end):
            await self._take(page, found)
            earliest = start_of(page[-1]) if page else earliest
        await self._read_ended(found, expected, started_from, first_started_from)
        missing = [r for r in expected if r not in found.active and r not in found.ended]
        if not end.is_complete:
            # Runs that started before the last one of the list may still be active.
            unlisted = [r for r in missing if expected[r].start <= earliest]
            found.active |= {r: expected[r] for r in unlisted[UNLISTED_AT_ONCE:]}
            missing = [r for r in missing if r not in found.active]
        await self._read_by_id(missing, expected, found)
        return found

    async def _read_ended(
        self,
        found: Lists,
        expected: Mapping[int, ActiveRun],
        started_from: int,
        first_started_from: int,
    ) -> None:
        end = ListEnd()
        missing = {r for r in expected if r not in found.active}
        pages = 0
        found.is_complete = True
        async for page in self._lists.ended_pages(FIRST_PAGE_RUNS, end):
            pages += 1
            ids = [run["run_id"] for run in page]
            oldest = start_of(page[-1]) if page else started_from
            await self._take(page, found)
            left = missing.difference(ids)
            is_worth_it = len(missing) - len(left) >= RUNS_WORTH_A_PAGE <= len(left)
            missing = left
            if oldest >= started_from or (is_worth_it and pages < MAX_FIRST_PAGES):
                continue
            if oldest >= first_started_from and pages < MAX_FIRST_PAGES:
                continue
            return
        found.is_complete = end.is_complete

    async def _take(self, page: list[Run], found: Lists) -> None:
        await self._publish(page)
        for run in page:
            found.add(run)

    async def _read_by_id(
        self, run_ids: list[int], expected: Mapping[int, ActiveRun], found: Lists
    ) -> None:
        """Read runs by their ids. One that cannot be read counts as active until it can."""
        self._unreadable.intersection_update(run_ids)
        for start in range(0, len(run_ids), REQUESTS_AT_ONCE):
            portion = run_ids[start : start + REQUESTS_AT_ONCE]
            results = await _gather(portion, self._read_run)
            errors = {r: one for r, one in results.items() if isinstance(one, JobsAPIError)}
            if len(errors) == len(portion) and not self._unreadable.issuperset(errors):
                self._failed_reads += 1
                if self._failed_reads < MAX_FAILED_READS:
                    raise next(iter(errors.values()))
            for run_id, result in results.items():
                if isinstance(result, JobsAPIError):
                    found.active[run_id] = expected[run_id]
                    if run_id not in self._unreadable:
                        self._unreadable.add(run_id)
                        log.warning("Run %s cannot be read for now: %s", run_id, result)
                elif result is None:
                    log.info("Run %s was active and does not exist any more: no event", run_id)
                else:
                    found.add(result)
        self._failed_reads = 0

    async def _read_run(self, run_id: int) -> Run | None:
        """Read a run; return None if it does not exist."""
        try:
            return await self._sender.send_once(get_run(run_id))
        except ConflictError:
            raise
        except BadRequestError:
            return None


async def _gather(
    run_ids: Iterable[int], read: Callable[[int], Awaitable[Run | None]]
) -> dict[int, Run | JobsAPIError | None]:
    """Read runs at the same time; return each one's run, None, or error."""
    ids = list(run_ids)
    results = await asyncio.gather(*(read(run_id) for run_id in ids), return_exceptions=True)
    found: dict[int, Run | JobsAPIError | None] = {}
    for run_id, result in zip(ids, results, strict=True):
        if isinstance(result, BaseException) and not isinstance(result, JobsAPIError):
            raise result
        found[run_id] = result
    return found
