"""WorkflowMemberOperator: the part of an operator that follows its task in a workflow group.

What an attempt does is decided in :mod:`airflow_jobs_provider.operators.workflow_next_step`. It
reports its task's latest run, or runs the task again, see
:mod:`airflow_jobs_provider.operators.workflow_rerun`. If the run cannot be repaired, the task is
submitted alone, as a one-time run, from then on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowException, AirflowSkipException

from airflow_jobs_provider.airflow_compat.refused_deferral import Deferral
from airflow_jobs_provider.airflow_compat.run_successor import xcoms_at_start
from airflow_jobs_provider.airflow_compat.workflow_records import TaskRecord
from airflow_jobs_provider.exceptions import airflow_exceptions
from airflow_jobs_provider.operators.execution_state import KillState
from airflow_jobs_provider.operators.workflow_member_start import WorkflowMemberStartOperator
from airflow_jobs_provider.operators.workflow_next_step import (
    NOT_RUN,
    NextStep,
    next_step,
    was_repaired,
)
from airflow_jobs_provider.xcom import JOB_ID_KEY, RUN_ID_KEY, RUN_PAGE_URL_KEY

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobs_provider.api.schema.types import Run

__all__ = ["WorkflowMemberOperator"]


class WorkflowMemberOperator(WorkflowMemberStartOperator):
    """Base class of the operators that may be tasks of a workflow group."""

    def execute(self, context: Context) -> Any:
        """Follow the task in its group; alone, launch a run and wait for its output."""
        if self.workflow_group() is None:
            return super().execute(context)
        self._log_start_on_worker()
        executions = self._begin(context)
        self._own_task_run_id = None
        self._push(context, xcoms_at_start(self._attempt))
        self._read_metadata(context)
        with airflow_exceptions(), executions.watching(self):
            self._log_arguments_without_effect()
            if not self.wait_for_termination:
                return None
            return self._follow_member(context)

    def execute_complete(
        self, context: Context, event: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Resume after the end of a run of the task's own; see the base class.

        :param context: the task's context.
        :param event: the trigger's event.
        :param args: what the base class takes.
        :param kwargs: what the base class takes.
        """
        self.execution_context = context
        if "run_state" in event and self.workflow_group() is not None:
            # The official provider's operator deferred the task, before the DAG was migrated.
            executions = self._begin(context, resumed=0)
            self._read_metadata(context)
            run_id = int(event["run_id"])
            self._state.run.answered(run_id)
            self._push(context, {RUN_ID_KEY: run_id, RUN_PAGE_URL_KEY: event.get("run_page_url")})
            with airflow_exceptions(), executions.watching(self):
                return self._member_ended(context, self._follow_on_worker(run_id))
        return super().execute_complete(context, event, *args, **kwargs)

    def _user_token(self) -> None:
        """Return None: the operators for one task take no token."""
        return

    def execute_complete_in_workflow(
        self,
        context: Context,
        event: dict[str, Any],
        *,
        waits_for: str = "task",
        own: int | None = None,
        try_number: int | None = None,
        deadline: float | None = None,
        execution: int = 0,
    ) -> Any:
        """Resume a task of a group after the trigger's event.

        The arguments after ``event`` have their defaults in ``dag.test()``.

        :param context: the task's context.
        :param event: the trigger's event.
        :param waits_for: ``task`` for the task's own run, ``run`` for the group's.
        :param own: the task run that this attempt has started by a repair; None for none.
        :param try_number: number of the try that deferred.
        :param deadline: when ``execution_timeout`` is over, in seconds since the epoch; None
            without one.
        :param execution: how often the operator was executed before in the try.
        """
        if event.get("start_on_worker"):
            self.log.info("A worker starts this task: %s", event["start_on_worker"])
            self._delete_earlier_run(context)
            return self.execute(context)
        if try_number not in (None, context["ti"].try_number):
            # Airflow 3.0 resumes a retry with the event and the start time of the try before.
            self._state = self._state.with_start(time.time())
            self._delete_earlier_output(context)
            return self.execute(context)
        executions = self._begin(context, resumed=execution, deadline=deadline)
        self._read_metadata(context)
        self._own_task_run_id = own
        if try_number is None:  # in dag.test(), or the task has started in the triggerer
            of_group = (event.get("run") or event).get("run_id") == self._workflow_run_id
            waits_for = "run" if of_group else "task"
        if "xcoms" in event:
            self._push(context, event["xcoms"])
        with airflow_exceptions(), executions.watching(self):
            if waits_for == "run":
                self._run_from_event(event)
                return self._follow_member(context)
            if event.get("run_id") is not None:
                self._state.run.answered(event["run_id"], event.get("launched_at"))
            if "run" in event:
                self._state.run.ended()
                self._state.run_page_url = event["run"].get("run_page_url")
            task = self._run_from_event(event)
            if self.service_retries() != 0:
                # The service may have retried the task while it was deferred.
                page_url = task.get("run_page_url")
                xcoms = {RUN_ID_KEY: int(task["run_id"]), RUN_PAGE_URL_KEY: page_url}
                self._push(context, xcoms)
            elif try_number is not None and self.do_xcom_push:
                # The process that deferred has pushed the URL of the run's page.
                self._leave_out_run_link()
            return self._member_ended(context, task)

    # -- following -----------------------------------------------------------------------------

    def _follow_member(self, context: Context) -> Any:
        """Wait for the end of the task, run it again if needed, and report the end."""
        from airflow_jobs_provider.api.endpoints import cancel_run
        from airflow_jobs_provider.api.errors import NotFoundError
        from airflow_jobs_provider.api.run_summary import latest_attempts
        from airflow_jobs_provider.api.states import RunState

        record = self._record()
        if record.is_alone:
            return self._launch_alone(context)
        self._defer_unread(context, record)
        is_of_others = self._is_of_official_provider(context, record)
        while True:
            try:
                run = self._read_workflow_run()
            except NotFoundError as error:
                if self._attempt.try_number == 1:
                    raise  # The run was launched just now.
                return self._go_alone(context, record, str(error))
            task = latest_attempts(run).get(self.databricks_task_key)
            run_has_ended = RunState.from_run(run).is_terminal
            if is_of_others and task is not None and RunState.from_run(task).is_terminal:
                record = replace(record, reported=int(task["run_id"]))
            if task is None and run_has_ended:
                return self._go_alone(context, record, f"run {run['run_id']} has no such task")
            if task is None or self._next_step(task, record) is NextStep.REPORT:
                return self._wait_for_member(context, run, record)
            self._end_if_killed(after_any_kill=True)
            latest = int(task["run_id"])
            if record.wants_rerun_of != latest:
                # A repair that another task of the group makes serves this one, too.
                record = self._records().write(self.task_id, replace(record, wants_rerun_of=latest))
            if run_has_ended:
                if not self._claim_repair(record):
                    continue
                reason = self._rerun(context, latest)
                if reason is not None:
                    return self._go_alone(context, record, reason)
                self._records().write(self.task_id, record)
            else:
                if not RunState.from_run(task).is_terminal:
                    self.log.info("Canceling run %s: a user has cleared the task.", latest)
                    self.hook.client.send(cancel_run(latest))
                self._wait_for_run_end(context, run)

    def _defer_unread(self, context: Context, record: TaskRecord) -> None:
        """Defer without a request if the launching task has read the task run just now."""
        is_first = self._attempt.try_number == 1
        if not is_first and not self._is_first_since_launch(record):
            return  # It may have to run the task again.
        key = self.databricks_task_key
        task = self._launch_task().launched_task(context, self._workflow_run_id, key)
        if task is None or not self._may_defer(context):
            return
        known = {"run_id": task.run_id, "run_page_url": task.run_page_url}
        self._identified(context, {"job_id": self._workflow_job_id}, known)
        self._handle_earlier_kill()
        if not is_first:
            # After a clear, the next attempt has to know it.
            self._records().write(self.task_id, replace(record, follows=task.run_id))
        self._defer_until_member_ended(context, known, 0, reached_by=task.reached_by)

    def _is_first_since_launch(self, record: TaskRecord) -> bool:
        """Return whether the task was cleared with the launching task, and has not run since.

        No attempt has recorded anything since then, see :meth:`_record`.
        """
        attempt = self._attempt
        is_first = attempt.attempt_index == 0 and attempt.attempts_before_clear > 0
        return is_first and record == TaskRecord(try_number=attempt.attempts_before_clear)

    def _is_of_official_provider(self, context: Context, record: TaskRecord) -> bool:
        """Return whether an operator of the official provider has reported the task's run.

        That one records nothing, neither here nor as it launches the group's run.
        """
        was_cleared = self._attempt.attempts_before_clear > 0
        return was_cleared and record.try_number == 0 and self._launched_with(context) is None

    def _next_step(self, task: Mapping[str, Any], record: TaskRecord) -> NextStep:
        return next_step(
            task,
            record,
            self._attempt,
            own=self._own_task_run_id,
            cancels=self.cancel_on_kill,
            max_retries=self.service_retries(),
        )

    def _wait_for_member(self, context: Context, run: Run, record: TaskRecord) -> Any:
        """Wait for the end of the task's latest run, on the worker or in the triggerer."""
        from airflow_jobs_provider.api.run_summary import latest_attempts
        from airflow_jobs_provider.api.states import RunState
        from airflow_jobs_provider.api.workflows.events import Event, RunIdentified
        from airflow_jobs_provider.api.workflows.find import follow_task

        task: Any = latest_attempts(run).get(self.databricks_task_key)
        # The run that was to run again was not reported where a clear has canceled it.
        last = record.wants_rerun_of or record.reported
        before = _attempts_until(run, self.databricks_task_key, last)
        if task is not None:
            self._identified(context, run, task)
            is_first = not was_repaired(task, self.service_retries())
            if record.follows != task["run_id"] and not (
                is_first and self._attempt.try_number == 1
            ):
                # After a clear, the next attempt has to know it.
                record = self._records().write(
                    self.task_id, replace(record, follows=int(task["run_id"]))
                )
            state = RunState.from_run(task)
            if not state.is_terminal:
                self._handle_earlier_kill()
            # A failed attempt is not the end where the service may retry it.
            may_be_retried = self.service_retries() != 0 and not RunState.from_run(run).is_terminal
            is_open = not state.is_terminal or (may_be_retried and not state.is_successful)
            if is_open and self._may_defer(context):
                reached_by = self.hook.client.reached_by
                self._defer_until_member_ended(context, task, before, reached_by=reached_by)

        def on_event(event: Event) -> None:
            assert isinstance(event, RunIdentified)
            self._state.run.answered(event.run_id)

        steps = follow_task(
            self._workflow_run_id,
            self.databricks_task_key,
            polling_period=lambda: self.polling_period_seconds,
            log=self.log,
            max_retries=self.service_retries(),
            attempts_before=before,
            tell_attempts=True,
            first_look=None if task is None else run,
        )
        try:
            ended = self._run_workflow(steps, on_event=on_event)
        except ValueError as error:
            raise AirflowException(str(error)) from error
        self._state.run.ended()
        self._identified(context, run, ended, is_active=False)
        return self._member_ended(context, ended)

    def _handle_earlier_kill(self) -> None:
        """End the attempt if it was killed before its task run was known; Airflow 3 goes on."""
        if self._state.kill is KillState.KILLED:
            self._decide_on_kill()
        self._end_if_killed(after_any_kill=True)

    def _identified(
        self,
        context: Context,
        run: Mapping[str, Any],
        task: Mapping[str, Any],
        *,
        is_active: bool = True,
    ) -> None:
        """Record the task's run, for a kill, and push its XComs."""
        run_id = int(task["run_id"])
        if is_active:
            self._state.run.answered(run_id)
        page_url = task.get("run_page_url") or run.get("run_page_url")
        self._state.run_page_url = page_url
        self._last_run = task
        xcoms = {RUN_ID_KEY: run_id, JOB_ID_KEY: run.get("job_id"), RUN_PAGE_URL_KEY: page_url}
        self._push(context, xcoms)

    def _known_run(self) -> Mapping[str, Any]:
        known = super()._known_run()
        return known if known.get("job_id") else {**known, "job_id": self._workflow_job_id}

    def _job_run_id(self) -> int | None:
        # A one-time run of the task is not a part of the group's run.
        is_member = "task_key" in self._known_run()
        return self._workflow_run_id or None if is_member else None

    def _member_ended(self, context: Context, task: Run) -> Any:
        """Report the end of the task's run: return its output, skip, or raise why it failed."""
        from airflow_jobs_provider.api.states import RunState, RunStatus

        state = RunState.from_run(task)
        record = self._record()
        if state.status is RunStatus.CANCELED and self._next_step(task, record) is NextStep.RERUN:
            self._end_if_killed(after_any_kill=True)
            return self._follow_member(context)
        self._record_reported(record, int(task["run_id"]))
        if state.status is RunStatus.SKIPPED and state.result_state not in NOT_RUN:
            raise AirflowSkipException(f"Databricks has skipped run {task['run_id']} ({state})")
        return self._result_or_raise(context, task)

    def _record_reported(self, record: TaskRecord, run_id: int) -> None:
        """Record that this attempt reports this run of the task."""
        self._records().write(self.task_id, record.with_reported(run_id, self._attempt))

    # -- deferring -----------------------------------------------------------------------------

    def _defer_until_member_ended(
        self,
        context: Context,
        task: Mapping[str, Any],
        attempts_before: int,
        *,
        reached_by: str | None,
    ) -> NoReturn:
        from airflow_jobs_provider.triggers.workflow import DatabricksWorkflowTaskTrigger

        run_id, deadline = int(task["run_id"]), self._deadline(context)
        page_url = self._state.run_page_url
        see = f", see {page_url}" if page_url else ""
        self.log.info("Deferring: the triggerer waits for run %s%s", run_id, see)
        if self.cancel_on_kill:
            self._state.deferral = Deferral(self._attempt, self._cancel_for_refused_deferral)
        if self._end_from_trigger and not self._worker_completion_reasons():
            # No worker will record it. A failure is reported by a worker, which does.
            self._record_reported(self._record(), run_id)
        trigger = DatabricksWorkflowTaskTrigger(
            run_id=run_id,
            workflow_run_id=self._workflow_run_id,
            task_key=self.databricks_task_key,
            task_max_retries=self.service_retries(),
            attempts_before=attempts_before,
            databricks_conn_id=self.databricks_conn_id,
            polling_period_seconds=self.polling_period_seconds,
            cancel_on_kill=self.cancel_on_kill,
            deadline=deadline,
            reached_by=reached_by,
            **self._hook_arguments(),
            **self._completion_arguments(),
        )
        self._defer_member(context, trigger, "task", deadline)

    def _wait_for_run_end(self, context: Context, run: Run) -> None:
        """Wait until the group's run has ended: the service repairs no active run."""
        from airflow_jobs_provider.api.workflows.follow import follow_run
        from airflow_jobs_provider.api.workflows.progress import RunProgress
        from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger

        run_id = self._workflow_run_id
        self.log.info("The task runs again once run %s has ended: it is active.", run_id)
        if self._may_defer(context):
            deadline = self._deadline(context)
            trigger = DatabricksJobRunTrigger(
                run_id=run_id,
                databricks_conn_id=self.databricks_conn_id,
                polling_period_seconds=self.polling_period_seconds,
                deadline=deadline,
                reached_by=self.hook.client.reached_by,
                **self._hook_arguments(),
            )
            self._defer_member(context, trigger, "run", deadline)
        steps = follow_run(
            run_id,
            polling_period=lambda: self.polling_period_seconds,
            progress=RunProgress(run_id, self.log),
            first_look=run,
            follow_attempts=False,
        )
        self._run_workflow(steps, stop_after_any_kill=True)

    def _defer_member(
        self, context: Context, trigger: Any, waits_for: str, deadline: float | None
    ) -> NoReturn:
        kwargs = {
            "waits_for": waits_for,
            "own": self._own_task_run_id,
            "try_number": context["ti"].try_number,
            "deadline": deadline,
            "execution": self._attempt.execution,
        }
        self._defer_to(trigger, kwargs, method_name="execute_complete_in_workflow")

    # -- running alone -------------------------------------------------------------------------

    def _go_alone(self, context: Context, record: TaskRecord, reason: str) -> Any:
        """Run the task outside the group's run, in this attempt and in all later ones."""
        self.log.info(
            "Run %s is not repaired: %s. The task starts in a new run of its own.",
            self._workflow_run_id,
            reason,
        )
        self._records().write(self.task_id, replace(record, is_alone=True))
        return self._launch_alone(context)

    def _launch_alone(self, context: Context) -> Any:
        return self._wait_for_result(context, self._launch(context, first_attempt_index=0))


def _attempts_until(run: Run, task_key: str, task_run_id: int | None) -> int:
    """Return how many attempts of a task there were up to this one of its runs; 0 if unknown."""
    for task in run.get("tasks") or ():
        if task.get("task_key") == task_key and task.get("run_id") == task_run_id:
            return int(task.get("attempt_number") or 0) + 1
    return 0
