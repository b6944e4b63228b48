"""Runs that cannot succeed: what each says is looked at by test_failures.py."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_jobs_provider.operators.jobs import (
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)


def submit(task_id: str, notebook_path: str, **kwargs: Any) -> DatabricksSubmitRunOperator:
    """Submit a notebook, deferrable unless told otherwise."""
    arguments: dict[str, Any] = {
        "existing_cluster_id": "local",
        "notebook_task": {"notebook_path": notebook_path},
        "polling_period_seconds": 0.2,
        "deferrable": True,
        **kwargs,
    }
    return DatabricksSubmitRunOperator(task_id=task_id, **arguments)


with DAG("failing", schedule=None, catchup=False):
    submit("raising_notebook", "/raising")
    submit("raising_notebook_blocking", "/raising", deferrable=False)
    submit("missing_notebook", "/not/there")
    submit("wrong_token", "/raising", databricks_conn_id="wrong_token")
    submit(
        "wrong_host",
        "/raising",
        databricks_conn_id="wrong_host",
        databricks_retry_limit=2,
        databricks_retry_delay=0.1,
    )
    DatabricksRunNowOperator(task_id="missing_job", job_id=987654321, deferrable=True)
