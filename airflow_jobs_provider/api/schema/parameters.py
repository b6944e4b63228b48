"""Converts numbers and booleans in parameters, tags and environment variables to text.

The API takes only text there (reference: "ParamPair", "RunParameters", "ClusterTag",
"SparkEnvPair").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["stringify_parameters"]

_TEXT_FIELDS = frozenset(
    {
        "notebook_params",
        "jar_params",
        "python_params",
        "spark_submit_params",
        "python_named_params",
        "sql_params",
        "job_parameters",
        "base_parameters",
        "named_parameters",
        "parameters",
        "tags",
        "custom_tags",
        "spark_env_vars",
    }
)
# Fields that contain such fields, as an object or a list of objects; likewise each ``..._task``.
_CONTAINERS = frozenset({"task", "new_cluster", "tasks", "job_clusters"})


def stringify_parameters(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request with numbers and booleans as text where the API takes only text.

    That is in parameters, tags, Spark configuration and environment variables: at the top, in each
    task (also that of a for-each task) and in each cluster. A boolean becomes ``true`` or
    ``false``. In Spark configuration it stays a boolean, as in the reference's example.

    :param request: the request, or the settings of a job; it is not changed.
    """
    result: dict[str, Any] = {}
    for name, value in request.items():
        if name in _TEXT_FIELDS:
            result[name] = _stringify(value)
        elif name == "spark_conf" and isinstance(value, Mapping):
            result[name] = {
                key: item if isinstance(item, bool) else _stringify(item)
                for key, item in value.items()
            }
        elif isinstance(value, (Mapping, list, tuple)) and (
            name in _CONTAINERS or str(name).endswith("_task")
        ):
            result[name] = _stringify_container(value)
        else:
            result[name] = value
    return result


def _stringify_container(value: Any) -> Any:
    if isinstance(value, Mapping):
        return stringify_parameters(value)
    if isinstance(value, (list, tuple)):
        return [_stringify_container(item) for item in value]
    return value


def _stringify(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {name: _stringify(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_stringify(item) for item in value]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    return value
