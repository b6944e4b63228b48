"""A job of several tasks, one of which fails at first; see test_several_tasks.py."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_jobs_provider.operators.jobs import (
    DatabricksCreateJobsOperator,
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor

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


STEADY: dict[str, Any] = {
    "notebook_task": {"notebook_path": "/steady", "base_parameters": {"who": "all"}},
    "existing_cluster_id": "local",
}


def submit(task_id: str, **kwargs: Any) -> DatabricksSubmitRunOperator:
    """Submit a run of steady notebooks."""
    return DatabricksSubmitRunOperator(task_id=task_id, polling_period_seconds=0.2, **kwargs)


def several(*keys: str) -> list[dict[str, Any]]:
    """Make tasks of these keys."""
    return [{"task_key": key, **STEADY} for key in keys]


@task
def take(steady: str, last: str, of_run: int) -> list[Any]:
    """Take outputs of single tasks, and the id of their run."""
    return [steady, last, of_run]


def taken_from(waits: Any) -> Any:
    """Let a task take what another one pushed of each task of the run."""
    output: Any = waits.output
    return take.override(task_id=f"take_{waits.task_id}")(
        output["steady"], output["last"], output["run_id"]
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
    watched = run_now("watched", 1, wait_for_termination=False)
    create >> watched
    launched: Any = watched.output
    for deferrable in (False, True):
        how: dict[str, Any] = {"deferrable": deferrable, "multiple_outputs": True}
        of_a_job = run_now(f"run_{deferrable}", 1, **how)
        create >> of_a_job
        taken_from(of_a_job)
        taken_from(
            submit(f"submitted_{deferrable}", tasks=several("steady", "last", "run_id"), **how)
        )
        taken_from(
            DatabricksJobRunSensor(
                task_id=f"sensed_{deferrable}",
                run_id=launched["run_id"],
                poke_interval=0.2,
                **how,
            )
        )
        submit(f"single_{deferrable}", **STEADY, **how)
