"""Wait for the latest run of a job that is known by its name only, then use what it gave back.

Here the first tasks make the job and start it; a job that runs on a schedule of its own, in
Databricks, is waited for in the same way: the run counts that started since the data interval
began. The triggerer ends the sensor where Airflow can: no second worker process starts for it.

Runs as it is on the local workspace (``make airflow``) and on Databricks. There it needs the folder
``workspace/Shared/penguins`` under ``/Shared`` and the id of a cluster in the Airflow variable
``databricks_cluster_id``; the local workspace runs on no cluster.
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
    have_job = DatabricksCreateJobsOperator(task_id="have_job", json=JOB)
    run_job = DatabricksRunNowOperator(
        task_id="run_job",
        job_id=have_job.output,
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
