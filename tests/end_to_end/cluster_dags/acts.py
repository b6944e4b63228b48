"""DAGs for what users do to tasks: each launches a run that goes on until the workspace ends it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator

NOTEBOOK = {"notebook_path": "/Shared/long"}
COMMON: dict[str, Any] = {"existing_cluster_id": "c", "polling_period_seconds": 1}


def one_task(dag_id: str, **arguments: Any) -> DAG:
    """Make a DAG of one task that waits for a run."""
    dag_arguments = {
        name: arguments.pop(name) for name in ("dagrun_timeout",) if name in arguments
    }
    with DAG(dag_id, schedule=None, catchup=False, max_active_runs=50, **dag_arguments) as dag:
        DatabricksSubmitRunOperator(
            task_id="wait", notebook_task=NOTEBOOK, **{**COMMON, "retries": 0, **arguments}
        )
    return dag


SOON = timedelta(seconds=0.1)

deferred = one_task("deferred", deferrable=True)
deferred_timed = one_task(
    "deferred_timed", deferrable=True, execution_timeout=timedelta(seconds=15)
)
deferred_retried = one_task("deferred_retried", deferrable=True, retries=2, retry_delay=SOON)
deferred_limited = one_task(
    "deferred_limited", deferrable=True, dagrun_timeout=timedelta(seconds=20)
)
deferred_kept = one_task("deferred_kept", deferrable=True, cancel_on_kill=False)
blocking = one_task("blocking")
blocking_timed = one_task("blocking_timed", execution_timeout=timedelta(seconds=15))
blocking_retried = one_task("blocking_retried", retries=2, retry_delay=SOON)

with DAG("mapped", schedule=None, catchup=False, max_active_runs=50) as mapped:
    DatabricksSubmitRunOperator.partial(
        task_id="wait", retries=0, deferrable=True, **COMMON
    ).expand(notebook_task=[{"notebook_path": f"/Shared/long{n}"} for n in range(3)])
