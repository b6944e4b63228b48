"""The public triggers: a task waits for a run without a worker; an asset is told of ended runs."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.api.lazy_names import lazy_names
from airflow_jobs_provider.triggers.arguments import RunTriggerArguments
from airflow_jobs_provider.triggers.wait import WaitForRunTrigger

if TYPE_CHECKING:
    from airflow_jobs_provider.triggers.run_events import DatabricksJobRunEventTrigger

__all__ = ["DatabricksJobRunEventTrigger", "DatabricksJobRunTrigger"]


class DatabricksJobRunTrigger(RunTriggerArguments, WaitForRunTrigger):
    """Fire one event when a run has ended.

    The event's payload is ``{"run": {...}}`` with the ended run's ids, state, page and tasks.
    ``"timed_out"`` beside it names the time limit after which the trigger stopped waiting. If the
    run cannot be read, it is ``{"run_id": ..., "error": "..."}``, with ``"is_final": True`` where a
    retry cannot help, and with ``"launched_at"`` where the run was launched within the last minute.

    With ``end_from_trigger`` the event of a run that succeeded also ends the task, with the run's
    output in the XComs ``return_value`` and ``output_truncated``. All other events resume the task
    on a worker.

    A run is canceled when a user clears or marks the task that waits for it. It is not canceled
    when the triggerer restarts or another triggerer takes the trigger over, nor when Airflow does
    not tell which of the two it was.

    The arguments and their defaults are those of
    :class:`~airflow_jobs_provider.triggers.arguments.RunTriggerArguments`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._run_id = self._active_run_id = self.run_id

    def _wait(self) -> Coroutine[Any, Any, dict[str, Any]]:
        return self._wait_for_run(self.run_id)


if not TYPE_CHECKING:
    # Not imported by a task that defers with the other trigger.
    __getattr__, __dir__ = lazy_names(globals(), {"DatabricksJobRunEventTrigger": ".run_events"})
