"""Airflow 3.0's LocalExecutor without two races that end tasks or the scheduler of a busy machine.

The original starts a process as soon as the scheduler hands a task over, before the transaction in
which the task becomes "queued" is committed. On a busy machine the process may be faster. Then
Airflow's API refuses to start the task, since it is still "scheduled" (409, "TI was not in a state
where it could be marked as running"), and the scheduler fails it. Later lines wait for the commit.

At its end the original sends a message to each worker that is alive, one after the other. An idle
worker may take the first one and exit before its own turn. Then one message is missing, and the
scheduler waits for the last worker for good.
"""

from __future__ import annotations

from typing import Any

from airflow.executors.local_executor import LocalExecutor as Original

__all__ = ["LocalExecutor"]


class LocalExecutor(Original):  # type: ignore[misc,unused-ignore]
    """Hands tasks to its workers at the scheduler's heartbeat, which follows the commit."""

    def start(self) -> None:
        """Begin with no task."""
        super().start()
        self._handed_over: list[Any] = []

    def queue_workload(self, workload: Any, session: Any = None) -> None:
        """Take a task over from the scheduler."""
        self._handed_over.append(workload)

    def sync(self) -> None:
        """Start the tasks that were taken over, and read how others have ended."""
        workloads, self._handed_over = self._handed_over, []
        original: Any = super()
        for workload in workloads:
            original.queue_workload(workload)
        original.sync()

    def end(self) -> None:
        """Let each worker end, with a message to spare for each."""
        for _ in self.workers:
            self.activity_queue.put(None)
        super().end()
