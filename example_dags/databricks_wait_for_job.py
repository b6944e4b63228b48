"""Wait for a run of a job by the job's name, and pass the run's output to the next task.

The first two tasks create the job and run it. The sensor waits for the run that started since the
data interval began. It waits in the same way for a job that Databricks runs on its own schedule.
With ``end_from_trigger`` the triggerer ends the sensor, without a second worker process (not on
Airflow 3.0).

The DAG runs on the local workspace (``make airflow``) and on Databricks without a change. On
Databricks it needs the folder ``workspace/Shared/penguins`` as ``/Shared/penguins``, and the id of
a cluster in the Airflow variable ``databricks_cluster_id``. The local workspace needs no cluster.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_jobs_provider.operators.jobs import (
    DatabricksCreateJobsOperator,
    DatabricksRunNowOperator,
)
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor

JOB: dict[str, Any] = {
    "name": "Penguins, nightly",
    "notebook_task": {
        "notebook_path": "/Shared/penguins/by_species",
        "base_parameters": {"measure": "body_mass_g"},
    },
    "existing_cluster_id": "{{ var.value.get('databricks_cluster_id', 'local') }}",
}

with DAG(
    "databricks_wait_for_job",
    schedule=None,
    catchup=False,
    tags=["databricks", "example"],
    doc_md=__doc__,
):
    create_job = DatabricksCreateJobsOperator(task_id="create_job", json=JOB)
    run_job = DatabricksRunNowOperator(
        task_id="run_job",
        job_id=create_job.output,
        wait_for_termination=False,
    )
    wait = DatabricksJobRunSensor(
        task_id="wait",
        job_name=JOB["name"],
        deferrable=True,
        end_from_trigger=True,
        poke_interval=2,
    )

    @task
    def print_result(exit_value: str) -> None:
        print(exit_value)

    run_job >> wait
    print_result(wait.output)
