"""Which names of the official provider are here, and which stay there."""

from __future__ import annotations

from collections.abc import Mapping

from airflow_jobs_provider.migrate.differences import name_difference
from airflow_jobs_provider.official_names import HOOK_METHODS_OUTSIDE, OFFICIAL

__all__ = [
    "HOOK_METHODS_THAT_STAY",
    "MODULES_THAT_STAY",
    "MOVED",
    "OFFICIAL",
    "reason_to_stay",
]

_OPERATORS = f"{OFFICIAL}.operators.databricks"
_OUR_HOOKS = "airflow_jobs_provider.hooks.jobs"
_OUR_OPERATORS = "airflow_jobs_provider.operators.jobs"

# Official module -> name -> the module of this package that has the name.
MOVED: Mapping[str, Mapping[str, str]] = {
    _OPERATORS: {
        "DatabricksCreateJobsOperator": _OUR_OPERATORS,
        "DatabricksRunNowOperator": _OUR_OPERATORS,
        "DatabricksSubmitRunOperator": _OUR_OPERATORS,
        "DatabricksJobRunLink": "airflow_jobs_provider.links",
    },
    f"{OFFICIAL}.hooks.databricks": {
        "DatabricksHook": _OUR_HOOKS,
        "RunLifeCycleState": _OUR_HOOKS,
        "RunState": _OUR_HOOKS,
    },
    f"{OFFICIAL}.exceptions": {"DatabricksApiError": "airflow_jobs_provider.exceptions"},
}

# Methods of the official DatabricksHook for what is outside this package. Where a file calls one,
# its hook stays the official one.
HOOK_METHODS_THAT_STAY = frozenset(HOOK_METHODS_OUTSIDE)

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
_XCOM_KEYS = {
    "XCOM_JOB_ID_KEY": "job_id",
    "XCOM_RUN_ID_KEY": "run_id",
    "XCOM_RUN_PAGE_URL_KEY": "run_page_url",
}


def reason_to_stay(name: str) -> str:
    """Return why a name stays with the official provider, or what to use here."""
    if name in _XCOM_KEYS:
        return f'write "{_XCOM_KEYS[name]}" instead'
    return name_difference(name) or "this package has no such name"
