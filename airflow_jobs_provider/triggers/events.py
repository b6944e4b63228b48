"""The payload of a trigger's event.

``{"run": {...}}`` has the ended run's ids, state, page and tasks; ``"timed_out"`` beside it names
the time limit after which the trigger stopped waiting. Where the run cannot be read it is
``{"run_id": ..., "error": "..."}``, with ``"is_final": True`` where a retry cannot help.

A payload never has the run's output. Airflow writes each event into the task's log, and stores it
in its database past the XCom backend. The output may be large or secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_jobs_provider.api.errors import JobsAPIError
from airflow_jobs_provider.api.run_summary import task_kinds

__all__ = ["error_payload", "run_payload", "without_settings"]

# Enough for the run's result. A run may have its whole cluster definition, and Airflow stores
# events in its database.
_RUN_FIELDS = ("run_id", "task_key", "job_id", "run_page_url", "state", "start_time", "end_time")
_TASK_FIELDS = ("run_id", "task_key", "attempt_number", "state")


def run_payload(run: Mapping[str, Any], *, timed_out: str | None = None) -> dict[str, Any]:
    """Return the payload for a run that has ended, or that is not waited for any longer.

    :param run: the run as last read.
    :param timed_out: the argument with the time limit that is over; None if the run has ended.
    """
    payload: dict[str, Any] = {"run": without_settings(run)}
    return {**payload, "timed_out": timed_out} if timed_out else payload


def error_payload(run_id: int | str | None, error: Exception) -> dict[str, Any]:
    """Return the payload for a run that cannot be read.

    :param run_id: the run; None if it was not found yet.
    :param error: why it cannot be read.
    """
    payload: dict[str, Any] = {"run_id": run_id, "error": str(error) or type(error).__name__}
    # Such as an argument that was rendered wrong in the triggerer.
    if isinstance(error, JobsAPIError) and error.is_final:
        payload["is_final"] = True
    return payload


def without_settings(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a run that its result is read from."""
    kept = _kept(run, _RUN_FIELDS)
    if run.get("tasks"):
        kept["tasks"] = [_kept(task, _TASK_FIELDS) for task in run["tasks"]]
    return kept


def _kept(entry: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    kept = {name: entry[name] for name in names if name in entry}
    # The kind of a task without its settings: how its output is read depends on it.
    return {**kept, **{kind: {} for kind in sorted(task_kinds(entry))}}
