"""Tasks that execute several operators: what each does is looked at by test_nested.py."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor

COMMON: dict[str, Any] = {"existing_cluster_id": "local", "polling_period_seconds": 0.1}


def echo(who: str) -> dict[str, Any]:
    """Return the task that returns a name, at the attempt that it succeeds at."""
    return {"notebook_path": "/steady", "base_parameters": {"who": who}}


def part(who: str, **arguments: Any) -> DatabricksSubmitRunOperator:
    """Make an operator while a task runs; all have one task_id."""
    return DatabricksSubmitRunOperator(
        task_id="part", **{"notebook_task": echo(who), **COMMON, **arguments}
    )


class Twice(DatabricksSubmitRunOperator):
    """Executes itself twice."""

    def execute(self, context: Any) -> Any:
        """Run both notebooks."""
        outputs = []
        for who in ("one", "two"):
            self.notebook_task = echo(who)
            outputs.append(super().execute(context))
        return outputs


with DAG("nested", schedule=None, catchup=False):

    @task
    def loop(**kwargs: Any) -> list[Any]:
        """Run three notebooks with operators of one task_id, one of which asks for a deferral."""
        context: Any = kwargs
        return [
            part("a").execute(context),
            part("b", deferrable=True).execute(context),
            part("c").execute(context),
        ]

    @task(retries=1, retry_delay=timedelta(seconds=0))
    def retried(**kwargs: Any) -> list[Any]:
        """Fail once after the second of two notebooks."""
        context: Any = kwargs
        shaky = {
            "notebook_path": "/shaky",
            "base_parameters": {"who": "nested", "succeeds_at": "2"},
        }
        return [
            part("a").execute(context),
            part("b", notebook_task=shaky).execute(context),
        ]

    @task
    def sensed(**kwargs: Any) -> list[Any]:
        """Wait for two runs with sensors."""
        context: Any = kwargs
        outputs = []
        for who in ("x", "y"):
            part(who, wait_for_termination=False).execute(context)
            run_id = context["ti"].xcom_pull(task_ids="sensed", key="run_id")
            sensor = DatabricksJobRunSensor(
                task_id="wait", run_id=run_id, poke_interval=0.1, deferrable=True
            )
            outputs.append(sensor.execute(context))
        return outputs

    loop()
    retried()
    sensed()
    Twice(task_id="twice", notebook_task=echo("zero"), deferrable=False, **COMMON)
    # No other operator executes these, so they defer.
    DatabricksSubmitRunOperator.partial(task_id="mapped", deferrable=True, **COMMON).expand(
        notebook_task=[echo("m0"), echo("m1")]
    )
    DatabricksSubmitRunOperator(task_id="plain", notebook_task=echo("p"), deferrable=True, **COMMON)
