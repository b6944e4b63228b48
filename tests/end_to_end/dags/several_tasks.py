"""A job of several tasks, one of which fails at first; see test_several_tasks.py."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_jobs_provider.operators.jobs import (
    DatabricksCreateJobsOperator,
    DatabricksRunNowOperator,
)

TASKS: list[dict[str, Any]] = [
    {"task_key": "steady", "notebook_task": {"notebook_path": "/steady"}},
    {"task_key": "shaky", "notebook_task": {"notebook_path": "/shaky"}},
    {
        "task_key": "last",
        "notebook_task": {"notebook_path": "/steady"},
        "depends_on": [{"task_key": "steady"}, {"task_key": "shaky"}],
    },
]


def run_now(task_id: str, succeeds_at: int, **kwargs: Any) -> DatabricksRunNowOperator:
    """Run the job; its shaky task succeeds at this attempt."""
    return DatabricksRunNowOperator(
        task_id=task_id,
        job_name="several tasks",
        notebook_params={"who": task_id, "succeeds_at": succeeds_at},
        polling_period_seconds=0.2,
        **kwargs,
    )


with DAG("several_tasks", schedule=None, catchup=False):
    create = DatabricksCreateJobsOperator(
        task_id="create",
        name="several tasks",
        max_concurrent_runs=10,
        tasks=[{**task, "existing_cluster_id": "local"} for task in TASKS],
    )
    create >> [
        run_now("repaired_blocking", 2, repair_run=True, deferrable=False),
        run_now("repaired_deferrable", 2, repair_run=True, deferrable=True),
        run_now("repaired_twice", 3, repair_run=True, max_repairs=2, deferrable=True),
        run_now("not_often_enough", 3, repair_run=True, deferrable=True),
        run_now("of_version_2_0", 1, databricks_conn_id="version_2_0", deferrable=True),
    ]
