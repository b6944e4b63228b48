from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.databricks.operators.databricks import (
    DatabricksCreateJobsOperator,  # creates the job, or resets it
    DatabricksRunNowOperator,
)

job = {
    "name": "official jobs",
    "tasks": [
        {
            "task_key": "greet",
            "job_cluster_key": "job_cluster",
            "notebook_task": {"notebook_path": "/Shared/greet"},
        },
    ],
    "job_clusters": [
        {
            "job_cluster_key": "job_cluster",
            "new_cluster": {
                "spark_version": "15.4.x-scala2.12",
                "node_type_id": "i3.xlarge",
                "num_workers": 2,
            },
        },
    ],
}

with DAG("jobs", schedule=None, start_date=datetime(2024, 1, 1), catchup=False) as dag:
    create = DatabricksCreateJobsOperator(task_id="create", json=job)
    reset = DatabricksCreateJobsOperator(
        task_id="reset",
        name="official jobs",
        description="made by a DAG",
        tags={"team": "data"},
        tasks=job["tasks"],
        job_clusters=job["job_clusters"],
        max_concurrent_runs=2,
        timeout_seconds=3600,
    )
    run_now = DatabricksRunNowOperator(
        task_id="run_now",
        job_id=create.output,
        notebook_params={"name": "jobs"},
        polling_period_seconds=1,
    )
    create >> reset >> run_now
