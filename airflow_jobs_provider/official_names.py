"""Names of the official provider that are outside this package, and where they stay.

Whoever changes the import line of such a name is told so by the ImportError.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["HOOK_METHODS_OUTSIDE", "NAMES_OUTSIDE", "OFFICIAL", "missing_method", "missing_name"]

OFFICIAL = "airflow.providers.databricks"
_CLUSTERS, _LIBRARIES, _REPOS = "clusters", "libraries", "repos"
_SQL, _WAREHOUSES = "SQL", "SQL warehouses"

# Name -> what it is for, and the official module below OFFICIAL.
NAMES_OUTSIDE: Mapping[str, tuple[str, str]] = {
    "ClusterState": (_CLUSTERS, "hooks.databricks"),
    "DatabricksCopyIntoAssetOperator": (_SQL, "operators.databricks_sql"),
    "DatabricksCopyIntoOperator": (_SQL, "operators.databricks_sql"),
    "DatabricksPartitionSensor": (_SQL, "sensors.databricks_partition"),
    "DatabricksReposCreateOperator": (_REPOS, "operators.databricks_repos"),
    "DatabricksReposDeleteOperator": (_REPOS, "operators.databricks_repos"),
    "DatabricksReposUpdateOperator": (_REPOS, "operators.databricks_repos"),
    "DatabricksSQLStatementExecutionTrigger": (_SQL, "triggers.databricks"),
    "DatabricksSQLStatementsMixin": (_SQL, "utils.mixins"),
    "DatabricksSQLStatementsOperator": (_SQL, "operators.databricks"),
    "DatabricksSQLStatementsSensor": (_SQL, "sensors.databricks"),
    "DatabricksSqlExecutionError": (_SQL, "exceptions"),
    "DatabricksSqlExecutionTimeout": (_SQL, "exceptions"),
    "DatabricksSqlHook": (_SQL, "hooks.databricks_sql"),
    "DatabricksSqlOperator": (_SQL, "operators.databricks_sql"),
    "DatabricksSqlSensor": (_SQL, "sensors.databricks_sql"),
    "DatabricksStartWarehouseOperator": (_WAREHOUSES, "operators.warehouse"),
    "DatabricksStopWarehouseOperator": (_WAREHOUSES, "operators.warehouse"),
    "DatabricksWarehouseError": (_WAREHOUSES, "exceptions"),
    "DatabricksWarehouseStateTrigger": (_WAREHOUSES, "triggers.databricks"),
    "SQLStatementState": (_SQL, "hooks.databricks"),
    "WarehouseState": (_WAREHOUSES, "hooks.databricks"),
}
# Method of the official DatabricksHook -> what it is for.
HOOK_METHODS_OUTSIDE: Mapping[str, str] = {
    "a_get_cluster_state": _CLUSTERS,
    "a_get_sql_statement_state": _SQL,
    "a_get_warehouse": _WAREHOUSES,
    "a_get_warehouse_state": _WAREHOUSES,
    "cancel_sql_statement": _SQL,
    "create_repo": _REPOS,
    "delete_repo": _REPOS,
    "get_cluster_state": _CLUSTERS,
    "get_openlineage_database_dialect": _SQL,
    "get_openlineage_database_info": _SQL,
    "get_openlineage_default_schema": _SQL,
    "get_repo_by_path": _REPOS,
    "get_sql_statement_state": _SQL,
    "get_warehouse": _WAREHOUSES,
    "get_warehouse_state": _WAREHOUSES,
    "install": _LIBRARIES,
    "post_sql_statement": _SQL,
    "restart_cluster": _CLUSTERS,
    "start_cluster": _CLUSTERS,
    "start_warehouse": _WAREHOUSES,
    "stop_warehouse": _WAREHOUSES,
    "terminate_cluster": _CLUSTERS,
    "uninstall": _LIBRARIES,
    "update_repo": _REPOS,
}


def missing_name(module: str, name: str) -> Exception:
    """Return what a module's ``__getattr__`` raises for a name that it does not have.

    For a name of the official provider it is an ImportError, since ``from module import name``
    shows its message. It would replace an AttributeError by one of its own.

    :param module: the module.
    :param name: the name.
    """
    if name not in NAMES_OUTSIDE:
        return AttributeError(f"module {module!r} has no attribute {name!r}", name=name)
    concern, official = NAMES_OUTSIDE[name]
    return ImportError(
        f"{name} is for {concern}, and this package is for jobs only: import it from "
        f"{OFFICIAL}.{official}",
        name=module,
    )


def missing_method(name: str) -> AttributeError | None:
    """Return what the hook raises for a method of the official hook; None for any other name.

    :param name: the name.
    """
    if name not in HOOK_METHODS_OUTSIDE:
        return None
    return AttributeError(
        f"{name} is for {HOOK_METHODS_OUTSIDE[name]}, and this hook is for jobs only: call it on "
        f"{OFFICIAL}.hooks.databricks.DatabricksHook",
        name=name,
    )
