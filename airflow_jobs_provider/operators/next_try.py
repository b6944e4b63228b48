"""Has Airflow handed a task to its next try, and is that why this process is to end?

A task's process gets the same signal whether a user has cleared or marked its task, or whether
Airflow has lost sight of it and gives the task to another process: after silence, or the death of a
scheduler whose executor cannot adopt tasks. In the first case nobody wants the run any more. In the
second the next try follows it, and a cancel would make Airflow begin the work anew.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.task_look_up import (
    airflow_has_task_sdk,
    airflow_version,
    row_in_database,
    state_by_task_sdk,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["TryAtWork", "next_try_takes_over", "xcoms_of_try"]

log = logging.getLogger(__name__)

# Airflow sends SIGKILL five seconds after the first signal; a cancel must fit in, too.
_LOOK_UP_SECONDS = 3.5
# It has to parse its DAG file first.
_SECONDS_UNTIL_A_TRY_TELLS = 2.0
_RUNNING = "running"
_DEFERRED = "deferred"
_UP_FOR_RETRY = "up_for_retry"
# A task that a user has cleared on its worker is not in these, but "restarting".
_BEFORE_A_TRY_IS_SCHEDULED = (None, _UP_FOR_RETRY)
_BEFORE_A_TRY = (*_BEFORE_A_TRY_IS_SCHEDULED, "scheduled", "queued")
_NOT_FOUND = (404, 410)
_SERVER_ERRORS = 500
_FOLLOWED_BY = "followed_by_try"


@dataclass(frozen=True, slots=True)
class TryAtWork:
    """What the process that executes a try knows of it from the beginning.

    :ivar dag_id: DAG.
    :ivar run_id: DAG run.
    :ivar task_id: task.
    :ivar map_index: index of a mapped task, else -1.
    :ivar try_number: number of the try.
    :ivar max_tries: Airflow's ``max_tries``.
    :ivar id: the task instance's id in Airflow 3.
    :ivar clear_number: how often tasks of the DAG run were cleared before.
    :ivar is_a_test: whether it is a test of Airflow 2, of which no scheduler knows.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    max_tries: int
    id: Any
    clear_number: int | None
    is_a_test: bool

    @classmethod
    def of(cls, context: Context) -> TryAtWork:
        """Read it from a task's context."""
        ti = context["ti"]
        return cls(
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=-1 if ti.map_index is None else ti.map_index,
            try_number=ti.try_number,
            max_tries=ti.max_tries,
            id=getattr(ti, "id", None),
            clear_number=getattr(context.get("dag_run"), "clear_number", None),
            is_a_test=bool(context.get("test_mode")),
        )


def xcoms_of_try(this: TryAtWork) -> dict[str, int]:
    """Return what a try is to push as it begins, for the one before it to see: its number.

    Only where Airflow does not give each try an id of its own, and not for the first one.
    """
    if _tries_may_share_an_id() and this.try_number > 1:
        return {_FOLLOWED_BY: this.try_number}
    return {}


def next_try_takes_over(this: TryAtWork) -> bool:
    """Return whether a killed task's run is the next try's to follow.

    Where there is no answer in time, the chances are that Airflow kills the task for just that: it
    will miss the task after a while, and begin the next try if one is left. It could hardly have
    been told by a user.

    :param this: the try that is being killed.
    """
    if this.is_a_test or _is_asking_airflow():
        return False
    is_handed_over = (
        _is_handed_over_by_task_sdk if airflow_has_task_sdk() else _is_handed_over_by_database
    )
    answers: list[bool] = []

    def ask() -> None:
        try:
            answers.append(is_handed_over(this))
        except Exception as error:  # noqa: BLE001 - whatever Airflow says, or does not
            log.debug("Airflow did not tell why the task is killed: %r", error)
            status = _status(error)
            if status is not None and status < _SERVER_ERRORS:
                answers.append(False)

    # In a thread, because only that can be given up on.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_LOOK_UP_SECONDS)
    return answers[0] if answers else this.try_number <= this.max_tries


def _is_handed_over_by_database(this: TryAtWork) -> bool:
    """Airflow 2: the row tells all, but the end of this process counts as the next try's failure.

    So the run is left only to a try that Airflow begins after such a failure, too.
    """
    row = row_in_database(this, "state", "try_number", "max_tries")
    if row is None or row.max_tries != this.max_tries:  # Deleted, or cleared once more.
        return False
    if row.state == _DEFERRED:
        return True
    if row.state not in (*_BEFORE_A_TRY, _RUNNING):
        return False
    number = row.try_number + (row.state in _BEFORE_A_TRY_IS_SCHEDULED)
    return bool(this.try_number < number <= this.max_tries)


def _is_handed_over_by_task_sdk(this: TryAtWork) -> bool:
    """Airflow 3: the API tells the state, but not of which try."""
    found = state_by_task_sdk(this)
    if found is None or found[0] not in (*_BEFORE_A_TRY, _RUNNING, _DEFERRED):
        return False
    (state,) = found
    if _tries_may_share_an_id():
        # There, another id comes of a failure or a user, not of the death of a scheduler.
        if state == _UP_FOR_RETRY:
            return True
        return not _is_history(this) and (state != _RUNNING or _is_followed(this))
    return not _tasks_were_cleared(this) and (state != _RUNNING or _is_history(this))


def _is_history(this: TryAtWork) -> bool:
    """Whether another try has taken the place, with an id of its own."""
    from airflow.sdk.exceptions import AirflowRuntimeError
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import ValidateInletsAndOutlets

    supervisor = task_runner.SUPERVISOR_COMMS
    try:
        # Of the questions about a task instance by its id, the one that changes nothing.
        supervisor.send(ValidateInletsAndOutlets(ti_id=this.id))
    except AirflowRuntimeError as error:
        if _status(error) in _NOT_FOUND:
            return True
        raise
    return False


def _tries_may_share_an_id() -> bool:
    """Whether this Airflow lets a try that follows an orphaned one have its id: 3.0 does."""
    return (3, 0) <= airflow_version() < (3, 3)


def _is_followed(this: TryAtWork) -> bool:
    """Whether another try is at work with the same id; it takes a moment until it tells so."""
    from airflow.sdk.execution_time.xcom import XCom

    patience = time.monotonic() + _SECONDS_UNTIL_A_TRY_TELLS
    while True:
        number = XCom.get_one(
            key=_FOLLOWED_BY,
            dag_id=this.dag_id,
            task_id=this.task_id,
            run_id=this.run_id,
            map_index=this.map_index,
        )
        if number is not None and int(number) > this.try_number:
            return True
        if time.monotonic() > patience:
            return False
        time.sleep(0.2)


def _tasks_were_cleared(this: TryAtWork) -> bool:
    """Whether a user has cleared tasks of the DAG run since this try began: this one, perhaps.

    A task that is cleared twice does not stay in the state that tells of the first time.
    """
    from airflow.sdk.execution_time import comms, task_runner

    supervisor: Any = task_runner.SUPERVISOR_COMMS
    now = supervisor.send(comms.GetDagRun(dag_id=this.dag_id, run_id=this.run_id))
    return bool(now.clear_number != this.clear_number)


def _is_asking_airflow() -> bool:
    """Whether the signal came while this thread was asking: then nobody else can."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001
    while frame is not None:
        if frame.f_globals.get("__name__") == "airflow.sdk.execution_time.comms":
            return True
        frame = frame.f_back
    return False


def _status(error: Exception) -> int | None:
    """Return the HTTP status with which Airflow's API has refused to answer."""
    detail: Any = getattr(getattr(error, "error", None), "detail", None) or {}
    status: int | None = detail.get("status_code")
    return status
