from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.databricks.operators.databricks import (
    DatabricksCreateJobsOperator,
    DatabricksSubmitRunOperator,
)

permissions = [
    {"user_name": "jane@example.com", "permission_level": "CAN_MANAGE"},
    {"group_name": "data", "permission_level": "CAN_VIEW"},
]

with DAG("access_control", schedule=None, start_date=datetime(2024, 1, 1)) as dag:
    create, reset = (
        DatabricksCreateJobsOperator(
            task_id=task_id,
            name="official permissions",
            tasks=[
                {
                    "task_key": "greet",
                    "existing_cluster_id": "0923-164208-meows279",
                    "notebook_task": {"notebook_path": "/Shared/greet"},
                }
            ],
            access_control_list=permissions,
        )
        for task_id in ("create", "reset")
    )
    run = DatabricksSubmitRunOperator(
        task_id="run",
        databricks_conn_id="databricks_staging",
        existing_cluster_id="0923-164208-meows279",
        notebook_task={"notebook_path": "/Shared/greet"},
        access_control_list=permissions,
        polling_period_seconds=1,
    )
    create >> reset >> run
