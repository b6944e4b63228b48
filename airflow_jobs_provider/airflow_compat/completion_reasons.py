"""The reasons why only a worker can start or end a task.

A trigger can end its task by itself (Airflow's ``TaskSuccessEvent``). Airflow then sets the state
and stores the XComs, and silently omits what a worker would do besides. The same goes for a task
that starts in the triggerer.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from airflow.providers.common.compat.sdk import BaseOperator, MappedOperator, conf

from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.airflow_compat.parsing import is_parsed_for_execution

__all__ = [
    "queues_are_enabled",
    "required_params",
    "worker_completion_reasons",
    "worker_launch_reasons",
    "worker_start_reasons",
]

DEFAULT_POOL = "default_pool"


def worker_completion_reasons(task: BaseOperator) -> list[str]:
    """Return the reasons why a task cannot be ended by its trigger; empty if it can."""
    return list(_completion_reasons(task))


def worker_start_reasons(task: BaseOperator) -> list[str]:
    """Return the reasons why a task cannot start in the triggerer; empty if it can."""
    return list(_start_reasons(task))


def worker_launch_reasons(task: BaseOperator) -> list[str]:
    """Return the reasons why a task cannot launch a run in the triggerer; empty if it can.

    Airflow counts neither pool slots nor ``max_active_*`` limits for tasks that start there.
    """
    return [*_start_reasons(task), *_launch_reasons(task)]


def required_params(task: BaseOperator) -> list[str]:
    """Return the names of a task's and its DAG's params that have no default.

    Airflow 3.3 reads the defaults in the triggerer before it heeds the values of the DAG run. The
    error about a missing one ends the triggerer, and then each other one that takes the trigger
    over.

    :param task: the task.
    """
    all_params: list[Any] = [task.params]
    if task.has_dag():
        all_params.append(task.dag.params)
    if not any(all_params):
        return []
    return sorted(
        {
            name
            for params in all_params
            for name, param in params.items()
            # Without a default the value is a marker.
            if not getattr(param, "has_value", True) and param.value is not None
        }
    )


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
    if _has_listeners(task):
        yield "listeners"


def _start_reasons(task: BaseOperator) -> Iterator[str]:
    if task.on_execute_callback:
        yield "on_execute_callback"
    if task._pre_execute_hook is not None or _overrides(task, "pre_execute"):  # noqa: SLF001
        yield "pre_execute"


def _launch_reasons(task: BaseOperator) -> Iterator[str]:
    if names := required_params(task):
        yield f"params without a default ({', '.join(names)})"
    if not task.do_xcom_push:
        yield "do_xcom_push=False"  # an XCom tells a retry of its attempts
    if task.pool != DEFAULT_POOL or task.pool_slots != 1:
        yield "its pool"
    for limit in ("max_active_tis_per_dag", "max_active_tis_per_dagrun"):
        if getattr(task, limit, None) is not None:
            yield limit
    if task.run_as_user:
        yield "run_as_user"
    if queues_are_enabled():
        # Airflow would leave it to triggerers without --queues, and there may be none.
        yield "queues of triggerers"
    if task.has_dag():
        if task.dag.max_active_tasks != _max_active_tasks_per_dag():
            yield "the DAG's max_active_tasks"
        if task.get_closest_mapped_task_group() is not None:
            yield "a mapped task group"
    if _has_listeners(task):
        yield "listeners"


# Airflow asks for the reasons several times for each task while it parses a DAG file, and reads its
# configuration anew each time.
@functools.cache
def queues_are_enabled() -> bool:
    """Return whether each triggerer takes the triggers of its own queues only."""
    enabled: bool = conf.getboolean("triggerer", "queues_enabled", fallback=False)
    return enabled


@functools.cache
def _max_active_tasks_per_dag() -> int:
    limit: int = conf.getint("core", "max_active_tasks_per_dag")
    return limit


def _is_expanded_over(task: BaseOperator) -> bool:
    if not task.has_dag():
        return False
    # Airflow looks at all tasks of the DAG for those that expand over the output. They are among
    # the tasks that follow this one, or in a group of which one is.
    tasks = task.dag.task_dict
    followers = [tasks[task_id] for task_id in task.downstream_task_ids if task_id in tasks]
    return any(map(_is_mapped, followers)) and any(True for _ in task.iter_mapped_dependants())


def _is_mapped(task: Any) -> bool:
    return isinstance(task, MappedOperator) or task.get_closest_mapped_task_group() is not None


def _overrides(task: BaseOperator, method: str) -> bool:
    return getattr(type(task), method) is not getattr(BaseOperator, method)


def _has_listeners(task: BaseOperator) -> bool:
    listener: Any
    from airflow.listeners import listener

    # From Airflow 3.2 a task's process has a manager of its own for the same plugins. A process
    # that parses a DAG file would load all plugins once more for it, for 7 ms.
    if is_parsed_for_execution(task):
        with suppress(ImportError):
            from airflow.sdk import listener
    return bool(listener.get_listener_manager().has_listeners)
