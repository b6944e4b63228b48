"""Airflow provider for the Databricks Jobs API.

Airflow calls ``get_provider_info`` at every start, so this module and what the function imports
need nothing but the standard library.
"""

from __future__ import annotations

from airflow_jobs_provider._version import __version__

__all__ = ["__version__", "get_provider_info"]


def get_provider_info() -> dict[str, object]:
    """Tell Airflow what this distribution brings (the ``apache_airflow_provider`` entry point)."""
    from airflow_jobs_provider.hooks import form

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
                "conn-fields": form.conn_fields(),
                "ui-field-behaviour": {
                    "hidden-fields": form.HIDDEN_FIELDS,
                    "relabeling": form.RELABELING,
                    "placeholders": form.PLACEHOLDERS,
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
