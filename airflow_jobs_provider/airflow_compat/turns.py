"""Turns: a lock that goes round between DAGs, so that no DAG waits for all tasks of another one."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Turns"]


class Turns:
    """A lock that goes round between DAGs: of each the one that has waited longest gets a turn.

    The urgent ones of a DAG come before its others.
    """

    def __init__(self) -> None:
        self._is_taken = False
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
    async def turn(self, dag_id: str, *, is_urgent: bool = False) -> AsyncIterator[None]:
        """Wait for a turn of this DAG, and take it for the time of the context.

        :param dag_id: the DAG.
        :param is_urgent: whether it comes before those of the DAG that are not; default False.
        """
        await self._acquire(dag_id, is_urgent=is_urgent)
        try:
            yield
        finally:
            self._release()

    async def _acquire(self, dag_id: str, *, is_urgent: bool) -> None:
        if not self._is_taken:
            self._is_taken = True
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(dag_id, _WaitingOfDag()).add(turn, is_urgent=is_urgent)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release()  # it came together with the cancellation
            else:
                self._remove(dag_id, turn)
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

    def _remove(self, dag_id: str, turn: asyncio.Future[None]) -> None:
        if (turns := self._waiting.get(dag_id)) is not None:
            turns.discard(turn)
            if not len(turns):
                del self._waiting[dag_id]


class _WaitingOfDag:
    """Those of one DAG that wait, in order."""

    __slots__ = ("_others", "_urgent")

    def __init__(self) -> None:
        self._urgent: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self._others: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._urgent) + len(self._others)

    def add(self, turn: asyncio.Future[None], *, is_urgent: bool) -> None:
        """Add one as the last of its kind."""
        (self._urgent if is_urgent else self._others)[turn] = None

    def pop_next(self) -> asyncio.Future[None]:
        """Remove the next one and return it."""
        turn, _ = (self._urgent or self._others).popitem(last=False)
        return turn

    def discard(self, turn: asyncio.Future[None]) -> None:
        """Remove one if it is there."""
        self._urgent.pop(turn, None)
        self._others.pop(turn, None)
