"""Turns: a lock that goes round between DAGs, so that no DAG waits for all tasks of another one."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Turns"]


class Turns:
    """A lock that goes round between DAGs: of each the one that has waited longest gets a turn."""

    def __init__(self) -> None:
        self._is_taken = False
        # By DAG. The one whose turn it is comes first.
        self._waiting: OrderedDict[str, OrderedDict[asyncio.Future[None], None]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many wait for a turn."""
        return sum(map(len, self._waiting.values()))

    @property
    def dag_ids(self) -> set[str]:
        """The DAGs of those that wait."""
        return set(self._waiting)

    @asynccontextmanager
    async def turn(self, dag_id: str) -> AsyncIterator[None]:
        """Wait for a turn of this DAG, and take it for the time of the context.

        :param dag_id: the DAG.
        """
        await self._acquire(dag_id)
        try:
            yield
        finally:
            self._release()

    async def _acquire(self, dag_id: str) -> None:
        if not self._is_taken:
            self._is_taken = True
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(dag_id, OrderedDict())[turn] = None
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
            turn, _ = turns.popitem(last=False)
            if turns:
                self._waiting[dag_id] = turns
            if not turn.done():
                turn.set_result(None)
                return
        self._is_taken = False

    def _remove(self, dag_id: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(dag_id, OrderedDict())
        turns.pop(turn, None)
        if not turns:
            self._waiting.pop(dag_id, None)
