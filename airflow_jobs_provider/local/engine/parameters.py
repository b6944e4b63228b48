"""Parameters of a run: base parameters, run-now's parameters, dynamic value references."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from airflow_jobs_provider.local.engine.model import Run

__all__ = [
    "job_parameters_of",
    "list_parameters",
    "notebook_parameters",
    "parameters_of",
    "resolve",
]

_OVERRIDE_OF = {
    "spark_jar_task": "jar_params",
    "spark_python_task": "python_params",
    "spark_submit_task": "spark_submit_params",
}


def job_parameters_of(
    settings: Mapping[str, Any], overriding: Mapping[str, Any]
) -> list[dict[str, str]]:
    """Return the parameters of a job's run: the job's, overridden by the request's.

    The ``parameters`` of a job, and ``job_parameters``, are of versions later than 2.0.
    """
    defaults = {one["name"]: one.get("default", "") for one in settings.get("parameters") or []}
    given: Mapping[str, str] = overriding.get("job_parameters") or {}
    return [
        {
            "name": name,
            **({"default": defaults[name]} if name in defaults else {}),
            "value": given.get(name, defaults.get(name, "")),
        }
        for name in {**defaults, **given}
    ]


def resolve(run: Run, fill: Callable[[Any], Any]) -> None:
    """Set the parameters of a run that starts.

    :param run: the run of a task.
    :param fill: replaces the references in them.
    """
    run.parameters = None  # a run of one task is started again by a repair
    run.parameters = fill(parameters_of(run))


def notebook_parameters(run: Run) -> dict[str, str]:
    """Return the parameters that a notebook gets ("NotebookTask")."""
    parameters: dict[str, str] = parameters_of(run)
    return parameters


def list_parameters(run: Run) -> list[str]:
    """Return a run's positional parameters: run-now's in place of the job's ("RunParameters")."""
    parameters: list[str] = parameters_of(run)
    return parameters


def parameters_of(run: Run) -> Any:
    """Return the parameters of any run, in the form that its kind of task takes.

    Of a run that has not started they have their references still.
    """
    if run.parameters is not None:
        return run.parameters
    kind = next(iter(run.task), "")
    task: Mapping[str, Any] = run.task.get(kind) or {}
    match kind:
        case "notebook_task":
            base: Mapping[str, str] = task.get("base_parameters") or {}
            over: Mapping[str, str] = run.overriding_parameters.get("notebook_params") or {}
            # A job's parameters come to every notebook of it, and before the notebook's own.
            return {**base, **over, **_of_job(run)}
        case "spark_python_task" | "spark_jar_task" | "spark_submit_task":
            given = run.overriding_parameters.get(_OVERRIDE_OF[kind])
            return (task.get("parameters") or []) if given is None else given
        case "python_wheel_task":
            return _wheel_parameters(run, task)
        case "sql_task":
            own = task.get("parameters") or {}
            return {**own, **(run.overriding_parameters.get("sql_params") or {}), **_of_job(run)}
        case "dbt_task":
            given = run.overriding_parameters.get("dbt_commands")
            return task["commands"] if given is None else given
        case "condition_task":
            return {"left": task["left"], "right": task["right"]}
        case "for_each_task":
            return {"inputs": task["inputs"]}
        case "run_job_task":
            return {name: value for name, value in task.items() if name != "job_id"}
    return run.overriding_parameters


def _of_job(run: Run) -> dict[str, str]:
    return {parameter["name"]: parameter["value"] for parameter in run.job_parameters}


def _wheel_parameters(run: Run, task: Mapping[str, Any]) -> dict[str, str] | list[str]:
    """Return the parameters of a ``python_wheel_task``: a map of named ones, or a list."""
    over = run.overriding_parameters
    named: Mapping[str, str] = over.get("python_named_params") or {}
    if task.get("named_parameters") or named:
        own = task.get("named_parameters") or {}
        return {**own, **named, **_of_job(run)}
    positional: list[str] | None = over.get("python_params")
    return (task.get("parameters") or []) if positional is None else positional
