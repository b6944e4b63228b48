"""Who waits for which run: when each wants it read, and what each has seen of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, KeysView, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from airflow_jobs_provider.api.states import RunState

__all__ = ["States", "Waiter", "Waiters", "without_details"]

Run: TypeAlias = "dict[str, Any]"
#: Life cycle state and result state.
States: TypeAlias = "tuple[str | None, str | None]"


@dataclass(slots=True, eq=False)
class Waiter:
    """Somebody who waits for news of a run.

    :ivar run_id: the run.
    :ivar period: seconds within which the run is to be read, again and again.
    :ivar due: when it is to be read next (monotonic clock).
    :ivar wake_at: when a reading is to be given though nothing changed (monotonic clock).
    :ivar known: the run's states as last seen; None for none.
    :ivar future: takes the run.
    """

    run_id: int
    period: float
    due: float
    wake_at: float
    known: States | None
    future: asyncio.Future[Run]

    def is_news(self, states: States, now: float) -> bool:
        """Whether the run is to be given: its states changed, or a sign of life is wanted."""
        return states != self.known or now >= self.wake_at


class Waiters:
    """All who wait for runs with one poller."""

    def __init__(self) -> None:
        self._of: dict[int, list[Waiter]] = {}

    def __bool__(self) -> bool:
        return bool(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def __contains__(self, run_id: int) -> bool:
        return run_id in self._of

    def run_ids(self) -> KeysView[int]:
        """Return the runs that are waited for."""
        return self._of.keys()

    def join(self, waiter: Waiter) -> None:
        """Add one."""
        self._of.setdefault(waiter.run_id, []).append(waiter)

    def leave(self, waiter: Waiter) -> bool:
        """Take one away; return whether somebody else waits for its run."""
        waiters = self._of.get(waiter.run_id, [])
        if waiter in waiters:
            waiters.remove(waiter)
        if not waiters:
            self._of.pop(waiter.run_id, None)
        return bool(waiters)

    def next_due(self) -> float:
        """Return when the next run is due."""
        return min(waiter.due for waiter in self._all())

    def due_of(self, run_id: int) -> float:
        """Return when a run is due; 0 where nobody waits for it."""
        return min((waiter.due for waiter in self._of.get(run_id, ())), default=0.0)

    def shortest_period(self) -> float:
        """Return the shortest polling period."""
        return min(waiter.period for waiter in self._all())

    def due_runs(
        self, now: float, *, early: float = 0.0, not_before: Mapping[int, float]
    ) -> set[int]:
        """Return the runs that are to be read now.

        :param early: the part of its period by which a run may be read early.
        :param not_before: for some runs, the earliest time at which they may be read.
        """
        for run_id, earliest in not_before.items():
            for waiter in self._of.get(run_id, ()):
                waiter.due = max(waiter.due, earliest)
        due = {w.run_id for w in self._all() if w.due - w.period * early <= now}
        return {run_id for run_id in due if not_before.get(run_id, now) <= now}

    def want(self, run_id: int, states: States, now: float) -> bool:
        """Whether a run with these states is news to somebody."""
        return any(waiter.is_news(states, now) for waiter in self._of.get(run_id, ()))

    def give(
        self, run_id: int, run: Run, states: States, now: float, wait: Callable[[float], float]
    ) -> int:
        """Give a run that was read to those to whom it is news; return how many they are.

        :param states: the run's.
        :param wait: makes of a waiter's period the seconds until the run is to be read again.
        """
        woken = 0
        for waiter in self._of.get(run_id, ()):
            waiter.due = now + wait(waiter.period)
            if not waiter.future.done() and waiter.is_news(states, now):
                waiter.future.set_result(run)
                woken += 1
        return woken

    def fail(self, run_id: int, error: Exception) -> None:
        """Fail the waits for a run."""
        for waiter in self._of.get(run_id, ()):
            if not waiter.future.done():
                waiter.future.set_exception(error)

    async def fail_all(self, error: Exception) -> None:
        """Fail all waits, and return when those who waited have left."""
        for run_id in list(self._of):
            self.fail(run_id, error)
        # The waiters leave, before anything is asked for them again.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def _all(self) -> Iterator[Waiter]:
        return (waiter for waiters in self._of.values() for waiter in waiters)


def without_details(run: Run) -> Run:
    """Return a run without its details while it is active: it is kept until there is news of it."""
    if RunState.from_run(run).is_terminal:
        return run
    plain = {name: value for name, value in run.items() if not isinstance(value, (dict, list))}
    return {**plain, "state": run.get("state")}
