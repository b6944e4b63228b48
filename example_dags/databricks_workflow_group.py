"""Run three notebooks as one Databricks job, on a cluster that they share.

To see a repair, clear ``penguins.compare`` in Airflow: only this notebook runs again, in the same
run. Clear ``penguins.launch`` as well for a new run of all three.

The DAG runs on the local workspace (``make airflow``) and on Databricks without a change. On
Databricks it needs the folder ``workspace/Shared/penguins`` as ``/Shared/penguins``.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_jobs_provider.operators.jobs import DatabricksNotebookOperator
from airflow_jobs_provider.operators.workflow import DatabricksWorkflowTaskGroup

CLUSTER = {
    "spark_version": "15.4.x-scala2.12",
    "node_type_id": "Standard_D3_v2",
    "num_workers": 1,
}
COMMON: dict[str, Any] = {
    "source": "WORKSPACE",
    "job_cluster_key": "shared",
    "deferrable": True,
    "polling_period_seconds": 2,
}

with (
    DAG(
        "databricks_workflow_group",
        schedule=None,
        catchup=False,
        params={"measure": "body_mass_g"},
        tags=["databricks", "example"],
        doc_md=__doc__,
    ),
    DatabricksWorkflowTaskGroup(
        group_id="penguins",
        job_clusters=[{"job_cluster_key": "shared", "new_cluster": CLUSTER}],
        notebook_params={"measure": "{{ params.measure }}"},
    ),
):
    weigh = [
        DatabricksNotebookOperator(
            task_id=f"weigh_{island.lower()}",
            notebook_path="/Shared/penguins/weigh",
            notebook_params={"island": island},
            **COMMON,
        )
        for island in ("Biscoe", "Dream")
    ]
    compare = DatabricksNotebookOperator(
        task_id="compare", notebook_path="/Shared/penguins/by_species", **COMMON
    )
    weigh >> compare
