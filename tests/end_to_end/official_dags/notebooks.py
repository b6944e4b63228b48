from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator

new_cluster = {
    "spark_version": "15.4.x-scala2.12",
    "node_type_id": "r3.xlarge",
    "aws_attributes": {"availability": "ON_DEMAND"},
    "num_workers": 8,
}

with DAG("notebooks", schedule="@daily", start_date=datetime(2024, 1, 1), catchup=False) as dag:
    notebook_run = DatabricksSubmitRunOperator(
        task_id="notebook_run",
        json={
            "new_cluster": new_cluster,
            "notebook_task": {
                "notebook_path": "/Shared/greet",
                "base_parameters": {"name": "{{ dag.dag_id }}"},
            },
        },
        polling_period_seconds=1,
    )
    deferred_run = DatabricksSubmitRunOperator(
        task_id="deferred_run",
        existing_cluster_id="0923-164208-meows279",
        notebook_task={"notebook_path": "/Shared/greet", "base_parameters": {"name": "deferred"}},
        deferrable=True,
        polling_period_seconds=1,
    )
    not_waited_for = DatabricksSubmitRunOperator(
        task_id="not_waited_for",
        existing_cluster_id="0923-164208-meows279",
        notebook_task={"notebook_path": "/Shared/greet"},
        wait_for_termination=False,
    )
    notebook_run >> deferred_run >> not_waited_for
