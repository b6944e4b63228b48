"""DatabricksWorkflowTaskGroup: runs the tasks of a group as one Databricks job.

How it works:

* When the DAG is parsed, the group adds the task ``launch`` before its first tasks.
* ``launch`` renders the templates of all tasks of the group, defines one job of them, and launches
  its run exactly once. The job has the name ``<dag_id>.<group_id>``. It is reset only if its
  definition has changed; runs with different definitions at the same time get a job each, see
  :mod:`airflow_jobs_provider.api.workflows.job_definitions`.
* Each task of the group follows its own task run. While they are deferred, all tasks share one read
  of the run, see :mod:`airflow_jobs_provider.triggers.polling.shared_reads`.
* A task that is cleared or retried runs again in the same run, by a repair, see
  :mod:`airflow_jobs_provider.operators.workflow_next_step`. If ``launch`` is cleared, too, a new
  run starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Self

from airflow.providers.common.compat.sdk import BaseOperator, TaskGroup, XComArg

from airflow_jobs_provider.operators.task_base import RUN_IF, DatabricksTaskBaseOperator
from airflow_jobs_provider.operators.workflow_launch import DatabricksWorkflowLaunchOperator

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["DatabricksWorkflowTaskGroup"]

LAUNCH_TASK_ID = "launch"


class DatabricksWorkflowTaskGroup(TaskGroup):
    """Run the tasks of a group as one Databricks job, on shared job clusters.

    ::

        with DatabricksWorkflowTaskGroup(
            group_id="sales",
            databricks_conn_id="databricks_default",
            job_clusters=[{"job_cluster_key": "small", "new_cluster": SMALL}],
        ):
            load = DatabricksNotebookOperator(
                task_id="load", notebook_path="/Shared/load", job_cluster_key="small"
            )
            report = DatabricksNotebookOperator(
                task_id="report", notebook_path="/Shared/report", job_cluster_key="small"
            )
            load >> report

    The group holds
    :class:`~airflow_jobs_provider.operators.notebook.DatabricksNotebookOperator`,
    :class:`~airflow_jobs_provider.operators.task.DatabricksTaskOperator`, and task groups of them.
    Dependencies between them become ``depends_on``, a task's ``trigger_rule`` becomes ``run_if``.
    All arguments are templated but ``notebook_packages``, ``launch_task_args``, ``billing_tags``,
    ``openlineage_inject_parent_job_info`` and those of Airflow's ``TaskGroup``, such as
    ``group_id``.

    XComs of each task: ``return_value`` is its output; ``run_id`` and ``run_page_url`` are those of
    its own task run. A task that Databricks skips is skipped in Airflow.

    :param databricks_conn_id: Airflow connection; default ``databricks_default``.
    :param access_control_list: permissions on the job. They are added when it is created or reset.
    :param existing_clusters: has no effect, as in the official provider; a task's
        ``existing_cluster_id`` selects its cluster.
    :param extra_job_params: further settings of the job. Maps are merged with those of the group,
        all else replaces them; default none.
    :param jar_params: parameters of all JAR tasks; default none.
    :param job_clusters: clusters that the tasks share (reference: "JobSettings"); default none.
    :param max_concurrent_runs: runs of the job at a time; default 1. Further runs are queued.
    :param notebook_packages: libraries for all notebooks, beside their own; default none.
    :param notebook_params: parameters for all notebooks. They take precedence over a
        notebook's own; default none.
    :param python_params: parameters of all Python tasks; default none.
    :param spark_submit_params: parameters of all spark-submit tasks; default none.
    :param launch_task_args: arguments for the launching task, such as ``queue``, ``pool``,
        ``retries`` and ``trigger_rule``; default those of the group's ``default_args``.
    :param billing_tags: add tags with the DAG, the group and the launching task's owner to the job
        and to each new cluster, and with the task to a new cluster of its own, for billing reports;
        see :mod:`airflow_jobs_provider.operators.billing_tags`. Default ``[databricks_jobs]
        billing_tags``, else False.
    :param openlineage_inject_parent_job_info: send the launching task's identity for OpenLineage as
        the parameter ``OPENLINEAGE_CONTEXT`` of all notebooks, with the run, so that the job stays
        the same; default Airflow's ``[openlineage] spark_inject_parent_job_info``, else False.
    :param kwargs: arguments of Airflow's ``TaskGroup``, such as ``group_id``.
    :raises ValueError: when the DAG is parsed: a task cannot be a task of the job.
    """

    # The official provider's group has it, and others look for it.
    is_databricks = True

    def __init__(
        self,
        databricks_conn_id: str = "databricks_default",
        access_control_list: Sequence[Mapping[str, Any]] | None = None,
        existing_clusters: Sequence[str] | None = None,
        extra_job_params: Mapping[str, Any] | None = None,
        jar_params: Sequence[str] | None = None,
        job_clusters: Sequence[Mapping[str, Any]] | None = None,
        max_concurrent_runs: int = 1,
        notebook_packages: Sequence[Mapping[str, Any]] | None = None,
        notebook_params: Mapping[str, Any] | None = None,
        python_params: Sequence[str] | None = None,
        spark_submit_params: Sequence[str] | None = None,
        launch_task_args: Mapping[str, Any] | None = None,
        billing_tags: bool | None = None,
        openlineage_inject_parent_job_info: bool | None = None,
        **kwargs: Any,
    ) -> None:
        self.databricks_conn_id = databricks_conn_id
        self.access_control_list = access_control_list
        self.existing_clusters = existing_clusters
        self.extra_job_params = extra_job_params
        self.jar_params = jar_params
        self.job_clusters = job_clusters
        self.max_concurrent_runs = max_concurrent_runs
        self.notebook_packages = list(notebook_packages or ())
        self.notebook_params = notebook_params
        self.python_params = python_params
        self.spark_submit_params = spark_submit_params
        self.launch_task_args = dict(launch_task_args or {})
        self.billing_tags = billing_tags
        self.openlineage_inject_parent_job_info = openlineage_inject_parent_job_info
        self.launch_task: Any = None
        super().__init__(**kwargs)

    def members(self) -> list[DatabricksTaskBaseOperator]:
        """Return the tasks of the group that are tasks of the job, in the order of the DAG file."""
        return [] if self.launch_task is None else list(self.launch_task.members)

    def __enter__(self) -> Self:
        """Enter the group: tasks that are made in the block are its tasks."""
        super().__enter__()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        """Leave the group, and add its launching task."""
        try:
            if _type is None:
                self._add_launch_task()
        finally:
            super().__exit__(_type, _value, _tb)  # type: ignore[no-untyped-call]

    def _add_launch_task(self) -> None:
        roots, members = list(self.get_roots()), list(_tasks_of(self))
        keys: dict[str, str] = {}
        for member in members:
            self._check_member(member)
            if (key := member.databricks_task_key) in keys:
                _refuse(member, f"has the databricks_task_key of {keys[key]!r}, {key!r}")
            keys[key] = member.task_id
        before = [self.dag.get_task(task_id) for task_id in sorted(self.upstream_task_ids)]
        after = [self.dag.get_task(task_id) for task_id in sorted(self.downstream_task_ids)]
        leaves = list(self.get_leaves()) if after else []
        flags = {
            "billing_tags": self.billing_tags,
            "openlineage_inject_parent_job_info": self.openlineage_inject_parent_job_info,
        }
        if members and all(member.must_start_in_triggerer for member in members):
            # Without this the group would need a worker all the same.
            flags |= {"start_from_trigger": True, "end_from_trigger": True}
        # None would hide the default argument of the DAG.
        flags = {name: flag for name, flag in flags.items() if flag is not None}
        launch = self.launch_task = DatabricksWorkflowLaunchOperator(
            dag=self.dag,
            task_group=self,
            task_id=LAUNCH_TASK_ID,
            job_name=f"{self.dag.dag_id}.{self.group_id}",
            databricks_conn_id=self.databricks_conn_id,
            access_control_list=self.access_control_list,
            existing_clusters=self.existing_clusters,
            extra_job_params=self.extra_job_params,
            jar_params=self.jar_params,
            job_clusters=self.job_clusters,
            max_concurrent_runs=self.max_concurrent_runs,
            notebook_params=self.notebook_params,
            python_params=self.python_params,
            spark_submit_params=self.spark_submit_params,
            # The tasks of the group read its XComs, whatever the default arguments of the DAG are.
            **{"do_xcom_push": True, **flags, **self.launch_task_args},
        )
        launch.members = members
        for member in members:
            # All tasks of the job are in one workspace, also for a failure callback.
            member.databricks_conn_id = self.databricks_conn_id
            if member.trigger_rule_name() == "always":
                # Airflow would start it before there is a run.
                member.trigger_rule = type(member.trigger_rule)("all_done")
        # One call for all: Airflow compares the DAGs of all tasks in each.
        launch.set_downstream(roots)
        # The launching task renders the templates of all tasks, so it needs what they take.
        for other in self._needed_tasks(members):
            launch.set_upstream(other)
        # What was said of the group before it had tasks.
        for other in before:
            launch.set_upstream(other)
        for other in after:
            for leaf in leaves:
                leaf.set_downstream(other)

    def _needed_tasks(self, members: Sequence[DatabricksTaskBaseOperator]) -> list[Any]:
        """Return the tasks outside the group whose output the group's tasks take."""
        inside = {member.task_id for member in members}
        needed: dict[str, Any] = {}
        for member in members:
            for name in member.template_fields:
                if name == "workflow_run_metadata":
                    continue
                for other, _ in XComArg.iter_xcom_references(getattr(member, name)):
                    if other.task_id in inside:
                        _refuse(
                            member,
                            f"takes the output of the task {other.task_id!r} of its own group. All "
                            "tasks of a group are defined before the first of them runs. Let the "
                            "notebooks exchange values by dbutils.jobs.taskValues",
                        )
                    needed[other.task_id] = other
        return list(needed.values())

    @staticmethod
    def _check_member(task: Any) -> None:
        if not isinstance(task, DatabricksTaskBaseOperator):
            kind = getattr(task, "task_type", type(task).__name__)
            expanded = ". A task of a group cannot be expanded; the whole group can"
            _refuse(
                task,
                f"is a {kind}. A DatabricksWorkflowTaskGroup holds DatabricksNotebookOperator and "
                f"DatabricksTaskOperator only{'' if isinstance(task, BaseOperator) else expanded}",
            )
        rule = task.trigger_rule_name()
        if rule not in RUN_IF:
            known = ", ".join(sorted(RUN_IF))
            _refuse(
                task,
                f"has the trigger_rule {rule!r}, which has no counterpart among the run conditions "
                f"of Databricks. Possible are: {known}",
            )
        if task.existing_cluster_id and task.job_cluster_key:
            _refuse(
                task, "has existing_cluster_id and job_cluster_key. Only one of them can be given"
            )


def _tasks_of(group: TaskGroup) -> Iterator[Any]:
    for child in group.children.values():
        if isinstance(child, TaskGroup):
            yield from _tasks_of(child)
        else:
            yield child


def _refuse(task: Any, why: str) -> NoReturn:
    raise ValueError(f"Task {task.task_id!r} {why}.")
