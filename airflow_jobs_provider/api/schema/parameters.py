"""Parameters, tags and the like as the API takes them: as text.

Users write numbers and booleans; the API refuses them ("ParamPair", "RunParameters", "ClusterTag",
"SparkEnvPair": text only).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["stringify_parameters"]

_OF_TEXT = frozenset(
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
# What may hold such fields, as single objects and as lists of objects; and each ``..._task``.
_HOLDERS = frozenset({"task", "new_cluster", "tasks", "job_clusters"})


def stringify_parameters(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request or job settings with numbers and booleans as text, where only text is taken.

    That is in parameters, tags, Spark configuration and environment variables, at the top, in each
    task, also that of a for-each task, and in each cluster. A boolean becomes ``true`` or
    ``false``, as in JSON; in Spark configuration it stays one, as in the reference's own example.
    All else stays as it is.
    """
    result: dict[str, Any] = {}
    for name, value in request.items():
        if name in _OF_TEXT:
            result[name] = _as_text(value)
        elif name == "spark_conf" and isinstance(value, Mapping):
            result[name] = {
                key: item if isinstance(item, bool) else _as_text(item)
                for key, item in value.items()
            }
        elif isinstance(value, (Mapping, list, tuple)) and (
            name in _HOLDERS or str(name).endswith("_task")
        ):
            result[name] = _holder_as_text(value)
        else:
            result[name] = value
    return result


def _holder_as_text(value: Any) -> Any:
    if isinstance(value, Mapping):
        return stringify_parameters(value)
    if isinstance(value, (list, tuple)):
        return [_holder_as_text(item) for item in value]
    return value


def _as_text(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {name: _as_text(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_text(item) for item in value]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    return value
