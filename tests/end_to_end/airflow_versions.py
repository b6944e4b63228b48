"""Which Airflow runs the tests: where its lines differ in what users see."""

from __future__ import annotations

from airflow import __version__ as airflow_version
from airflow.triggers.base import BaseTrigger

__all__ = ["AIRFLOW_2", "AIRFLOW_3_0", "RENDERS_IN_TRIGGERER"]

AIRFLOW_2 = airflow_version.startswith("2.")
AIRFLOW_3_0 = airflow_version.startswith("3.0.")
# Whether the triggerer renders templates, and so can launch a run: from Airflow 3.3 on.
RENDERS_IN_TRIGGERER = hasattr(BaseTrigger, "render_template_fields")
