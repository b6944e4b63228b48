"""One DAG for each launching operator and way to wait, of this provider or of the official one."""

import os
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

if os.environ.get("KILLS_PROVIDER") == "official":
    from airflow.providers.databricks.operators.databricks import (  # type: ignore[import-not-found, unused-ignore]
        DatabricksRunNowOperator,
        DatabricksSubmitRunOperator,
    )
else:
    from airflow_jobs_provider.operators.jobs import (
        DatabricksRunNowOperator,
        DatabricksSubmitRunOperator,
    )

FAST = timedelta(milliseconds=1)

for deferrable in (False, True):
    waiting: dict[str, Any] = {
        "deferrable": deferrable,
        "polling_period_seconds": 0.02,
        "databricks_retry_delay": 1,
        "retries": 20,
        "retry_delay": FAST,
        "max_retry_delay": FAST,
    }
    suffix = "deferrable" if deferrable else "blocking"
    with DAG(f"submit_{suffix}", schedule=None):
        DatabricksSubmitRunOperator(
            task_id="work",
            existing_cluster_id="cluster",
            notebook_task={"notebook_path": "/work"},
            **waiting,
        )
    with DAG(f"run_now_{suffix}", schedule=None):
        DatabricksRunNowOperator(task_id="work", job_id=11, **waiting)
    if os.environ.get("KILLS_PROVIDER") != "official":
        with DAG(f"python_{suffix}", schedule=None):

            @task.databricks_python(task_id="work", existing_cluster_id="cluster", **waiting)
            def work(number: int) -> int:
                """Run on Databricks."""
                return number

            work(1)
