"""Which names of the official provider are here, and which stay there."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "HOOK_METHODS_THAT_STAY",
    "MODULES_THAT_STAY",
    "MOVED",
    "NAMES_THAT_STAY",
    "OFFICIAL",
    "reason_to_stay",
]

OFFICIAL = "airflow.providers.databricks"
_HOOKS = f"{OFFICIAL}.hooks.databricks"
_OPERATORS = f"{OFFICIAL}.operators.databricks"
_WORKFLOW = f"{OFFICIAL}.operators.databricks_workflow"
_SENSORS = f"{OFFICIAL}.sensors.databricks"
_TRIGGERS = f"{OFFICIAL}.triggers.databricks"
_OUR_OPERATORS = "airflow_jobs_provider.operators.jobs"

# Official module -> name -> the module of this package that has the name.
MOVED: Mapping[str, Mapping[str, str]] = {
    _OPERATORS: {
        "DatabricksCreateJobsOperator": _OUR_OPERATORS,
        "DatabricksRunNowOperator": _OUR_OPERATORS,
        "DatabricksSubmitRunOperator": _OUR_OPERATORS,
        "DatabricksJobRunLink": "airflow_jobs_provider.links",
    },
}

# Methods of the official DatabricksHook for what is outside this package. Where a file calls one,
# its hook stays the official one.
HOOK_METHODS_THAT_STAY = frozenset(
    {
        "a_get_cluster_state",
        "a_get_sql_statement_state",
        "a_get_warehouse",
        "a_get_warehouse_state",
        "cancel_sql_statement",
        "create_repo",
        "delete_repo",
        "get_cluster_state",
        "get_repo_by_path",
        "get_sql_statement_state",
        "get_warehouse",
        "get_warehouse_state",
        "install",
        "post_sql_statement",
        "restart_cluster",
        "start_cluster",
        "start_warehouse",
        "stop_warehouse",
        "terminate_cluster",
        "uninstall",
        "update_repo",
    }
)

_SQL = "SQL is outside this package"
# Modules of which nothing is here: the reason.
MODULES_THAT_STAY: Mapping[str, str] = {
    f"{OFFICIAL}.assets.databricks": "assets of Unity Catalog are outside this package",
    f"{OFFICIAL}.hooks.databricks_sql": _SQL,
    f"{OFFICIAL}.operators.databricks_repos": "repos are outside this package",
    f"{OFFICIAL}.operators.databricks_sql": _SQL,
    f"{OFFICIAL}.operators.warehouse": _SQL,
    f"{OFFICIAL}.sensors.databricks_partition": _SQL,
    f"{OFFICIAL}.sensors.databricks_sql": _SQL,
}
# Single names that need more than another import: what to do.
NAMES_THAT_STAY: Mapping[tuple[str, str], str] = {
    (_OPERATORS, "DatabricksSQLStatementsOperator"): _SQL,
    (_SENSORS, "DatabricksSQLStatementsSensor"): _SQL,
    (_TRIGGERS, "DatabricksSQLStatementExecutionTrigger"): _SQL,
    (_TRIGGERS, "DatabricksWarehouseStateTrigger"): _SQL,
    (_TRIGGERS, "DatabricksExecutionTrigger"): (
        "airflow_jobs_provider.triggers.jobs.DatabricksJobRunTrigger has other arguments"
    ),
    (_OPERATORS, "XCOM_RUN_ID_KEY"): 'write the key "run_id"',
    (_OPERATORS, "XCOM_JOB_ID_KEY"): 'write the key "job_id"',
    (_OPERATORS, "XCOM_RUN_PAGE_URL_KEY"): 'write the key "run_page_url"',
    (_HOOKS, "ClusterState"): "clusters are outside this package",
    (_HOOKS, "SQLStatementState"): _SQL,
    (_HOOKS, "WarehouseState"): _SQL,
    (f"{OFFICIAL}.exceptions", "DatabricksApiError"): (
        "the operators here raise the exceptions of airflow_jobs_provider.api.errors"
    ),
}


def reason_to_stay(module: str, name: str) -> str:
    """Return why a name stays with the official provider."""
    return (
        MODULES_THAT_STAY.get(module)
        or NAMES_THAT_STAY.get((module, name))
        or "this package has no such name"
    )
