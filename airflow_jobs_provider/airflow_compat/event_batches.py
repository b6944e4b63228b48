"""Fires the events of triggers together, for less work of Airflow.

Airflow logs each event in the process of the triggers. Its main process wakes up for the log, and
each time asks the database for new, lost and ended triggers, which takes about 8 ms of processor
time. For the lines of events that are fired together it does so once.

An event that ends a task makes Airflow's DAG processor start a process for the DAG file, which
takes about 0.1 s of processor time. One process takes what has come together. When a poll has found
the end of many runs, the XComs of one after the other are stored. So the event of the first one
waits for the others, for a second at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_jobs_provider.airflow_compat.event_loops import PerEventLoop

__all__ = ["BATCH_SECONDS", "LONGEST_SECONDS", "EventBatches", "event_batches"]

#: The triggers of tasks in a process fire their events at multiples of this time. Airflow passes
#: events on once a second.
BATCH_SECONDS = 0.1
#: The event of an ended task waits for others for this time at most, to such a multiple. Then all
#: that wait are fired.
LONGEST_SECONDS = 1.0


class EventBatches:
    """The events of the triggers of one event loop; see :func:`event_batches`."""

    def __init__(self) -> None:
        self._ending = 0
        # Set when the events that wait now are to be fired.
        self._batch: asyncio.Event | None = None

    @contextmanager
    def ending_task(self) -> Iterator[None]:
        """Let the events of other ended tasks wait for the end of this context."""
        self._ending += 1
        try:
            yield
        finally:
            self._ending -= 1
            if not self._ending and self._batch is not None:
                self._fire(self._batch)

    async def wait(self, *, ends_task: bool) -> None:
        """Wait until an event is to be fired.

        :param ends_task: whether it ends the task, without a worker.
        """
        loop = asyncio.get_running_loop()
        if ends_task and self._ending:
            if self._batch is None:
                self._batch = asyncio.Event()
                seconds = LONGEST_SECONDS - BATCH_SECONDS  # The wait below may take the rest.
                loop.call_later(seconds, self._fire, self._batch)
            await self._batch.wait()
        await asyncio.sleep(BATCH_SECONDS - loop.time() % BATCH_SECONDS)

    def _fire(self, batch: asyncio.Event) -> None:
        batch.set()
        if self._batch is batch:
            self._batch = None


_batches = PerEventLoop(EventBatches)


def event_batches() -> EventBatches:
    """Return the events of the running event loop."""
    return _batches.get()
