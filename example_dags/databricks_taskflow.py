"""TaskFlow: notebooks and functions that run on Databricks.

``weigh`` runs a notebook for each island, with the parameters that the function returns. ``rank``
runs on Databricks itself: only its source goes there, and its arguments and result are JSON.

The DAG runs on the local workspace (``make airflow``) and on Databricks without a change. On
Databricks it needs the folder ``workspace/Shared/penguins`` as ``/Shared/penguins``, and the id of
a cluster in the Airflow variable ``databricks_cluster_id``. The local workspace needs no cluster.
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG, task

RUN = {
    "existing_cluster_id": "{{ var.value.get('databricks_cluster_id', 'local') }}",
    "deferrable": True,
    "polling_period_seconds": 2,
}

with DAG(
    "databricks_taskflow",
    schedule=None,
    catchup=False,
    tags=["databricks", "example"],
    doc_md=__doc__,
):

    @task.databricks_notebook("/Shared/penguins/weigh", **RUN)
    def weigh(island: str) -> dict[str, str]:
        return {"island": island}

    @task.databricks_python(**RUN)
    def rank(weighed: list[str]) -> dict[str, int]:
        import json

        heaviest = {}
        for found in map(json.loads, weighed):
            print(f"{found['island']}: {found['mean_grams']}")
            heaviest[found["island"]] = max(found["mean_grams"].values())
        return dict(sorted(heaviest.items(), key=lambda item: -item[1]))

    @task
    def print_ranking(grams: dict[str, int]) -> None:
        for island, heaviest in grams.items():
            print(f"The heaviest species of {island} weighs {heaviest} g on average")

    print_ranking(rank(weigh.expand(island=["Biscoe", "Dream", "Torgersen"])))
