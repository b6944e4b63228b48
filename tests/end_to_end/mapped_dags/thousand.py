"""A DAG with one mapped task of many instances, and one of a few tasks, all without workers.

Each process that begins a task reads this file, and notes itself. The test says how many.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, get_parsing_context

from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator

INSTANCES = int(os.environ["MAPPED_INSTANCES"])
OTHER_TASKS = int(os.environ["OTHER_TASKS"])

context = get_parsing_context()
if context.task_id:
    with Path(os.environ["AIRFLOW_HOME"], "task_processes").open("a") as file:
        file.write(f"{context.dag_id} {os.getpid()}\n")

COMMON: dict[str, Any] = {
    "existing_cluster_id": "c",
    "start_from_trigger": True,
    "end_from_trigger": True,
    "polling_period_seconds": 5,
    "retries": 2,
}

with DAG("workerless_thousand", schedule=None, catchup=False) as thousand:
    DatabricksSubmitRunOperator.partial(task_id="wait", **COMMON).expand(
        notebook_task=[
            {
                "notebook_path": "/Shared/load",
                "base_parameters": {"day": "{{ ds }}", "table": f"table_{number}"},
            }
            for number in range(INSTANCES)
        ]
    )

with DAG("workerless_ten", schedule=None, catchup=False) as ten:
    for number in range(OTHER_TASKS):
        DatabricksSubmitRunOperator(
            task_id=f"wait_{number}", notebook_task={"notebook_path": "/Shared/other"}, **COMMON
        )
