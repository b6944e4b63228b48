"""Canceling a job's active runs before another one is launched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_jobs_provider.api.endpoints import (
    RUNS_PER_PAGE_IN_EVERY_VERSION,
    cancel_run,
    list_runs,
)
from airflow_jobs_provider.api.errors import NotFoundError
from airflow_jobs_provider.api.pagination import read_all_items
from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.api.workflows.base import Wait, Workflow

if TYPE_CHECKING:
    from airflow_jobs_provider.api.schema.types import Run

__all__ = ["cancel_previous_runs"]


def cancel_previous_runs(
    job_id: int, *, before_run_id: int | None = None, polling_period_seconds: float
) -> Workflow[list[int]]:
    """Cancel the active runs of a job and wait until they have ended; return their ids.

    Runs that start meanwhile are left alone, and not waited for.

    :param job_id: the job.
    :param before_run_id: cancel only the runs that started before this one, and only while this one
        is active; default None: all active runs.
    :param polling_period_seconds: seconds between two reads.
    """
    canceled: list[int] = []
    latest_start: int | None = None
    while True:
        active = yield from _active_runs(job_id)
        if latest_start is None:
            limits = [run for run in active if before_run_id in (None, run["run_id"])]
            latest_start = max(map(_start, limits), default=-1)
        previous = {
            int(run["run_id"])
            for run in active
            if _start(run) <= latest_start and run["run_id"] != before_run_id
        }
        if not previous:
            return canceled
        for run_id in sorted(previous.difference(canceled)):
            try:
                yield cancel_run(run_id)
            except NotFoundError:
                continue  # ended and deleted meanwhile
            canceled.append(run_id)
        yield Wait(polling_period_seconds)


def _start(run: Run) -> int:
    return int(run.get("start_time") or 0)


def _active_runs(job_id: int) -> Workflow[list[Run]]:
    call = list_runs(job_id=job_id, active_only=True, limit=RUNS_PER_PAGE_IN_EVERY_VERSION)
    runs: list[Run] = yield from read_all_items(call)
    return [run for run in runs if not RunState.from_run(run).is_terminal]
