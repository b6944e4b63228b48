"""Parameters of a run: base parameters, run-now's parameters, dynamic value references."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from airflow_jobs_provider.local.engine.model import Run

__all__ = ["job_parameters_of", "list_parameters", "notebook_parameters", "parameters_of"]

_REFERENCE = re.compile(r"\{\{\s*([A-Za-z0-9_.-]+)\s*\}\}")
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


def notebook_parameters(run: Run) -> dict[str, str]:
    """Return a notebook run's parameters: run-now's merged over the job's ("NotebookTask")."""
    base: Mapping[str, str] = run.task["notebook_task"].get("base_parameters") or {}
    over: Mapping[str, str] = run.overriding_parameters.get("notebook_params") or {}
    values = _values_of(run)
    # A job's parameters come to every notebook of it, and before the notebook's own.
    of_job = {parameter["name"]: parameter["value"] for parameter in run.job_parameters}
    return {name: _filled(text, values) for name, text in {**base, **over, **of_job}.items()}


def list_parameters(run: Run, kind: str) -> list[str]:
    """Return a run's positional parameters: run-now's in place of the job's ("RunParameters")."""
    over: list[str] | None = run.overriding_parameters.get(_OVERRIDE_OF[kind])
    base: list[str] = run.task[kind].get("parameters") or []
    values = _values_of(run)
    return [_filled(text, values) for text in (base if over is None else over)]


def parameters_of(run: Run) -> Any:
    """Return the parameters of any run, in the form that its kind of task takes."""
    if "notebook_task" in run.task:
        return notebook_parameters(run)
    for kind in _OVERRIDE_OF:
        if kind in run.task:
            return list_parameters(run, kind)
    return run.overriding_parameters


def _values_of(run: Run) -> dict[str, Any]:
    """Return the values of the simple dynamic value references."""
    started = time.gmtime(run.start_time / 1000)
    return {
        "job_id": run.job_id,
        "job.id": run.job_id,
        "run_id": run.run_id,
        "task.run_id": run.run_id,
        "parent_run_id": run.parent_run_id or run.run_id,
        "job.run_id": run.parent_run_id or run.run_id,
        "job.name": run.run_name,
        "task_key": run.task_key or "",
        "task.name": run.task_key or "",
        "task_retry_count": run.attempt_number,
        "start_date": time.strftime("%Y-%m-%d", started),
        "start_time": run.start_time,
        **{f"job.parameters.{one['name']}": one["value"] for one in run.job_parameters},
    }


def _filled(text: str, values: Mapping[str, Any]) -> str:
    # An unknown reference is left as it is, so that the user sees it.
    return _REFERENCE.sub(lambda match: str(values.get(match[1], match[0])), text)
