"""Sensors as the tests make them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor

__all__ = ["sensor"]


def sensor(**arguments: Any) -> DatabricksJobRunSensor:
    """Make a sensor that looks often; a job's runs count for an hour."""
    if "run_id" not in arguments:
        arguments.setdefault("started_since", datetime.now(UTC) - timedelta(hours=1))
    return DatabricksJobRunSensor(task_id="wait", poke_interval=0.01, **arguments)
