"""WorkflowRerunOperator: the part of an operator that runs its task in a workflow group again.

To run a task again is to repair the group's run, once it has ended: one repair for all tasks of the
group that are to run again, see :meth:`WorkflowRerunOperator._tasks_to_rerun`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from airflow.providers.common.compat.sdk import AirflowException, AirflowSkipException

from airflow_jobs_provider.airflow_compat.workflow_records import (
    UNKNOWN_ATTEMPT,
    TaskRecord,
    WorkflowRecords,
    is_about_to_start,
    is_running,
    is_skipped,
    is_unfinished,
)
from airflow_jobs_provider.operators.execution_state import KillState
from airflow_jobs_provider.operators.launch import LaunchRunOperator
from airflow_jobs_provider.operators.workflow_next_step import (
    Rerun,
    has_succeeded,
    runs_again_too,
    unmet_conditions,
)
from airflow_jobs_provider.xcom import RETURN_VALUE_KEY

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobs_provider.api.schema.types import Run

__all__ = ["WorkflowGroup", "WorkflowRerunOperator"]

# How long a task that is executed may take to tell what it does, before it counts as one that does
# not run again: its process has to parse the DAG file first.
SETTLE_SECONDS = 15.0
# How long a task waits for another one that has claimed the repair. That one may have to wait for
# tasks to settle, and its process may have died.
CLAIM_SECONDS = 60.0


class WorkflowGroup(Protocol):
    """What its tasks need of a :class:`~.workflow.DatabricksWorkflowTaskGroup`."""

    #: The task that launches the group's run.
    launch_task: Any
    #: Libraries for all notebooks.
    notebook_packages: list[Any]
    #: Whether to add billing tags; None for Airflow's setting.
    billing_tags: bool | None

    def members(self) -> Sequence[WorkflowRerunOperator]:
        """Return the tasks of the group that are tasks of its job."""


class WorkflowRerunOperator(LaunchRunOperator):
    """Base class of the operators that may be tasks of a workflow group, as far as repairs go."""

    databricks_task_key: Any
    workflow_run_metadata: Any

    #: The context of the execution in a group; None before it.
    execution_context: Context | None = None
    # The run of the group, and the task run that this attempt has started by a repair.
    _workflow_run_id: int = 0
    _workflow_job_id: int | None = None
    _own_task_run_id: int | None = None
    # The tasks whose claims this process does not wait for any more.
    _overdue_claims: frozenset[str] = frozenset()

    def workflow_group(self) -> WorkflowGroup | None:
        """Return the workflow group that the task is in, at any depth; None if it is in none."""
        group: Any = self.task_group
        while group is not None:
            if getattr(group, "is_databricks", False):
                found: WorkflowGroup = group
                return found
            group = getattr(group, "parent_group", None)
        return None

    # -- what the group knows ------------------------------------------------------------------

    def _read_metadata(self, context: Context) -> None:
        """Take connection and run from what the group's launching task has returned."""
        from airflow_jobs_provider.api.ids import parse_id

        self.execution_context = context
        metadata = self.workflow_run_metadata
        if not metadata:
            launch = self._launch_task_id()
            metadata = context["ti"].xcom_pull(
                task_ids=launch, key=RETURN_VALUE_KEY, map_indexes=context["ti"].map_index
            )
            if not metadata:
                if is_skipped(self._records().states([launch]).get(launch)):
                    # The task's trigger rule lets it start all the same.
                    raise AirflowSkipException(f"the task {launch!r} was skipped")
                raise AirflowException(f"the task {launch!r} has launched no run")
        self.databricks_conn_id = str(metadata["conn_id"])
        self._workflow_run_id = int(metadata["run_id"])
        self._workflow_job_id = parse_id(metadata.get("job_id"))

    def _launch_task(self) -> Any:
        group = self.workflow_group()
        assert group is not None
        return group.launch_task

    def _launch_task_id(self) -> str:
        return str(self._launch_task().task_id)

    def _launched_with(self, context: Context) -> str | None:
        """Return the digest of the definition that the group's run was launched with."""
        digest: str | None = self._launch_task().recorded_digest(context)
        return digest

    def _records(self) -> WorkflowRecords:
        return WorkflowRecords(self._attempt, self._launch_task_id())

    def _record(self) -> TaskRecord:
        # No attempt before the first one can have recorded anything.
        if self._attempt.try_number <= 1:
            return TaskRecord()
        record = self._records().read(self.task_id)
        if record.is_repairing:
            # An earlier attempt has died with this claim. Other tasks must not wait for it now that
            # the task is executed again.
            record = replace(record, is_repairing=False)
            self._records().write(self.task_id, record)
        assert self.execution_context is not None
        if record.try_number == 0 and self._launch_task().was_cleared(self.execution_context):
            # The attempts before the clear may belong to an earlier run.
            return replace(record, try_number=self._attempt.attempts_before_clear)
        return record

    def _read_workflow_run(self) -> Run:
        from airflow_jobs_provider.api.versions import LATEST_API_VERSION
        from airflow_jobs_provider.api.workflows.follow import whole_run

        steps = whole_run(self._workflow_run_id, api_version=LATEST_API_VERSION)
        return self._run_workflow(steps)

    # -- running again -------------------------------------------------------------------------

    def _claim_repair(self, record: TaskRecord) -> bool:
        """Claim the repair of the run, or wait for the task of the group that has claimed it.

        Of the tasks that are cleared together, several may find at the same moment that the run has
        ended. Each writes its claim before it looks for the claims of others. So at least one of
        two sees the claim of the other, and the one whose task id comes first keeps its claim.

        :param record: the task's record, which is to be written once the repair is made.
        :return: True if the task has the only claim. It has to read the run once more then. False
            if another task has had it; the run may be repaired by now.
        """
        records = self._records()
        other = self._claimant()
        if other is None:
            records.write(self.task_id, replace(record, is_repairing=True))
            while (other := self._claimant()) is not None and other > self.task_id:
                self._wait_for_claimant(other)
            if other is None:
                return True
            records.write(self.task_id, record)
        self._wait_for_claimant(other)
        return False

    def _claimant(self, among: Collection[str] | None = None) -> str | None:
        """Return the first task of the group, by task id, that is executed and repairs the run.

        :param among: the tasks to look at; None for all others.
        """
        group, records = self.workflow_group(), self._records()
        assert group is not None
        if among is None:
            among = {task.task_id for task in group.members()} - {self.task_id}
        looked_at = sorted(set(among) - self._overdue_claims)
        if not looked_at:
            return None
        states = records.states(looked_at)
        executed = (task_id for task_id in looked_at if is_running(states.get(task_id)))
        return next((task_id for task_id in executed if records.read(task_id).is_repairing), None)

    def _wait_for_claimant(self, task_id: str) -> None:
        """Wait until another task does not repair the run any more, or has taken too long."""
        self.log.info("The task %s is about to repair run %s.", task_id, self._workflow_run_id)
        deadline = time.monotonic() + CLAIM_SECONDS
        while self._claimant([task_id]) is not None:
            if time.monotonic() > deadline:
                self.log.info("It has not done so within %.0f s.", CLAIM_SECONDS)
                self._overdue_claims |= {task_id}
                return
            self._end_if_killed(after_any_kill=True)
            self.hook.client.sleep(1.0)

    def _rerun(self, context: Context, latest: int) -> str | None:
        """Repair the run, unless it was repaired meanwhile; return why it cannot be repaired.

        :param context: the task's context.
        :param latest: the task's latest run.
        """
        from airflow_jobs_provider.api.errors import BadRequestError, ConflictError, JobsAPIError
        from airflow_jobs_provider.api.run_summary import latest_attempts
        from airflow_jobs_provider.api.workflows.repair import RunNotRepairableError, repair_tasks

        settings, digest = self._launch_task().definition(context, workspace_url=self.workspace_url)
        launched_with = self._launched_with(context)
        if launched_with is None:
            return "it was not launched by this provider"
        if launched_with != digest:
            return "the group's definition has changed since the run was launched"
        steps = repair_tasks(
            self._workflow_run_id,
            self.databricks_task_key,
            after=latest,
            choose=lambda run: self._tasks_to_rerun(run, settings["tasks"]),
            settings=settings,
            polling_period_seconds=self.polling_period_seconds,
        )
        try:
            repaired = self._run_workflow(steps, stop_after_any_kill=True)
            rerun = latest_attempts(repaired).get(self.databricks_task_key) or {}
            if rerun.get("run_id") not in (None, latest):
                self._own_task_run_id = int(rerun["run_id"])
                # From here on a kill cancels it. It may have come just before.
                self._state.run.answered(self._own_task_run_id)
            self._end_if_killed(after_any_kill=True)
        except ConflictError:
            raise  # a lock goes away: the next try repairs the run
        except BadRequestError as error:
            return f"the service refuses the repair: {error}"
        except RunNotRepairableError as error:
            return str(error)
        except JobsAPIError:
            raise
        except BaseException:
            # A kill, or the end of execution_timeout. Airflow's exceptions for them differ.
            self._cancel_rerun_after_kill(latest)
            raise
        return None

    def _cancel_rerun_after_kill(self, latest: int) -> None:
        """Cancel the task's new run: the kill came when the repair may have been sent already."""
        from airflow_jobs_provider.api.errors import JobsAPIError
        from airflow_jobs_provider.api.run_summary import latest_attempts
        from airflow_jobs_provider.api.versions import LATEST_API_VERSION
        from airflow_jobs_provider.api.workflows.base import run_workflow
        from airflow_jobs_provider.api.workflows.follow import whole_run

        if self._state.kill is KillState.LEFT_TO_RETRY or self._state.run.is_canceled:
            return
        steps = whole_run(self._workflow_run_id, api_version=LATEST_API_VERSION)
        try:
            # A client of its own: the kill may have interrupted the other one.
            with self.hook.client.clone() as client:
                send = partial(client.send, retries=self._retries_after_kill())
                run = run_workflow(steps, send=send, wait=client.sleep)
        except JobsAPIError as error:
            self.log.error("Run %s cannot be read: %s", self._workflow_run_id, error)
            return
        rerun = latest_attempts(run).get(self.databricks_task_key) or {}
        if rerun.get("run_id") not in (None, latest):
            self._state.run.answered(int(rerun["run_id"]))
            self._decide_on_kill()

    def _tasks_to_rerun(self, run: Run, definitions: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return the keys of all tasks of the group that are to run again, this one included.

        :param run: the group's run.
        :param definitions: the tasks as the job defines them.
        :raises RunNotRepairableError: a repair could not run this task.
        """
        from airflow_jobs_provider.api.run_summary import latest_attempts
        from airflow_jobs_provider.api.workflows.repair import RunNotRepairableError

        latest, own = latest_attempts(run), self.databricks_task_key
        keys = {own: self.task_id, **self._others_to_rerun(latest, definitions)}
        unmet = unmet_conditions(keys, definitions, latest)
        if own in unmet:
            raise RunNotRepairableError(
                f"the task {unmet[own]!r} before it has not succeeded in the run, though it counts "
                "as successful in Airflow"
            )
        chosen = [key for key in keys if key not in unmet]
        self.log.info(
            "Run %s is to be repaired. These tasks run again: %s",
            self._workflow_run_id,
            ", ".join(keys[key] for key in chosen),
        )
        return chosen

    def _others_to_rerun(
        self,
        latest: Mapping[str, Mapping[str, Any]],
        definitions: Sequence[Mapping[str, Any]],
    ) -> dict[str, str]:
        """Return the other tasks of the group that are to run again, task ids by task key.

        :param latest: the latest runs of the run's tasks, by task key.
        :param definitions: the tasks as the job defines them.
        """
        group, records = self.workflow_group(), self._records()
        assert group is not None
        members = {task.task_id: task for task in group.members() if task.task_id != self.task_id}
        retries = {one["task_key"]: int(one.get("max_retries") or 0) for one in definitions}
        assert self.execution_context is not None
        was_cleared = group.launch_task.was_cleared(self.execution_context)
        known: dict[str, tuple[str | None, TaskRecord]] = {}

        def decide(task_id: str, state: str | None, *, has_waited: bool) -> Rerun:
            """Return whether a task runs again, by its state and by what it has recorded."""
            key = members[task_id].databricks_task_key
            task = latest.get(key) or {}
            # A task that still waits for its start has recorded nothing meanwhile.
            if not is_about_to_start(state) or known.get(task_id, (None,))[0] != state:
                known[task_id] = state, records.read(task_id)
            record, later = known[task_id][1], UNKNOWN_ATTEMPT
            if record.reported is not None and record.reported == task.get("run_id"):
                pushes_xcoms = members[task_id].do_xcom_push
                later = records.later_attempt(task_id, record, pushes_xcoms=pushes_xcoms)
            rerun = runs_again_too(
                state,
                task or None,
                record,
                later,
                follows_run=members[task_id].wait_for_termination,
                launch_was_cleared=was_cleared,
                max_retries=retries.get(key, 0),
                has_waited=has_waited,
            )
            # The record was read after the state. A queued attempt, which resumes after its task
            # run's success, may have reported that meanwhile.
            is_sure = rerun is not Rerun.YES or not has_succeeded(latest.get(key))
            if not is_sure and records.states([task_id]).get(task_id) != state:
                return Rerun.UNDECIDED
            return rerun

        chosen: dict[str, str] = {}
        undecided, deadline = set(members), time.monotonic() + SETTLE_SECONDS
        while undecided:
            has_waited = time.monotonic() > deadline
            states = records.states(sorted(undecided))
            for task_id in sorted(undecided):
                rerun, state = Rerun.NO, states.get(task_id)
                if task_id in states and is_unfinished(state):
                    rerun = decide(task_id, state, has_waited=has_waited)
                if rerun is Rerun.YES:
                    chosen[members[task_id].databricks_task_key] = task_id
                if rerun is not Rerun.UNDECIDED:
                    undecided.discard(task_id)
            if undecided:
                self._end_if_killed(after_any_kill=True)
                self.hook.client.sleep(1.0)
        return chosen
