"""What the tests share that count the processes which Airflow starts for a task."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.end_to_end.cluster_dag_run import ClusterDagRun

__all__ = ["Starts", "count_starts", "seen_by_the_next_task"]

Starts = Callable[[ClusterDagRun], int]


def count_starts(dag_run: ClusterDagRun) -> int:
    """Return how many processes were started for a task; see cluster_dags/starts.py."""
    note = dag_run.cluster.home / f"{dag_run.dag_id}.{dag_run.task_id}.starts"
    lines = note.read_text().splitlines() if note.exists() else []
    parents = dict(line.split() for line in lines)
    # A process that Airflow 2 forks from another one of the same start reads the file again.
    return sum(parent not in parents for parent in parents.values())


def seen_by_the_next_task(dag_run: ClusterDagRun) -> tuple[Any, ...]:
    """Return what the next task got: output, run_id and flag."""
    seen: tuple[Any, ...] = literal_eval(replace(dag_run, task_id="see").xcom("return_value"))
    return seen
