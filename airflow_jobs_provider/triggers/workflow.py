"""DatabricksWorkflowTaskTrigger: wait for one task of a run of several tasks."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.api.workflows.find import follow_task
from airflow_jobs_provider.triggers.base import DatabricksJobsBaseTrigger
from airflow_jobs_provider.triggers.events import run_payload
from airflow_jobs_provider.triggers.polling.shared_reads import run_workflow_with_shared_reads
from airflow_jobs_provider.triggers.workflow_arguments import WorkflowTaskTriggerArguments

__all__ = ["DatabricksWorkflowTaskTrigger"]


class DatabricksWorkflowTaskTrigger(WorkflowTaskTriggerArguments, DatabricksJobsBaseTrigger):
    """Fire one event when a task of a run has ended.

    The triggers of all tasks of a run share one read of it. The event is that of
    :class:`~airflow_jobs_provider.triggers.jobs.DatabricksJobRunTrigger`, with the task's own run.
    What is canceled is the task's own run; the other tasks go on.

    The arguments and their defaults are those of
    :class:`~airflow_jobs_provider.triggers.workflow_arguments.WorkflowTaskTriggerArguments`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._run_id = self._active_run_id = self.run_id

    async def _wait(self) -> dict[str, Any]:
        steps = follow_task(
            self.workflow_run_id,
            self.task_key,
            polling_period=self._polling_period,
            log=self.log,
            max_retries=self.task_max_retries,
            attempts_before=self.attempts_before,
            tell_attempts=True,
        )
        seconds = None if self.deadline is None else max(0.0, self.deadline - time.time())
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                task = await run_workflow_with_shared_reads(
                    self._hook,
                    self.workflow_run_id,
                    steps,
                    period=self.polling_period_seconds,
                    # Before the repair the run had ended, and so had the task's attempt before.
                    max_age=0 if self.attempts_before else None,
                    on_event=self._record,
                )
        except TimeoutError:
            if not limit.expired():
                raise  # another time limit, not the task's
            run = await self._read_once_more(self._active_run_id or self.run_id)
            if RunState.from_run(run).is_terminal:
                return run_payload(run)
            return await self._stop_waiting(run, "execution_timeout")
        return run_payload(task)
