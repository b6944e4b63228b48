"""Sensors as the tests make them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor

__all__ = ["Sense", "sensor", "tasks"]

Sense = Callable[..., Any]


def sensor(**arguments: Any) -> DatabricksJobRunSensor:
    """Make a sensor that looks often; a job's runs count for an hour."""
    if "run_id" not in arguments:
        arguments.setdefault("started_since", datetime.now(UTC) - timedelta(hours=1))
    return DatabricksJobRunSensor(task_id="wait", poke_interval=0.01, **arguments)


def tasks(*states: tuple[str, int, int, str | None]) -> list[dict[str, Any]]:
    """Make the tasks of a run: key, run id, attempt, result."""
    return [
        {
            "task_key": key,
            "run_id": run_id,
            "attempt_number": attempt,
            "state": {"life_cycle_state": "TERMINATED", "result_state": result}
            if result
            else {"life_cycle_state": "RUNNING"},
        }
        for key, run_id, attempt, result in states
    ]
