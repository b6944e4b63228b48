"""The event with which a trigger ends its task, and where its XComs go.

Airflow 3 writes the XComs of such an event as JSON twice over, so that the next task would get
``'"42"'`` for ``"42"`` and text for a dict (seen with 3.0.6 and 3.3.2), and it writes them past the
XCom backend. So they are stored there as a worker stores them, before the event.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import TaskSuccessEvent

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

__all__ = ["success_event"]


async def success_event(trigger: BaseTrigger, xcoms: Mapping[str, Any]) -> TaskSuccessEvent:
    """Return the event that ends a trigger's task well, with these XComs.

    :param trigger: the trigger at work.
    :param xcoms: what the task pushes.
    :raises Exception: the XComs cannot be stored; a worker may be able to.
    """
    task_instance: Any = trigger.task_instance
    try:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance  # noqa: F401
    except ImportError:
        task_instance = None
    if task_instance is None or not xcoms:
        return TaskSuccessEvent(xcoms=dict(xcoms) or None)
    from asgiref.sync import sync_to_async

    # asgiref's thread, since Airflow's way back to the event loop goes through it.
    await sync_to_async(_store)(task_instance, xcoms)
    return TaskSuccessEvent()


def _store(task_instance: Any, xcoms: Mapping[str, Any]) -> None:
    from airflow.sdk.execution_time.xcom import XCom

    for key, value in xcoms.items():
        XCom.set(
            key,
            value,
            dag_id=task_instance.dag_id,
            task_id=task_instance.task_id,
            run_id=task_instance.run_id,
            map_index=task_instance.map_index,
        )
