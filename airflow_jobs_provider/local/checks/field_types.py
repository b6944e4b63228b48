"""The types of all fields of a job's or a run's settings, as the service reads them.

A table of its own, not the client's: the two are to find each other's mistakes. A field that is not
listed is kept as it is, as one of a later version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from airflow_jobs_provider.local.checks.request_fields import (
    INT32,
    INT64,
    as_flag,
    as_integer,
    wrong_type,
)
from airflow_jobs_provider.local.errors import ApiError, invalid

__all__ = ["at", "later_field", "read_structure", "refuse_later_fields", "text_bytes"]

_CLUSTER = {"existing_cluster_id": "text", "new_cluster": "NewCluster", "libraries": "[Library]"}
_TASKS = {
    "notebook_task": "NotebookTask",
    "spark_jar_task": "SparkJarTask",
    "spark_python_task": "SparkPythonTask",
    "spark_submit_task": "SparkSubmitTask",
    "pipeline_task": "PipelineTask",
    "run_job_task": "RunJobTask",
    "for_each_task": "ForEachTask",
}
_COMMON = {
    **_CLUSTER,
    **_TASKS,
    "timeout_seconds": "int32",
    "max_retries": "int32",
    "min_retry_interval_millis": "int32",
    "retry_on_timeout": "flag",
    "email_notifications": "JobEmailNotifications",
    "webhook_notifications": "WebhookNotifications",
    "notification_settings": "JobNotificationSettings",
    "health": "JobsHealthRules",
}
_EVENTS = ("on_start", "on_success", "on_failure", "on_duration_warning_threshold_exceeded")
_PLACE = {"destination": "text"}
# A structure's fields: a plain type, another structure, or an array of either in brackets.
_SHAPES: Mapping[str, Mapping[str, str]] = {
    "Settings": {
        **_COMMON,
        "name": "text",
        "run_name": "text",
        "schedule": "CronSchedule",
        "max_concurrent_runs": "int32",
        "queue": "QueueSettings",
        "tasks": "[Task]",
        "job_clusters": "[JobCluster]",
        "parameters": "[JobParameter]",
        "git_source": "object",
        "tags": "texts",
    },
    "Task": {
        **_COMMON,
        "task_key": "text",
        "depends_on": "[TaskDependency]",
        "run_if": "text",
        "job_cluster_key": "text",
        "environment_key": "text",
    },
    "TaskDependency": {"task_key": "text", "outcome": "text"},
    "JobCluster": {"job_cluster_key": "text", "new_cluster": "NewCluster"},
    "JobParameter": {"name": "text", "default": "text"},
    "QueueSettings": {"enabled": "flag"},
    "NotebookTask": {
        "notebook_path": "text",
        "revision_timestamp": "int64",
        "base_parameters": "texts",
        "source": "text",
    },
    "SparkJarTask": {"jar_uri": "text", "main_class_name": "text", "parameters": "[text]"},
    "SparkPythonTask": {"python_file": "text", "parameters": "[text]", "source": "text"},
    "SparkSubmitTask": {"parameters": "[text]"},
    "PipelineTask": {"pipeline_id": "text"},
    "RunJobTask": {"job_id": "int64", "job_parameters": "texts"},
    "ForEachTask": {"task": "Task"},
    "NewCluster": {
        "num_workers": "int32",
        "autoscale": "AutoScale",
        "spark_version": "text",
        "spark_conf": "scalars",
        "node_type_id": "text",
        "driver_node_type_id": "text",
        "custom_tags": "texts",
        "cluster_log_conf": "ClusterLogConf",
        "init_scripts": "[InitScriptInfo]",
        "spark_env_vars": "texts",
        "enable_elastic_disk": "flag",
        "driver_instance_pool_id": "text",
        "instance_pool_id": "text",
        "azure_attributes": "AzureAttributes",
        "policy_id": "text",
    },
    "AutoScale": {"min_workers": "int32", "max_workers": "int32"},
    "AzureAttributes": {
        "first_on_demand": "int32",
        "availability": "AzureAvailability",
        "spot_bid_max_price": "double",
    },
    "ClusterLogConf": {"dbfs": "Place"},
    "InitScriptInfo": {"workspace": "Place", "dbfs": "Place", "abfss": "Place", "file": "Place"},
    "Place": _PLACE,
    "Library": {
        "jar": "text",
        "egg": "text",
        "whl": "text",
        "pypi": "PackageLibrary",
        "maven": "MavenLibrary",
        "cran": "PackageLibrary",
    },
    "PackageLibrary": {"package": "text", "repo": "text"},
    "MavenLibrary": {"coordinates": "text", "repo": "text", "exclusions": "[text]"},
    "JobEmailNotifications": {
        **dict.fromkeys(_EVENTS, "[text]"),
        "no_alert_for_skipped_runs": "flag",
    },
    "WebhookNotifications": dict.fromkeys(_EVENTS, "[Webhook]"),
    "Webhook": {"id": "text"},
    "JobNotificationSettings": {
        "no_alert_for_skipped_runs": "flag",
        "no_alert_for_canceled_runs": "flag",
        "alert_on_last_attempt": "flag",
    },
    "JobsHealthRules": {"rules": "[JobsHealthRule]"},
    "JobsHealthRule": {"metric": "text", "operator": "HealthOperator", "value": "int64"},
    "CronSchedule": {
        "quartz_cron_expression": "text",
        "timezone_id": "text",
        "pause_status": "PauseStatus",
    },
}
# What the reference of 2.0 lists. Structures that are not here belong to clusters and libraries,
# whatever the version of the Jobs API.
_IN_2_0: Mapping[str, frozenset[str]] = {
    "Settings": frozenset(
        {
            *_CLUSTER,
            *(kind for kind in _TASKS if kind != "for_each_task"),
            "name",
            "run_name",
            "webhook_notifications",
            "notification_settings",
            "timeout_seconds",
            "idempotency_token",
            "max_retries",
            "min_retry_interval_millis",
            "retry_on_timeout",
            "email_notifications",
            "schedule",
            "max_concurrent_runs",
            "health",
        }
    ),
    "NotebookTask": frozenset({"notebook_path", "revision_timestamp", "base_parameters"}),
    "SparkJarTask": frozenset({"jar_uri", "main_class_name", "parameters"}),
    "SparkPythonTask": frozenset({"python_file", "parameters"}),
    "SparkSubmitTask": frozenset({"parameters"}),
    "PipelineTask": frozenset({"pipeline_id"}),
    "RunJobTask": frozenset({"job_id"}),
    **{
        name: frozenset(_SHAPES[name])
        for name in (
            "JobEmailNotifications",
            "WebhookNotifications",
            "Webhook",
            "JobNotificationSettings",
            "JobsHealthRules",
            "JobsHealthRule",
            "CronSchedule",
        )
    },
}
# What is nothing without these fields.
_REQUIRED = {
    "TaskDependency": ("task_key",),
    "JobCluster": ("job_cluster_key",),
    "JobParameter": ("name",),
    "NotebookTask": ("notebook_path",),
    "SparkPythonTask": ("python_file",),
    # The reference does not say so of these two; without them there is nothing to run.
    "SparkJarTask": ("main_class_name",),
    "PipelineTask": ("pipeline_id",),
    "RunJobTask": ("job_id",),
    "ForEachTask": ("task",),
    "Place": ("destination",),
    "PackageLibrary": ("package",),
    "MavenLibrary": ("coordinates",),
    "Webhook": ("id",),
    "CronSchedule": ("quartz_cron_expression", "timezone_id"),
}
_VALUES = {
    "AzureAvailability": ("SPOT_AZURE", "ON_DEMAND_AZURE", "SPOT_WITH_FALLBACK_AZURE"),
    "HealthOperator": ("GREATER_THAN",),
    "PauseStatus": ("PAUSED", "UNPAUSED"),
}


def at(where: str, name: str) -> str:
    """Write the path of a field."""
    return f"{where}.{name}" if where else name


def text_bytes(text: str) -> int:
    """Return the size of a text in UTF-8, also of one that UTF-8 cannot hold."""
    return len(text.encode(errors="surrogatepass"))


def later_field(where: str) -> ApiError:
    """Return the answer to a field that version 2.0 does not take."""
    return invalid(f"{where} is not supported in version 2.0 of the Jobs API; use 2.1 or later")


def refuse_later_fields(value: Mapping[str, Any], shape: str = "Settings", where: str = "") -> None:
    """Refuse the fields that version 2.0 does not take, at any depth."""
    known, types = _IN_2_0.get(shape), _SHAPES[shape]
    for name, given in value.items():
        if given is None:
            continue
        if known is not None and name not in known:
            raise later_field(at(where, name))
        kind = types.get(name, "").strip("[]")
        if kind in _SHAPES:
            for index, one in enumerate(given if isinstance(given, list) else [given]):
                if isinstance(one, dict):
                    number = f"[{index}]" if isinstance(given, list) else ""
                    refuse_later_fields(one, kind, at(where, name) + number)


def read_structure(value: Any, shape: str, where: str = "") -> dict[str, Any]:
    """Return a structure with its fields read: numbers and flags as such, null as absent."""
    if not isinstance(value, dict):
        raise wrong_type(where or "the request", "an object", value)
    types = _SHAPES[shape]
    read = {
        name: _read(given, types[name], at(where, name)) if name in types else given
        for name, given in value.items()
        if given is not None
    }
    for name in _REQUIRED.get(shape, ()):
        # An empty path is told by the check of paths.
        if name not in read or (read[name] == "" and name != "notebook_path"):
            raise invalid(f"Missing required field: {at(where, name)}")
    return read


def _read(value: Any, kind: str, where: str) -> Any:
    if kind.startswith("["):
        if not isinstance(value, list):
            raise wrong_type(where, "an array", value)
        return [_read(one, kind[1:-1], f"{where}[{index}]") for index, one in enumerate(value)]
    if kind in _SHAPES:
        return read_structure(value, kind, where)
    if kind in _VALUES:
        if value not in _VALUES[kind]:
            raise invalid(f"{where} must be {' or '.join(_VALUES[kind])}")
        return value
    return _PLAIN[kind](value, where)


def _read_text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise wrong_type(where, "text", value)
    return value


def _read_number(value: Any, where: str) -> float:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise invalid(f"{where} must be a number") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong_type(where, "a number", value)
    return value


def _read_object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong_type(where, "an object", value)
    return value


def _read_texts(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise wrong_type(where, "a map of text to text", value)
    return {key: _read_text(one, at(where, key)) for key, one in value.items()}


def _read_scalars(value: Any, where: str) -> dict[str, Any]:
    # The reference says text, and has a number and a boolean in its own example.
    for key, one in _read_object(value, where).items():
        if not isinstance(one, (str, int, float)):
            raise wrong_type(at(where, key), "text", one)
    return dict(value)


_PLAIN: Mapping[str, Callable[[Any, str], Any]] = {
    "text": _read_text,
    "int32": lambda value, where: as_integer(value, where, INT32),
    "int64": lambda value, where: as_integer(value, where, INT64),
    "double": _read_number,
    "flag": as_flag,
    "object": _read_object,
    "texts": _read_texts,
    "scalars": _read_scalars,
}
