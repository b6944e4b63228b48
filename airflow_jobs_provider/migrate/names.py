"""Which names of the official provider are here, and which stay there."""

from __future__ import annotations

from collections.abc import Mapping

from airflow_jobs_provider.migrate.differences import name_difference
from airflow_jobs_provider.official_names import OFFICIAL

__all__ = [
    "MODULES_THAT_STAY",
    "MOVED",
    "OFFICIAL",
    "reason_to_stay",
]


# Official module -> name -> the module of this package that has the name.
MOVED: Mapping[str, Mapping[str, str]] = {
    f"{OFFICIAL}.operators.databricks": dict.fromkeys(
        (
            "DatabricksCreateJobsOperator",
            "DatabricksJobRunLink",
            "DatabricksNotebookOperator",
            "DatabricksRunNowOperator",
            "DatabricksSubmitRunOperator",
            "DatabricksTaskOperator",
            "XCOM_JOB_ID_KEY",
            "XCOM_RUN_ID_KEY",
            "XCOM_RUN_PAGE_URL_KEY",
        ),
        "airflow_jobs_provider.operators.jobs",
    ),
    f"{OFFICIAL}.operators.databricks_workflow": {
        "DatabricksWorkflowTaskGroup": "airflow_jobs_provider.operators.jobs"
    },
    f"{OFFICIAL}.exceptions": {"DatabricksApiError": "airflow_jobs_provider.exceptions"},
    f"{OFFICIAL}.hooks.databricks": dict.fromkeys(
        ("DatabricksHook", "RunLifeCycleState", "RunState"), "airflow_jobs_provider.hooks.jobs"
    ),
}

# Modules of which nothing is here.
MODULES_THAT_STAY = frozenset(
    f"{OFFICIAL}.{name}"
    for name in (
        "assets.databricks",
        "hooks.databricks_base",
        "hooks.databricks_sql",
        "operators.databricks_repos",
        "operators.databricks_sql",
        "operators.warehouse",
        "plugins.databricks_workflow",
        "sensors.databricks",
        "sensors.databricks_partition",
        "sensors.databricks_sql",
        "triggers.databricks",
    )
)


def reason_to_stay(name: str) -> str:
    """Return why a name stays with the official provider, or what to use here."""
    return (
        name_difference(name)
        or "an internal name of the official provider. Do not move a class that needs it"
    )
