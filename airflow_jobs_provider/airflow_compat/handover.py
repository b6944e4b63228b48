"""Who follows the run of a task's process that is told to end: the rule for ``on_kill``.

A task's process gets the same signal for different reasons: a user has ended the task, Airflow has
given the task to another process, or the machine, the container or the worker shuts down. Airflow
changes the task's state before it sends a signal, so the process asks for the state:

==========================================  ===============================  ==================
What Airflow answers                        Why the process is to end        Its run
==========================================  ===============================  ==================
running, this try; a retry is left          a signal from outside            goes on: next try
running, this try; no retry is left         a signal from outside            is cancelled
another try is at work or about to begin    Airflow has given up on the      goes on: that try
and the task was not cleared                process: silence, or the death
                                            of a scheduler
deferred                                    any                              goes on: the trigger
failed, success, skipped, restarting,       a user: marked, cleared or       is cancelled
deleted, or cleared more than once          deleted; or a time limit of
                                            the DAG run, or ``fail_fast``
no answer within 3.5 s; a retry is left     unknown; hardly a user, whom     goes on: next try
                                            Airflow could have told us of
no answer; no retry is left                 unknown                          is cancelled
the request is refused (4xx)                unknown                          is cancelled
==========================================  ===============================  ==================

Nothing is asked, and the run is cancelled, where ``execution_timeout`` is over, where the next try
would not find the run (``reattach=False`` without an ``idempotency_token``), and in ``dag.test()``
and ``airflow tasks test``. A retry is left if ``try_number <= max_tries``. A retry policy of
Airflow 3.3 may still refuse the retry; then ``on_failure_callback`` runs, and the run is cancelled
there.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from enum import Enum
from types import FrameType
from typing import Any

from airflow_jobs_provider.airflow_compat.task_attempt import TaskAttempt
from airflow_jobs_provider.airflow_compat.task_state import (
    airflow_has_task_sdk,
    airflow_version,
    row_in_database,
    state_by_task_sdk,
)

__all__ = [
    "Successor",
    "ended_by_user",
    "find_successor",
    "is_refused_after_user_action",
    "is_request_in_progress",
    "runs_under_supervisor",
    "xcoms_at_start",
]

log = logging.getLogger(__name__)

# Airflow sends SIGKILL five seconds after the first signal; a cancel must fit in, too.
_LOOK_UP_SECONDS = 3.5
# It has to parse its DAG file first.
_SECONDS_UNTIL_XCOM = 2.0
_RUNNING = "running"
_DEFERRED = "deferred"
_UP_FOR_RETRY = "up_for_retry"
# A task that a user has cleared on its worker is not in these, but "restarting".
_BEFORE_A_TRY_IS_SCHEDULED = (None, _UP_FOR_RETRY)
_BEFORE_A_TRY = (*_BEFORE_A_TRY_IS_SCHEDULED, "scheduled", "queued")
_NOT_FOUND = (404, 410)
_CONFLICT = 409
_SERVER_ERRORS = 500
_LATEST_TRY_NUMBER = "latest_try_number"


class Successor(Enum):
    """Who follows the run of a process that is told to end."""

    #: None: the run is to be cancelled.
    NONE = "none"
    #: The retry that Airflow begins once this try has failed.
    RETRY = "retry"
    #: A try that Airflow has begun or will begin in any case, or the trigger.
    EXISTING = "existing"


def _successor_after_failure(attempt: TaskAttempt) -> Successor:
    return Successor.RETRY if attempt.has_retry_left else Successor.NONE


def xcoms_at_start(attempt: TaskAttempt) -> dict[str, int]:
    """Return what a try is to push as it begins, for the one before it to see: its number.

    Only where Airflow does not give each try an id of its own, and not for the first one.
    """
    if _tries_may_share_an_id() and attempt.try_number > 1:
        return {_LATEST_TRY_NUMBER: attempt.try_number}
    return {}


def find_successor(attempt: TaskAttempt) -> Successor:
    """Return who follows the run of a try whose process is told to end; see the table above.

    :param attempt: the try that is being killed.
    """
    if attempt.is_test or (airflow_has_task_sdk() and not runs_under_supervisor()):
        return Successor.NONE
    ask_airflow = _successor_by_task_sdk if airflow_has_task_sdk() else _successor_by_database
    answers: list[Successor] = []

    def ask() -> None:
        try:
            answers.append(ask_airflow(attempt))
        except Exception as error:  # noqa: BLE001 - whatever Airflow says, or does not
            log.debug("Airflow did not tell why the task is killed: %r", error)
            status = _status(error)
            if status is not None and status < _SERVER_ERRORS:
                answers.append(Successor.NONE)

    # In a thread, because only that can be given up on.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_LOOK_UP_SECONDS)
    return answers[0] if answers else _successor_after_failure(attempt)


def _successor_by_database(attempt: TaskAttempt) -> Successor:
    """Airflow 2: the row tells all, but the end of this process counts as the next try's failure.

    So the run is left only to a try that Airflow begins after such a failure, too.
    """
    row = row_in_database(attempt, "state", "try_number", "max_tries")
    if row is None or row.max_tries != attempt.max_tries:  # Deleted, or cleared once more.
        return Successor.NONE
    if row.state == _DEFERRED:
        return Successor.EXISTING
    if row.state not in (*_BEFORE_A_TRY, _RUNNING):
        return Successor.NONE
    if row.state == _RUNNING and row.try_number == attempt.try_number:
        return _successor_after_failure(attempt)
    number = row.try_number + (row.state in _BEFORE_A_TRY_IS_SCHEDULED)
    return (
        Successor.EXISTING if attempt.try_number < number <= attempt.max_tries else Successor.NONE
    )


def _successor_by_task_sdk(attempt: TaskAttempt) -> Successor:
    """Airflow 3: the API tells the state, but not of which try."""
    found = state_by_task_sdk(attempt)
    if found is None or _is_ended_by_user(found[0]):
        return Successor.NONE
    (state,) = found
    if _tries_may_share_an_id():
        # There, another id comes of a failure or a user, not of the death of a scheduler.
        if state == _UP_FOR_RETRY:
            return Successor.EXISTING
        if _is_history(attempt):
            return Successor.NONE
        if state != _RUNNING or _is_followed(attempt):
            return Successor.EXISTING
        return _successor_after_failure(attempt)
    if state == _RUNNING and not _is_history(attempt):
        return _successor_after_failure(attempt)
    return Successor.NONE if _tasks_were_cleared(attempt) else Successor.EXISTING


def ended_by_user(attempt: TaskAttempt) -> bool:
    """Return whether a user has ended the task of a process that has deferred; for Airflow 3.

    One question to Airflow's API. False where it gives no answer.

    :param attempt: the try that has deferred.
    """
    try:
        found = state_by_task_sdk(attempt)
    except Exception as error:  # noqa: BLE001 - whatever Airflow says, or does not
        log.debug("Airflow did not tell the state of the deferred task: %r", error)
        return False
    return found is None or _is_ended_by_user(found[0])


def is_refused_after_user_action(error: BaseException) -> bool:
    """Return whether an error says that Airflow 3 takes no news of a task that a user has ended."""
    status = _status(error)
    if status in _NOT_FOUND:
        return True
    refusal: Any = (_detail(error).get("detail") or {}).get("detail") or {}
    return status == _CONFLICT and _is_ended_by_user(refusal.get("previous_state", _RUNNING))


def _is_ended_by_user(state: str | None) -> bool:
    """Whether a task that was at work on a worker is in this state because of a user."""
    return state not in (*_BEFORE_A_TRY, _RUNNING, _DEFERRED)


def _is_history(attempt: TaskAttempt) -> bool:
    """Whether another try has taken the place, with an id of its own."""
    from airflow.sdk.exceptions import AirflowRuntimeError
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import ValidateInletsAndOutlets

    supervisor = task_runner.SUPERVISOR_COMMS
    try:
        # Of the questions about a task instance by its id, the one that changes nothing.
        supervisor.send(ValidateInletsAndOutlets(ti_id=attempt.ti_id))
    except AirflowRuntimeError as error:
        if _status(error) in _NOT_FOUND:
            return True
        raise
    return False


def _tries_may_share_an_id() -> bool:
    """Whether this Airflow lets a try that follows an orphaned one have its id: 3.0 does."""
    return (3, 0) <= airflow_version() < (3, 3)


def _is_followed(attempt: TaskAttempt) -> bool:
    """Whether another try is at work with the same id; it takes a moment until it tells so."""
    from airflow.sdk.execution_time.xcom import XCom

    patience = time.monotonic() + _SECONDS_UNTIL_XCOM
    while True:
        number = XCom.get_one(
            key=_LATEST_TRY_NUMBER,
            dag_id=attempt.dag_id,
            task_id=attempt.task_id,
            run_id=attempt.run_id,
            map_index=attempt.map_index,
        )
        if number is not None and int(number) > attempt.try_number:
            return True
        if time.monotonic() > patience:
            return False
        time.sleep(0.2)


def _tasks_were_cleared(attempt: TaskAttempt) -> bool:
    """Whether a user has cleared tasks of the DAG run since this try began: this one, perhaps.

    A task that is cleared twice does not stay in the state that tells of the first time.
    """
    from airflow.sdk.execution_time import comms, task_runner

    supervisor: Any = task_runner.SUPERVISOR_COMMS
    now = supervisor.send(comms.GetDagRun(dag_id=attempt.dag_id, run_id=attempt.run_id))
    return bool(now.clear_number != attempt.clear_number)


def runs_under_supervisor() -> bool:
    """Whether this is a task's process of Airflow 3, and not ``dag.test()`` or ``tasks test``."""
    task_runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    supervisor = getattr(task_runner, "SUPERVISOR_COMMS", None)
    return type(supervisor).__name__ not in ("NoneType", "InProcessSupervisorComms")


def is_request_in_progress() -> bool:
    """Whether this thread is in the middle of a question to Airflow 3: then none can be asked."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001
    while frame is not None:
        if frame.f_globals.get("__name__") == "airflow.sdk.execution_time.comms":
            return True
        frame = frame.f_back
    return False


def _status(error: BaseException) -> int | None:
    """Return the HTTP status with which Airflow's API has refused to answer."""
    status: int | None = _detail(error).get("status_code")
    return status


def _detail(error: BaseException) -> dict[str, Any]:
    return getattr(getattr(error, "error", None), "detail", None) or {}
