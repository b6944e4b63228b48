"""Why a worker begins or ends a task that could be begun or ended in the triggerer.

A trigger can end its task by itself (Airflow's ``TaskSuccessEvent``). Airflow then sets the state
and stores the XComs, and leaves out what a worker would do besides, without a word. The same goes
for a task that begins in the triggerer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_jobs_provider.airflow_compat.task_state import airflow_version

if TYPE_CHECKING:
    from airflow_jobs_provider.operators.wait import WaitForRunOperator

__all__ = ["worker_completion_reasons", "worker_start_reasons"]


def worker_completion_reasons(task: WaitForRunOperator) -> list[str]:
    """Return the reasons why a task cannot be ended by its trigger; none is best."""
    return list(_at_the_end(task))


def worker_start_reasons(task: WaitForRunOperator) -> list[str]:
    """Return the reasons why a task cannot begin in the triggerer."""
    return list(_at_the_start(task))


def _at_the_end(task: WaitForRunOperator) -> Iterator[str]:
    if _airflow_loses_dags():
        yield "Airflow 3.0 (apache/airflow#55315)"
    if task.outlets:
        yield "outlets"  # there would be no asset (dataset) event
    if task.on_success_callback:
        yield "on_success_callback"  # Airflow 3 drops the request for it
    if task._post_execute_hook is not None or _overrides(task, "post_execute"):  # noqa: SLF001
        yield "post_execute"
    if getattr(task, "map_index_template", None):
        yield "map_index_template"  # rendered once more at the end
    if task.do_xcom_push and _is_expanded_over(task):
        yield "tasks that expand over its output"  # a worker counts to how many
    if _has_listeners():
        # Airflow itself refuses them when it parses a DAG, but overlooks mapped tasks.
        yield "listeners"


def _at_the_start(task: WaitForRunOperator) -> Iterator[str]:
    if task.on_execute_callback:
        yield "on_execute_callback"
    if task._pre_execute_hook is not None or _overrides(task, "pre_execute"):  # noqa: SLF001
        yield "pre_execute"


def _airflow_loses_dags() -> bool:
    """Whether the end of a task in the triggerer lets Airflow take its file's DAGs for gone."""
    return airflow_version() == (3, 0)


def _is_expanded_over(task: WaitForRunOperator) -> bool:
    in_a_dag = task.has_dag()  # type: ignore[no-untyped-call]
    return in_a_dag and next(iter(task.iter_mapped_dependants()), None) is not None


def _overrides(task: WaitForRunOperator, method: str) -> bool:
    return getattr(type(task), method) is not getattr(BaseOperator, method)


def _has_listeners() -> bool:
    try:
        from airflow.listeners.listener import get_listener_manager
    except ImportError:  # a worker without Airflow's core
        return False
    return bool(get_listener_manager().has_listeners)
