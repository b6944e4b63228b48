"""Airflow 3.3: a trigger is told when a user acts, and the triggerer renders templates."""

from __future__ import annotations

from airflow_jobs_provider.airflow_compat.lines.airflow_3_2 import Airflow32

__all__ = ["LINE", "Airflow33"]


class Airflow33(Airflow32):
    """Airflow 3.3."""

    calls_on_kill = True
    renders_in_triggerer = True


LINE = Airflow33()
