"""How a sensor begins: in the triggerer where it may, and when it began where it is rescheduled."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import StartTriggerArgs

    from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor

__all__ = ["StartTriggerArguments", "as_template", "refuse_what_cannot_start_there", "wait_began"]


class StartTriggerArguments:
    """An operator's ``start_trigger_args``, made when Airflow asks for them.

    By then the DAG is complete, and with it what else the task has: outlets, callbacks, tasks that
    expand over its output. The class itself has none: Airflow would begin mapped tasks with them.
    """

    @overload
    def __get__(self, task: None, kind: type) -> None: ...

    @overload
    def __get__(self, task: DatabricksJobRunSensor, kind: type) -> StartTriggerArgs | None: ...

    def __get__(self, task: DatabricksJobRunSensor | None, kind: type) -> StartTriggerArgs | None:
        """Return a task's arguments; None for the class, or where a worker begins the task."""
        if task is None or not task.start_from_trigger:
            return None
        return task._start_trigger_args()  # noqa: SLF001


def refuse_what_cannot_start_there(task: DatabricksJobRunSensor) -> None:
    """Refuse to begin a task in the triggerer with what only a worker does.

    :raises ValueError: the task has such things.
    """
    from airflow_jobs_provider.airflow_compat.completion import worker_start_reasons
    from airflow_jobs_provider.operators.templates import has_unrendered

    if getattr(task, "_BaseOperator__from_mapped", False):
        return  # a worker is about to execute it
    reasons = worker_start_reasons(task)
    if reasons:
        raise ValueError(
            f"start_from_trigger would leave out {', '.join(reasons)}: no worker begins the task"
        )
    unrendered = [name for name in task.template_fields if has_unrendered(getattr(task, name))]
    if unrendered and not _triggerer_renders():
        from airflow import __version__

        raise ValueError(
            f"start_from_trigger with a template or another task's output in "
            f"{', '.join(unrendered)}: Airflow {__version__} renders that on a worker only"
        )
    for name in unrendered:
        as_template(name, getattr(task, name))


def as_template(name: str, value: Any) -> Any:
    """Return an argument as the triggerer can render it; another task's output becomes a template.

    Airflow 3.3 pulls XComs there by map index only: it never answers to the usual ``xcom_pull``,
    and the task would wait for ever.

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


def _triggerer_renders() -> bool:
    from airflow.triggers.base import BaseTrigger

    return hasattr(BaseTrigger, "render_template_fields")


def wait_began(task: DatabricksJobRunSensor, context: Context) -> float:
    """Return when this try began to wait, in seconds since the epoch.

    A sensor in mode ``reschedule`` is a new process at each poke, and only Airflow remembers.
    """
    began: Any = _first_poke(context["ti"]) if task.reschedule else None
    return time.time() if began is None else float(began.timestamp())


def _first_poke(ti: Any) -> Any:
    try:
        from airflow.sdk.execution_time.comms import GetTaskRescheduleStartDate
        from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS
    except ImportError:
        from airflow.sensors.base import (  # type: ignore[import-not-found]
            _orig_start_date,
        )

        # Airflow 2 notes when the first poke began, so its start counts for the first one, too: by
        # a later time that poke might wait for a newer run than all others.
        first = _orig_start_date(ti.dag_id, ti.task_id, ti.run_id, ti.map_index, ti.try_number)
        return first or ti.start_date
    # Airflow 3 gives each try an id of its own, so its first reschedule is the first of all.
    answer = SUPERVISOR_COMMS.send(GetTaskRescheduleStartDate(ti_id=ti.id, try_number=1))
    return getattr(answer, "start_date", None)
