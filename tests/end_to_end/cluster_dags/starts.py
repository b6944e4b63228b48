"""DAGs that few processes run: each one that begins a task reads this file, and notes itself.

Airflow tells a DAG file which task it is read for, and tells nothing where it is read to find DAGs.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, get_parsing_context, task
from airflow.triggers.base import BaseTrigger

from airflow_jobs_provider.airflow_compat.start_in_triggerer import wait_start
from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor

context = get_parsing_context()
if context.task_id:
    note = Path(os.environ["AIRFLOW_HOME"], f"{context.dag_id}.{context.task_id}.starts")
    with note.open("a") as file:
        file.write(f"{os.getpid()} {os.getppid()}\n")

COMMON: dict[str, Any] = {"retries": 0, "retry_delay": timedelta(seconds=0.1)}
CLUSTER = "existing_cluster_id"
LAUNCH: dict[str, Any] = {
    "notebook_task": {"notebook_path": "/Shared/long"},
    CLUSTER: "c",
    "polling_period_seconds": 1,
    "deferrable": True,
}


@task(trigger_rule="all_done")
def see(ti: Any = None) -> str:
    """Tell what the next task gets."""
    keys = ("return_value", "run_id", "output_truncated")
    return repr(tuple(ti.xcom_pull(task_ids="wait", key=key) for key in keys))


def launching(dag_id: str, **arguments: Any) -> DAG:
    """Make a DAG of one task that launches a run."""
    with DAG(dag_id, schedule=None, catchup=False) as dag:
        wait = DatabricksSubmitRunOperator(task_id="wait", **{**COMMON, **LAUNCH, **arguments})
        wait >> see()
    return dag


ordinary = launching("ordinary")
ending = launching("ending", end_from_trigger=True)
ending_retried = launching("ending_retried", end_from_trigger=True, retries=1)
ending_capped = launching("ending_capped", end_from_trigger=True, max_output_bytes=6)
with DAG("ending_each", schedule=None, catchup=False) as ending_each:
    each = DatabricksSubmitRunOperator(
        task_id="wait",
        tasks=[
            {"task_key": key, **{name: LAUNCH[name] for name in ("notebook_task", CLUSTER)}}
            for key in ("load", "run_id")
        ],
        polling_period_seconds=1,
        deferrable=True,
        end_from_trigger=True,
        multiple_outputs=True,
        **COMMON,
    )
    of_each: Any = each.output

    @task
    def take(load: str, of_run: int) -> str:
        """Tell what the next task gets of one task of the run, and of the run."""
        return repr((load, of_run))

    take(of_each["load"], of_each["run_id"])
ending_with_callback = launching(
    "ending_with_callback",
    end_from_trigger=True,
    on_success_callback=lambda context: Path(
        os.environ["AIRFLOW_HOME"], f"{context['dag_run'].run_id}.called"
    ).touch(),
)

# From 3.3 on the triggerer launches runs; before that the operator refuses to.
if hasattr(BaseTrigger, "render_template_fields"):
    TRIGGERER: dict[str, Any] = {"start_from_trigger": True, "end_from_trigger": True}
    launching("triggered", **TRIGGERER)
    launching("triggered_retried", **TRIGGERER, retries=1)
    launching("triggered_in_a_pool", **TRIGGERER, pool="other", pool_slots=1)
    launching("triggered_timed_out", **TRIGGERER, execution_timeout=timedelta(seconds=8))
    MAPPED = {**COMMON, **LAUNCH, **TRIGGERER, "execution_timeout": timedelta(minutes=10)}
    del MAPPED["notebook_task"]

    @task
    def see_all(ti: Any = None) -> str:
        """Tell what the next task gets of each instance, in the order of their indexes."""
        keys, indexes = ("return_value", "run_id"), list(range(5))
        return repr(
            [list(ti.xcom_pull(task_ids="wait", key=key, map_indexes=indexes)) for key in keys]
        )

    with DAG("triggered_mapped", schedule=None, catchup=False):
        paths = [
            {"notebook_path": f"/{n}", "base_parameters": {"day": "{{ ds }}"}} for n in "abcde"
        ]
        mapped_there = DatabricksSubmitRunOperator.partial(task_id="wait", **MAPPED).expand(
            notebook_task=paths
        )
        mapped_there >> see_all()

    with DAG("triggered_mapped_over_output", schedule=None, catchup=False):

        @task
        def list_notebooks() -> list[dict[str, Any]]:
            """Return what the next task is mapped over."""
            return [{"notebook_path": f"/{n}"} for n in "abcde"]

        listed = DatabricksSubmitRunOperator.partial(task_id="wait", **MAPPED).expand(
            notebook_task=list_notebooks()
        )
        listed >> see_all()

    with DAG("triggered_rendered", schedule=None, catchup=False, params={"day": 3}):

        @task
        def configure() -> dict[str, Any]:
            """Return a notebook and its parameters."""
            parameters = {"number": 1, "day": "of a task"}
            return {"notebook_path": "/Shared/long", "base_parameters": parameters}

        rendered_there = DatabricksSubmitRunOperator(
            task_id="wait",
            tasks=[
                {"task_key": "a", "notebook_task": configure(), CLUSTER: "c"},
                {
                    "task_key": "b",
                    CLUSTER: "{{ 'c' if params.day == 3 else 'd' }}",
                    "notebook_task": {"notebook_path": "/Shared/{{ ti.task_id }}"},
                },
            ],
            polling_period_seconds=1,
            **{**COMMON, **TRIGGERER},
        )
        rendered_there >> see()


def sensing(dag_id: str, run: str = "GOOD", **arguments: Any) -> DAG:
    """Make a DAG of one task that waits for a run that the tests have launched."""
    given = {"run_id": os.environ[f"SENSED_{run}_RUN"], "poke_interval": 1, **arguments}
    with DAG(dag_id, schedule=None, catchup=False) as dag:
        wait = DatabricksJobRunSensor(task_id="wait", deferrable=True, **{**COMMON, **given})
        wait >> see()
    return dag


BOTH: dict[str, Any] = {"start_from_trigger": True, "end_from_trigger": True}
sensed = sensing("sensed")
sensed_from_the_start = sensing("sensed_from_the_start", start_from_trigger=True)
sensed_to_the_end = sensing("sensed_to_the_end", end_from_trigger=True)
sensed_all_along = sensing("sensed_all_along", **BOTH)
sensed_failing = sensing("sensed_failing", "BAD", **BOTH, retries=1)

# From 3.3 on the triggerer renders templates; before that the sensor refuses them.
RENDERED = BOTH if hasattr(BaseTrigger, "render_template_fields") else {}

with DAG("rendered", schedule=None, catchup=False) as rendered:
    launch = DatabricksSubmitRunOperator(
        task_id="launch", wait_for_termination=False, **{**LAUNCH, **COMMON}
    )
    launched: Any = launch.output
    wait = DatabricksJobRunSensor(
        task_id="wait", run_id=launched["run_id"], poke_interval=1, deferrable=True, **RENDERED
    )
    wait >> see()

with DAG("named", schedule=None, catchup=False) as named:
    wait = DatabricksJobRunSensor(
        task_id="wait", job_name="the sensed job", poke_interval=1, deferrable=True, **RENDERED
    )
    wait >> see()


class Noting(DatabricksJobRunSensor):
    """A sensor that notes when its wait began, at each poke."""

    def poke(self, context: Any) -> Any:
        """Note it, and look."""
        note = Path(os.environ["AIRFLOW_HOME"], f"{context['dag_run'].run_id}.began")
        with note.open("a") as file:
            file.write(f"{wait_start(context, is_rescheduled=self.reschedule)}\n")
        return super().poke(context)


with DAG("rescheduled", schedule=None, catchup=False) as rescheduled:
    # Not sooner, or the scheduler might hear of a poke's end when the next one is due, and fail it.
    wait = Noting(
        task_id="wait", job_name="the sensed job", poke_interval=8, mode="reschedule", **COMMON
    )
    wait >> see()


with DAG("sensed_by_mapped", schedule=None, catchup=False) as sensed_by_mapped:
    DatabricksJobRunSensor.partial(task_id="wait", poke_interval=1, **BOTH).expand(
        run_id=[os.environ["SENSED_GOOD_RUN"]]
    )
