from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator

git_source = {
    "git_url": "https://github.com/example/etl",
    "git_provider": "gitHub",
    "git_branch": "main",
}

with DAG(
    "git_source",
    schedule=None,
    start_date=datetime(2024, 1, 1),
    default_args={"databricks_conn_id": "databricks_staging"},
) as dag:
    notebook = DatabricksSubmitRunOperator(
        task_id="notebook",
        git_source=git_source,
        tasks=[
            {
                "task_key": "prepare",
                "existing_cluster_id": "0923-164208-meows279",
                "notebook_task": {"notebook_path": "notebooks/prepare", "source": "GIT"},
            },
            {
                "task_key": "report",
                "depends_on": [{"task_key": "prepare"}],
                "existing_cluster_id": "0923-164208-meows279",
                "notebook_task": {"notebook_path": "notebooks/report", "source": "GIT"},
            },
        ],
        polling_period_seconds=1,
    )
