"""The parameters that a task gets from the run of its job, for a task that runs alone.

The service passes them to the tasks of a job's run by itself. A task that is submitted alone, as a
one-time run, has no job. So they are written into its definition:

* the parameters of ``run-now`` replace those of the tasks of their kind;
* the job's ``parameters`` go to each task that takes parameters by name, and take precedence over
  its own;
* ``{{job.parameters.<name>}}`` in any text becomes the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["with_run_parameters"]

_REFERENCE = re.compile(r"\{\{\s*job\.parameters\.([A-Za-z0-9_.-]+)\s*\}\}")
# Where a task takes positional parameters of run-now.
_POSITIONAL = {
    "jar_params": ("spark_jar_task",),
    "python_params": ("spark_python_task", "python_wheel_task"),
    "spark_submit_params": ("spark_submit_task",),
}
# Where a task takes parameters by name.
_BY_NAME = {
    "notebook_task": "base_parameters",
    "python_wheel_task": "named_parameters",
    "run_job_task": "job_parameters",
    "sql_task": "parameters",
}


def with_run_parameters(
    task: Mapping[str, Any],
    job_parameters: Iterable[Mapping[str, Any]] = (),
    **positional: Any,
) -> dict[str, Any]:
    """Return a task with the parameters that the run of its job would give it.

    :param task: the task as the job defines it.
    :param job_parameters: the job's ``parameters``, each with ``name`` and ``default``.
    :param positional: ``jar_params``, ``python_params`` and ``spark_submit_params`` of the run;
        None, or without items, for those that are not given.
    """
    made = dict(task)
    if nested := (made.get("for_each_task") or {}).get("task"):
        nested = with_run_parameters(nested, job_parameters, **positional)
        made["for_each_task"] = {**made["for_each_task"], "task": nested}
    for name, given in positional.items():
        for kind in _POSITIONAL[name]:
            if given and kind in made and not made[kind].get("named_parameters"):
                made[kind] = {**made[kind], "parameters": list(given)}
    values = {str(one["name"]): one.get("default", "") for one in job_parameters}
    if not values:
        return made
    for kind, field in _BY_NAME.items():
        own = (made.get(kind) or {}).get(field)
        # A wheel may take positional parameters in place of named ones.
        if kind in made and (own or kind != "python_wheel_task"):
            made[kind] = {**made[kind], field: {**(own or {}), **values}}
    filled: dict[str, Any] = _filled(made, values)
    return filled


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    """Replace references to job parameters in all texts; unknown ones are left as they are."""
    if isinstance(value, str):
        return _REFERENCE.sub(lambda match: str(values.get(match[1], match[0])), value)
    if isinstance(value, Mapping):
        return {name: _filled(one, values) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_filled(one, values) for one in value]
    return value
