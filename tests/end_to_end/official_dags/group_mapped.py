from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, task, task_group
from airflow.providers.databricks.operators.databricks import DatabricksNotebookOperator
from airflow.providers.databricks.operators.databricks_workflow import DatabricksWorkflowTaskGroup

with DAG("group_mapped", schedule=None, start_date=datetime(2024, 1, 1)) as dag:

    @task
    def names() -> list[str]:
        return ["Ada", "Grace"]

    @task_group
    def each(name: str) -> None:
        with DatabricksWorkflowTaskGroup(
            group_id="workflow",
            databricks_conn_id="databricks_default",
            notebook_params={"name": name},
            max_concurrent_runs=2,
        ):
            DatabricksNotebookOperator(
                task_id="greet",
                databricks_conn_id="databricks_default",
                notebook_path="/Shared/greet",
                source="WORKSPACE",
                existing_cluster_id="0923-164208-meows279",
                polling_period_seconds=1,
            )

    each.expand(name=names())
