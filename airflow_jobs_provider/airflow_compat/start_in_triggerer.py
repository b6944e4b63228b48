"""Whether a task can start in the triggerer, its arguments there, and when its wait began."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, overload

from airflow_jobs_provider.airflow_compat.completion_reasons import (
    required_params,
    worker_start_reasons,
)
from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.airflow_compat.task_serialization import find_start, tell_start
from airflow_jobs_provider.airflow_compat.triggerer_values import names_of_dag

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context
    from airflow.triggers.base import StartTriggerArgs

__all__ = [
    "StartFromTrigger",
    "StartTriggerArguments",
    "as_template",
    "check_renders_in_triggerer",
    "check_start_in_triggerer",
    "renders_in_triggerer",
    "wait_start",
]


class StartsInTriggerer(Protocol):
    """A task that may start in the triggerer."""

    def find_start(self) -> StartTriggerArgs | None:
        """Return the arguments that Airflow starts the task with; None: a worker starts it."""


class StartTriggerArguments:
    """An operator's ``start_trigger_args``, made when Airflow asks for them.

    By then the DAG is complete, and with it what else the task has: outlets, callbacks, tasks that
    expand over its output. The class itself has none: Airflow would start mapped tasks with them,
    whose arguments are not known to it; see :mod:`.mapped_start`.
    """

    @overload
    def __get__(self, task: None, kind: type) -> None: ...

    @overload
    def __get__(self, task: StartsInTriggerer, kind: type) -> StartTriggerArgs | None: ...

    def __get__(self, task: StartsInTriggerer | None, kind: type) -> StartTriggerArgs | None:
        """Return a task's arguments; None for the class, or where a worker starts the task."""
        if task is None:
            return None
        arguments: StartTriggerArgs | None = tell_start(task, task.find_start)
        return arguments


class StartFromTrigger:
    """An operator's ``start_from_trigger``, found out when Airflow asks for it.

    For the class it is False: Airflow asks it for mapped tasks; see :mod:`.mapped_start`.
    """

    def __get__(self, task: StartsInTriggerer | None, kind: type) -> bool:
        """Return whether a task starts in the triggerer; False for the class."""
        return task is not None and find_start(task, task.find_start) is not None


def renders_in_triggerer() -> bool:
    """Return whether the triggerer renders templates (Airflow 3.3 and later)."""
    return airflow_line().renders_in_triggerer


def check_renders_in_triggerer() -> None:
    """Refuse to launch a run in the triggerer before Airflow 3.3.

    :raises ValueError: this Airflow is older.
    """
    if not renders_in_triggerer():
        from airflow import __version__

        raise ValueError(
            "start_from_trigger of an operator that launches a run needs Airflow 3.3 or later; "
            f"this is {__version__}. deferrable=True and end_from_trigger=True are possible"
        )


def check_start_in_triggerer(task: BaseOperator, unrendered: Sequence[str]) -> None:
    """Refuse to start a task in the triggerer with what only a worker does.

    :param task: the task, whose constructor runs.
    :param unrendered: names of its arguments that are only known when it runs.
    :raises ValueError: the task has callbacks or arguments that need a worker.
    """
    if getattr(task, "_BaseOperator__from_mapped", False):
        return  # a worker is about to execute it
    reasons = worker_start_reasons(task)
    if reasons:
        raise ValueError(
            f"start_from_trigger would leave out {', '.join(reasons)}: no worker begins the task"
        )
    if airflow_line().renders_in_triggerer and (names := required_params(task)):
        raise ValueError(
            "start_from_trigger with params without a default would stop Airflow's triggerer: "
            f"{', '.join(names)}. Give each a default, or leave out start_from_trigger"
        )
    if unrendered and not airflow_line().renders_in_triggerer:
        from airflow import __version__

        raise ValueError(
            f"start_from_trigger with a template or another task's output in "
            f"{', '.join(unrendered)}: Airflow {__version__} renders that on a worker only"
        )
    for name in unrendered:
        value = as_template(name, getattr(task, name))
        if of_dag := names_of_dag(value, task):
            raise ValueError(
                f"start_from_trigger with {', '.join(of_dag)} in {name}: the triggerer does not "
                "have the macros and filters of a DAG"
            )


def as_template(name: str, value: Any) -> Any:
    """Return an argument as the triggerer can render it; another task's output becomes a template.

    Airflow 3.3 pulls XComs there by map index only: it never answers to the usual ``xcom_pull``,
    and the task would wait for ever.

    :param name: the argument's name.
    :param value: its value.
    :raises ValueError: the triggerer cannot render it.
    """
    if isinstance(value, str):
        if "xcom_pull" in value:
            raise ValueError(
                f"start_from_trigger with xcom_pull in {name}: the triggerer gets no answer to it. "
                'Give the output itself, as in launch.output["run_id"]'
            )
        return value
    if not hasattr(value, "resolve"):
        return value
    task = getattr(value, "operator", None)
    if (
        task is None
        or not isinstance(getattr(value, "key", None), str)
        or hasattr(task, "partial_kwargs")  # a mapped task has several outputs
        or task.get_closest_mapped_task_group() is not None
    ):
        raise ValueError(
            f"start_from_trigger with {value!r} in {name}: the triggerer can read the output of a "
            "task that is not mapped, and no more"
        )
    pulled = {"task_ids": task.task_id, "key": value.key, "map_indexes": -1}
    arguments = ", ".join(f"{key}={given!r}" for key, given in pulled.items())
    return f"{{{{ ti.xcom_pull({arguments}) }}}}"


def wait_start(context: Context, *, is_rescheduled: bool) -> float:
    """Return when this attempt began to wait, in seconds since the epoch.

    :param context: the task's.
    :param is_rescheduled: whether each poke is a new process, so that only Airflow knows.
    """
    first = airflow_line().first_poke(context["ti"]) if is_rescheduled else None
    return time.time() if first is None else first.timestamp()
