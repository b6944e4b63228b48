"""DatabricksWorkflowLaunchOperator: the task that launches the run of a workflow group."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowException

from airflow_jobs_provider.airflow_compat.run_successor import xcoms_at_start
from airflow_jobs_provider.exceptions import airflow_exceptions
from airflow_jobs_provider.operators.argument_checks import (
    check_optional_flags,
    flag_or_option,
    openlineage_flag,
)
from airflow_jobs_provider.operators.extra_links import extra_links
from airflow_jobs_provider.operators.launch import LaunchRunOperator
from airflow_jobs_provider.operators.payload_validation import (
    check_before_sending,
    fields_over_json,
)
from airflow_jobs_provider.operators.task_base import DatabricksTaskBaseOperator, without_empty

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobs_provider.api.calls import Call
    from airflow_jobs_provider.api.workflows.launch import LaunchResult

__all__ = [
    "DEFINITION_KEY",
    "TASK_RUNS_KEY",
    "WAS_CLEARED_KEY",
    "DatabricksWorkflowLaunchOperator",
    "LaunchedTask",
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
_RUN_PARAMETERS = ("jar_params", "notebook_params", "python_params", "spark_submit_params")


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


class DatabricksWorkflowLaunchOperator(LaunchRunOperator):
    """Create or update the job of a workflow group, and launch its run once.

    A :class:`~airflow_jobs_provider.operators.workflow.DatabricksWorkflowTaskGroup` makes one as
    its task ``launch``. XComs: ``return_value`` is a dict of ``conn_id``, ``job_id`` and
    ``run_id``; ``run_id``, ``job_id`` and ``run_page_url`` are pushed as well. The arguments are
    those of the group.
    """

    # When the job was last known to have the group's definition, on the monotonic clock.
    _ensured_at: float = 0.0
    operator_extra_links = extra_links("DatabricksJobLink")
    call_name: ClassVar[str] = "run-now"
    # A run that failed belongs to the group's tasks, which report that and repair it.
    _adopts_failed_runs: ClassVar[bool] = True
    _has_job: ClassVar[bool] = True
    template_fields: Sequence[str] = (
        "databricks_conn_id",
        "access_control_list",
        "existing_clusters",
        "extra_job_params",
        "job_clusters",
        "max_concurrent_runs",
        *_RUN_PARAMETERS,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = dict.fromkeys(
        ("extra_job_params", "job_clusters", "notebook_params"), "json"
    )

    def __init__(
        self,
        *,
        job_name: str,
        access_control_list: Any = None,
        existing_clusters: Any = None,
        extra_job_params: Any = None,
        jar_params: Any = None,
        job_clusters: Any = None,
        max_concurrent_runs: Any = 1,
        notebook_params: Any = None,
        python_params: Any = None,
        spark_submit_params: Any = None,
        billing_tags: bool | None = None,
        openlineage_inject_parent_job_info: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_optional_flags(billing_tags=billing_tags)
        self.billing_tags = billing_tags
        self.openlineage_inject_parent_job_info = openlineage_flag(
            self, "inject_parent_job_info", openlineage_inject_parent_job_info
        )
        self.job_name = job_name
        self.access_control_list = access_control_list
        self.existing_clusters = existing_clusters
        self.extra_job_params = extra_job_params
        self.jar_params = jar_params
        self.job_clusters = job_clusters
        self.max_concurrent_runs = max_concurrent_runs
        self.notebook_params = notebook_params
        self.python_params = python_params
        self.spark_submit_params = spark_submit_params
        # The group's tasks in the order of the DAG file; the group sets them.
        self.members: list[DatabricksTaskBaseOperator] = []

    # -- the DAG -------------------------------------------------------------------------------

    def resolve_template_files(self) -> None:
        """Warn of dependencies that Databricks does not know.

        Airflow calls this once the DAG is complete, each time that it has parsed the DAG file.
        """
        super().resolve_template_files()
        for upstream, task_id in self.unknown_dependencies():
            warnings.warn(
                f"DAG {self.dag_id!r}: Databricks does not know that {task_id!r} depends on "
                f"{upstream!r}, a task outside the workflow group. It runs the task as soon as the "
                "tasks before it in the group have ended. Let the whole group depend on the other "
                "task (other >> group)",
                stacklevel=2,
            )

    def unknown_dependencies(self) -> list[tuple[str, str]]:
        """Return the dependencies of the group's tasks that do not hold in Databricks.

        Those are dependencies on tasks outside the group, unless this task depends on them, too:
        then the run does not begin before they have ended.

        :returns: the task outside and the group's task, by task id.
        """
        known = {member.task_id for member in self.members} | {self.task_id}
        known |= set(self.get_flat_relative_ids(upstream=True))
        return [
            (upstream, member.task_id)
            for member in self.members
            for upstream in sorted(member.upstream_task_ids - known)
        ]

    # -- the job -------------------------------------------------------------------------------

    def definition(
        self, context: Context, *, workspace_url: str | None = None
    ) -> tuple[dict[str, Any], str]:
        """Return the job's settings, with its permissions, and the digest of them.

        The templates of this task and of all tasks of the group are rendered for it. They must not
        depend on the task that renders them.

        :param context: the context of any task of the group.
        :param workspace_url: the workspace's URL; default that of this task's connection. In the
            process of another task this one has no connection.
        """
        from airflow_jobs_provider.api.workflows.job_definitions import definition_digest

        jinja_env = self.get_template_env()
        # The group has the task as the DAG file defines it. In execution Airflow has rendered a
        # copy, and what a template has rendered to may look like a template.
        launch = self._rendered(getattr(self.task_group, "launch_task", self), context, jinja_env)
        keys = {member.task_id: member.databricks_task_key for member in self.members}
        tasks = [
            self._rendered(member, context, jinja_env).workflow_task(keys)
            for member in self.members
        ]
        settings: dict[str, Any] = {
            "name": self.job_name,
            "tasks": tasks,
            "job_clusters": launch.job_clusters,
            "max_concurrent_runs": int(launch.max_concurrent_runs),
            "access_control_list": launch.access_control_list,
        }
        merged = _merged(without_empty(settings), launch.extra_job_params or {})
        request = self._with_job_tags(fields_over_json("create", None, merged), workspace_url)
        return request, definition_digest(request)

    def _with_job_tags(self, settings: dict[str, Any], workspace_url: str | None) -> dict[str, Any]:
        """Return the job's settings with billing tags, if they are asked for."""
        if not flag_or_option("billing_tags", self.billing_tags, "databricks_jobs", "billing_tags"):
            return settings
        from airflow_jobs_provider.operators.billing_tags import TagRules, group_tags, with_job_tags

        task_ids = {member.databricks_task_key: member.task_id for member in self.members}
        tags = group_tags(self, str(getattr(self.task_group, "group_id", "")))
        rules = TagRules.for_workspace(workspace_url or self.workspace_url)
        return with_job_tags(settings, tags, rules, self.log, task_ids=task_ids)

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

    def rendered_for(self, member: DatabricksTaskBaseOperator) -> Any:
        """Return this operator with its templates rendered, for a task that runs alone.

        :param member: a task of the group, in execution.
        """
        context = member.execution_context
        assert context is not None
        return self._rendered(self, context, self.get_template_env())

    @staticmethod
    def _rendered(operator: Any, context: Context, jinja_env: Any) -> Any:
        """Return a copy of an operator with its templates rendered."""
        made = copy.copy(operator)
        rendered = {
            name: operator.render_template(getattr(operator, name), context, jinja_env)
            for name in operator.template_fields
            if name != "workflow_run_metadata"
        }
        # Past Airflow's __setattr__, which would look for tasks among the values.
        vars(made).update(rendered)
        return made

    # -- the run -------------------------------------------------------------------------------

    def arguments_without_effect(self) -> dict[str, str]:
        """Return the group's arguments that were given and have no effect, each with the reason."""
        if not self.existing_clusters:
            return {}
        return {"existing_clusters": "the existing_cluster_id of a task selects its cluster"}

    def execute(self, context: Context) -> dict[str, Any]:
        """Define the job, launch its run, and return where it runs."""
        from airflow_jobs_provider.api.states import RunState, RunStatus

        executions = self._begin(context)
        was_cleared = self._attempt.attempts_before_clear > 0
        cleared = {WAS_CLEARED_KEY: True} if was_cleared else {}
        self._push(context, {**xcoms_at_start(self._attempt), **cleared})
        with airflow_exceptions(), executions.watching(self):
            self._log_arguments_without_effect()
            launched = self._launch(context, first_attempt_index=0)
            if RunState.from_run(launched.run).status is RunStatus.SKIPPED:
                # Such as by the job's limit of concurrent runs.
                self._state.run.ended()
                self._result_or_raise(context, launched.run)
            self._push_task_runs(context, launched)
            # From here on each task of the group is responsible for its own run.
            self._state.run.ended()
        return {
            "conn_id": self.databricks_conn_id,
            "job_id": launched.run.get("job_id"),
            "run_id": launched.run_id,
        }

    def launch_call(self, context: Context) -> Call[int]:
        """Define the job, and return the ``run-now`` call."""
        import uuid

        from airflow_jobs_provider.api.endpoints import run_now
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
        from airflow_jobs_provider.api.versions import LATEST_API_VERSION
        from airflow_jobs_provider.api.workflows.follow import whole_run
        from airflow_jobs_provider.api.workflows.job_definitions import has_tasks, job_change

        settings, _ = self.definition(context)
        job_id = int(launched.run["job_id"])
        if self._run_workflow(job_change(job_id, settings)) is None:
            return True
        steps = whole_run(launched.run_id, api_version=LATEST_API_VERSION)
        return has_tasks(self._run_workflow(steps), settings)

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

    def request(self) -> dict[str, Any]:
        """Return the parameters of the run: the job's id is known when it is launched."""
        return self._run_parameters()

    def _run_parameters(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in _RUN_PARAMETERS}
        return fields_over_json(self.call_name, None, without_empty(given))


def _merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings changed by others: maps are merged at any depth, all else is replaced."""
    merged = dict(settings)
    for name, value in changes.items():
        known = merged.get(name)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            merged[name] = _merged(known, value)
        else:
            merged[name] = value
    return merged
