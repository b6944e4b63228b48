"""DAGs for what users do to tasks: each launches a run that goes on until the workspace ends it."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from airflow.providers.common.compat.sdk import DAG, task
from airflow.triggers.base import BaseTrigger

from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator

NOTEBOOK = {"notebook_path": "/Shared/long"}
COMMON: dict[str, Any] = {
    "existing_cluster_id": "c",
    "polling_period_seconds": 1,
    "retries": 0,
    "retry_delay": timedelta(seconds=0.1),
}
DAG_COMMON: dict[str, Any] = {"catchup": False, "max_active_runs": 50}


def note_pid(context: Any) -> None:
    """Tell the tests which process is at work."""
    ti = context["ti"]
    mapped = f"_{ti.map_index}" if ti.map_index >= 0 else ""
    note = Path(os.environ["AIRFLOW_HOME"], f"{ti.run_id}{mapped}.pid")
    note.write_text(str(os.getpid()))


def one_task(dag_id: str, *, dagrun_timeout: timedelta | None = None, **arguments: Any) -> DAG:
    """Make a DAG of one task that waits for a run."""
    with DAG(dag_id, schedule=None, dagrun_timeout=dagrun_timeout, **DAG_COMMON) as dag:
        DatabricksSubmitRunOperator(
            task_id="wait",
            **{"notebook_task": NOTEBOOK, "pre_execute": note_pid, **COMMON, **arguments},
        )
    return dag


A_WHILE = timedelta(seconds=15)
# For tasks that begin with many others, and may take long to launch their runs.
LONGER = 3 * A_WHILE

deferred = one_task("deferred", deferrable=True)
deferred_timed = one_task("deferred_timed", deferrable=True, execution_timeout=LONGER)
deferred_retried = one_task("deferred_retried", deferrable=True, retries=2)
deferred_steady = one_task("deferred_steady", deferrable=True, retries=99)
deferred_limited = one_task("deferred_limited", deferrable=True, dagrun_timeout=4 * A_WHILE)
deferred_kept = one_task("deferred_kept", deferrable=True, cancel_on_kill=False)
blocking = one_task("blocking")
blocking_timed = one_task("blocking_timed", execution_timeout=LONGER)
blocking_retried = one_task("blocking_retried", retries=2)
RAISED = Path(os.environ.get("AIRFLOW_HOME", ""), "retries_are_raised")
blocking_raised = one_task("blocking_raised", retries=5 if RAISED.exists() else 1)
blocking_steady = one_task("blocking_steady", retries=99)
really_running = one_task(
    "really_running",
    deferrable=True,
    databricks_conn_id="local_workspace",
    notebook_task={"notebook_path": "/sleeping"},
)

# From 3.3 on the triggerer launches runs; before that the operator refuses to.
if hasattr(BaseTrigger, "render_template_fields"):
    # A worker calls pre_execute.
    TRIGGERER: dict[str, Any] = {
        "start_from_trigger": True,
        "end_from_trigger": True,
        "pre_execute": None,
    }
    workerless = one_task("workerless", **TRIGGERER)
    workerless_timed = one_task("workerless_timed", **TRIGGERER, execution_timeout=A_WHILE)
    workerless_retried = one_task("workerless_retried", **TRIGGERER, retries=2)
    workerless_steady = one_task("workerless_steady", **TRIGGERER, retries=99)
    workerless_limited = one_task("workerless_limited", **TRIGGERER, dagrun_timeout=4 * A_WHILE)
    workerless_kept = one_task("workerless_kept", **TRIGGERER, cancel_on_kill=False)
    with DAG("workerless_many", schedule=None, **DAG_COMMON) as workerless_many:
        for number in range(30):
            DatabricksSubmitRunOperator(
                task_id=f"wait_{number}",
                notebook_task=NOTEBOOK,
                deferrable=True,
                **{**COMMON, **TRIGGERER},
            )

    def mapped_task(dag_id: str, instances: int, **arguments: Any) -> DAG:
        """Make a DAG of one mapped task whose instances wait for a run each."""
        with DAG(dag_id, schedule=None, **DAG_COMMON) as dag:
            DatabricksSubmitRunOperator.partial(
                task_id="wait", **{**COMMON, **TRIGGERER, **arguments}
            ).expand(
                notebook_task=[
                    {"notebook_path": f"/Shared/long{number}"} for number in range(instances)
                ]
            )
        return dag

    workerless_mapped = mapped_task("workerless_mapped", 3)
    workerless_mapped_steady = mapped_task("workerless_mapped_steady", 5, retries=99)
    workerless_mapped_many = mapped_task("workerless_mapped_many", 30, retries=99)

with DAG("mapped", schedule=None, **DAG_COMMON) as mapped:
    DatabricksSubmitRunOperator.partial(task_id="wait", deferrable=True, **COMMON).expand(
        notebook_task=[{"notebook_path": f"/Shared/long{number}"} for number in range(3)]
    )


class HeldBeforeDeferring(DatabricksSubmitRunOperator):
    """Defers only once the test allows it."""

    def execute(self, context: Any) -> Any:
        """Note whose process this is first."""
        self.note = Path(os.environ["AIRFLOW_HOME"], f"{context['ti'].run_id}.held")
        return super().execute(context)

    def defer(self, **arguments: Any) -> NoReturn:
        """Tell that the run is launched; wait until the note is gone; defer."""
        with self.note.open("a") as note:
            note.write("held\n")
        while self.note.exists():
            time.sleep(0.05)
        super().defer(**arguments)


with DAG("held_before_deferring", schedule=None, **DAG_COMMON) as held_before_deferring:
    HeldBeforeDeferring.partial(task_id="wait", deferrable=True, **COMMON).expand(
        notebook_task=[{"notebook_path": f"/Shared/long{number}"} for number in range(6)]
    )

with DAG("held_limited", schedule=None, dagrun_timeout=4 * A_WHILE, **DAG_COMMON) as held_limited:
    HeldBeforeDeferring(task_id="wait", notebook_task=NOTEBOOK, deferrable=True, **COMMON)


@task
def paths() -> list[dict[str, str]]:
    """Tell at run time what is mapped over."""
    return [{"notebook_path": f"/Shared/long{number}"} for number in range(2)]


with DAG("blocking_mapped", schedule=None, **DAG_COMMON) as blocking_mapped:
    DatabricksSubmitRunOperator.partial(
        task_id="wait", pre_execute=note_pid, deferrable=False, **COMMON
    ).expand(notebook_task=paths())
