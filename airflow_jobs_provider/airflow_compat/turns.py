"""Turns: a lock that goes round between DAGs, so that no DAG waits for all tasks of another one."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

__all__ = ["Turns"]


class Turns:
    """A lock that goes round between DAGs: the next one of each gets a turn."""

    def __init__(self) -> None:
        self._is_taken = False
        self._numbers = count()
        # By DAG. The one whose turn it is comes first.
        self._waiting: OrderedDict[str, _WaitingOfDag] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many wait for a turn."""
        return sum(map(len, self._waiting.values()))

    @property
    def dag_ids(self) -> set[str]:
        """The DAGs of those that wait."""
        return set(self._waiting)

    @asynccontextmanager
    async def turn(
        self, dag_id: str, *, is_urgent: bool = False, since: float = 0.0
    ) -> AsyncIterator[None]:
        """Wait for a turn of this DAG, and take it for the time of the context.

        :param dag_id: the DAG.
        :param is_urgent: whether it comes before all but one of those of the DAG that are not;
            default False.
        :param since: those of the DAG that are not urgent come in order of this number. Those with
            the same one come in the order in which they have begun to wait; default 0.
        """
        await self._acquire(dag_id, is_urgent=is_urgent, since=since)
        try:
            yield
        finally:
            self._release()

    async def _acquire(self, dag_id: str, *, is_urgent: bool, since: float) -> None:
        if not self._is_taken:
            self._is_taken = True
            return
        turn = asyncio.get_running_loop().create_future()
        of_dag = self._waiting.setdefault(dag_id, _WaitingOfDag())
        entry = since, next(self._numbers), turn
        of_dag.add(entry, is_urgent=is_urgent)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release()  # it came together with the cancellation
            else:
                self._remove(dag_id, entry)
            raise

    def _release(self) -> None:
        """Give the turn to the next DAG that waits."""
        while self._waiting:
            dag_id, turns = self._waiting.popitem(last=False)
            turn = turns.pop_next()
            if len(turns):
                self._waiting[dag_id] = turns
            if not turn.done():
                turn.set_result(None)
                return
        self._is_taken = False

    def _remove(self, dag_id: str, entry: _Entry) -> None:
        if (turns := self._waiting.get(dag_id)) is not None:
            turns.discard(entry)
            if not len(turns):
                del self._waiting[dag_id]


# "since", a number in the order of coming, and what waits.
_Entry = tuple[float, int, asyncio.Future[None]]


class _WaitingOfDag:
    """Those of one DAG that wait. Urgent ones and others take turns where there are both."""

    __slots__ = ("_others", "_urgent", "_was_urgent")

    def __init__(self) -> None:
        self._urgent: list[_Entry] = []
        self._others: list[_Entry] = []
        self._was_urgent = False

    def __len__(self) -> int:
        return len(self._urgent) + len(self._others)

    def add(self, entry: _Entry, *, is_urgent: bool) -> None:
        """Add an entry."""
        insort(self._urgent if is_urgent else self._others, entry)

    def pop_next(self) -> asyncio.Future[None]:
        """Remove the next one and return it."""
        self._was_urgent = bool(self._urgent) and not (self._was_urgent and self._others)
        _, _, turn = (self._urgent if self._was_urgent else self._others).pop(0)
        return turn

    def discard(self, entry: _Entry) -> None:
        """Remove an entry if it is there."""
        for entries in (self._urgent, self._others):
            at = bisect_left(entries, entry)
            if entries[at : at + 1] == [entry]:
                del entries[at]
