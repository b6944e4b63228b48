"""Publishing the runs that were read: each waiter gets its run when the run has changed."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from airflow_jobs_provider.api.responses import InvalidResponseError, parse_run, parse_states
from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.triggers.polling.list_pages import PageRuns
from airflow_jobs_provider.triggers.polling.waiters import PartialRun

if TYPE_CHECKING:
    from airflow_jobs_provider.api.schema.types import Run
    from airflow_jobs_provider.triggers.polling.outages import UnreadableRuns
    from airflow_jobs_provider.triggers.polling.sender import Sender
    from airflow_jobs_provider.triggers.polling.waiters import Waiters

__all__ = ["Publisher"]


# The event loop runs other tasks after so many waiters that got their runs, which takes 3 ms with
# what these do next, or after so many other runs, which takes 1 ms.
PUBLISH_AT_ONCE = 25
LOOK_AT_ONCE = 250


class Publisher:
    """Publishes runs to the waiters of a poller.

    :param waiters: the waiters.
    :param sender: is told that the API answers.
    :param unreadable_runs: is told which runs could be read.

    :ivar poll_seconds: how long the last poll of all due runs took.
    :ivar read_at: when runs were asked for by their ids, of those that were read while a page was
        awaited (monotonic clock). An older page is not published for them.
    :ivar asked_at: when runs were asked for by their ids that are not answered yet (monotonic
        clock). A run that a later page has shown is removed: the answer is older.
    """

    def __init__(self, waiters: Waiters, sender: Sender, unreadable_runs: UnreadableRuns) -> None:
        self.poll_seconds = 0.0
        self.read_at: dict[int, float] = {}
        self.asked_at: dict[int, float] = {}
        # When the page was asked for that was published last.
        self._page_asked_at = 0.0
        self._waiters = waiters
        self._sender = sender
        self._unreadable_runs = unreadable_runs
        self._latest: deque[int] = deque(maxlen=20)

    def latest_run_ids(self) -> Iterator[int]:
        """Return the runs that were read lately, the latest first."""
        return reversed(self._latest)

    def publish_run(self, run_id: int, run: Run) -> None:
        """Publish a run that was read by its id.

        :param run_id: the id that was sent, whatever id the run has.
        :param run: the run.
        """
        self._sender.record_answer()
        self._record_read(run_id)
        states = parse_states(run)
        self._waiters.publish(run_id, run, states, time.monotonic(), lambda period: period)

    async def publish_page(self, runs: Iterable[Run]) -> set[int]:
        """Publish the runs of a list; return the ids of those that need not be read by their ids.

        A run that lacks something its waiter needs, or that is not valid, is not published.
        """
        now = time.monotonic()
        page_asked_at = runs.asked_at if isinstance(runs, PageRuns) else now
        self._page_asked_at = page_asked_at
        next_read = self._next_read(now - page_asked_at)
        self._sender.record_answer()
        read_ids: set[int] = set()
        published = looked_at = 0
        for run in runs:
            if published >= PUBLISH_AT_ONCE or looked_at >= LOOK_AT_ONCE:
                published = looked_at = 0
                await asyncio.sleep(0)
            looked_at += 1
            run_id = run["run_id"]
            if run_id not in self._waiters:
                continue
            if self.read_at.get(run_id, page_asked_at - 1) >= page_asked_at:
                read_ids.add(run_id)
                continue
            try:
                states = parse_states(run)
                is_unchanged = self._waiters.postpone_unchanged(run_id, states, now, next_read)
                # The whole run is checked only if it is published: a page has a thousand runs.
                if not is_unchanged and not _is_complete(run):
                    continue
            except InvalidResponseError:
                continue
            read_ids.add(run_id)
            if self.asked_at.get(run_id, page_asked_at) < page_asked_at:
                del self.asked_at[run_id]
            self._record_read(run_id)
            if not is_unchanged:
                published += self._waiters.publish(run_id, run, states, now, next_read)
        return read_ids

    def postpone(self, run_ids: Collection[int]) -> None:
        """Set when runs are due that the page published last has shown not to have changed.

        :param run_ids: the runs.
        """
        now = time.monotonic()
        self._waiters.postpone(run_ids, now, self._next_read(now - self._page_asked_at))
        for run_id in self._unreadable_runs.run_ids().intersection(run_ids):
            self._unreadable_runs.record_success(run_id)

    def _next_read(self, age: float) -> Callable[[float], float]:
        """Return a function of a period: the seconds to the next read from a list.

        :param age: the seconds since the page was asked for.
        """
        # Random, so that pollers of several triggerers that started together drift apart.
        fraction = random.uniform(0.85, 0.97)  # noqa: S311

        def next_read(period: float) -> float:
            # Early enough for a run that is read last in a poll. A service that takes long is not
            # asked more often for it.
            seconds = max(period * fraction - self.poll_seconds, period * 0.7)
            # A page that comes late does not show what has happened since it was asked for.
            return max(0.0, min(seconds, period - age))

        return next_read

    def _record_read(self, run_id: int) -> None:
        self._latest.append(run_id)
        self._unreadable_runs.record_success(run_id)


def _is_complete(run: Run) -> bool:
    """Whether a listed run has what its waiters need.

    :raises InvalidResponseError: it is not a run.
    """
    if isinstance(run, PartialRun):
        # Nobody waited for this state when the page was parsed.
        return False
    run = parse_run(run)
    # Lists may leave the tasks out.
    if run.get("format") != "MULTI_TASK" or not RunState.from_run(run).is_terminal:
        return True
    return bool(run.get("tasks")) and not run.get("has_more")
