"""Operators that start in the triggerer."""

from __future__ import annotations

from typing import Any

from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator
from airflow_jobs_provider.operators.launch import LaunchRunOperator

__all__ = ["REQUEST", "operator"]

REQUEST: dict[str, Any] = {
    "existing_cluster_id": "c",
    "notebook_task": {"notebook_path": "/x", "base_parameters": {"day": "{{ ds }}"}},
}


def operator(
    kind: type[LaunchRunOperator] = DatabricksSubmitRunOperator, **arguments: Any
) -> LaunchRunOperator:
    """Make an operator that starts and ends in the triggerer."""
    request = REQUEST if kind is DatabricksSubmitRunOperator else {}
    given: dict[str, Any] = {
        "task_id": "etl",
        "start_from_trigger": True,
        "end_from_trigger": True,
        "polling_period_seconds": 0.05,
        "retries": 2,
        **request,
        **arguments,
    }
    return kind(**given)
