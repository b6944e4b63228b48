"""Has a user ended the wait of a deferred task? Asked where Airflow itself does not say.

Before Airflow 3.3 a trigger is cancelled in the same way whether a user cleared or marked its task,
or its triggerer stops or hands it over. So the task is looked up: it still waits if it is deferred
with this very run. A task that was cleared may be deferred again already, with another run.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.task_look_up import (
    airflow_has_task_sdk,
    row_in_database,
    state_by_task_sdk,
)

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

__all__ = ["task_waits_no_more"]

_LOOK_UP_SECONDS = 10.0
_DEFERRED = "deferred"


async def task_waits_no_more(trigger: BaseTrigger, run_id: int) -> bool:
    """Return whether the trigger's task has stopped waiting for the run.

    :param trigger: the trigger that is being cancelled.
    :param run_id: the run that it waits for.
    :raises TimeoutError: Airflow did not answer within 10 seconds.
    """
    from asgiref.sync import sync_to_async

    task_instance: Any = trigger.task_instance
    if task_instance is None:
        return False
    async with asyncio.timeout(_LOOK_UP_SECONDS):
        if not airflow_has_task_sdk():
            return await sync_to_async(_waits_no_more_in_database)(
                task_instance, getattr(trigger, "trigger_id", None)
            )
        # asgiref's thread, since Airflow's way back to the event loop goes through it.
        return await sync_to_async(_waits_no_more_by_task_sdk)(task_instance, run_id)


def _waits_no_more_in_database(task_instance: Any, trigger_id: int | None) -> bool:
    """Airflow 2: the task's row tells its state and the trigger that it waits for."""
    row = row_in_database(task_instance, "state", "trigger_id")
    return row is None or row.state != _DEFERRED or row.trigger_id != trigger_id


def _waits_no_more_by_task_sdk(task_instance: Any, run_id: int) -> bool:
    """Airflow 3: the API tells the state; the task's XCom tells the run it launched last."""
    from airflow.sdk.execution_time.xcom import XCom

    if state_by_task_sdk(task_instance) != (_DEFERRED,):
        return True
    launched = XCom.get_one(
        key="run_id",
        dag_id=task_instance.dag_id,
        task_id=task_instance.task_id,
        run_id=task_instance.run_id,
        map_index=task_instance.map_index,
    )
    # None: the task pushes no XComs, so its state is all there is to go by.
    return launched is not None and int(launched) != run_id
