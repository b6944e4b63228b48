from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, task
from airflow.providers.databricks.operators import databricks

with DAG("mapped_tasks", schedule=None, start_date=datetime(2024, 1, 1)) as dag:

    @task
    def names() -> list[dict[str, str]]:
        return [{"name": "Ada"}, {"name": "Grace"}]

    create = databricks.DatabricksCreateJobsOperator(
        task_id="create",
        json={
            "name": "official mapped",
            "max_concurrent_runs": 2,
            "tasks": [
                {
                    "task_key": "greet",
                    "existing_cluster_id": "0923-164208-meows279",
                    "notebook_task": {"notebook_path": "/Shared/greet"},
                }
            ],
        },
    )
    greet = databricks.DatabricksRunNowOperator.partial(
        task_id="greet", job_name="official mapped", polling_period_seconds=1
    ).expand(notebook_params=names())
    create >> greet
