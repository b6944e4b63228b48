from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator

with DAG("sql_files", schedule=None, start_date=datetime(2024, 1, 1)) as dag:
    run = DatabricksSubmitRunOperator(
        task_id="run",
        databricks_conn_id="databricks_staging",
        tasks=[
            {
                "task_key": "load",
                "sql_task": {
                    "file": {"path": "/Shared/load.sql", "source": "WORKSPACE"},
                    "warehouse_id": "583f4aa5e7cc7c3d",
                    "parameters": {"day": "{{ ds }}"},
                },
            }
        ],
        deferrable=True,
        polling_period_seconds=1,
    )
