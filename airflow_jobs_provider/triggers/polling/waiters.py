"""The waits for runs: when each run is due to be read, and who gets it.

A waiter gets a run when the run has changed, which means: when its life cycle state or result state
is another than the waiter has seen.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from airflow_jobs_provider.api.ids import parse_id
from airflow_jobs_provider.api.responses import InvalidResponseError, parse_states
from airflow_jobs_provider.api.states import RunState

if TYPE_CHECKING:
    from airflow_jobs_provider.api.schema.types import Run

__all__ = ["PartialRun", "States", "Waiter", "Waiters", "without_details"]

#: Life cycle state and result state.
States: TypeAlias = "tuple[str | None, str | None]"


class PartialRun(dict[str, Any]):
    """The fields of a listed run that the poller itself needs. No waiter gets it."""

    __slots__ = ()


@dataclass(slots=True, eq=False)
class Waiter:
    """One wait for a change of a run.

    :ivar run_id: the run.
    :ivar period: seconds between two reads of the run, at most.
    :ivar due: when the run is to be read next (monotonic clock, seconds).
    :ivar report_at: when to publish the run although it has not changed (monotonic clock, seconds).
    :ivar known: the run's states as last seen; None for none.
    :ivar future: is resolved with the run.
    :ivar other: another waiter for the same run; None if there is none. A list for each run would
        be ten thousand objects more for the garbage collector.
    """

    run_id: int
    period: float
    due: float
    report_at: float
    known: States | None
    future: asyncio.Future[Run]
    other: Waiter | None = None

    def is_waiting_for(self, states: States, now: float) -> bool:
        """Whether the run is to be published: its states have changed, or a report is due."""
        return states != self.known or now >= self.report_at


class Waiters:
    """All waits of one poller, by run."""

    def __init__(self) -> None:
        # The first waiter of each run, which has the others.
        self._by_run: dict[int, Waiter] = {}
        # How many waiters have each polling period.
        self._periods: Counter[float] = Counter()

    def __bool__(self) -> bool:
        return bool(self._by_run)

    def __len__(self) -> int:
        return len(self._by_run)

    def __contains__(self, run_id: int) -> bool:
        return run_id in self._by_run

    def run_ids(self) -> KeysView[int]:
        """Return the runs that are waited for."""
        return self._by_run.keys()

    def add(self, waiter: Waiter) -> None:
        """Add a waiter."""
        self._periods[waiter.period] += 1
        waiter.other = self._by_run.get(waiter.run_id)
        self._by_run[waiter.run_id] = waiter

    def remove(self, waiter: Waiter) -> bool:
        """Remove a waiter; return whether its run has other waiters."""
        self._periods[waiter.period] -= 1
        if not self._periods[waiter.period]:
            del self._periods[waiter.period]
        if self._by_run.get(waiter.run_id) is not waiter:
            for before in self._of(waiter.run_id):
                if before.other is waiter:
                    before.other = waiter.other
                    break
        elif waiter.other is None:
            del self._by_run[waiter.run_id]
        else:
            self._by_run[waiter.run_id] = waiter.other
        return waiter.run_id in self._by_run

    def count(self) -> int:
        """Return the number of waits; a run may have several."""
        return self._periods.total()

    def next_due(self) -> float:
        """Return when the next run is due (monotonic clock)."""
        return min(waiter.due for waiter in self._all())

    def due_time(self, run_id: int) -> float:
        """Return when a run is due (monotonic clock); 0 if it has no waiter."""
        return min((waiter.due for waiter in self._of(run_id)), default=0.0)

    def shortest_period(self) -> float:
        """Return the shortest polling period, in seconds."""
        return min(self._periods)

    def due_runs(
        self, now: float, *, early: float = 0.0, not_before: Mapping[int, float]
    ) -> set[int]:
        """Return the runs that are to be read now.

        :param now: the time (monotonic clock).
        :param early: the fraction of its period by which a run may be read early.
        :param not_before: for some runs, the earliest time at which they may be read.
        """
        for run_id, earliest in not_before.items():
            for waiter in self._of(run_id):
                waiter.due = max(waiter.due, earliest)
        due = {w.run_id for w in self._all() if w.due - w.period * early <= now}
        return {run_id for run_id in due if not_before.get(run_id, now) <= now}

    def wants_each_read(self, run_id: int) -> bool:
        """Whether at least one waiter gets each read of a run, also if it has not changed."""
        return any(waiter.known is None for waiter in self._of(run_id))

    def postpone(
        self, run_ids: Iterable[int], now: float, next_read: Callable[[float], float]
    ) -> None:
        """Set when runs are due that are known not to have changed, without having been read.

        :param run_ids: the runs. They may be ten thousand.
        :param now: the time (monotonic clock).
        :param next_read: returns the seconds to the next read of the run from a waiter's period.
        """
        due = {period: now + next_read(period) for period in self._periods}
        for first in map(self._by_run.get, run_ids):
            waiter = first
            while waiter is not None:
                waiter.due = due[waiter.period]
                waiter = waiter.other

    def any_waiting_for(self, run_id: int, states: States, now: float) -> bool:
        """Whether a run with these states is to be published to at least one waiter."""
        # Without a generator: of all runs on a page, nearly all have not changed.
        waiter = self._by_run.get(run_id)
        while waiter is not None:
            if waiter.is_waiting_for(states, now):
                return True
            waiter = waiter.other
        return False

    def needed_part(self, run: Any) -> Any:
        """Return a listed run as it is if a waiter gets it, else the fields that the poller needs.

        Most runs on a page have not changed. To keep a thousand of them whole would start garbage
        collections. This is called while the page is parsed, in another thread if it is large.

        :param run: the JSON value.
        """
        if not isinstance(run, dict):
            return run
        run_id = parse_id(run.get("run_id"))
        if run_id is None or run_id not in self._by_run:
            return PartialRun(run_id=run_id, start_time=run.get("start_time"))
        try:
            states = parse_states(run)
        except InvalidResponseError:
            return run
        if self.any_waiting_for(run_id, states, time.monotonic()):
            return run
        return PartialRun(run_id=run_id, start_time=run.get("start_time"), state=run.get("state"))

    def postpone_unchanged(
        self, run_id: int, states: States, now: float, next_read: Callable[[float], float]
    ) -> bool:
        """Set when a listed run is due, if no waiter gets it; return whether that is so.

        :param run_id: the run.
        :param states: its states.
        :param now: the time (monotonic clock).
        :param next_read: returns the seconds to the next read of the run from a waiter's period.
        """
        if self.any_waiting_for(run_id, states, now):
            return False
        for waiter in self._of(run_id):
            waiter.due = now + next_read(waiter.period)
        return True

    def publish(
        self, run_id: int, run: Run, states: States, now: float, next_read: Callable[[float], float]
    ) -> int:
        """Give a run to the waiters for which it has changed; return how many they are.

        :param run_id: the run's id.
        :param run: the run as it was read.
        :param states: its states.
        :param now: the time (monotonic clock).
        :param next_read: returns the seconds to the next read of the run from a waiter's period.
        """
        count = 0
        for waiter in self._of(run_id):
            waiter.due = now + next_read(waiter.period)
            if not waiter.future.done() and waiter.is_waiting_for(states, now):
                waiter.future.set_result(run)
                count += 1
        return count

    def fail(self, run_id: int, error: Exception) -> None:
        """Raise an error in all waits for a run."""
        for waiter in self._of(run_id):
            if not waiter.future.done():
                waiter.future.set_exception(error)

    async def fail_all(self, error: Exception) -> None:
        """Raise an error in all waits, and return when they have ended."""
        for run_id in list(self._by_run):
            self.fail(run_id, error)
        # The waiters are removed in the meantime, so that nothing is read for them again.
        await asyncio.sleep(0)

    def _all(self) -> Iterator[Waiter]:
        for first in self._by_run.values():
            waiter: Waiter | None = first
            while waiter is not None:
                yield waiter
                waiter = waiter.other

    def _of(self, run_id: int) -> Iterator[Waiter]:
        waiter = self._by_run.get(run_id)
        while waiter is not None:
            yield waiter
            waiter = waiter.other


def without_details(run: Run) -> Run:
    """Return an active run without its objects and lists but its tasks; an ended one as it is.

    A waiter may keep an active run until its next change. The tasks are for the log.
    """
    if RunState.from_run(run).is_terminal:
        return run
    plain = {name: value for name, value in run.items() if not isinstance(value, (dict, list))}
    if run.get("tasks"):
        plain["tasks"] = run["tasks"]
    return cast("Run", {**plain, "state": run.get("state")})
