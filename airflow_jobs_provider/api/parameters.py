"""A run's parameters as the API takes them: as text.

Users write numbers and booleans; the API refuses them ("ParamPair", "RunParameters": text only).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["parameters_as_text"]

_PARAMETER_FIELDS = frozenset(
    {
        "notebook_params",
        "jar_params",
        "python_params",
        "spark_submit_params",
        "python_named_params",
        "job_parameters",
        "base_parameters",
        "named_parameters",
        "parameters",
    }
)


def parameters_as_text(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request or job settings with the numbers and booleans in its parameters as text.

    Parameters are looked for at the top, in each ``..._task``, and in each of ``tasks``. A boolean
    becomes ``true`` or ``false``, as in JSON. All else stays as it is.
    """
    result: dict[str, Any] = {}
    for name, value in request.items():
        if name in _PARAMETER_FIELDS:
            result[name] = _as_text(value)
        elif str(name).endswith("_task") and isinstance(value, Mapping):
            result[name] = parameters_as_text(value)
        elif name == "tasks" and isinstance(value, list):
            result[name] = [
                parameters_as_text(task) if isinstance(task, Mapping) else task for task in value
            ]
        else:
            result[name] = value
    return result


def _as_text(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _as_text(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_text(item) for item in value]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    return value
