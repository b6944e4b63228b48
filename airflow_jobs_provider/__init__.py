"""Airflow provider for the Databricks Jobs API.

Importing this package costs nothing: Airflow reads ``get_provider_info`` at every start, so nothing
but the form's plain data is imported, and that only there.
"""

from __future__ import annotations

__all__ = ["__version__", "get_provider_info"]

__version__ = "0.1.0"


def get_provider_info() -> dict[str, object]:
    """Tell Airflow what this distribution brings (the ``apache_airflow_provider`` entry point)."""
    from airflow_jobs_provider import connection_form

    return {
        "package-name": "airflow-jobs-provider",
        "name": "Databricks Jobs",
        "description": "Run Databricks jobs through the Jobs API.",
        "versions": [__version__],
        "connection-types": [
            {
                "connection-type": "databricks_jobs",
                "hook-class-name": "airflow_jobs_provider.hooks.jobs.DatabricksJobsHook",
                "hook-name": "Databricks Jobs",
                "conn-fields": connection_form.conn_fields(),
                "ui-field-behaviour": {
                    "hidden-fields": connection_form.HIDDEN_FIELDS,
                    "relabeling": connection_form.RELABELING,
                    "placeholders": connection_form.PLACEHOLDERS,
                },
            }
        ],
        "hooks": [
            {
                "integration-name": "Databricks Jobs",
                "python-modules": ["airflow_jobs_provider.hooks.jobs"],
            }
        ],
        "operators": [
            {
                "integration-name": "Databricks Jobs",
                "python-modules": ["airflow_jobs_provider.operators.jobs"],
            }
        ],
        "sensors": [
            {
                "integration-name": "Databricks Jobs",
                "python-modules": ["airflow_jobs_provider.sensors.jobs"],
            }
        ],
        "triggers": [
            {
                "integration-name": "Databricks Jobs",
                "python-modules": ["airflow_jobs_provider.triggers.jobs"],
            }
        ],
        "extra-links": ["airflow_jobs_provider.links.DatabricksJobRunLink"],
    }
