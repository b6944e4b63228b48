"""WorkflowJobOperator: the part of the launching task of a workflow group that defines its job."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_jobs_provider.operators.argument_checks import (
    check_optional_flags,
    flag_or_option,
    openlineage_flag,
)
from airflow_jobs_provider.operators.launch import LaunchRunOperator
from airflow_jobs_provider.operators.payload_validation import fields_over_json
from airflow_jobs_provider.operators.task_base import DatabricksTaskBaseOperator, without_empty

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["WorkflowJobOperator"]

_RUN_PARAMETERS = ("jar_params", "notebook_params", "python_params", "spark_submit_params")


class WorkflowJobOperator(LaunchRunOperator):
    """Base class of the launching task of a workflow group, as far as the group's job goes."""

    call_name: ClassVar[str] = "run-now"
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
        jinja_env = self.get_template_env()
        # The group has the task as the DAG file defines it. In execution Airflow has rendered a
        # copy, and what a template has rendered to may look like a template.
        launch = self._rendered(getattr(self.task_group, "launch_task", self), context, jinja_env)
        members = [self._rendered(member, context, jinja_env) for member in self.members]
        return self._definition_of(launch, members, workspace_url)

    def rendered_definition(self) -> tuple[dict[str, Any], str]:
        """Return the same where the fields of this task and of the group's are rendered already."""
        return self._definition_of(self, self.members, None)

    def _definition_of(
        self,
        launch: WorkflowJobOperator,
        members: Sequence[DatabricksTaskBaseOperator],
        workspace_url: str | None,
    ) -> tuple[dict[str, Any], str]:
        from airflow_jobs_provider.api.workflows.job_definitions import definition_digest

        keys = {member.task_id: member.databricks_task_key for member in members}
        settings: dict[str, Any] = {
            "name": self.job_name,
            "tasks": [member.workflow_task(keys) for member in members],
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

    # -- the request ---------------------------------------------------------------------------

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
