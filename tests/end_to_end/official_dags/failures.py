from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, task
from airflow.providers.databricks.operators.databricks import (
    XCOM_RUN_ID_KEY,
    DatabricksSubmitRunOperator,
)

with DAG("failures", schedule=None, start_date=datetime(2024, 1, 1)) as dag:
    blocking, deferred = (
        DatabricksSubmitRunOperator(
            task_id=task_id,
            existing_cluster_id="0923-164208-meows279",
            notebook_task={"notebook_path": "/Shared/raise"},
            deferrable=task_id == "deferred",
            polling_period_seconds=1,
        )
        for task_id in ("blocking", "deferred")
    )
    after = DatabricksSubmitRunOperator(
        task_id="after",
        existing_cluster_id="0923-164208-meows279",
        notebook_task={"notebook_path": "/Shared/greet"},
    )

    @task(trigger_rule="all_done")
    def report(**context: object) -> bool:
        ti = context["ti"]
        run_ids = ti.xcom_pull(task_ids=["blocking", "deferred"], key=XCOM_RUN_ID_KEY)
        return all(isinstance(run_id, int) for run_id in run_ids)

    [blocking, deferred] >> after
    [blocking, deferred] >> report()
