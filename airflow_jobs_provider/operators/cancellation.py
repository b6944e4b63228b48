"""Cancels the run that a task has launched, also where the launch's response is missing."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_jobs_provider.api.workflows.launched_run import LaunchedRun
    from airflow_jobs_provider.api.workflows.progress import Log
    from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook

__all__ = ["cancel_launched_run"]


def cancel_launched_run(
    run: LaunchedRun, hook: DatabricksJobsHook, log: Log, *, reason: str
) -> None:
    """Cancel a run if it may be active. An error is logged, not raised.

    :param run: what is known of the run.
    :param hook: hook of the workspace.
    :param log: the task's log.
    :param reason: why the run is cancelled, for the log.
    """
    from airflow_jobs_provider.api.endpoints import cancel_run
    from airflow_jobs_provider.api.errors import JobsAPIError, NotFoundError
    from airflow_jobs_provider.api.retry import RetryPolicy
    from airflow_jobs_provider.api.workflows.launched_run import is_just_launched

    if not run.may_be_live:
        return
    # Few retries: Airflow sends SIGKILL a few seconds after the first signal.
    retries, is_new = RetryPolicy(limit=3, delay=0.5), True
    try:
        # A client of its own: the kill may have interrupted the other one, or a request to Airflow.
        with hook.client.twin() as client:
            if run.run_id is None:
                # The launch's response is missing. The same token brings the run's id.
                assert run.call is not None
                run.answered(client.send(run.call, retries=retries), launched_at=time.time())
            assert run.run_id is not None
            is_new = is_just_launched(run.launched_at, time.time())
            client.send(cancel_run(run.run_id), retries=replace(retries, missing_passes=is_new))
    except JobsAPIError as error:
        if isinstance(error, NotFoundError) and run.run_id is not None and not is_new:
            log.info("Run %s does not exist any more and is not canceled.", run.run_id)
            return
        log.error(
            "Run %s could not be canceled and may still run: %s",
            run.run_id or "of this task",
            error,
        )
    else:
        run.canceled()
        log.info("Run %s was canceled, because %s.", run.run_id, reason)
