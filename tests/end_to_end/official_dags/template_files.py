from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator

with DAG(
    "template_files",
    schedule=None,
    start_date=datetime(2024, 1, 1),
    params={"name": "a template"},
    user_defined_macros={"cluster": "0923-164208-meows279"},
) as dag:
    from_file = DatabricksSubmitRunOperator(
        task_id="from_file",
        json="request.json-tpl",
        polling_period_seconds=1,
    )
