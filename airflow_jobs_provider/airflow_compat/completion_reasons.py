"""Must a worker start or end a task that could start or end in the triggerer?

A trigger can end its task by itself (Airflow's ``TaskSuccessEvent``). Airflow then sets the state
and stores the XComs, and silently omits what a worker would do besides. The same goes for a task
that starts in the triggerer.
"""

from __future__ import annotations

from collections.abc import Iterator

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_jobs_provider.airflow_compat.lines import airflow_line

__all__ = ["worker_completion_reasons", "worker_start_reasons"]


def worker_completion_reasons(task: BaseOperator) -> list[str]:
    """Return the reasons why a task cannot be ended by its trigger; empty if it can."""
    return list(_completion_reasons(task))


def worker_start_reasons(task: BaseOperator) -> list[str]:
    """Return the reasons why a task cannot start in the triggerer; empty if it can."""
    return list(_start_reasons(task))


def _completion_reasons(task: BaseOperator) -> Iterator[str]:
    if fault := airflow_line().completion_fault:
        yield fault
    if task.outlets:
        yield "outlets"  # there would be no asset (dataset) event
    if task.on_success_callback:
        yield "on_success_callback"  # Airflow 3 drops the request for it
    if task._post_execute_hook is not None or _overrides(task, "post_execute"):  # noqa: SLF001
        yield "post_execute"
    if getattr(task, "map_index_template", None):
        yield "map_index_template"  # rendered once more at the end
    if task.do_xcom_push and _is_expanded_over(task):
        yield "tasks that expand over its output"  # a worker stores their number
    if _has_listeners():
        # Airflow itself refuses them when it parses a DAG, but overlooks mapped tasks.
        yield "listeners"


def _start_reasons(task: BaseOperator) -> Iterator[str]:
    if task.on_execute_callback:
        yield "on_execute_callback"
    if task._pre_execute_hook is not None or _overrides(task, "pre_execute"):  # noqa: SLF001
        yield "pre_execute"


def _is_expanded_over(task: BaseOperator) -> bool:
    return task.has_dag() and next(iter(task.iter_mapped_dependants()), None) is not None


def _overrides(task: BaseOperator, method: str) -> bool:
    return getattr(type(task), method) is not getattr(BaseOperator, method)


def _has_listeners() -> bool:
    try:
        from airflow.listeners.listener import get_listener_manager
    except ImportError:  # a worker without Airflow's core
        return False
    return bool(get_listener_manager().has_listeners)
