"""The types of all fields of a job's or a run's settings.

The fields of version 2.0 come from ``reference_2_0.json``, which holds the structures of the
reference as data. What later versions add stands here. The client's own types
(:mod:`airflow_jobs_provider.api.schema`) are not used, so that each side finds the mistakes of the
other. A field that is not listed is kept as it is, as one of a later version.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
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

_REFERENCE = json.loads(Path(__file__).with_name("reference_2_0.json").read_text("utf-8"))
_STRUCTURES: Mapping[str, Mapping[str, Any]] = _REFERENCE["structures"]
# Structures of clusters and libraries take any field in each version of the Jobs API.
_WITHOUT_VERSION = {
    "ABFSSStorageInfo",
    "AutoScale",
    "AzureAttributes",
    "ClusterLogConf",
    "DbfsStorageInfo",
    "FileStorageInfo",
    "InitScriptInfo",
    "Library",
    "MavenLibrary",
    "NewCluster",
    "PythonPyPiLibrary",
    "RCranLibrary",
    "WorkspaceStorageInfo",
}
# The endpoints whose requests are settings, besides the structure JobSettings.
_SETTINGS_ENDPOINTS = ("Create", "Runs submit")
# Settings that a task has not.
_OF_THE_JOB = {"name", "run_name", "schedule", "max_concurrent_runs"}
# The fields that later versions add, and the types that the service reads other than written.
_LATER: Mapping[str, Mapping[str, str]] = {
    "Settings": {
        "condition_task": "ConditionTask",
        "for_each_task": "ForEachTask",
        "dbt_task": "DbtTask",
        "python_wheel_task": "PythonWheelTask",
        "sql_task": "SqlTask",
        "queue": "QueueSettings",
        "tasks": "[Task]",
        "job_clusters": "[JobCluster]",
        "parameters": "[JobParameter]",
        "environments": "[JobEnvironment]",
        "git_source": "GitSource",
        "tags": "texts",
    },
    "Task": {
        "condition_task": "ConditionTask",
        "for_each_task": "ForEachTask",
        "dbt_task": "DbtTask",
        "python_wheel_task": "PythonWheelTask",
        "sql_task": "SqlTask",
        "task_key": "text",
        "depends_on": "[TaskDependency]",
        "run_if": "text",
        "job_cluster_key": "text",
        "environment_key": "text",
    },
    "TaskDependency": {"task_key": "text", "outcome": "text"},
    "JobCluster": {"job_cluster_key": "text", "new_cluster": "NewCluster"},
    "JobParameter": {"name": "text", "default": "text"},
    "JobEnvironment": {"environment_key": "text", "spec": "Environment"},
    "Environment": {
        "client": "text",
        "environment_version": "text",
        "dependencies": "[text]",
        "java_dependencies": "[text]",
    },
    "GitSource": {
        "git_url": "text",
        "git_provider": "text",
        "git_branch": "text",
        "git_tag": "text",
        "git_commit": "text",
    },
    "QueueSettings": {"enabled": "flag"},
    "ConditionTask": {"op": "ConditionOperator", "left": "text", "right": "text"},
    "ForEachTask": {"task": "Task", "inputs": "text", "concurrency": "int32"},
    "DbtTask": {
        "commands": "[text]",
        "source": "text",
        "project_directory": "text",
        "profiles_directory": "text",
        "warehouse_id": "text",
        "catalog": "text",
        "schema": "text",
    },
    "PythonWheelTask": {
        "package_name": "text",
        "entry_point": "text",
        "parameters": "[text]",
        "named_parameters": "texts",
    },
    "SqlTask": {
        "warehouse_id": "text",
        "parameters": "texts",
        "file": "SqlTaskFile",
        "query": "SqlTaskQuery",
    },
    "SqlTaskFile": {"path": "text", "source": "text"},
    "SqlTaskQuery": {"query_id": "text"},
    "NotebookTask": {"source": "text"},
    "SparkPythonTask": {"source": "text"},
    "RunJobTask": {"job_parameters": "texts"},
    "NewCluster": {"policy_id": "text", "azure_attributes": "AzureAttributes"},
    "InitScriptInfo": {"file": "FileStorageInfo"},
}
_READ_OTHERWISE: Mapping[str, Mapping[str, str]] = {
    "RunJobTask": {"job_id": "INT64"},
    "JobsHealthRule": {"value": "INT64", "operator": "HealthOperator"},
    "CronSchedule": {"pause_status": "PauseStatus"},
}
# Required besides what the reference calls required.
_REQUIRED_TOO = {
    "TaskDependency": ["task_key"],
    "JobCluster": ["job_cluster_key"],
    "JobParameter": ["name"],
    "JobEnvironment": ["environment_key"],
    "ConditionTask": ["op", "left", "right"],
    "ForEachTask": ["task", "inputs"],
    "DbtTask": ["commands"],
    "GitSource": ["git_url", "git_provider"],
    "PythonWheelTask": ["package_name", "entry_point"],
    "SqlTask": ["warehouse_id"],
    "SqlTaskFile": ["path"],
    "SqlTaskQuery": ["query_id"],
    # The reference does not say so of these; without them there is nothing to run or to write to.
    "SparkJarTask": ["main_class_name"],
    "PipelineTask": ["pipeline_id"],
    "ABFSSStorageInfo": ["destination"],
    "DbfsStorageInfo": ["destination"],
    "FileStorageInfo": ["destination"],
    "WorkspaceStorageInfo": ["destination"],
}
_VALUES = {
    "AzureAvailability": tuple(_STRUCTURES["AzureAvailability"]["values"]),
    "ConditionOperator": (
        "EQUAL_TO",
        "NOT_EQUAL",
        "GREATER_THAN",
        "GREATER_THAN_OR_EQUAL",
        "LESS_THAN",
        "LESS_THAN_OR_EQUAL",
    ),
    "HealthOperator": ("GREATER_THAN",),
    "PauseStatus": ("PAUSED", "UNPAUSED"),
}


def _settings() -> dict[str, str]:
    """Return the fields of a job's or a one-time run's settings in version 2.0."""
    fields = dict(_STRUCTURES["JobSettings"]["fields"])
    for endpoint in _SETTINGS_ENDPOINTS:
        fields |= _REFERENCE["endpoints"][endpoint]["request"]
    return fields


def _kind(name: str) -> str:
    """Return the kind of a type of the reference: plain, a structure, or an array in brackets."""
    array_of = name.removeprefix("array of ")
    if array_of != name:
        return f"[{_kind(array_of)}]"
    if name == "SparkConfPair":
        return "scalars"
    if name.startswith("map of ") or "map" in _STRUCTURES.get(name, {}):
        return "texts"
    plain = {"STRING": "text", "BOOL": "flag", "INT32": "int32", "INT64": "int64"}
    return {**plain, "DOUBLE": "double"}.get(name, name)


_IN_2_0: Mapping[str, Mapping[str, str]] = {
    "Settings": _settings(),
    **{name: one["fields"] for name, one in _STRUCTURES.items() if "fields" in one},
}


def _fields(structure: str) -> dict[str, str]:
    """Return the kinds of a structure's fields, in all versions."""
    fields = {**_IN_2_0.get(structure, {}), **_READ_OTHERWISE.get(structure, {})}
    if structure == "Task":
        fields = {k: v for k, v in _IN_2_0["Settings"].items() if k not in _OF_THE_JOB}
    fields.pop("idempotency_token", None)  # It is read where tokens are.
    return {name: _kind(kind) for name, kind in fields.items()} | dict(_LATER.get(structure, {}))


# A structure's fields: a plain type, another structure, or an array of either in brackets.
_FIELDS: Mapping[str, Mapping[str, str]] = {
    structure: _fields(structure) for structure in (*_IN_2_0, *_LATER)
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


def refuse_later_fields(
    value: Mapping[str, Any], structure: str = "Settings", where: str = ""
) -> None:
    """Refuse the fields that version 2.0 does not take, at any depth."""
    known = None if structure in _WITHOUT_VERSION else _IN_2_0.get(structure)
    types = _FIELDS[structure]
    for name, given in value.items():
        if given is None:
            continue
        if known is not None and name not in known:
            raise later_field(at(where, name))
        kind = types.get(name, "").strip("[]")
        if kind in _FIELDS:
            for index, one in enumerate(given if isinstance(given, list) else [given]):
                if isinstance(one, dict):
                    number = f"[{index}]" if isinstance(given, list) else ""
                    refuse_later_fields(one, kind, at(where, name) + number)


def read_structure(value: Any, structure: str, where: str = "") -> dict[str, Any]:
    """Return a structure with its fields read: numbers and flags as such, null as absent."""
    if not isinstance(value, dict):
        raise wrong_type(where or "the request", "an object", value)
    types = _FIELDS[structure]
    read = {
        name: _read(given, types[name], at(where, name)) if name in types else given
        for name, given in value.items()
        if given is not None
    }
    for name in _required(structure):
        # An empty path is told by the check of paths.
        if name not in read or (read[name] == "" and name != "notebook_path"):
            raise invalid(f"Missing required field: {at(where, name)}")
    return read


def _required(structure: str) -> list[str]:
    required = [
        *_STRUCTURES.get(structure, {}).get("required", ()),
        *_REQUIRED_TOO.get(structure, ()),
    ]
    # Not where a cluster policy or a pool sets it.
    return [name for name in required if name != "spark_version"]


def _read(value: Any, kind: str, where: str) -> Any:
    if kind.startswith("["):
        if not isinstance(value, list):
            raise wrong_type(where, "an array", value)
        return [_read(one, kind[1:-1], f"{where}[{index}]") for index, one in enumerate(value)]
    if kind in _FIELDS:
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
