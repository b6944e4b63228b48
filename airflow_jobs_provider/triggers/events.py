"""The payload of a trigger's event.

``{"run": {...}}`` has the ended run's ids, state, page and tasks; ``"timed_out"`` beside it names
the time limit after which the trigger stopped waiting. Where the run cannot be read it is
``{"run_id": ..., "error": "..."}``, with ``"is_final": True`` where a retry cannot help, and with
``"launched_at"`` where the run was launched within the last minute.

A trigger that launches a run adds ``"xcoms"``: those that Airflow could not store, by key.

For a task that asks for it, ``"outputs"`` beside ``"run"`` has the run's outputs, see
:mod:`.event_outputs`. Airflow stores an event in its database, past the XCom backend, so a task
with another backend does not ask for it. Airflow also writes each event into the task's log; what
it writes there is the ``repr``, which does not have the outputs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from airflow_jobs_provider.api.errors import JobsAPIError
from airflow_jobs_provider.api.run_summary import task_kinds
from airflow_jobs_provider.api.text import error_text
from airflow_jobs_provider.api.workflows.launched_run import is_just_launched

__all__ = ["EventOutputs", "error_payload", "output_answers", "run_payload", "without_settings"]

# Enough for the run's result. A run may have its whole cluster definition, and Airflow stores
# events in its database.
_RUN_FIELDS = ("run_id", "task_key", "job_id", "run_page_url", "state", "start_time", "end_time")
_TASK_FIELDS = ("run_id", "task_key", "attempt_number", "state")


class EventOutputs(list[dict[str, Any]]):
    """The outputs of an event's run, one for each that was read."""

    def add(self, run_id: int, result: str | None, *, is_truncated: bool) -> None:
        """Add an output.

        :param run_id: the run of the task.
        :param result: the text that the notebook gave to ``dbutils.notebook.exit()``; None for
            none.
        :param is_truncated: whether a part of the text is missing.
        """
        truncated = {"truncated": True} if is_truncated else {}
        self.append({"run_id": run_id, "result": result, **truncated})

    def __repr__(self) -> str:
        return f"[{len(self)} not shown]"


def output_answers(event: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Return what an event has of the answers of ``runs/get-output``, by run id.

    :param event: the payload. Events of earlier versions have none.
    """
    return {
        one["run_id"]: {
            "notebook_output": {
                "result": one["result"],
                "truncated": one.get("truncated", False),
            }
        }
        for one in event.get("outputs") or ()
    }


def run_payload(run: Mapping[str, Any], *, timed_out: str | None = None) -> dict[str, Any]:
    """Return the payload for a run that has ended, or that is not waited for any longer.

    :param run: the run as last read.
    :param timed_out: the argument with the time limit that is over; None if the run has ended.
    """
    payload: dict[str, Any] = {"run": without_settings(run)}
    return {**payload, "timed_out": timed_out} if timed_out else payload


def error_payload(
    run_id: int | str | None, error: Exception, *, launched_at: float | None
) -> dict[str, Any]:
    """Return the payload for a run that cannot be read.

    :param run_id: the run; None if it was not found yet.
    :param error: why it cannot be read.
    :param launched_at: when it was launched, in seconds since the epoch; None if that is unknown.
    """
    payload: dict[str, Any] = {"run_id": run_id, "error": error_text(error)}
    # Such as an argument that was rendered wrong in the triggerer.
    if isinstance(error, JobsAPIError) and error.is_final:
        payload["is_final"] = True
    if run_id is not None and is_just_launched(launched_at, time.time()):
        # The service may not show the run yet when the worker cancels it.
        payload["launched_at"] = launched_at
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
