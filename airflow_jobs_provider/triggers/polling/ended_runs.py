"""EndedRuns: the runs of a workspace that end, for all watches of one connection.

All watches share one reading of the lists in each polling period, whatever their number. Its pages
are also given to the waits of the poller, so that these need not read the lists again. Each watch
has a position of its own, from which it continues: see :mod:`.watch_position`.

Nothing is concluded from a read that failed. The next one begins where the last complete one ended,
however long the outage was.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from airflow_jobs_provider.api.errors import JobsAPIError
from airflow_jobs_provider.api.ids import parse_id
from airflow_jobs_provider.api.retry import async_sleep, seconds_to_wait
from airflow_jobs_provider.triggers.polling.all_run_lists import (
    EVENT_FIELDS,
    ActiveRun,
    AllRunLists,
    Lists,
)
from airflow_jobs_provider.triggers.polling.job_details import JobDetails, JobDetailsCache
from airflow_jobs_provider.triggers.polling.list_pages import ListPageReader
from airflow_jobs_provider.triggers.polling.run_lists import RunLists
from airflow_jobs_provider.triggers.polling.waiters import PartialRun
from airflow_jobs_provider.triggers.polling.watch_position import (
    MARGIN_MS,
    ListsRead,
    WatchPosition,
    end_of,
)

if TYPE_CHECKING:
    from airflow_jobs_provider.triggers.polling.reader import RunReader
    from airflow_jobs_provider.triggers.polling.sender import Sender
    from airflow_jobs_provider.triggers.polling.waiters import Waiters

__all__ = ["EndedRun", "EndedRuns", "Selection", "Watch", "WatchBatch"]

log = logging.getLogger(__name__)

# Before the first read: watches start one after the other.
COLLECT_SECONDS = 2.0
# A run may be on the lists so much later than its start.
OVERLAP_MS = 60_000
# Runs whose ids are in a position. Of all others it has the earliest start, and a restart reads the
# ended runs from there. With few ids, that would be weeks where many runs are active for weeks.
MAX_ACTIVE_IDS = 1_000
# A watch without events gives its position this often, so that a restart has little to read. One
# that begins at a stored position does so for the first time at a random moment within that time,
# since all watches of a triggerer begin at once after its restart.
POSITION_SECONDS = 900.0
# So much earlier at most, at random: many watches would store their positions at the same moment.
POSITION_JITTER = 0.25
# The longest pause after a read that took longer than the period.
MAX_PAUSE_SECONDS = 60.0
# The lists are read for watches this much earlier than the poller would read them for its waits.
EARLY_FRACTION = 0.8
# The wait after an error that does not pass by itself. It doubles up to ten minutes.
REFUSED_SECONDS = 30.0
MAX_REFUSED_SECONDS = 600.0
# After so many reads in a row the part of the list that the service does not show is given up.
MAX_INCOMPLETE_READS = 3


class Selection(Protocol):
    """Which runs a watch reports."""

    @property
    def job_id(self) -> int | None:
        """The only job whose runs the watch reports; None for several jobs."""

    @property
    def needs_job(self) -> bool:
        """Whether a run is chosen by its job's name or tags."""

    def may_match(self, run: Mapping[str, Any]) -> bool:
        """Whether the watch reports a run, as far as the run itself tells."""

    def matches(self, run: Mapping[str, Any], job: JobDetails) -> bool:
        """Whether the watch reports a run of a job."""


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that has ended, as a list shows it, with what is known of its job."""

    run: Mapping[str, Any]
    job: JobDetails


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """The runs that one read has shown to a watch.

    :ivar runs: runs that have ended, the earliest end first.
    :ivar position: the position after them, as JSON.
    """

    runs: Sequence[EndedRun]
    position: Mapping[str, Any]


@dataclass(eq=False)
class Watch:
    """One watch.

    :ivar selection: which runs it reports.
    :ivar period: seconds between two reads, at most.
    :ivar position: how far it has come. It goes on with each batch.
    """

    selection: Selection
    period: float
    position: WatchPosition
    queue: asyncio.Queue[WatchBatch | Exception] = field(default_factory=asyncio.Queue)
    is_new: bool = True
    next_position_at: float = field(init=False)

    def __post_init__(self) -> None:
        # Without a stored position a restart would look back again, from another time.
        share = 0.0 if self.position.is_first else random.random()  # noqa: S311 - no secret
        self.next_position_at = time.monotonic() + POSITION_SECONDS * share


class EndedRuns:
    """Reads the lists of runs for all watches of a connection.

    :param waiters: the waits of the connection's poller.
    :param opened: returns the poller's sender and reader in a context that keeps it open.
    """

    def __init__(
        self,
        waiters: Waiters,
        opened: Callable[[], AbstractAsyncContextManager[tuple[Sender, RunReader]]],
    ) -> None:
        self._waiters = waiters
        self._opened = opened
        self._watches: dict[Watch, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._active: dict[int, ActiveRun] = {}
        # The ended runs of the last read, with the time of their end.
        self._seen: dict[int, int] = {}
        # The lists were read for runs that started up to this time, in milliseconds.
        self._started_from = 0
        self._latest = self._latest_start = 0
        # Reads in a row in which the list of ended runs ended too early.
        self._incomplete_reads = 0
        self._joined = asyncio.Event()

    async def follow(self, watch: Watch) -> AsyncGenerator[WatchBatch, None]:
        """Yield what reads show to a watch: whenever runs have ended, and when a position is due.

        :param watch: the watch.
        :raises Exception: the poller has ended: the connection cannot be read, say.
        """
        watch.is_new, watch.queue = True, asyncio.Queue()
        self._watches[watch] = None
        self._joined.set()
        if self._task is None or self._task.done():
            # A context of its own, as the poller's.
            self._task = asyncio.get_running_loop().create_task(
                self._run(), context=contextvars.Context()
            )
        try:
            while True:
                batch = await watch.queue.get()
                if isinstance(batch, Exception):
                    raise batch
                yield batch
        finally:
            self._watches.pop(watch, None)
            if not self._watches and self._task is not None:
                self._task.cancel()
                self._task = None

    # -- the loop ------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            async with self._opened() as (poller_sender, reader), AsyncExitStack() as stack:
                sender = poller_sender.for_watchers()
                stack.callback(sender.forget_outage)
                pages = ListPageReader(sender, waiting_runs=lambda: len(self._watches))
                lists = RunLists(sender.client, pages.read, self._needed_part)
                read = AllRunLists(lists, sender, reader.publisher.publish_page)
                jobs = JobDetailsCache(sender)
                await asyncio.sleep(seconds_to_wait(min(COLLECT_SECONDS, self._period())))
                while True:
                    began = time.monotonic()
                    if await self._read(read, jobs, sender):
                        seconds = time.monotonic() - began
                        # A pause as long as the read, where there is very much to read. A long wait
                        # for the service does not delay the next read.
                        pause = min(seconds, MAX_PAUSE_SECONDS)
                        await self._sleep(max(self._period() - seconds, pause))
        except Exception as error:  # noqa: BLE001 - each watch must get it
            for watch in self._watches:
                watch.queue.put_nowait(error)
            # Nothing is given to a watch that has yet to see the error.
            self._watches.clear()

    async def _sleep(self, seconds: float) -> None:
        """Wait for the next read. A watch that is added gets its first one within its period."""
        end = time.monotonic() + seconds_to_wait(seconds)
        while (left := end - time.monotonic()) > 0:
            self._joined.clear()
            try:
                async with asyncio.timeout(left):
                    await self._joined.wait()
            except TimeoutError:
                return
            end = min(end, time.monotonic() + self._period())

    def _period(self) -> float:
        """Return the seconds between two reads."""
        period = min((watch.period for watch in self._watches), default=0.0)
        if self._waiters and (shortest := self._waiters.shortest_period()) >= period / 2:
            return min(period, shortest * EARLY_FRACTION)
        return period

    def _needed_part(self, run: Any) -> Any:
        """Return of a listed run what a waiter or a watch needs."""
        part = self._waiters.needed_part(run)
        if not isinstance(part, PartialRun) or not isinstance(run, dict):
            return part
        return PartialRun({name: run[name] for name in EVENT_FIELDS if name in run} | part)

    async def _read(self, lists: AllRunLists, jobs: JobDetailsCache, sender: Sender) -> bool:
        """Read the lists once, and report; return False after a failure that was waited out."""
        refused_seconds = REFUSED_SECONDS
        while True:
            try:
                await self._read_lists(lists, jobs)
            except JobsAPIError as error:
                if await sender.wait_out(error, len(self._watches)):
                    return False
                log.warning(
                    "The runs that end cannot be watched; the next try is in %.0f s: %s",
                    refused_seconds,
                    error,
                )
                await async_sleep(refused_seconds)
                refused_seconds = min(2 * refused_seconds, MAX_REFUSED_SECONDS)
            else:
                sender.record_answer()
                sender.outage.record_success()
                return True

    async def _read_lists(self, lists: AllRunLists, jobs: JobDetailsCache) -> None:
        began = time.monotonic()
        watches = list(self._watches)
        new = [watch for watch in watches if watch.is_new]
        stored = [watch.position.started_from for watch in new if not watch.position.is_first]
        first = [watch.position.started_from for watch in new if watch.position.is_first]
        is_going_on = len(new) < len(watches)
        expected = dict(self._active) if is_going_on else {}
        for watch in new:
            for run_id in watch.position.active:
                expected.setdefault(run_id, ActiveRun())
        never = 2**63
        # Without any other watch the latest page is enough beside what a look-back needs.
        started_from = min([*stored, self._started_from if is_going_on else never])
        found = await lists.read(expected, started_from, min([*first, never]))
        seconds = time.monotonic() - began
        ended = sorted(found.ended.values(), key=end_of)
        fresh = [run for run in ended if self._seen.get(run["run_id"]) != end_of(run)]
        reports = [(one, self._report(one, ended if one.is_new else fresh)) for one in watches]
        wanted = {watch: {_job_of(run) for run in runs} - {0} for watch, runs in reports}
        needed = [wanted[watch] for watch in watches if watch.selection.needs_job]
        details = await jobs.read(set().union(*needed))
        read = self._record(found, seconds)
        for watch, runs in reports:
            lists_read = None if read is None else read.for_job(watch.selection.job_id)
            if watch.selection.needs_job and not wanted[watch] <= details.keys():
                self._postpone(watch, runs, lists_read)
            else:
                self._publish(watch, runs, details, lists_read)

    def _report(self, watch: Watch, ended: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the runs that a watch may report, in the same order."""
        active: Collection[int] = () if watch.is_new else self._active
        return [
            run
            for run in ended
            if watch.position.is_unreported(run, active) and watch.selection.may_match(run)
        ]

    def _record(self, found: Lists, seconds: float) -> _PositionsAfterRead | None:
        """Continue from what was read; return how far all watches have come.

        None: a part of the list of ended runs could not be read, and is to be read again.
        """
        self._active = found.active
        self._seen = {run_id: end_of(run) for run_id, run in found.ended.items()}
        if not found.is_complete:
            self._incomplete_reads += 1
            if self._incomplete_reads < MAX_INCOMPLETE_READS:
                return None
            log.warning(
                "The service does not list the ended runs back to where they were read last: "
                "runs that ended during an outage may be missing."
            )
        self._incomplete_reads = 0
        # A run with a time in the far future must not hide all others.
        limit = int(time.time() * 1000) + MARGIN_MS
        self._latest = min(max(self._latest, found.latest), limit)
        self._latest_start = min(max(self._latest_start, found.latest_start), limit)
        self._started_from = self._latest_start - OVERLAP_MS - int(seconds * 1000)
        return _PositionsAfterRead(self._active, self._latest - MARGIN_MS, self._started_from)

    def _postpone(
        self, watch: Watch, runs: Sequence[Mapping[str, Any]], read: ListsRead | None
    ) -> None:
        """Let a watch have its runs at the next read, since their jobs cannot be read for now."""
        watch.is_new = True
        if read is not None:
            watch.position.advance(read)
        watch.position.add_unreported([run["run_id"] for run in runs])

    def _publish(
        self,
        watch: Watch,
        runs: Sequence[Mapping[str, Any]],
        details: Mapping[int, JobDetails],
        read: ListsRead | None,
    ) -> None:
        """Give a watch its runs and its new position."""
        if watch not in self._watches:
            return
        ended = []
        for run in runs:
            # Not what is known for another watch: equal runs make equal events.
            needs_job = watch.selection.needs_job
            job = details[_job_of(run)] if needs_job and _job_of(run) else _UNKNOWN_JOB
            if watch.selection.matches(run, job):
                ended.append(EndedRun(run, job))
                watch.position.reported[run["run_id"]] = end_of(run)
        now = time.monotonic()
        is_due = now >= watch.next_position_at
        if read is not None:
            watch.position.advance(read)
            watch.is_new = False
        if ended or is_due:
            earlier = random.uniform(0, POSITION_JITTER)  # noqa: S311 - no secret
            watch.next_position_at = now + POSITION_SECONDS * (1 - earlier)
            watch.queue.put_nowait(WatchBatch(ended, watch.position.as_json()))


class _PositionsAfterRead:
    """How far watches have come with one read of all lists.

    :param active: the active runs, by id.
    :param ended_after: runs that end later may not be on the lists yet, in milliseconds.
    :param started_from: the lists were read for runs that started up to this time.
    """

    def __init__(
        self, active: Mapping[int, ActiveRun], ended_after: int, started_from: int
    ) -> None:
        self._ended_after = ended_after
        self._started_from = started_from
        # Those that end soon, those of unknown start, and those that have run for longest.
        self._active = sorted(
            active.items(), key=lambda item: (not item[1].is_terminating, item[1].start)
        )
        self._of_jobs: dict[int | None, list[tuple[int, ActiveRun]]] = {}
        for run_id, run in self._active:
            self._of_jobs.setdefault(run.job_id, []).append((run_id, run))
        self._made: dict[int | None, ListsRead] = {}

    def for_job(self, job_id: int | None) -> ListsRead:
        """Return the part of a position that all watches of a job share.

        :param job_id: the job; None for watches of several jobs.
        """
        if job_id not in self._made:
            active = self._active
            if job_id is not None:
                # A run whose job is not known may be the job's.
                active = [*self._of_jobs.get(None, ()), *self._of_jobs.get(job_id, ())]
            rest = [run.start for _, run in active[MAX_ACTIVE_IDS:]]
            self._made[job_id] = ListsRead(
                ended_after=self._ended_after,
                started_from=max(0, min([self._started_from, *rest])),
                active=frozenset(run_id for run_id, _ in active[:MAX_ACTIVE_IDS]),
            )
        return self._made[job_id]


_UNKNOWN_JOB = JobDetails()
# The service gives such a run the id of a job that does not exist.
_TYPES_WITHOUT_JOB = ("SUBMIT_RUN", "WORKFLOW_RUN")


def _job_of(run: Mapping[str, Any]) -> int:
    """Return the id of a run's job; 0 if it has none that can be read."""
    if run.get("run_type") in _TYPES_WITHOUT_JOB:
        return 0
    return parse_id(run.get("job_id")) or 0
