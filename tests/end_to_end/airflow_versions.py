"""Which Airflow runs the tests: where its lines differ in what users see."""

from __future__ import annotations

from airflow import __version__ as airflow_version

__all__ = ["AIRFLOW_2", "AIRFLOW_3_0"]

AIRFLOW_2 = airflow_version.startswith("2.")
AIRFLOW_3_0 = airflow_version.startswith("3.0.")
