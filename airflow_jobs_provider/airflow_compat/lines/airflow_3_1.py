"""Airflow 3.1 and 3.2."""

from __future__ import annotations

from airflow_jobs_provider.airflow_compat.lines.airflow_3_0 import Airflow30

__all__ = ["LINE", "Airflow31"]


class Airflow31(Airflow30):
    """Airflow 3.1: tasks may be ended by their triggers."""

    completion_fault = None


LINE = Airflow31()
