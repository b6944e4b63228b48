"""The triggers that wait for one task of a run of several tasks."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.api.workflows.find import follow_task
from airflow_jobs_provider.triggers.events import run_payload
from airflow_jobs_provider.triggers.polling.shared_reads import SharedReads, shared_reads
from airflow_jobs_provider.triggers.wait import WaitForRunTrigger
from airflow_jobs_provider.triggers.workflow_arguments import WorkflowTaskTriggerArguments

if TYPE_CHECKING:
    from airflow_jobs_provider.api.schema.types import Run

__all__ = ["DatabricksWorkflowTaskTrigger", "WorkflowTaskTrigger"]


class WorkflowTaskTrigger(WaitForRunTrigger):
    """Base class of the triggers that wait for a task of a workflow group.

    The triggers of all tasks of a run share one read of it. What is canceled is the task's own run;
    the other tasks go on.
    """

    workflow_run_id: int
    task_key: str
    task_max_retries: int
    attempts_before: int = 0

    def _shared_reads(self) -> AbstractContextManager[SharedReads]:
        return shared_reads(
            self._hook,
            self.workflow_run_id,
            period=self.polling_period_seconds,
            # Before the repair the run had ended, and so had the task's attempt before.
            max_age=0 if self.attempts_before else None,
        )

    async def _follow_task(
        self, reads: SharedReads, first_look: Run | None = None
    ) -> dict[str, Any]:
        """Wait until the task has ended, or a time limit is over; return the event's payload.

        :param reads: reads the run.
        :param first_look: the run, where it has been read just now; default None.
        """
        steps = follow_task(
            self.workflow_run_id,
            self.task_key,
            polling_period=self._polling_period,
            log=self.log,
            max_retries=self.task_max_retries,
            attempts_before=self.attempts_before,
            tell_attempts=True,
            first_look=first_look,
        )
        limit = asyncio.timeout(self._seconds_left())
        try:
            async with limit:
                task = await reads.run_workflow(steps, on_event=self._record)
        except TimeoutError:
            if not limit.expired():
                raise  # another time limit, not the task's
            run_id = self._active_run_id
            assert run_id is not None
            run = await self._read_once_more(run_id)
            if RunState.from_run(run).is_terminal:
                return run_payload(run)
            return await self._stop_waiting(run, "execution_timeout")
        return run_payload(task)

    def _seconds_left(self) -> float | None:
        """Return the time until the deadline, in seconds; None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.time())


class DatabricksWorkflowTaskTrigger(WorkflowTaskTriggerArguments, WorkflowTaskTrigger):
    """Fire one event when a task of a run has ended.

    The event is that of :class:`~airflow_jobs_provider.triggers.jobs.DatabricksJobRunTrigger`, with
    the task's own run.

    The arguments and their defaults are those of
    :class:`~airflow_jobs_provider.triggers.workflow_arguments.WorkflowTaskTriggerArguments`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._run_id = self._active_run_id = self.run_id

    async def _wait(self) -> dict[str, Any]:
        with self._shared_reads() as reads:
            return await self._follow_task(reads)
