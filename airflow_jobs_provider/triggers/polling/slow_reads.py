"""Concurrent reads of runs, in which a slow one does not delay the others."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any

__all__ = ["SlowReads"]

# A read that takes longer goes on in the background.
SLOW_AFTER_SECONDS = 5.0
# How long after that its result is asked for again.
CHECK_AGAIN_AFTER_SECONDS = 1.0

Read = Callable[[int], Coroutine[Any, Any, bool]]


class SlowReads:
    """Reads runs concurrently, and keeps the slow reads until they have finished.

    :ivar any_finished: whether any read of the last call of :meth:`read` has finished.
    """

    def __init__(self) -> None:
        self.any_finished = False
        self._tasks: dict[int, asyncio.Task[bool]] = {}

    def forget_others(self, run_ids: Collection[int]) -> None:
        """Forget the errors of all runs but these: nobody will ask for them.

        :param run_ids: the runs that are waited for.
        """
        tasks = self._tasks.items()
        self._tasks = {r: task for r, task in tasks if r in run_ids or not task.done()}

    def not_before(self) -> dict[int, float]:
        """Return when each run whose read is in progress is to be read again (monotonic clock)."""
        at = time.monotonic() + CHECK_AGAIN_AFTER_SECONDS
        return {run_id: at for run_id, task in self._tasks.items() if not task.done()}

    async def read(self, run_ids: Iterable[int], read: Read) -> dict[int, bool | BaseException]:
        """Read runs concurrently; return the result, or the error, of each read that has finished.

        A read that goes on has its result returned later, when the run is to be read again.

        :param run_ids: the runs, at least one.
        :param read: reads one run.
        """
        tasks = {run_id: self._tasks.pop(run_id, None) for run_id in run_ids}
        in_progress = {
            run_id: task or asyncio.create_task(read(run_id)) for run_id, task in tasks.items()
        }
        try:
            await asyncio.wait(in_progress.values(), timeout=SLOW_AFTER_SECONDS)
        except asyncio.CancelledError:
            for task in in_progress.values():
                task.cancel()
            raise
        results: dict[int, bool | BaseException] = {}
        for run_id, task in in_progress.items():
            if task.done():
                results[run_id] = task.exception() or task.result()
            else:
                self._tasks[run_id] = task
                task.add_done_callback(functools.partial(self._discard, run_id))
        self.any_finished = bool(results)
        return results

    def cancel(self) -> None:
        """Cancel the reads that are in progress."""
        for task in self._tasks.values():
            task.cancel()

    def _discard(self, run_id: int, task: asyncio.Task[bool]) -> None:
        """Discard a slow read that succeeded: the run has been published already."""
        succeeded = task.cancelled() or task.exception() is None
        if succeeded and self._tasks.get(run_id) is task:
            del self._tasks[run_id]
