from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.databricks.operators.databricks import (
    DatabricksCreateJobsOperator,
    DatabricksRunNowOperator,
)

with DAG("repair", schedule=None, start_date=datetime(2024, 1, 1)) as dag:
    create = DatabricksCreateJobsOperator(
        task_id="create",
        json={
            "name": "official repair",
            "tasks": [
                {
                    "task_key": "shaky",
                    "existing_cluster_id": "0923-164208-meows279",
                    "notebook_task": {"notebook_path": "/Shared/shaky"},
                }
            ],
            "parameters": [{"name": "key", "default": ""}],
        },
    )
    deferred = DatabricksRunNowOperator(
        task_id="deferred",
        job_name="official repair",
        job_parameters={"key": "deferred"},
        repair_run=True,
        deferrable=True,
        polling_period_seconds=1,
    )
    blocking = DatabricksRunNowOperator(
        task_id="blocking",
        job_name="official repair",
        job_parameters={"key": "blocking"},
        repair_run=True,
        polling_period_seconds=1,
    )
    create >> deferred >> blocking
