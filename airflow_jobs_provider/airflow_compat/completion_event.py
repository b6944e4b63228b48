"""The event with which a trigger ends its task, and where its XComs go.

Airflow 3 writes the XComs of such an event as JSON twice over, so that the next task would get
``'"42"'`` for ``"42"`` and text for a dict (seen with 3.0.6 and 3.3.2), and it writes them past the
XCom backend. So they are stored there as a worker stores them, before the event.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import TaskSuccessEvent

from airflow_jobs_provider.xcom import OUTPUT_KEYS, RESERVED_KEYS

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

__all__ = ["forget_output", "success_event"]

# What tells a task's XComs from others.
_PLACE = ("dag_id", "task_id", "run_id", "map_index")


async def success_event(
    trigger: BaseTrigger,
    xcoms: Mapping[str, Any],
    *,
    afresh: bool = False,
    multiple_outputs: bool = False,
) -> TaskSuccessEvent:
    """Return the event that ends a trigger's task well, with these XComs.

    :param trigger: the trigger at work.
    :param xcoms: what the task pushes.
    :param afresh: whether no worker began the task; see :func:`forget_output`.
    :param multiple_outputs: whether the task pushes each task's output of the run by its key.
    :raises Exception: the XComs cannot be stored; a worker may be able to.
    """
    from asgiref.sync import sync_to_async

    task_instance: Any = trigger.task_instance
    # In asgiref's thread, since Airflow's way back to the event loop goes through it.
    if afresh and task_instance is not None:
        await sync_to_async(forget_output)(task_instance, multiple_outputs=multiple_outputs)
    try:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance  # noqa: F401
    except ImportError:
        task_instance = None
    if task_instance is None or not xcoms:
        return TaskSuccessEvent(xcoms=dict(xcoms) or None)
    await sync_to_async(_store)(task_instance, xcoms)
    return TaskSuccessEvent()


def forget_output(task_instance: Any, *, multiple_outputs: bool = False) -> None:
    """Delete the output that a task pushed before it was cleared.

    Airflow does so where a worker begins the task, and nowhere else: a run without output would
    leave the old one to the next task.

    :param task_instance: the task's.
    :param multiple_outputs: whether it pushed each task's output of the run by its key.
    """
    place = {name: getattr(task_instance, name) for name in _PLACE}
    try:
        from airflow.sdk.execution_time.xcom import XCom
    except ImportError:
        from airflow.models.xcom import XCom as XComOfAirflow2

        XComOfAirflow2.clear(**place)
        return
    keys = list(OUTPUT_KEYS)
    if multiple_outputs:
        before = XCom.get_one(key="return_value", **place)
        keys += sorted(set(before) - RESERVED_KEYS) if isinstance(before, Mapping) else []
    for key in keys:
        XCom.delete(key=key, **place)


def _store(task_instance: Any, xcoms: Mapping[str, Any]) -> None:
    from airflow.sdk.execution_time.xcom import XCom

    for key, value in xcoms.items():
        XCom.set(key, value, **{name: getattr(task_instance, name) for name in _PLACE})
