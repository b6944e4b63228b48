"""The hook of connections of type ``databricks``, where the official provider is not installed.

Airflow needs a hook for each connection type: for its form, and for the button *Test*. Where the
official provider is installed, its hook is the one of this type.
"""

from __future__ import annotations

from typing import Any

from airflow_jobs_provider.hooks.form import connection_form_widgets, ui_field_behaviour
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook

__all__ = ["DatabricksConnectionHook"]


class DatabricksConnectionHook(DatabricksJobsHook):
    """:class:`~airflow_jobs_provider.hooks.jobs.DatabricksJobsHook` for the type ``databricks``."""

    conn_type = "databricks"
    hook_name = "Databricks"

    # Airflow does not look for these two in a base class.
    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the fields of the connection's extra for the form (Airflow before 3.2)."""
        return connection_form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return labels and placeholders of the connection form (Airflow before 3.2)."""
        return ui_field_behaviour()
