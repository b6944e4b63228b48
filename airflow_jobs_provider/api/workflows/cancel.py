"""Canceling a run that a task has launched, also one that the service does not show yet."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_jobs_provider.api.endpoints import cancel_run, get_run
from airflow_jobs_provider.api.errors import APIStatusError, JobsAPIError, NotFoundError
from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.api.workflows.base import Wait, Workflow
from airflow_jobs_provider.api.workflows.launched_run import is_not_shown_yet

if TYPE_CHECKING:
    from airflow_jobs_provider.api.workflows.progress import Log

__all__ = ["cancel_launched_run", "cancel_unless_ended", "log_failed_cancel"]

# Between two attempts to cancel a run that the service does not show yet. The wait doubles. The
# first ones are short: Airflow may kill the process five seconds after its first signal.
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 5.0


def cancel_launched_run(
    run_id: int, *, launched_at: float | None, clock: Callable[[], float] = time.time
) -> Workflow[None]:
    """Cancel a run. A run that was just launched and is not found is canceled again.

    :param run_id: the run.
    :param launched_at: when the launch was answered, in seconds since the epoch; None: long ago.
    :param clock: returns the seconds since the epoch.
    :raises NotFoundError: the run does not exist, and was not just launched.
    """
    began, waited, seconds = clock(), 0.0, _FIRST_PAUSE_SECONDS
    while True:
        try:
            yield cancel_run(run_id)
        except APIStatusError as error:
            now = max(clock(), began + waited)
            if not is_not_shown_yet(error, launched_at, now=now, waited=waited):
                raise
        else:
            return
        yield Wait(seconds)
        waited += seconds
        seconds = min(2 * seconds, _LONGEST_PAUSE_SECONDS)


def cancel_unless_ended(
    run_id: int, *, launched_at: float | None, clock: Callable[[], float] = time.time
) -> Workflow[bool]:
    """Cancel a run of which only the id is known; return False if it has ended.

    The parameters and errors are those of :func:`cancel_launched_run`. A run that the first attempt
    to read it does not show may be active.
    """
    try:
        run = yield get_run(run_id)._replace(is_optional=True)
    except JobsAPIError:
        pass
    else:
        if RunState.from_run(run).is_terminal:
            return False
    yield from cancel_launched_run(run_id, launched_at=launched_at, clock=clock)
    return True


def log_failed_cancel(log: Log, run_id: int | None, error: BaseException, *, is_new: bool) -> None:
    """Log that a run could not be canceled, or that there is no such run any more.

    :param log: the task's log.
    :param run_id: the run; None if the launch has not been answered.
    :param error: why the cancel failed.
    :param is_new: whether the run was launched so recently that the service may not show it yet.
    """
    if isinstance(error, NotFoundError) and run_id is not None and not is_new:
        log.info("Run %s does not exist any more and is not canceled.", run_id)
        return
    why = str(error) or "no answer in time"
    log.error("Run %s could not be canceled and may still run: %s", run_id or "of this task", why)
