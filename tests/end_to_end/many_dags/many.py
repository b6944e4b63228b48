"""DAGs of many deferred tasks.

Those of the DAGs ``many_d`` need no worker: Airflow starts them in the triggerer. The runs that
they wait for are there before: task ``n`` of DAG ``many_d`` waits for run ``1001 + 100 * d + n``.
DAG ``one`` has a task that launches its run on a worker; DAG ``launching`` has as many such mapped
tasks as the others have together.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, BaseOperator
from airflow.triggers.base import StartTriggerArgs

from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator

DAGS = 3
TASKS = 100
FIRST_RUN_ID = 1001


class WaitInTriggerer(BaseOperator):
    """Wait for a run with the trigger of the run operators, and cancel it with the task."""

    start_from_trigger = True

    def __init__(self, *, run_id: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls="airflow_jobs_provider.triggers.jobs.DatabricksJobRunTrigger",
            trigger_kwargs={"run_id": run_id, "cancel_on_kill": True, "polling_period_seconds": 5},
            next_method="execute_complete",
        )

    def execute_complete(self, context: Any, event: dict[str, Any]) -> None:
        """End with the run."""


with DAG("one", schedule=None, catchup=False) as one:
    DatabricksSubmitRunOperator(
        task_id="wait",
        existing_cluster_id="c",
        notebook_task={"notebook_path": "/Shared/long"},
        deferrable=True,
        polling_period_seconds=1,
        retries=0,
    )

# No more at once than the two workers execute: Airflow fails a task that is queued for too long.
with DAG("launching", schedule=None, catchup=False, max_active_tasks=12) as launching:
    DatabricksSubmitRunOperator.partial(
        task_id="wait",
        existing_cluster_id="c",
        deferrable=True,
        polling_period_seconds=5,
        retries=0,
    ).expand(notebook_task=[{"notebook_path": f"/Shared/{n}"} for n in range(DAGS * TASKS)])

for number in range(DAGS):
    with DAG(f"many_{number}", schedule=None, catchup=False) as dag:
        for index in range(TASKS):
            WaitInTriggerer(
                task_id=f"wait_{index}",
                run_id=FIRST_RUN_ID + TASKS * number + index,
                retries=0,
            )
    globals()[dag.dag_id] = dag
