"""DAGs with workflow groups whose tasks are cleared; see test_workflow_clear.py."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_jobs_provider.operators.jobs import DatabricksNotebookOperator
from airflow_jobs_provider.operators.workflow import DatabricksWorkflowTaskGroup

TASKS = 10


def wait_for_kill(context: Any) -> None:
    """Tell the tests which process is at work after the clear, and wait for its death."""
    ti = context["ti"]
    if ti.try_number == 3:
        Path(os.environ["AIRFLOW_HOME"], f"{ti.run_id}.pid").write_text(str(os.getpid()))
        time.sleep(300)


def ten_notebooks(dag_id: str, *, succeeds_at: int, **arguments: Any) -> DAG:
    """Make a DAG of ten notebooks, two of which fail before an attempt."""
    with (
        DAG(dag_id, schedule=None, catchup=False) as dag,
        DatabricksWorkflowTaskGroup(group_id="g"),
    ):
        for number in range(TASKS):
            who = f"{dag_id}_{number}"
            given = {"who": who, "succeeds_at": succeeds_at if number < 2 else 1}
            more: dict[str, Any] = arguments if number < 2 else {}
            if number == 0 and succeeds_at > 2:
                more = {**more, "pre_execute": wait_for_kill}
            DatabricksNotebookOperator(
                task_id=f"n{number}",
                notebook_path="/shaky",
                source="WORKSPACE",
                existing_cluster_id="local",
                notebook_params=given,
                polling_period_seconds=1,
                deferrable=True,
                retry_delay=timedelta(seconds=0.1),
                **more,
            )
    return dag


cleared = ten_notebooks("cleared", succeeds_at=2)
killed = ten_notebooks("killed", succeeds_at=3, retries=1)
