"""A task that executes operators in a loop, and is killed meanwhile by test_nested.py."""

from __future__ import annotations

import os
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator

with DAG("nested_killed", schedule=None, catchup=False):

    @task
    def loop(**kwargs: Any) -> None:
        """Run three notebooks, and tell the service which process this is."""
        context: Any = kwargs
        for _ in range(3):
            DatabricksSubmitRunOperator(
                task_id="part",
                existing_cluster_id="cluster",
                polling_period_seconds=0.1,
                notebook_task={
                    "notebook_path": "/part",
                    "base_parameters": {"pid": str(os.getpid())},
                },
            ).execute(context)

    loop()
