"""Reads of runs side by side, of which a slow one holds up no other."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

__all__ = ["SlowReads"]

# A read that takes longer goes on by itself.
SLOW_AFTER_SECONDS = 5.0
LOOK_AGAIN_AFTER_SECONDS = 1.0

Read = Callable[[int], Coroutine[Any, Any, bool]]


class SlowReads:
    """Reads runs, and keeps the reads that take long until they have ended.

    :ivar some_ended: whether any read of the last :meth:`read` has ended.
    """

    def __init__(self) -> None:
        self.some_ended = False
        self._tasks: dict[int, asyncio.Task[bool]] = {}

    def again_at(self) -> dict[int, float]:
        """Return when to ask again for the runs whose read is under way (monotonic clock)."""
        at = time.monotonic() + LOOK_AGAIN_AFTER_SECONDS
        return {run_id: at for run_id, task in self._tasks.items() if not task.done()}

    async def read(self, run_ids: Iterable[int], read: Read) -> dict[int, bool | BaseException]:
        """Read runs side by side; return what came of each read that has ended.

        A read that goes on has its result returned later, when the run is to be read again.

        :param run_ids: the runs, at least one.
        :param read: reads one.
        """
        tasks = {run_id: self._tasks.pop(run_id, None) for run_id in run_ids}
        under_way = {
            run_id: task or asyncio.create_task(read(run_id)) for run_id, task in tasks.items()
        }
        try:
            await asyncio.wait(under_way.values(), timeout=SLOW_AFTER_SECONDS)
        except asyncio.CancelledError:
            for task in under_way.values():
                task.cancel()
            raise
        results: dict[int, bool | BaseException] = {}
        for run_id, task in under_way.items():
            if task.done():
                results[run_id] = task.exception() or task.result()
            else:
                self._tasks[run_id] = task
                task.add_done_callback(functools.partial(self._forget, run_id))
        self.some_ended = bool(results)
        return results

    def cancel(self) -> None:
        """Cancel the reads that are under way."""
        for task in self._tasks.values():
            task.cancel()

    def _forget(self, run_id: int, task: asyncio.Task[bool]) -> None:
        """Forget a read that needs no more attention: the run has been given to its waiters."""
        is_over = task.cancelled() or task.exception() is None
        if is_over and self._tasks.get(run_id) is task:
            del self._tasks[run_id]
