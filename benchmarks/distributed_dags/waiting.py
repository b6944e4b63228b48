"""One DAG for each provider, whose tasks Airflow starts in the triggerer: each waits for a run."""

from __future__ import annotations

import os
from typing import Any

from airflow.providers.common.compat.sdk import DAG, BaseOperator
from airflow.triggers.base import StartTriggerArgs

RUNS = int(os.environ.get("BENCHMARK_RUNS", "300"))
FIRST_RUN_ID = 1001
TRIGGERS = {
    "this_one": "airflow_jobs_provider.triggers.jobs.DatabricksJobRunTrigger",
    "official": "airflow.providers.databricks.triggers.databricks.DatabricksExecutionTrigger",
}


class WaitInTriggerer(BaseOperator):
    """Wait for a run with a provider's trigger, and end with it."""

    start_from_trigger = True

    def __init__(self, *, trigger_class: str, run_id: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=trigger_class,
            trigger_kwargs={
                "run_id": run_id,
                "databricks_conn_id": "databricks_default",
                "polling_period_seconds": 5,
            },
            next_method="execute_complete",
        )

    def execute_complete(self, context: Any, event: dict[str, Any]) -> None:
        """Do nothing: what is measured is the wait."""


for name, trigger_class in TRIGGERS.items():
    with DAG(name, schedule=None, catchup=False) as dag:
        for index in range(RUNS):
            WaitInTriggerer(
                task_id=f"wait_{index}",
                trigger_class=trigger_class,
                run_id=FIRST_RUN_ID + index,
                retries=0,
            )
    globals()[name] = dag
