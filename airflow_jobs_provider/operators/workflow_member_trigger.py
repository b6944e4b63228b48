"""DatabricksWorkflowMemberTrigger: follow a task of a workflow group, without a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.airflow_compat.completion_event import xcom_turn
from airflow_jobs_provider.airflow_compat.launch_record import first_task_attempt
from airflow_jobs_provider.airflow_compat.task_state import read_xcom_of
from airflow_jobs_provider.airflow_compat.threads import in_thread
from airflow_jobs_provider.airflow_compat.workflow_records import TaskRecord, WorkflowRecords
from airflow_jobs_provider.api.ids import parse_id
from airflow_jobs_provider.api.run_summary import latest_attempts
from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.api.versions import LATEST_API_VERSION
from airflow_jobs_provider.api.workflows.find import find_task
from airflow_jobs_provider.api.workflows.follow import whole_run
from airflow_jobs_provider.operators.attempt_trigger import (
    AttemptTrigger,
    NeedsWorkerError,
    needing_xcoms,
)
from airflow_jobs_provider.operators.workflow_next_step import NextStep, next_step
from airflow_jobs_provider.triggers.polling.registry import run_workflow_unpolled
from airflow_jobs_provider.triggers.workflow import WorkflowTaskTrigger
from airflow_jobs_provider.triggers.workflow_arguments import WorkflowMemberTriggerArguments
from airflow_jobs_provider.xcom import (
    JOB_ID_KEY,
    RETURN_VALUE_KEY,
    RUN_ID_KEY,
    RUN_PAGE_URL_KEY,
)

if TYPE_CHECKING:
    from airflow_jobs_provider.airflow_compat.launch_record import LaunchAttempt
    from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt
    from airflow_jobs_provider.api.schema.types import Run
    from airflow_jobs_provider.triggers.polling.shared_reads import SharedReads

__all__ = ["DatabricksWorkflowMemberTrigger"]


class DatabricksWorkflowMemberTrigger(
    AttemptTrigger, WorkflowMemberTriggerArguments, WorkflowTaskTrigger
):
    """Find the run of a task of a workflow group, wait for its end and fire one event.

    Airflow starts the task with this trigger once the launching task has ended. The event is that
    of :class:`~airflow_jobs_provider.triggers.jobs.DatabricksJobRunTrigger`, with the task's own
    run. Where the task has to run again, or alone, a worker goes on: the event is
    ``{"start_on_worker": "..."}`` with the reason. So does each attempt after the first one: which
    tasks of the group run again with it depends on the states of all of them.

    The arguments and their defaults are those of
    :class:`~airflow_jobs_provider.triggers.workflow_arguments.WorkflowMemberTriggerArguments`.
    """

    # The launching task has returned the id of the group's run.
    _launches_run = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.workflow_run_id = 0
        self._workflow_job_id: int | None = None
        # Whether a worker goes on with the task.
        self._is_left_to_worker = False
        self._begin_checking()

    async def _start(self, begun: LaunchAttempt) -> dict[str, Any]:
        attempt = begun.attempt
        if attempt.try_number > 1:
            raise NeedsWorkerError("it is not the task's first attempt")
        limit = asyncio.timeout(self._seconds_left())
        try:
            async with limit:
                with needing_xcoms():
                    await self._read_metadata(attempt)
                await self._until_connected()
                with self._shared_reads() as reads:
                    run = await self._find_task(attempt, reads)
                    limit.reschedule(None)
                    return await self._follow_task(reads, first_look=run)
        except TimeoutError:
            if not limit.expired():
                raise
            return await self._stop_starting()

    async def _before_resume(self) -> None:
        """Record that a worker goes on with the attempt."""
        self._is_left_to_worker = True
        await super()._before_resume()

    async def _find_task(self, attempt: TaskAttempt, reads: SharedReads) -> Run:
        """Wait until the group's run lists the task; return it."""
        steps = find_task(self.workflow_run_id, self.task_key, polling_period=self._polling_period)
        run = await reads.run_workflow(steps)
        if run is None:
            raise NeedsWorkerError(f"run {self.workflow_run_id} has no task {self.task_key!r}")
        await self._identify(attempt, run)
        return run

    async def _read_metadata(self, attempt: TaskAttempt) -> None:
        """Take connection and run from what the group's launching task has returned."""
        metadata = await in_thread(read_xcom_of, attempt, self.launch_task_id, RETURN_VALUE_KEY)
        run_id = parse_id(metadata.get("run_id")) if isinstance(metadata, Mapping) else None
        if run_id is None:
            raise NeedsWorkerError(f"the task {self.launch_task_id!r} has launched no run")
        self.databricks_conn_id = str(metadata["conn_id"])
        self.workflow_run_id = run_id
        self._workflow_job_id = parse_id(metadata.get("job_id"))

    async def _identify(self, attempt: TaskAttempt, run: Run) -> None:
        """Record the task's own run, and push its XComs."""
        task = latest_attempts(run)[self.task_key]
        step = next_step(task, TaskRecord(), attempt, max_retries=self.task_max_retries)
        if step is NextStep.RERUN:
            raise NeedsWorkerError("it has not run in the group's run, because of a task before it")
        for name, reason in (self.arguments_without_effect or {}).items():
            self.log.info("%s has no effect: %s.", name, reason)
        run_id = self._run_id = self._active_run_id = int(task["run_id"])
        await self._stop_if_outdated()
        page_url = task.get("run_page_url") or run.get("run_page_url")
        record = TaskRecord().with_reported(run_id, attempt)
        # Without the record, an attempt after a clear would report the same run again.
        with needing_xcoms():
            async with xcom_turn(self, before_push=self._before_push):
                await in_thread(self._records(attempt).write, attempt.task_id, record)
        self._is_recorded = await self._push({RUN_ID_KEY: run_id})
        await self._push({JOB_ID_KEY: run.get("job_id"), RUN_PAGE_URL_KEY: page_url})

    def _records(self, attempt: TaskAttempt) -> WorkflowRecords:
        # Airflow tells a trigger 0, however often tasks of the DAG run were cleared.
        return WorkflowRecords(attempt._replace(clear_number=None), self.launch_task_id)

    # -- canceling the run ---------------------------------------------------------------------

    async def _cancel_orphan(self, run_id: int | None) -> None:
        """Cancel the task run of an attempt before a clear, in the workspace of the group's run."""
        if run_id is not None:
            with suppress(NeedsWorkerError):
                await self._read_metadata(first_task_attempt(self.task_instance))
            await super()._cancel_orphan(run_id)

    def _may_have_run(self) -> bool:
        """Whether there may be a task run of this attempt, also if it has not looked for it yet."""
        is_first = self.task_instance is not None and self.task_instance.try_number == 1
        return self._run_id is not None or (is_first and not self._is_left_to_worker)

    async def _find_and_cancel(self, reason: str) -> None:
        """Cancel the task's run, after it was found in the group's run if it is not known."""
        if self._run_id is None:
            try:
                run_id = await self._find_active_run()
            except Exception as error:  # noqa: BLE001 - nobody else would log it
                self.log.error("The run of this task may still run, its id is unknown: %s", error)
                return
            if run_id is None:
                return
            self._run_id = self._active_run_id = run_id
        await super()._find_and_cancel(reason)

    async def _find_active_run(self) -> int | None:
        """Return the task's own run; None where it has none that is active."""
        if not self.workflow_run_id:
            # The launching task may have launched again, if it was cleared, too. A later attempt
            # finds an active run of this one by itself.
            if await self._has_later_attempt():
                return None
            try:
                await self._read_metadata(first_task_attempt(self.task_instance))
            except NeedsWorkerError:
                return None  # The group has no run.
        steps = whole_run(self.workflow_run_id, api_version=LATEST_API_VERSION)
        run = await run_workflow_unpolled(self._hook, steps, without_deadline=False)
        task = latest_attempts(run).get(self.task_key)
        if task is None or RunState.from_run(task).is_terminal:
            return None
        return int(task["run_id"])
