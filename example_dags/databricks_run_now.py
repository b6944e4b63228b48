"""Create or reset a job with the hook, run it with parameters, and wait for the run with a sensor.

The DAG runs on the local workspace (``make airflow``) and on Databricks without a change. On
Databricks it needs the folder ``workspace/Shared/penguins`` as ``/Shared/penguins``, and the
cluster of the job in the Airflow variable ``databricks_cluster``, as JSON:
``{"existing_cluster_id": "..."}`` or ``{"new_cluster": ...}``.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, Variable, task

from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.operators.jobs import DatabricksRunNowOperator
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor

JOB: dict[str, Any] = {
    "name": "Penguins by species",
    "max_concurrent_runs": 10,
    "notebook_task": {
        "notebook_path": "/Shared/penguins/by_species",
        "base_parameters": {"measure": "flipper_length_mm"},
    },
}
CLUSTER = {
    "new_cluster": {
        "spark_version": "15.4.x-scala2.12",
        "node_type_id": "Standard_D3_v2",
        "num_workers": 1,
    }
}

with DAG(
    "databricks_run_now",
    schedule=None,
    catchup=False,
    params={"measure": "bill_length_mm"},
    tags=["databricks", "example"],
    doc_md=__doc__,
):

    @task
    def create_or_reset_job() -> int:
        cluster = Variable.get("databricks_cluster", CLUSTER, deserialize_json=True)
        hook = DatabricksJobsHook()
        job_id = hook.find_job_id_by_name(JOB["name"])
        if job_id is None:
            return hook.create_job({**JOB, **cluster})
        hook.reset_job(job_id, {**JOB, **cluster})
        return job_id

    launch = DatabricksRunNowOperator(
        task_id="launch",
        job_id=create_or_reset_job(),
        notebook_params={"measure": "{{ params.measure }}"},
        wait_for_termination=False,
    )
    wait = DatabricksJobRunSensor(
        task_id="wait", run_id=launch.output["run_id"], deferrable=True, poke_interval=2
    )

    @task
    def print_result(exit_value: str) -> None:
        print(exit_value)

    print_result(wait.output)
