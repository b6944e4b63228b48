"""What the service refuses: its own checks of a request, whatever a client may have checked.

Types are checked for every field the workspace uses; of the reference's limits the ones that decide
whether a launch works. All of them are answered with 400 and a message that names the field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from airflow_jobs_provider.local.model import TASK_KINDS
from airflow_jobs_provider.local.problems import ApiProblem, invalid, malformed
from airflow_jobs_provider.local.versions import Version

__all__ = [
    "MAX_BODY_BYTES",
    "check_overriding",
    "check_settings",
    "check_token",
    "read_body",
    "read_flag",
    "read_integer",
    "required_integer",
]

MAX_BODY_BYTES = 10 * 1024 * 1024
_MAX_TOKEN_CHARS = 64
_MAX_PARAMETER_BYTES = 10_000
_MAX_NAME_BYTES = 4096
_MAX_TASKS = 100
_MAX_CONCURRENT_RUNS = 1000
_INT32, _INT64 = 2**31, 2**63
_MAP_PARAMETERS = ("notebook_params", "python_named_params", "sql_params", "job_parameters")
# Of the others the reference does not ask it.
_ASCII_PARAMETERS = ("notebook_params", "base_parameters", "python_params", "spark_submit_params")
_LIST_PARAMETERS = ("jar_params", "python_params", "spark_submit_params", "dbt_commands")
_REQUIRED_OF_TASK = {
    "notebook_task": ("notebook_path",),
    "spark_python_task": ("python_file",),
    "spark_jar_task": ("main_class_name",),
    "run_job_task": ("job_id",),
    "pipeline_task": ("pipeline_id",),
}
_TEXTS = {
    "name",
    "run_name",
    "existing_cluster_id",
    "notebook_path",
    "python_file",
    "main_class_name",
    "jar_uri",
    "pipeline_id",
    "task_key",
    "spark_version",
}
_INTEGERS = {
    "timeout_seconds",
    "max_retries",
    "min_retry_interval_millis",
    "max_concurrent_runs",
    "num_workers",
}
_FLAGS = {"retry_on_timeout"}
_OBJECTS = {*TASK_KINDS, "new_cluster", "schedule", "email_notifications", "queue"}
_ARRAYS = {"libraries", "tasks", "depends_on", "job_clusters"}


def read_body(data: bytes) -> dict[str, Any]:
    """Return the JSON object in a request's body; an empty body is an empty object."""
    if len(data) > MAX_BODY_BYTES:
        raise too_large()
    if not data.strip():
        return {}
    try:
        body = json.loads(data)
    except ValueError as error:
        raise malformed(f"Invalid JSON given in the body of the request: {error}") from None
    if not isinstance(body, dict):
        raise malformed(f"The body of the request must be a JSON object, not {_kind(body)}")
    return body


def too_large() -> ApiProblem:
    """Return the answer to a request that is larger than the API takes."""
    return malformed("The request is larger than the maximum of 10 MB")


def read_integer(data: Mapping[str, Any], name: str, *, bound: int = _INT64) -> int | None:
    """Return an integer field; as text it will do, since JSON's numbers end before INT64 does."""
    value: Any = data.get(name)
    if value is None:
        return None
    if isinstance(value, str):
        # Not more digits than fit: int() alone would take its time over a million of them.
        if not re.fullmatch(r"\s*[+-]?[0-9]{1,20}\s*", value):
            raise invalid(f"{name} must be an integer, not {value[:100]!r}")
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise malformed(
            f"Could not parse request object: {name} must be an integer, not {_kind(value)}"
        )
    if not -bound <= value < bound:
        raise invalid(f"{name} is out of range: {value}")
    return value


def required_integer(data: Mapping[str, Any], name: str) -> int:
    """Return an integer field that must be there."""
    value = read_integer(data, name)
    if value is None:
        raise invalid(f"Missing required field: {name}")
    return value


def read_flag(data: Mapping[str, Any], name: str) -> bool:
    """Return a field of a query that is true or false."""
    value = data.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    value = str(value)
    if value.lower() in {"true", "false"}:
        return bool(value.lower() == "true")
    raise invalid(f"{name} must be true or false, not {value[:100]!r}")


def check_token(data: Mapping[str, Any]) -> str | None:
    """Return the idempotency token, if there is a good one."""
    token = data.get("idempotency_token")
    if token is None:
        return None
    if not isinstance(token, str):
        raise _wrong_type("idempotency_token", "text", token)
    if len(token) > _MAX_TOKEN_CHARS:
        raise invalid(
            f"The idempotency_token must have at most {_MAX_TOKEN_CHARS} characters; "
            f"it has {len(token)}"
        )
    return token or None


def check_overriding(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that a run-now request gives (reference: "RunParameters")."""
    given = {
        name: data[name]
        for name in (*_MAP_PARAMETERS, *_LIST_PARAMETERS)
        if data.get(name) is not None
    }
    for name, value in given.items():
        _check_parameters(name, value)
    if "notebook_params" in given and "jar_params" in given:
        raise invalid("notebook_params cannot be specified in conjunction with jar_params")
    return given


def check_settings(
    settings: Mapping[str, Any], version: Version, *, where: str = "", needs_task: bool = True
) -> None:
    """Check the settings of a job or a one-time run (reference: "Create", "Runs submit").

    :param needs_task: False for the partial settings of an update.
    """
    for name, value in settings.items():
        _check_type(where + name, name, value)
    for name in ("name", "run_name"):
        if len(str(settings.get(name) or "").encode()) > _MAX_NAME_BYTES:
            raise invalid(f"{where}{name} must have at most {_MAX_NAME_BYTES} bytes in UTF-8")
    limit = settings.get("max_concurrent_runs")
    if limit is not None and not 0 <= limit <= _MAX_CONCURRENT_RUNS:
        raise invalid(f"max_concurrent_runs must be from 0 to {_MAX_CONCURRENT_RUNS}: {limit}")
    if (settings.get("timeout_seconds") or 0) < 0:
        raise invalid(f"{where}timeout_seconds must not be negative")
    if (settings.get("max_retries") or 0) < -1:
        raise invalid("max_retries must be -1 (without end), 0 (never) or more")
    if settings.get("tasks"):
        _check_tasks(settings, version)
        if needs_task:
            # An update may name some of the tasks only; they are checked again once all are known.
            _check_dependencies(settings["tasks"])
        return
    kinds = [kind for kind in TASK_KINDS if settings.get(kind) is not None]
    if len(kinds) > 1:
        raise invalid(f"Only one task may be specified; found {where}{', '.join(kinds)}")
    if not kinds:
        if needs_task:
            raise invalid(f"One of {', '.join(where + kind for kind in TASK_KINDS)} is required")
        return
    _check_task(where, kinds[0], settings[kinds[0]])
    if needs_task:
        _check_cluster(settings, version, where, kinds[0])


def _check_tasks(settings: Mapping[str, Any], version: Version) -> None:
    tasks = settings["tasks"]
    if not version.has_tasks:
        raise invalid("tasks is not known to version 2.0 of the Jobs API; use 2.1 or later")
    if len(tasks) > _MAX_TASKS:
        raise invalid(f"tasks must have at most {_MAX_TASKS} elements; it has {len(tasks)}")
    keys: list[str] = []
    for index, task in enumerate(tasks):
        if not isinstance(task, dict):
            raise _wrong_type(f"tasks[{index}]", "an object", task)
        if not task.get("task_key"):
            raise invalid(f"Missing required field: tasks[{index}].task_key")
        check_settings(task, version, where=f"tasks[{index}].")
        keys.append(task["task_key"])
    if len(set(keys)) < len(keys):
        raise invalid("tasks must have a task_key of its own each")


def _check_dependencies(tasks: list[dict[str, Any]]) -> None:
    keys = {task["task_key"] for task in tasks}
    # Each may depend on tasks that are known to end: what is left over waits in a circle.
    open_tasks = {
        task["task_key"]: {str(one.get("task_key")) for one in task.get("depends_on") or []}
        for task in tasks
    }
    while ready := [key for key, needs in open_tasks.items() if not needs & open_tasks.keys()]:
        for key in ready:
            unknown = open_tasks.pop(key) - keys
            if unknown:
                raise invalid(f"Task {key} depends_on unknown task {min(unknown)}")
    if open_tasks:
        raise invalid(f"depends_on of these tasks goes in a circle: {', '.join(open_tasks)}")


def _check_task(where: str, kind: str, task: Mapping[str, Any]) -> None:
    for name in _REQUIRED_OF_TASK.get(kind, ()):
        if task.get(name) in (None, ""):
            raise invalid(f"Missing required field: {where}{kind}.{name}")
    for name, value in task.items():
        _check_type(f"{where}{kind}.{name}", name, value)
    if kind == "run_job_task":
        read_integer({f"{where}{kind}.job_id": task["job_id"]}, f"{where}{kind}.job_id")
        return
    path = task.get("notebook_path")
    if path is not None and not path.startswith("/"):
        raise invalid(f"{where}{kind}.notebook_path must begin with a slash: {path}")
    for name in ("parameters", "base_parameters"):
        if task.get(name) is not None:
            _check_parameters(f"{where}{kind}.{name}", task[name])


def _check_cluster(settings: Mapping[str, Any], version: Version, where: str, kind: str) -> None:
    existing, new = settings.get("existing_cluster_id"), settings.get("new_cluster")
    if existing and new is not None:
        raise invalid(f"Only one of {where}existing_cluster_id and {where}new_cluster may be set")
    if new is not None and not new.get("spark_version"):
        raise invalid(f"Missing required field: {where}new_cluster.spark_version")
    if kind == "spark_submit_task" and existing:
        raise invalid("spark_submit_task can run on a new_cluster only")
    # Later versions have job clusters and compute without a cluster.
    clusterless = version.has_tasks or kind in {"pipeline_task", "run_job_task"}
    if not clusterless and not existing and new is None:
        raise invalid("One of existing_cluster_id and new_cluster is required")


def _check_parameters(name: str, value: Any) -> None:
    if name.endswith((*_MAP_PARAMETERS, "base_parameters")):
        if not isinstance(value, dict):
            raise _wrong_type(name, "a map of text to text", value)
        texts = {f"{name}.{key}": text for key, text in value.items()}
    else:
        if not isinstance(value, list):
            raise _wrong_type(name, "an array of text", value)
        texts = {f"{name}[{index}]": text for index, text in enumerate(value)}
    for place, text in texts.items():
        if not isinstance(text, str):
            raise _wrong_type(place, "text", text)
        if name.endswith(_ASCII_PARAMETERS) and not (place.isascii() and text.isascii()):
            raise invalid(f"{place} must consist of ASCII characters only")
    size = len(json.dumps({name: value}, separators=(",", ":"), ensure_ascii=False).encode())
    if size > _MAX_PARAMETER_BYTES:
        raise invalid(
            f"The JSON representation of {name} must have at most {_MAX_PARAMETER_BYTES} bytes; "
            f"it has {size}"
        )


def _check_type(place: str, name: str, value: Any) -> None:
    if value is None:
        return
    for names, kind, expected in (
        (_TEXTS, str, "text"),
        (_FLAGS, bool, "true or false"),
        (_OBJECTS, dict, "an object"),
        (_ARRAYS, list, "an array"),
    ):
        if name in names and not isinstance(value, kind):
            raise _wrong_type(place, expected, value)
    if name in _INTEGERS:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(place, "an integer", value)
        if not -_INT32 <= value < _INT32:
            raise invalid(f"{place} is out of range: {value}")


def _wrong_type(place: str, expected: str, value: Any) -> ApiProblem:
    return malformed(
        f"Could not parse request object: {place} must be {expected}, not {_kind(value)}"
    )


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", str: "text", list: "an array", dict: "an object"}
    return names.get(type(value), "a number")
