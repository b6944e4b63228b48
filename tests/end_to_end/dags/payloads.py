"""Requests that come as text, and a DAG's params; see test_payloads.py."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator


class Produce(BaseOperator):
    """Gives a request to the next tasks."""

    def execute(self, context: Any) -> dict[str, Any]:
        """Return the request."""
        return {"existing_cluster_id": "local", "notebook_task": {"notebook_path": "/today"}}


def submit(task_id: str, json: str, **kwargs: Any) -> DatabricksSubmitRunOperator:
    """Submit what the text says."""
    return DatabricksSubmitRunOperator(
        task_id=task_id, json=json, polling_period_seconds=0.2, **kwargs
    )


with DAG("payloads", schedule=None, catchup=False, params={"day": "default", "none": None}):
    Produce(task_id="produce") >> [
        submit("python", "{{ ti.xcom_pull('produce') }}"),
        submit("as_json", "{{ ti.xcom_pull('produce') | tojson }}", deferrable=True),
        submit("file", "request.json-tpl"),
        submit("kept_back", "{{ ti.xcom_pull('produce') }}", forward_dag_params=False),
    ]
