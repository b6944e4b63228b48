"""Cancels the run of a task that has failed for good and could not do so itself.

A worker may die with all its processes. Airflow notices after a while. If no retry is left, nothing
would follow or cancel the run any more. But Airflow's DAG processor calls the task's
``on_failure_callback``, and this callback cancels the run.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import MappedOperator

from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.airflow_compat.nested_operators import task_operator
from airflow_jobs_provider.xcom import RUN_ID_KEY

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = [
    "cancel_orphaned_run",
    "cancels_orphans",
    "recorded_run_id",
    "with_orphan_callback",
]


def cancel_orphaned_run(context: Context) -> None:
    """Cancel the run of a task that has failed for good, if it goes on: a failure callback."""
    # On a worker this is the object that was executed. The DAG processor has one object for all
    # attempts, and so gets a copy.
    task: Any = task_operator(context)
    if isinstance(task, MappedOperator):
        # No worker got as far as to make a task of it in this process.
        if recorded_run_id(task, context) is None:
            return
        task = airflow_line().unmap(task, context)
    copy.copy(task).cancel_orphaned_run(context)


def cancels_orphans(arguments: Mapping[str, Any]) -> bool:
    """Return whether a task with these arguments cancels its orphaned run."""
    return all(arguments.get(name, True) for name in ("cancel_on_kill", "wait_for_termination"))


def with_orphan_callback(given: Any) -> list[Any]:
    """Return a user's failure callbacks with :func:`cancel_orphaned_run` before them, once.

    :param given: none, one or several callbacks.
    """
    if given is None:
        given = []
    callbacks = list(given) if isinstance(given, Iterable) else [given]
    if cancel_orphaned_run in callbacks:  # A mapped task got it before it was unmapped.
        return callbacks
    return [cancel_orphaned_run, *callbacks]


def recorded_run_id(task: Any, context: Context) -> int | None:
    """Return the run that a task's dead process launched, from the task's XCom; None if unknown."""
    if not airflow_line().can_read_xcoms():
        task.log.warning("The run of this task may still run: its id cannot be read here.")
        return None
    ti: Any = context["ti"]
    recorded = ti.xcom_pull(task_ids=ti.task_id, key=RUN_ID_KEY, map_indexes=ti.map_index)
    return None if recorded is None else int(recorded)
