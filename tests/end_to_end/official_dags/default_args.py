from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.databricks.operators.databricks import (
    DatabricksCreateJobsOperator,
    DatabricksRunNowOperator,
)

default_args = {
    "databricks_conn_id": "databricks_default",
    "databricks_retry_limit": 2,
    "databricks_retry_delay": 1,
    "polling_period_seconds": 1,
    "deferrable": True,
}

with DAG(
    "default_args",
    schedule=None,
    start_date=datetime(2024, 1, 1),
    default_args=default_args,
    params={"name": "params", "unused": None},
) as dag:
    create = DatabricksCreateJobsOperator(
        task_id="create",
        name="official default_args",
        tasks=[
            {
                "task_key": "greet",
                "existing_cluster_id": "0923-164208-meows279",
                "notebook_task": {
                    "notebook_path": "/Shared/greet",
                    "base_parameters": {"name": "{{ '{{' }}job.parameters.name{{ '}}' }}"},
                },
            }
        ],
    )
    run_now = DatabricksRunNowOperator(task_id="run_now", job_id="{{ ti.xcom_pull('create') }}")
    create >> run_now
