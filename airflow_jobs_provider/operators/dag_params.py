"""Forwards a DAG's ``params`` with a request, as the official provider's operators do.

A request that takes parameters and has none gets the DAG's ``params``. A param that is None is left
out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

__all__ = [
    "NOT_WITH_JOB_PARAMETERS",
    "forwardable_params",
    "parameter_maps_of",
    "with_dag_params",
]

# The parameters of a task that are a map. Positional parameters, such as those of a Python file,
# have no names.
_PARAMETER_MAPS = {
    "notebook_task": "base_parameters",
    "python_wheel_task": "named_parameters",
    "sql_task": "parameters",
    "run_job_task": "job_parameters",
}
# What excludes them.
_NOT_BESIDE = {"python_wheel_task": "parameters", "sql_task": "alert"}
# Run-now takes none of these together with job_parameters.
NOT_WITH_JOB_PARAMETERS = (
    "notebook_params",
    "python_params",
    "jar_params",
    "spark_submit_params",
    "python_named_params",
    "sql_params",
    "dbt_commands",
)


def parameter_maps_of(task: Mapping[str, Any]) -> dict[str, str]:
    """Return the kinds of a task whose parameters are a map, each with the name of the map.

    A Python wheel task takes no named parameters beside positional ones, and a SQL task that
    evaluates an alert takes none.

    :param task: the task, or a one-time run without ``tasks``.
    """
    return {
        kind: field
        for kind, field in _PARAMETER_MAPS.items()
        if isinstance(definition := task.get(kind), Mapping)
        and not definition.get(_NOT_BESIDE.get(kind, ""))
    }


def forwardable_params(operator: BaseOperator, context: Context) -> dict[str, str]:
    """Return the ``params`` of the DAG and the task as text, without those that are None.

    The values are those of the DAG run: its ``conf`` overrides the defaults if ``[core]
    dag_run_conf_overrides_params`` is set. Names that only ``conf`` has are left out: they are not
    ``params`` of the DAG.

    :param operator: the operator.
    :param context: the task's context.
    """
    executing = getattr(context.get("task"), "task_id", operator.task_id)
    if executing != operator.task_id:
        # Another operator's task executes this operator. The context has the params of that task.
        resolved = dict(operator.params)
    else:
        conf = getattr(context.get("dag_run"), "conf", None) or {}
        only_in_conf = set(conf) - set(operator.params)
        params = dict(context.get("params") or {})
        resolved = {name: value for name, value in params.items() if name not in only_in_conf}
    return {name: _as_text(value) for name, value in resolved.items() if value is not None}


def with_dag_params(
    call_name: str, request: Mapping[str, Any], params: Mapping[str, str]
) -> dict[str, Any]:
    """Return a request with these parameters, where it takes parameters and has none.

    :param call_name: ``create``, ``run-now`` or ``runs/submit``.
    :param request: the request's fields; it is not changed.
    :param params: the result of :func:`forwardable_params`.
    """
    result = dict(request)
    if not params:
        return result
    if call_name == "create":
        if not request.get("parameters"):
            result["parameters"] = [
                {"name": name, "default": value} for name, value in params.items()
            ]
    elif call_name == "run-now":
        has_others = any(request.get(name) is not None for name in NOT_WITH_JOB_PARAMETERS)
        if not has_others and not request.get("job_parameters"):
            result["job_parameters"] = dict(params)
    elif isinstance(tasks := request.get("tasks"), (list, tuple)):
        result["tasks"] = [
            _with_params_of_task(task, params) if isinstance(task, Mapping) else task
            for task in tasks
        ]
    else:
        result = _with_params_of_task(request, params)
    return result


def _with_params_of_task(task: Mapping[str, Any], params: Mapping[str, str]) -> dict[str, Any]:
    result = dict(task)
    for kind, field in parameter_maps_of(task).items():
        if not task[kind].get(field):
            result[kind] = {**task[kind], field: dict(params)}
    return result


def _as_text(value: Any) -> str:
    """Return a value as the API takes parameters: text unchanged, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
