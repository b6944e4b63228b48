"""WorkflowMemberOperator: the part of an operator that follows its task in a workflow group.

What an attempt does depends on the task's latest run in the group's run:

==========================================  ====================================================
Latest run of the task                      The attempt
==========================================  ====================================================
active                                      waits for its end and reports that
ended, and no attempt has reported it       reports it
ended, and an earlier attempt has reported  runs the task again: Airflow retries it, or a user has
it                                          cleared it
an earlier attempt was to run it again      runs the task again
failed, and no attempt has reported it,     runs the task again: an earlier attempt was to report
though an earlier one was to                it, and died or never started
canceled, though the attempt is not the     runs the task again: the kill of an earlier attempt
first one                                   has canceled it
not run, because a task before it failed    runs the task again: Airflow counts that one as
or was canceled                             successful by now
==========================================  ====================================================

To run a task again is to repair the group's run, once it has ended: one repair for all tasks of the
group that are to run again, see :meth:`WorkflowMemberOperator._tasks_to_rerun`. If the run cannot
be repaired, the task is submitted alone, as a one-time run, from then on.

An attempt may never start, as when its worker is lost. It records nothing. So the numbers of the
attempts are compared: each record has the number of its attempt. Without a record, all earlier
attempts were to report the run, unless the launching task was cleared. Then some of them belong to
an earlier run, and only those since the task's last clear count.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from airflow.providers.common.compat.sdk import AirflowException, AirflowSkipException

from airflow_jobs_provider.airflow_compat.refused_deferral import Deferral
from airflow_jobs_provider.airflow_compat.run_successor import xcoms_at_start
from airflow_jobs_provider.airflow_compat.workflow_records import (
    TaskRecord,
    WorkflowRecords,
    is_executing,
    is_to_be_executed,
)
from airflow_jobs_provider.exceptions import airflow_exceptions
from airflow_jobs_provider.operators.launch import LaunchRunOperator
from airflow_jobs_provider.xcom import (
    JOB_ID_KEY,
    RETURN_VALUE_KEY,
    RUN_ID_KEY,
    RUN_PAGE_URL_KEY,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt
    from airflow_jobs_provider.api.schema.types import Run

__all__ = ["NextStep", "WorkflowGroup", "WorkflowMemberOperator", "next_step"]

# How long a task that is executed may take to tell what it does, before it counts as one that does
# not run again: its process has to parse the DAG file first.
SETTLE_SECONDS = 15.0
_NOT_RUN = ("UPSTREAM_FAILED", "UPSTREAM_CANCELED")


class NextStep(Enum):
    """What an attempt of a task in a group does; see the module's table."""

    REPORT = auto()
    RERUN = auto()


def next_step(
    task: Mapping[str, Any], record: TaskRecord, attempt: TaskAttempt, *, own: int | None = None
) -> NextStep:
    """Return what an attempt does with the latest run of its task, active or ended.

    :param task: the task's latest run.
    :param record: what earlier attempts have recorded.
    :param attempt: the attempt.
    :param own: the task run that this attempt has started by a repair; None for none.
    """
    from airflow_jobs_provider.api.states import RunState, RunStatus

    state, run_id = RunState.from_run(task), task.get("run_id")
    if not state.is_terminal or run_id == own:
        return NextStep.REPORT
    if run_id == record.wants_rerun_of:
        return NextStep.RERUN
    if run_id == record.reported:
        # An attempt that has recorded a success, but died before it told Airflow, is retried.
        is_untold = attempt.attempt_index > 0 and record.max_tries == attempt.max_tries
        succeeded = state.status in (RunStatus.SUCCEEDED, RunStatus.SKIPPED)
        return NextStep.REPORT if is_untold and succeeded else NextStep.RERUN
    if state.result_state in _NOT_RUN:
        return NextStep.RERUN
    if state.status is RunStatus.CANCELED:
        return NextStep.RERUN if attempt.try_number > 1 else NextStep.REPORT
    failed = state.status in (RunStatus.FAILED, RunStatus.TIMED_OUT)
    # An attempt that wants the task to run again has not reported the run that came of it.
    reporter = record.try_number - (record.wants_rerun_of is not None)
    died = attempt.try_number - reporter > 1
    return NextStep.RERUN if failed and died else NextStep.REPORT


class WorkflowGroup(Protocol):
    """What its tasks need of a :class:`~.workflow.DatabricksWorkflowTaskGroup`."""

    #: The task that launches the group's run.
    launch_task: Any
    #: Libraries for all notebooks.
    notebook_packages: list[Any]

    def members(self) -> Sequence[WorkflowMemberOperator]:
        """Return the tasks of the group that are tasks of its job."""


class WorkflowMemberOperator(LaunchRunOperator):
    """Base class of the operators that may be tasks of a workflow group."""

    databricks_task_key: Any
    workflow_run_metadata: Any

    #: The context of the execution in a group; None before it.
    execution_context: Context | None = None
    # The run of the group, and the task run that this attempt has started by a repair.
    _workflow_run_id: int = 0
    _own_task_run_id: int | None = None

    def workflow_group(self) -> WorkflowGroup | None:
        """Return the workflow group that the task is in, at any depth; None if it is in none."""
        group: Any = self.task_group
        while group is not None:
            if getattr(group, "is_databricks", False):
                found: WorkflowGroup = group
                return found
            group = getattr(group, "parent_group", None)
        return None

    def service_retries(self) -> int:
        """Return how often the service itself retries the task, -1 for no limit."""
        raise NotImplementedError

    def execute(self, context: Context) -> Any:
        """Follow the task in its group; alone, launch a run and wait for its output."""
        if self.workflow_group() is None:
            return super().execute(context)
        executions = self._begin(context)
        self._push(context, xcoms_at_start(self._attempt))
        self._read_metadata(context)
        with airflow_exceptions(), executions.watching(self):
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
        if try_number not in (None, context["ti"].try_number):
            # Airflow 3.0 resumes a retry with the event and the start time of the try before.
            self._state = self._state.with_start(time.time())
            return self.execute(context)
        executions = self._begin(context, resumed=execution, deadline=deadline)
        self._read_metadata(context)
        self._own_task_run_id = own
        if try_number is None:  # in dag.test()
            of_group = (event.get("run") or event).get("run_id") == self._workflow_run_id
            waits_for = "run" if of_group else "task"
        with airflow_exceptions(), executions.watching(self):
            if waits_for == "run":
                self._run_from_event(event)
                return self._follow_member(context)
            if event.get("run_id") is not None:
                self._state.run.answered(event["run_id"])
            if "run" in event:
                self._state.run.ended()
                self._state.run_page_url = event["run"].get("run_page_url")
            return self._member_ended(context, self._run_from_event(event))

    # -- following -----------------------------------------------------------------------------

    def _read_metadata(self, context: Context) -> None:
        """Take connection and run from what the group's launching task has returned."""
        self.execution_context = context
        metadata = self.workflow_run_metadata
        if not metadata:
            launch = self._launch_task_id()
            metadata = context["ti"].xcom_pull(
                task_ids=launch, key=RETURN_VALUE_KEY, map_indexes=context["ti"].map_index
            )
            if not metadata:
                raise AirflowException(f"the task {launch!r} has launched no run")
        self.databricks_conn_id = str(metadata["conn_id"])
        self._workflow_run_id = int(metadata["run_id"])

    def _launch_task_id(self) -> str:
        group = self.workflow_group()
        assert group is not None
        return str(group.launch_task.task_id)

    def _records(self) -> WorkflowRecords:
        return WorkflowRecords(self._attempt, self._launch_task_id())

    def _record(self) -> TaskRecord:
        # No attempt before the first one can have recorded anything.
        if self._attempt.try_number <= 1:
            return TaskRecord()
        record, group = self._records().read(self.task_id), self.workflow_group()
        assert group is not None
        assert self.execution_context is not None
        if record.try_number == 0 and group.launch_task.was_cleared(self.execution_context):
            # The attempts before the clear may belong to an earlier run.
            return replace(record, try_number=self._attempt.attempts_before_clear)
        return record

    def _follow_member(self, context: Context) -> Any:
        """Wait for the end of the task, run it again if needed, and report the end."""
        from airflow_jobs_provider.api.errors import NotFoundError
        from airflow_jobs_provider.api.states import RunState
        from airflow_jobs_provider.api.workflows.outputs import latest_attempts

        record = self._record()
        if record.is_alone:
            return self._launch_alone(context)
        while True:
            try:
                run = self._read_workflow_run()
            except NotFoundError as error:
                if self._attempt.try_number == 1:
                    raise  # The run was launched just now.
                return self._go_alone(context, record, str(error))
            task = latest_attempts(run).get(self.databricks_task_key)
            run_has_ended = RunState.from_run(run).is_terminal
            if task is None and run_has_ended:
                return self._go_alone(context, record, f"run {run['run_id']} has no such task")
            if task is None or (
                next_step(task, record, self._attempt, own=self._own_task_run_id) is NextStep.REPORT
            ):
                return self._wait_for_member(context, run, record)
            self._end_if_killed(after_any_kill=True)
            latest = int(task["run_id"])
            if record.wants_rerun_of != latest:
                # A repair that another task of the group makes serves this one, too.
                record = self._records().write(self.task_id, replace(record, wants_rerun_of=latest))
            if run_has_ended:
                reason = self._rerun(context, run, latest)
                if reason is not None:
                    return self._go_alone(context, record, reason)
            else:
                self._wait_for_run_end(context, run)

    def _read_workflow_run(self) -> Run:
        from airflow_jobs_provider.api.versions import LATEST_API_VERSION
        from airflow_jobs_provider.api.workflows.follow import whole_run

        steps = whole_run(self._workflow_run_id, api_version=LATEST_API_VERSION)
        return self._run_workflow(steps)

    def _wait_for_member(self, context: Context, run: Run, record: TaskRecord) -> Any:
        """Wait for the end of the task's latest run, on the worker or in the triggerer."""
        from airflow_jobs_provider.api.states import RunState
        from airflow_jobs_provider.api.workflows.events import Event, RunIdentified
        from airflow_jobs_provider.api.workflows.find import follow_task
        from airflow_jobs_provider.api.workflows.outputs import latest_attempts

        task: Any = latest_attempts(run).get(self.databricks_task_key)
        before = _attempts_until(run, self.databricks_task_key, record.reported)
        if task is not None:
            self._identified(context, run, task)
            state = RunState.from_run(task)
            # A failed attempt is not the end where the service may retry it.
            may_be_retried = self.service_retries() != 0 and not RunState.from_run(run).is_terminal
            is_open = not state.is_terminal or (may_be_retried and not state.is_successful)
            if is_open and self._may_defer(context):
                self._defer_until_member_ended(context, task, before)

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
        )
        try:
            ended = self._run_workflow(steps, on_event=on_event)
        except ValueError as error:
            raise AirflowException(str(error)) from error
        self._state.run.ended()
        self._identified(context, run, ended, is_active=False)
        return self._member_ended(context, ended)

    def _identified(
        self, context: Context, run: Run, task: Mapping[str, Any], *, is_active: bool = True
    ) -> None:
        """Record the task's run, for a kill, and push its XComs."""
        run_id = int(task["run_id"])
        if is_active:
            self._state.run.answered(run_id)
        page_url = task.get("run_page_url") or run.get("run_page_url")
        self._state.run_page_url = page_url
        xcoms = {RUN_ID_KEY: run_id, JOB_ID_KEY: run.get("job_id"), RUN_PAGE_URL_KEY: page_url}
        self._push(context, xcoms)

    def _member_ended(self, context: Context, task: Run) -> Any:
        """Report the end of the task's run: return its output, skip, or raise why it failed."""
        from airflow_jobs_provider.api.states import RunState, RunStatus

        state = RunState.from_run(task)
        record = self._record()
        if (
            state.status is RunStatus.CANCELED
            and next_step(task, record, self._attempt, own=self._own_task_run_id) is NextStep.RERUN
        ):
            self._end_if_killed(after_any_kill=True)
            return self._follow_member(context)
        reported = replace(
            record,
            reported=int(task["run_id"]),
            max_tries=self._attempt.max_tries,
            wants_rerun_of=None,
        )
        self._records().write(self.task_id, reported)
        if state.status is RunStatus.SKIPPED and state.result_state not in _NOT_RUN:
            raise AirflowSkipException(f"Databricks has skipped run {task['run_id']} ({state})")
        return self._result_or_raise(context, task)

    # -- deferring -----------------------------------------------------------------------------

    def _defer_until_member_ended(
        self, context: Context, task: Mapping[str, Any], attempts_before: int
    ) -> NoReturn:
        from airflow_jobs_provider.triggers.workflow import DatabricksWorkflowTaskTrigger

        run_id, deadline = int(task["run_id"]), self._deadline(context)
        if self.cancel_on_kill:
            self._state.deferral = Deferral(self._attempt, self._cancel_for_refused_deferral)
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
            reached_by=self.hook.client.reached_by,
            **self._hook_arguments(),
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
        self.defer(trigger=trigger, method_name="execute_complete_in_workflow", kwargs=kwargs)

    # -- running again -------------------------------------------------------------------------

    def _rerun(self, context: Context, run: Run, latest: int) -> str | None:
        """Repair the run, unless it was repaired meanwhile; return why it cannot be repaired.

        :param context: the task's context.
        :param run: the group's run.
        :param latest: the task's latest run.
        """
        from airflow_jobs_provider.api.errors import BadRequestError
        from airflow_jobs_provider.api.workflows.outputs import latest_attempts
        from airflow_jobs_provider.api.workflows.repair import repair_tasks

        reason = self._why_not_repairable(context, run)
        if reason is not None:
            return reason
        steps = repair_tasks(
            self._workflow_run_id,
            self.databricks_task_key,
            after=latest,
            choose=self._tasks_to_rerun,
            polling_period_seconds=self.polling_period_seconds,
        )
        try:
            repaired = self._run_workflow(steps, stop_after_any_kill=True)
        except BadRequestError as error:
            return f"the service refuses the repair: {error}"
        except AirflowException:
            self._cancel_rerun_after_kill(latest)
            raise
        rerun = latest_attempts(repaired).get(self.databricks_task_key) or {}
        if rerun.get("run_id") not in (None, latest):
            self._own_task_run_id = int(rerun["run_id"])
        return None

    def _cancel_rerun_after_kill(self, latest: int) -> None:
        """Cancel the task's new run: the kill came when the repair may have been sent already."""
        from airflow_jobs_provider.api.errors import JobsAPIError
        from airflow_jobs_provider.api.versions import LATEST_API_VERSION
        from airflow_jobs_provider.api.workflows.follow import whole_run
        from airflow_jobs_provider.api.workflows.outputs import latest_attempts

        try:
            # A client of its own: the kill may have interrupted the other one.
            with self.hook.client.clone() as client:
                run = client.run(whole_run(self._workflow_run_id, api_version=LATEST_API_VERSION))
        except JobsAPIError as error:
            self.log.error("Run %s cannot be read: %s", self._workflow_run_id, error)
            return
        rerun = latest_attempts(run).get(self.databricks_task_key) or {}
        if rerun.get("run_id") not in (None, latest):
            self._state.run.answered(int(rerun["run_id"]))
            self._decide_on_kill()

    def _tasks_to_rerun(self, run: Run) -> list[str]:
        """Return the keys of all tasks of the group that are to run again, this one included.

        Those are the tasks that Airflow will execute, or that wait for a repair, and whose latest
        run was reported, or did not run because of others. A task that Airflow has executed for the
        first time reports its run, whatever that is.
        """
        from airflow_jobs_provider.api.states import RunState
        from airflow_jobs_provider.api.workflows.outputs import latest_attempts

        group, records = self.workflow_group(), self._records()
        assert group is not None
        latest = latest_attempts(run)
        chosen, asked = [self.databricks_task_key], list[WorkflowMemberOperator]()
        members = {task.task_id: task for task in group.members() if task.task_id != self.task_id}
        undecided, deadline = set(members), time.monotonic() + SETTLE_SECONDS
        while undecided:
            states = records.states(sorted(undecided))
            for task_id in sorted(undecided):
                state, member = states.get(task_id), members[task_id]
                task = latest.get(member.databricks_task_key)
                is_next, is_now = is_to_be_executed(state), is_executing(state)
                if task is None or task_id not in states or not (is_next or is_now):
                    undecided.discard(task_id)
                    continue
                record = records.read(task_id)
                was_reported = record.reported == task.get("run_id")
                not_run = RunState.from_run(task).result_state in _NOT_RUN
                if record.is_alone:
                    undecided.discard(task_id)
                elif record.wants_rerun_of == task.get("run_id") or (
                    is_next and (was_reported or not_run)
                ):
                    asked.append(member)
                    undecided.discard(task_id)
                elif is_next or not was_reported:
                    undecided.discard(task_id)
                # Otherwise it is executed, and has reported its latest run: it is about to end, or
                # has been started again and is about to say so.
            if undecided and time.monotonic() > deadline:
                break
            if undecided:
                self._end_if_killed(after_any_kill=True)
                self.hook.client.sleep(1.0)
        chosen += [member.databricks_task_key for member in asked]
        self.log.info(
            "Repairing run %s: these tasks run again: %s",
            self._workflow_run_id,
            ", ".join([self.task_id, *(member.task_id for member in asked)]),
        )
        return chosen

    def _why_not_repairable(self, context: Context, run: Run) -> str | None:
        """Return why the run must not be repaired; None if it may be.

        A repair uses the job's settings of now. They must be those that the run was launched with,
        and those that the group has now.
        """
        from airflow_jobs_provider.api.errors import NotFoundError
        from airflow_jobs_provider.api.workflows.job_definitions import (
            has_settings,
            is_defined_as,
            whole_job,
        )

        group = self.workflow_group()
        assert group is not None
        launched_with = group.launch_task.recorded_digest(context)
        settings, digest = group.launch_task.definition(context)
        if launched_with != digest:
            return "the group's definition has changed since the run was launched"
        try:
            job = self._run_workflow(whole_job(int(run["job_id"])))
        except NotFoundError:
            return f"job {run['job_id']} does not exist any more"
        if not is_defined_as(job, digest) or not has_settings(job, settings):
            return f"job {run['job_id']} was changed since the run was launched"
        return None

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
