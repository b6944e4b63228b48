"""Has Airflow handed a task to its next try, and is that why this process is to end?

A task's process gets the same signal whether a user has cleared or marked its task, or whether
Airflow has lost sight of it and gives the task to another process: after the death of a scheduler
whose executor cannot adopt tasks, after silence. In the first case nobody wants the run any more. In
the second the next try follows it, and a cancel would make Airflow begin the work anew.
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

__all__ = ["next_try_takes_over"]

log = logging.getLogger(__name__)

# Airflow sends SIGKILL five seconds after the first signal; a cancel must fit in, too.
_LOOK_UP_SECONDS = 2.0
_RESTARTING = "restarting"  # A user has cleared the task while it was running.
_RUNNING = "running"
_STATES_BEFORE_A_TRY = (None, "scheduled", "queued", "up_for_retry")
_NOT_FOUND = (404, 410)


def next_try_takes_over(task_instance: Any) -> bool:
    """Return whether a killed task's run is the next try's to follow.

    Where Airflow does not answer within two seconds, no user can have told it anything about the
    task either. It will miss the task after a while, and begin the next try if there is one left.

    :param task_instance: the task instance of the try that is being killed.
    """
    answers: list[bool] = []

    def ask() -> None:
        try:
            answers.append(_is_handed_over(task_instance))
        except Exception as error:
            log.debug("Airflow did not tell why the task is killed: %r", error)

    # Not in the thread that the signal came to: it may be in the middle of a question itself.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_LOOK_UP_SECONDS)
    if answers:
        return answers[0]
    return bool(task_instance.try_number <= task_instance.max_tries)


def _is_handed_over(task_instance: Any) -> bool:
    if not airflow_has_task_sdk():
        return _is_handed_over_by_database(task_instance)
    if not _is_history(task_instance):
        return False
    state = state_by_task_sdk(task_instance)
    return state is not None and state != (_RESTARTING,)


def _is_handed_over_by_database(task_instance: Any) -> bool:
    """Airflow 2: the row tells the state, and the number of the latest try."""
    row = row_in_database(task_instance, "state", "try_number")
    if row is None:
        return False
    if row.state == _RUNNING:
        return bool(row.try_number != task_instance.try_number)
    return row.state in _STATES_BEFORE_A_TRY


def _is_history(task_instance: Any) -> bool:
    """Airflow 3: each try has an id, and only the latest one's is that of a task instance."""
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
