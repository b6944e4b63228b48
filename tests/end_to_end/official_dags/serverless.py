from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator

with DAG("serverless", schedule=None, start_date=datetime(2024, 1, 1)) as dag:
    python_run = DatabricksSubmitRunOperator(
        task_id="python_run",
        tasks=[
            {
                "task_key": "etl",
                "spark_python_task": {"python_file": "/etl.py", "parameters": ["serverless"]},
                "environment_key": "default",
            }
        ],
        environments=[
            {
                "environment_key": "default",
                "spec": {"environment_version": "2", "dependencies": ["simplejson"]},
            }
        ],
        performance_target="STANDARD",
        deferrable=True,
        polling_period_seconds=1,
    )
