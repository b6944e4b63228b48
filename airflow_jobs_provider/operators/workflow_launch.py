"""DatabricksWorkflowLaunchOperator: the task that launches the run of a workflow group."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowException

from airflow_jobs_provider.airflow_compat.run_successor import xcoms_at_start
from airflow_jobs_provider.airflow_compat.triggerer_values import (
    UnreadableValueError,
    rendering_reasons,
)
from airflow_jobs_provider.airflow_compat.workflow_records import delete_records
from airflow_jobs_provider.exceptions import airflow_exceptions
from airflow_jobs_provider.operators.extra_links import extra_links
from airflow_jobs_provider.operators.payload_validation import check_before_sending
from airflow_jobs_provider.operators.start_from_trigger import StoredRequest
from airflow_jobs_provider.operators.stored_group import stored_group
from airflow_jobs_provider.operators.workflow_job import WorkflowJobOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobs_provider.api.calls import Call
    from airflow_jobs_provider.api.schema.types import Run
    from airflow_jobs_provider.api.workflows.launch import LaunchResult

__all__ = [
    "DEFINITION_KEY",
    "TASK_RUNS_KEY",
    "WAS_CLEARED_KEY",
    "DatabricksWorkflowLaunchOperator",
    "LaunchedTask",
    "is_skipped_run",
    "metadata_of",
]

# XCom of the launching task: the digest of the definition that the run was launched with.
DEFINITION_KEY = "databricks_definition"
# XCom of the launching task: True if it was cleared before, so that the run is not the first one.
WAS_CLEARED_KEY = "databricks_was_cleared"
# XCom of the launching task: the task runs of the group's first tasks, as it has read them.
TASK_RUNS_KEY = "databricks_task_runs"
# For so long a task that has been read active is taken for active. If it has ended, its task in
# Airflow defers in vain, and a worker resumes it.
FRESH_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class LaunchedTask:
    """A task of the group's run, as the launching task has read it.

    :ivar run_id: its task run.
    :ivar run_page_url: page of the task run; None if the service does not tell it.
    :ivar reached_by: how the launching task reached the workspace, see
        :class:`~airflow_jobs_provider.triggers.arguments.TriggerArguments`.
    """

    run_id: int
    run_page_url: str | None
    reached_by: str | None


class DatabricksWorkflowLaunchOperator(WorkflowJobOperator):
    """Create or update the job of a workflow group, and launch its run once.

    A :class:`~airflow_jobs_provider.operators.workflow.DatabricksWorkflowTaskGroup` makes one as
    its task ``launch``. XComs: ``return_value`` is a dict of ``conn_id``, ``job_id`` and
    ``run_id``; ``run_id``, ``job_id`` and ``run_page_url`` are pushed as well. The arguments are
    those of the group.
    """

    # When the job was last known to have the group's definition, on the monotonic clock.
    _ensured_at: float = 0.0
    operator_extra_links = extra_links("DatabricksJobLink")
    _starts_in_triggerer: ClassVar[bool] = True
    _start_trigger: ClassVar[str] = (
        "airflow_jobs_provider.operators.workflow_launch_trigger.DatabricksWorkflowLaunchTrigger"
    )
    # A run that failed belongs to the group's tasks, which report that and repair it.
    adopts_failed_runs: ClassVar[bool] = True
    _has_job: ClassVar[bool] = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._check_start()

    def recorded_digest(self, context: Context) -> str | None:
        """Return the digest of the definition that the group's run was launched with.

        :param context: the context of any task of the group.
        """
        digest: str | None = self._own_xcom(context, DEFINITION_KEY)
        return digest

    def was_cleared(self, context: Context) -> bool:
        """Return whether this task was cleared before it launched the group's run.

        :param context: the context of any task of the group.
        """
        return bool(self._own_xcom(context, WAS_CLEARED_KEY))

    def _own_xcom(self, context: Context, key: str) -> Any:
        ti = context["ti"]
        return ti.xcom_pull(task_ids=self.task_id, key=key, map_indexes=ti.map_index)

    # -- the run -------------------------------------------------------------------------------

    def arguments_without_effect(self) -> dict[str, str]:
        """Return the group's arguments that were given and have no effect, each with the reason."""
        if not self.existing_clusters:
            return {}
        return {"existing_clusters": "the existing_cluster_id of a task selects its cluster"}

    def execute(self, context: Context) -> dict[str, Any]:
        """Define the job, launch its run, and return where it runs."""
        self._log_start_on_worker()
        executions = self._begin(context)
        was_cleared = self._attempt.attempts_before_clear > 0
        cleared = {WAS_CLEARED_KEY: True} if was_cleared else {}
        self._push(context, {**xcoms_at_start(self._attempt), **cleared})
        with airflow_exceptions(), executions.watching(self):
            self._log_arguments_without_effect()
            launched = self._launch(context, first_attempt_index=0)
            self._check_not_skipped(context, launched.run)
            self._push_task_runs(context, launched)
            # From here on each task of the group is responsible for its own run.
            self._state.run.ended()
        return metadata_of(launched.run, self.databricks_conn_id)

    def _check_not_skipped(self, context: Context, run: Run) -> None:
        """Raise an error if the service has skipped the run: by the limit of concurrent runs."""
        if is_skipped_run(run):
            self._state.run.ended()
            self._result_or_raise(context, run)

    def _end(self, context: Context, run: Run) -> Any:
        """End the task after its trigger has launched the run."""
        self._check_not_skipped(context, run)
        return metadata_of(run, self.databricks_conn_id)

    def _delete_earlier_output(self, context: Context) -> None:
        """Delete what an earlier attempt and the tasks of its run have pushed."""
        super()._delete_earlier_output(context)
        task_ids = [member.task_id for member in self.members]
        delete_records(context["ti"], task_ids, (DEFINITION_KEY, TASK_RUNS_KEY, WAS_CLEARED_KEY))

    def launch_call(self, context: Context) -> Call[int]:
        """Define the job, and return the ``run-now`` call."""
        import uuid

        from airflow_jobs_provider.api.workflows.base import within_deadline
        from airflow_jobs_provider.api.workflows.job_definitions import ensure_job
        from airflow_jobs_provider.api.workflows.permissions import without_permissions

        settings, digest = self.definition(context)
        check_before_sending(
            "create",
            without_permissions(settings),
            validate=self.validate,
            client=self.hook.client,
        )
        defining = ensure_job(settings, nonce=uuid.uuid4().hex, log=self.log)
        job_id = self._run_workflow(within_deadline(defining), stop_after_any_kill=True)
        self._ensured_at = time.monotonic()
        self._push(context, {DEFINITION_KEY: digest})
        return self.run_call(job_id, settings, context)

    def run_call(self, job_id: int, settings: Mapping[str, Any], context: Context) -> Call[int]:
        """Return the ``run-now`` call.

        :param job_id: the group's job.
        :param settings: its settings.
        :param context: the context of this task.
        """
        from airflow_jobs_provider.api.endpoints import run_now

        parameters = self._run_parameters()
        has_notebooks = any("notebook_task" in task for task in settings["tasks"])
        if self.openlineage_inject_parent_job_info and has_notebooks:
            from airflow_jobs_provider.operators.openlineage import inject_into_notebook_params

            parameters = inject_into_notebook_params(parameters, context, self.log)
        return run_now({"job_id": job_id, **parameters})

    def _launch(self, context: Context, first_attempt_index: int) -> LaunchResult:
        from airflow_jobs_provider.api.states import RunState
        from airflow_jobs_provider.api.workflows.job_definitions import CLAIM_SECONDS

        launched = super()._launch(context, first_attempt_index)
        took_long = time.monotonic() - self._ensured_at > CLAIM_SECONDS
        # An earlier try has died before it could check its run.
        if (took_long or not launched.is_own) and not self._has_own_definition(context, launched):
            if RunState.from_run(launched.run).is_terminal:
                self._state.run.ended()
            self._cancel("the job was reset for another DAG run before it was launched")
            if launched.is_own:
                raise AirflowException(
                    f"Run {launched.run_id} has the definition of another DAG run, and was canceled"
                )
            return self._launch(context, launched.attempt_index + 1)
        return launched

    def _has_own_definition(self, context: Context, launched: LaunchResult) -> bool:
        """Return whether a run has the tasks of this DAG run.

        It may have others where the job was reset for another DAG run before the run was launched.
        That is possible only where the launch took long, as in an outage.
        """
        from airflow_jobs_provider.api.workflows.job_definitions import has_definition

        settings, _ = self.definition(context)
        return self._run_workflow(has_definition(launched.run, settings))

    def _push_task_runs(self, context: Context, launched: LaunchResult) -> None:
        """Push the task runs of the group's first tasks, so that they defer without a request.

        One read serves them all. The tasks after them are not active before the first ones end.
        """
        from airflow_jobs_provider.api.errors import JobsAPIError
        from airflow_jobs_provider.api.run_summary import latest_attempts
        from airflow_jobs_provider.api.states import RunState
        from airflow_jobs_provider.api.versions import LATEST_API_VERSION
        from airflow_jobs_provider.api.workflows.base import within_deadline
        from airflow_jobs_provider.api.workflows.follow import whole_run

        keys = self._shared_task_keys()
        # An earlier attempt may have launched the run long ago.
        if not keys or not launched.is_own or not self.do_xcom_push:
            return
        steps = whole_run(launched.run_id, api_version=LATEST_API_VERSION, first_look=launched.run)
        try:
            run = self._run_workflow(within_deadline(steps), stop_after_any_kill=True)
        except JobsAPIError as error:
            self.log.info("Each task of the group reads its own task run: %s", error)
            return
        tasks = {
            key: [int(task["run_id"]), task.get("run_page_url")]
            for key, task in latest_attempts(run).items()
            if key in keys and task.get("run_id") and not RunState.from_run(task).is_terminal
        }
        value = {
            "run_id": launched.run_id,
            "read_at": time.time(),
            "reached_by": self.hook.client.reached_by,
            "tasks": tasks,
        }
        self._push(context, {TASK_RUNS_KEY: value})

    def _shared_task_keys(self) -> set[str]:
        """Return the keys of the group's first tasks that defer; none if there is only one.

        The run of a task after others may have ended before Airflow starts the task.
        """
        inside = {member.task_id for member in self.members}
        keys = {
            str(member.databricks_task_key)
            for member in self.members
            if self.task_id in member.upstream_task_ids
            and inside.isdisjoint(member.upstream_task_ids)
            and member.deferrable
            and member.wait_for_termination
            # One that starts in the triggerer shares the reads there.
            and not member.starts_in_triggerer()
        }
        return keys if len(keys) > 1 else set()

    def launched_task(self, context: Context, run_id: int, task_key: str) -> LaunchedTask | None:
        """Return a task as this operator has read it; None if it has not, or long ago.

        :param context: the context of any task of the group.
        :param run_id: the group's run.
        :param task_key: the task.
        """
        if task_key not in self._shared_task_keys():
            return None
        found = self._own_xcom(context, TASK_RUNS_KEY)
        if not isinstance(found, dict) or found.get("run_id") != run_id:
            return None
        task = found["tasks"].get(task_key)
        # The clocks of two workers may differ.
        if task is None or abs(time.time() - found["read_at"]) > FRESH_SECONDS:
            return None
        return LaunchedTask(task[0], task[1], found["reached_by"])

    # -- start in the triggerer ----------------------------------------------------------------

    def _request_reasons(self) -> list[str]:
        reasons = super()._request_reasons()
        if self._shared_task_keys():
            # This task reads their runs for all of them.
            reasons.append("tasks of the group that a worker starts")
        return reasons

    def _stored_request(self, more_bytes: int = 0) -> StoredRequest:
        try:
            group = stored_group(self.task_group, self.members)
        except UnreadableValueError as reason:
            return StoredRequest([str(reason)])
        request = super()._stored_request(more_bytes + len(group.text))
        reasons = list(request.reasons)
        if group.has_templates:
            reasons += [one for one in rendering_reasons(self) if one not in reasons]
        return StoredRequest(reasons, request.fields, {"group": group.text})

    def _operator_arguments(self) -> dict[str, Any]:
        return {
            **super()._operator_arguments(),
            "billing_tags": self.billing_tags,
            "job_name": self.job_name,
            "openlineage_inject_parent_job_info": False,
            "owner": self.owner,
        }


def metadata_of(run: Mapping[str, Any], databricks_conn_id: str) -> dict[str, Any]:
    """Return what the launching task returns: where the group runs, for the group's tasks.

    :param run: the group's run.
    :param databricks_conn_id: Airflow connection to the workspace.
    """
    return {
        "conn_id": databricks_conn_id,
        "job_id": run.get("job_id"),
        "run_id": int(run["run_id"]),
    }


def is_skipped_run(run: Mapping[str, Any]) -> bool:
    """Return whether the service has skipped a run: it executes none of its tasks.

    :param run: the run.
    """
    from airflow_jobs_provider.api.states import RunState, RunStatus

    return RunState.from_run(run).status is RunStatus.SKIPPED
