"""DAGs that few processes run: each one that begins a task reads this file, and notes itself.

Airflow tells a DAG file which task it is read for, and tells nothing where it is read to find DAGs.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, get_parsing_context, task

from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator

context = get_parsing_context()
if context.task_id:
    note = Path(os.environ["AIRFLOW_HOME"], f"{context.dag_id}.{context.task_id}.starts")
    with note.open("a") as file:
        file.write(f"{os.getpid()} {os.getppid()}\n")

COMMON: dict[str, Any] = {"retries": 0, "retry_delay": timedelta(seconds=0.1)}
LAUNCH: dict[str, Any] = {
    "notebook_task": {"notebook_path": "/Shared/long"},
    "existing_cluster_id": "c",
    "polling_period_seconds": 1,
    "deferrable": True,
}


@task(trigger_rule="all_done")
def see(*values: Any) -> str:
    """Tell what the next task gets."""
    return repr(values)


def launching(dag_id: str, **arguments: Any) -> DAG:
    """Make a DAG of one task that launches a run."""
    with DAG(dag_id, schedule=None, catchup=False) as dag:
        wait = DatabricksSubmitRunOperator(task_id="wait", **{**COMMON, **LAUNCH, **arguments})
        output: Any = wait.output
        see(output, output["run_id"], output["output_truncated"])
    return dag


ordinary = launching("ordinary")
ending = launching("ending", end_from_trigger=True)
ending_retried = launching("ending_retried", end_from_trigger=True, retries=1)
ending_capped = launching("ending_capped", end_from_trigger=True, max_output_bytes=6)
ending_with_callback = launching(
    "ending_with_callback",
    end_from_trigger=True,
    on_success_callback=lambda context: Path(
        os.environ["AIRFLOW_HOME"], f"{context['dag_run'].run_id}.called"
    ).touch(),
)
