"""Run a notebook and pass its exit value to the next task.

The notebook computes the mean body mass of penguins. The next task prints the result.

The DAG runs on the local workspace (``make demo``, ``make airflow``) and on Databricks without a
change. On Databricks it needs the folder ``workspace/Shared/penguins`` as ``/Shared/penguins``, and
the id of a cluster in the Airflow variable ``databricks_cluster_id``. The local workspace needs no
cluster.
"""

from __future__ import annotations

import json

from airflow.providers.common.compat.sdk import DAG, task

from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator

with DAG(
    "databricks_demo",
    schedule=None,
    catchup=False,
    params={"island": "Biscoe"},
    tags=["databricks", "example"],
    doc_md=__doc__,
):
    weigh = DatabricksSubmitRunOperator(
        task_id="weigh_penguins",
        existing_cluster_id="{{ var.value.get('databricks_cluster_id', 'local') }}",
        notebook_task={
            "notebook_path": "/Shared/penguins/weigh",
            "base_parameters": {"island": "{{ params.island }}"},
        },
        deferrable=True,
        polling_period_seconds=2,
    )

    @task
    def print_weights(exit_value: str) -> None:
        print(f"The notebook's exit value: {exit_value}")
        for species, grams in json.loads(exit_value)["mean_grams"].items():
            print(f"{species} penguins weigh {grams} g on average")

    print_weights(weigh.output)
