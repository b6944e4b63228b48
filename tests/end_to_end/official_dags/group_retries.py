from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.databricks.operators.databricks import DatabricksNotebookOperator
from airflow.providers.databricks.operators.databricks_workflow import DatabricksWorkflowTaskGroup

with DAG("group_retries", schedule=None, start_date=datetime(2024, 1, 1)) as dag:
    arguments = {
        "databricks_conn_id": "databricks_default",
        "notebook_path": "/Shared/shaky",
        "source": "WORKSPACE",
        "existing_cluster_id": "0923-164208-meows279",
        "polling_period_seconds": 1,
        "max_retries": 1,
        "min_retry_interval_millis": 1000,
    }
    with DatabricksWorkflowTaskGroup(
        group_id="workflow", databricks_conn_id="databricks_default"
    ) as workflow:
        blocking = DatabricksNotebookOperator(
            task_id="blocking", notebook_params={"key": "blocking in a group"}, **arguments
        )
        deferred = DatabricksNotebookOperator(
            task_id="deferred",
            notebook_params={"key": "deferred in a group"},
            deferrable=True,
            retry_on_timeout=True,
            **arguments,
        )
    alone = DatabricksNotebookOperator(
        task_id="alone", notebook_params={"key": "alone"}, **arguments
    )
    workflow >> alone
