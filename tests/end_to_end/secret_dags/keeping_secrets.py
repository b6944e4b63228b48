"""Tasks that go well, fail, defer, meet trouble and are refused, with all kinds of credentials."""

from __future__ import annotations

from typing import Any, cast

from airflow.providers.common.compat.sdk import DAG

from airflow_jobs_provider.operators.jobs import (
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor

IMPATIENT: dict[str, Any] = {"databricks_retry_delay": 0.01, "polling_period_seconds": 0.05}


def submit(task_id: str, conn_id: str, **kwargs: Any) -> DatabricksSubmitRunOperator:
    """Submit a run with templates in it."""
    arguments: dict[str, Any] = {
        "databricks_conn_id": conn_id,
        "existing_cluster_id": "cluster",
        "notebook_task": {"notebook_path": "/work", "base_parameters": {"day": "{{ ds }}"}},
        "run_name": "{{ run_id }}",
        **IMPATIENT,
        **kwargs,
    }
    return DatabricksSubmitRunOperator(task_id=task_id, **arguments)


with DAG("keeping_secrets", schedule=None, catchup=False):
    for conn in ("token", "token_in_extra", "user_and_password"):
        for deferrable in (False, True):
            mode = "deferred" if deferrable else "blocking"
            launched = submit(f"{conn}_{mode}", conn, deferrable=deferrable)
            DatabricksJobRunSensor(
                task_id=f"sensor_{conn}_{mode}",
                run_id=cast("Any", launched.output)["run_id"],
                databricks_conn_id=conn,
                deferrable=deferrable,
                poke_interval=0.1,
                databricks_retry_delay=0.01,
            )
            DatabricksRunNowOperator(
                task_id=f"failing_{conn}_{mode}",
                job_id=13,
                databricks_conn_id=conn,
                deferrable=deferrable,
                **IMPATIENT,
            )
    submit("refused", "refused")
    submit("refused_deferrable", "refused", deferrable=True)
    submit("malformed", "malformed")
    submit("in_the_wrong_field", "in_the_wrong_field")
    submit("nowhere", "nowhere", databricks_retry_limit=2)
    submit("behind_a_proxy", "behind_a_proxy", databricks_retry_limit=2)
    # Each answer of this one is another that HTTP libraries stumble over.
    for number in range(5):
        for deferrable in (False, True):
            arguments: dict[str, Any] = {"deferrable": deferrable, "databricks_retry_limit": 1}
            submit(f"odd_answer_{number}_{'later' if deferrable else 'now'}", "odd", **arguments)
    # No JSON, which is found out only when it is to be sent.
    for name, value in {"set": {1, 2}, "bytes": b"1", "number": float("nan")}.items():
        submit(f"odd_{name}", "token", validate=False, timeout_seconds=value)
