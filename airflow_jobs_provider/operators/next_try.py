"""Has Airflow handed a task to its next try, and is that why this process is to end?

A task's process gets the same signal whether a user has cleared or marked its task, or whether
Airflow has lost sight of it and gives the task to another process: after silence, or the death of a
scheduler whose executor cannot adopt tasks. In the first case nobody wants the run any more. In the
second the next try follows it, and a cancel would make Airflow begin the work anew.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from airflow_jobs_provider.task_look_up import (
    airflow_has_task_sdk,
    row_in_database,
    state_by_task_sdk,
)

__all__ = ["next_try_takes_over", "xcoms_of_try"]

log = logging.getLogger(__name__)

# Airflow sends SIGKILL five seconds after the first signal; a cancel must fit in, too.
_LOOK_UP_SECONDS = 2.0
_RESTARTING = "restarting"  # A user has cleared the task while it was running.
_RUNNING = "running"
_STATES_BEFORE_A_TRY = (None, "scheduled", "queued", "up_for_retry")
_NOT_FOUND = (404, 410)
_TRY_NUMBER = "try_number"


def xcoms_of_try(task_instance: Any) -> dict[str, int]:
    """Return what a try is to push as it begins, for the one before it to see: its number.

    That is where Airflow does not give each try an id of its own, and only the first try, which
    has none before it, does without.
    """
    import airflow

    version = tuple(map(int, airflow.__version__.split(".")[:2]))
    if (3, 0) <= version < (3, 3) and task_instance.try_number > 1:
        return {_TRY_NUMBER: task_instance.try_number}
    return {}


def next_try_takes_over(task_instance: Any) -> bool:
    """Return whether a killed task's run is the next try's to follow.

    Where Airflow does not answer within two seconds, no user can have told it anything about the
    task either. It will miss the task after a while, and begin the next try if there is one left.

    :param task_instance: the task instance of the try that is being killed.
    """
    answers: list[bool] = []

    def ask() -> None:
        try:
            answers.append(
                _is_handed_over_by_task_sdk(task_instance)
                if airflow_has_task_sdk()
                else _is_handed_over_by_database(task_instance)
            )
        except Exception as error:  # noqa: BLE001 - whatever Airflow says, or does not
            log.debug("Airflow did not tell why the task is killed: %r", error)

    # Not in the thread that the signal came to: it may be in the middle of a question itself.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_LOOK_UP_SECONDS)
    if answers:
        return answers[0]
    return bool(task_instance.try_number <= task_instance.max_tries)


def _is_handed_over_by_database(task_instance: Any) -> bool:
    """Airflow 2: the row tells the state, and the number of the latest try."""
    row = row_in_database(task_instance, "state", "try_number")
    if row is None:
        return False
    if row.state == _RUNNING:
        return bool(row.try_number != task_instance.try_number)
    return row.state in _STATES_BEFORE_A_TRY


def _is_handed_over_by_task_sdk(task_instance: Any) -> bool:
    """Airflow 3: the API tells the state, but not of which try."""
    found = state_by_task_sdk(task_instance)
    if found is None or found[0] == _RESTARTING:
        return False
    if found[0] in _STATES_BEFORE_A_TRY:
        return True
    return _is_history(task_instance) or _is_marked_by_another(task_instance)


def _is_history(task_instance: Any) -> bool:
    """Whether another try has taken the place, with an id of its own."""
    from airflow.sdk.exceptions import AirflowRuntimeError
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import ValidateInletsAndOutlets

    supervisor = task_runner.SUPERVISOR_COMMS
    try:
        # Of the questions about a task instance by its id, the one that changes nothing.
        supervisor.send(ValidateInletsAndOutlets(ti_id=task_instance.id))
    except AirflowRuntimeError as error:
        if (error.error.detail or {}).get("status_code") in _NOT_FOUND:
            return True
        raise
    return False


def _is_marked_by_another(task_instance: Any) -> bool:
    """Whether another try is at work with the same id."""
    from airflow.sdk.execution_time.xcom import XCom

    marked = XCom.get_one(
        key=_TRY_NUMBER,
        dag_id=task_instance.dag_id,
        task_id=task_instance.task_id,
        run_id=task_instance.run_id,
        map_index=task_instance.map_index,
    )
    return marked is not None and int(marked) != task_instance.try_number
