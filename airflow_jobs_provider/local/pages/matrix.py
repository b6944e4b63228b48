"""Matrix of a job's latest runs by task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_jobs_provider.local.engine.model import Job, Run, task_key_of
from airflow_jobs_provider.local.pages.page_store import PageStore

__all__ = ["Matrix", "matrix_of"]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Runs, the oldest first; and for each task its latest attempt in each of them."""

    runs: Sequence[Run]
    rows: Sequence[tuple[str, Sequence[Run | None]]]


def matrix_of(job: Job, store: PageStore, limit: int) -> Matrix:
    """Return the matrix of a job.

    :param limit: the number of its latest runs that are shown.
    """
    runs = store.runs(limit=limit, job_id=job.job_id)[::-1]
    children = store.task_runs([run.run_id for run in runs if run.is_of_tasks])
    by_id = {child.run_id: child for child in children}
    cells: dict[str, dict[int, Run]] = {}
    for task in job.settings.get("tasks") or []:
        cells[task["task_key"]] = {}
    for run in runs:
        if not run.is_of_tasks:
            cells.setdefault(task_key_of(run), {})[run.run_id] = run
        for key, run_id in run.task_run_ids.items():
            if run_id in by_id:
                cells.setdefault(key, {})[run.run_id] = by_id[run_id]
    rows = [(key, [found.get(run.run_id) for run in runs]) for key, found in cells.items()]
    return Matrix(runs, rows)
