"""Workflow groups of many kinds; see test_workflow_groups.py."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, TaskGroup, task, task_group

from airflow_jobs_provider.operators.jobs import DatabricksNotebookOperator, DatabricksTaskOperator
from airflow_jobs_provider.operators.workflow import DatabricksWorkflowTaskGroup

CLUSTERS: list[dict[str, Any]] = [
    {
        "job_cluster_key": "small",
        "new_cluster": {
            "spark_version": "15.4.x-scala2.12",
            "node_type_id": "i3.xlarge",
            "num_workers": 1,
        },
    }
]


def notebook(task_id: str, path: str = "/steady", **arguments: Any) -> DatabricksNotebookOperator:
    """Make a notebook on the shared cluster."""
    arguments = {
        "job_cluster_key": "small",
        "notebook_params": {"who": task_id},
        "polling_period_seconds": 0.2,
        **arguments,
    }
    return DatabricksNotebookOperator(
        task_id=task_id, notebook_path=path, source="WORKSPACE", **arguments
    )


@task
def names() -> list[str]:
    """Return the names for which a group is expanded."""
    return ["ann", "bob"]


@task
def suffix() -> str:
    """Return what a task of a group takes."""
    return "from outside"


with DAG("workflow_groups", schedule=None, default_args={"retry_delay": timedelta(seconds=0)}):
    given = suffix()
    with DatabricksWorkflowTaskGroup(
        group_id="etl",
        job_clusters=CLUSTERS,
        notebook_params={"run": "{{ run_id }}"},
        extra_job_params={"queue": {"enabled": True}},
        launch_task_args={"queue": "of_the_launch", "retries": 2},
    ) as etl:
        first = notebook("first", deferrable=True)
        taking = notebook("taking", notebook_params={"who": given})
        with TaskGroup("inner"):
            nested = DatabricksTaskOperator(
                task_id="nested",
                task_config={
                    "notebook_task": {
                        "notebook_path": "/steady",
                        "base_parameters": {"who": "{{ ds_nodash }}"},
                    }
                },
                job_cluster_key="small",
                polling_period_seconds=0.2,
            )
        not_needed = notebook("not_needed", trigger_rule="one_failed")
        first >> [taking, nested] >> not_needed

    with DatabricksWorkflowTaskGroup(group_id="shaky", job_clusters=CLUSTERS) as shaky:
        for number in (1, 2):
            notebook(
                f"retried_{number}",
                "/shaky",
                notebook_params={"who": f"retried_{number}", "succeeds_at": 2},
                retries=1,
                deferrable=number == 2,
            )
        notebook("untouched", "/shaky", notebook_params={"who": "untouched"})

    @task(trigger_rule="all_done")
    def between() -> None:
        """Let the second group begin although a task before it was skipped."""

    etl >> between() >> shaky

    with DatabricksWorkflowTaskGroup(
        group_id="changing", job_clusters=CLUSTERS, notebook_params={"who": "changing"}
    ):
        changing = {"succeeds_at": 2, "try": "{{ ti.try_number }}"}
        notebook("alone", "/shaky", notebook_params=changing, retries=1, deferrable=True)

    @task_group
    def each(name: str) -> None:
        """Run a group for a name."""
        with DatabricksWorkflowTaskGroup(group_id="of", job_clusters=CLUSTERS):
            notebook("greet", notebook_params={"who": name})

    each.expand(name=names())
