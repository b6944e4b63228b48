"""The lists of runs of a workspace in memory, of which only what has changed is read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable
from typing import Any

from airflow_jobs_provider.triggers.polling.run_changes import RunChanges
from airflow_jobs_provider.triggers.polling.window_sweep import ListEnd

__all__ = ["PAGE", "PERIOD", "ListedRuns"]

# The polling period in seconds, and the runs on a page.
PERIOD = 10.0
PAGE = 5


class ListedRuns:
    """The lists of a workspace: each run starts at its id.

    :ivar asked: the list and the filters of each page.
    :ivar published: the runs of the pages.
    :ivar postponed: the runs that have not ended.
    :ivar by_id: the runs that were read by their ids.
    :ivar is_throttled: whether runs cannot be read by their ids.
    :ivar most_pages: so many pages of a list can be read, without filters.
    :ivar incomplete: ended runs that are not published.
    :ivar results: the result states of ended runs, default SUCCESS.
    :ivar window_error: is raised instead of a page of a window.
    """

    def __init__(
        self,
        active: Iterable[int],
        ended: Iterable[int] = (),
        *,
        filters: bool,
        window_page: int = PAGE,
    ) -> None:
        self.active, self.ended = sorted(active, reverse=True), sorted(ended, reverse=True)
        self.states: dict[int, str] = {}
        self.most_pages = 1000
        self.waited_for = set(self.active) | set(self.ended)
        self.now = 1_000.0
        self.asked: list[tuple[str, dict[str, int]]] = []
        self.published: set[int] = set()
        self.postponed: set[int] = set()
        self.by_id: set[int] = set()
        self.is_throttled = False
        self.incomplete: set[int] = set()
        self.results: dict[int, str] = {}
        self.window_error: Exception | None = None
        self.by_id_error: Exception | None = None
        self.changes = RunChanges(
            self.pages, PAGE, window_page_runs=window_page if filters else None
        )

    async def pages(
        self, which: str, limit: int, *, end: ListEnd, **filters: int
    ) -> AsyncIterator[list[Any]]:
        """Read a list."""
        ids = [
            run_id
            for run_id in (self.active if which == "active" else self.ended)
            if filters.get("start_time_from", 0) <= run_id <= filters.get("start_time_to", 10**9)
        ]
        if "start_time_to" in filters and self.window_error is not None:
            self.asked.append((which, filters))
            raise self.window_error
        most = 1000 if filters else self.most_pages
        for first in range(0, max(1, len(ids)), limit)[:most]:
            self.asked.append((which, filters))
            end.is_complete = first + limit >= len(ids)
            yield [self.run(run_id, which) for run_id in ids[first : first + limit]]

    def run(self, run_id: int, which: str) -> dict[str, Any]:
        """Return a run as a list has it."""
        state = self.states.get(run_id, "RUNNING" if which == "active" else "TERMINATED")
        states = {"life_cycle_state": state}
        if which == "ended":
            states["result_state"] = self.results.get(run_id, "SUCCESS")
        return {"run_id": run_id, "start_time": run_id, "state": states}

    async def publish(self, runs: Iterable[Any]) -> set[int]:
        """Take the runs of a page."""
        found = {run["run_id"] for run in runs} & self.waited_for - self.incomplete
        self.published |= found
        return found

    async def read_by_id(self, run_ids: Collection[int]) -> bool:
        """Read runs by their ids, unless the service answers 429."""
        if self.by_id_error is not None:
            raise self.by_id_error
        if not self.is_throttled:
            self.by_id.update(run_ids)
        return not self.is_throttled

    def knows(self, *run_ids: int) -> None:
        """Let the starts of these runs be known from an earlier read of all lists."""
        runs: Any = [self.run(run_id, "active") for run_id in run_ids]
        self.changes.record_starts(runs, self.waited_for)

    async def read(self, due: Iterable[int], each_read: Iterable[int] = ()) -> set[int]:
        """Read what has changed."""
        self.asked.clear()
        self.published.clear()
        self.postponed.clear()
        self.by_id.clear()
        return await self.changes.read(
            set(due),
            set(each_read),
            self.waited_for,
            PERIOD,
            self.publish,
            self.postponed.update,
            self.read_by_id,
        )

    def pages_of(self, which: str) -> int:
        """Return how many pages of a list were read."""
        return sum(asked == which for asked, _ in self.asked)
