"""The end of a run whose task has failed for good without being able to say so.

A worker may die with everything on it. Airflow notices after a while; if no retry is left, nobody
would follow the run any more, nor stop it. But Airflow has its DAG processor call the task's
``on_failure_callback``, and that is where the run is cancelled.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import MappedOperator

from airflow_jobs_provider.airflow_compat.task_state import airflow_has_task_sdk
from airflow_jobs_provider.operators.argument_checks import check_retry_args, check_storable

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = [
    "PartialWithCallback",
    "cancel_orphaned_run",
    "cancels_orphans",
    "recorded_run_id",
    "with_callback",
]


def cancel_orphaned_run(context: Context) -> None:
    """Cancel the run of a task that has failed for good, if it goes on: a failure callback."""
    # On a worker, the task instance has the object that was executed; the context of Airflow 3.0
    # has what it was copied from. The DAG processor has one object for all that it does.
    task: Any = getattr(context["ti"], "task", None) or context["task"]
    if isinstance(task, MappedOperator):
        # No worker got as far as to make a task of it in this process.
        if recorded_run_id(task, context) is None:
            return
        task = _unmapped(task, context)
    copy.copy(task).cancel_orphaned_run(context)


def cancels_orphans(arguments: Mapping[str, Any]) -> bool:
    """Whether a task with these arguments cancels the run that it leaves behind."""
    return all(arguments.get(name, True) for name in ("cancel_on_kill", "wait_for_termination"))


def with_callback(given: Any) -> list[Any]:
    """Return a user's failure callbacks, none, one or several, with ours in front, once."""
    if given is None:
        given = []
    callbacks = list(given) if isinstance(given, Iterable) else [given]
    if cancel_orphaned_run in callbacks:  # A mapped task got it before it was unmapped.
        return callbacks
    return [cancel_orphaned_run, *callbacks]


class PartialWithCallback:
    """``partial`` of an operator whose mapped tasks shall have the callback as well.

    The DAG processor does not call the constructor of a mapped task, which adds it to the others.
    """

    def __set_name__(self, owner: type, _name: str) -> None:
        self._owner = owner

    def __get__(self, task: Any, kind: type) -> Callable[..., Any]:
        airflows: Any = super(self._owner, kind if task is None else task)
        airflows_partial: Callable[..., Any] = airflows.partial
        if task is not None:
            return airflows_partial  # It tells that this is not for tasks.

        @wraps(airflows_partial)
        def partial(**kwargs: Any) -> Any:
            # Airflow makes the tasks, and so checks their arguments, on the worker only.
            if kwargs.get("deferrable") is True and kwargs.get("wait_for_termination", True):
                check_retry_args(kwargs.get("databricks_retry_args"))
                check_storable(kwargs.get("databricks_retry_args"))
            made = airflows_partial(**kwargs)
            if cancels_orphans(made.kwargs):
                made.kwargs["on_failure_callback"] = with_callback(
                    made.kwargs.get("on_failure_callback")
                )
            return made

        return partial


def recorded_run_id(task: Any, context: Context) -> int | None:
    """Return the run that a task's dead process launched, as the task's XCom tells."""
    if not _xcoms_can_be_read():
        task.log.warning("The run of this task may still run: its id cannot be read here.")
        return None
    ti: Any = context["ti"]
    noted = ti.xcom_pull(task_ids=ti.task_id, key="run_id", map_indexes=ti.map_index)
    return None if noted is None else int(noted)


def _unmapped(task: Any, context: Context) -> Any:
    """Return what a worker executes: any argument may be mapped, or come from the DAG."""
    if airflow_has_task_sdk():
        arguments, _ = task.expand_input.resolve(context)
        return task.unmap(arguments)
    from airflow.utils.session import create_session

    with create_session() as session:
        return task.unmap((context, session))


def _xcoms_can_be_read() -> bool:
    """Whether this process may ask Airflow for XComs.

    The DAG processor of Airflow 3.0 does not know the question, and does not survive it.
    """
    processor = sys.modules.get("airflow.dag_processing.processor")
    speaks_to_manager = hasattr(processor, "ToManager")
    return not speaks_to_manager or hasattr(processor, "GetXCom")
