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
from dataclasses import dataclass
from enum import Enum
from types import FrameType
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.airflow_compat.task_state import (
    airflow_has_task_sdk,
    airflow_version,
    row_in_database,
    state_by_task_sdk,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = [
    "Follower",
    "TryAtWork",
    "is_asking_airflow",
    "refused_for_user",
    "supervisor_is_another_process",
    "user_ended",
    "who_follows",
    "xcoms_of_try",
]

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
_CONFLICT = 409
_SERVER_ERRORS = 500
_FOLLOWED_BY = "followed_by_try"


class Follower(Enum):
    """Who follows the run of a process that is told to end."""

    #: Nobody: the run is to be cancelled.
    NOBODY = "nobody"
    #: The retry that Airflow begins once this try has failed.
    RETRY = "retry"
    #: A try that Airflow has begun or will begin in any case, or the trigger.
    SUCCESSOR = "successor"


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
    def from_context(cls, context: Context) -> TryAtWork:
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

    @property
    def follower_after_failure(self) -> Follower:
        """Who follows the run if this try fails."""
        return Follower.RETRY if self.try_number <= self.max_tries else Follower.NOBODY


def xcoms_of_try(this: TryAtWork) -> dict[str, int]:
    """Return what a try is to push as it begins, for the one before it to see: its number.

    Only where Airflow does not give each try an id of its own, and not for the first one.
    """
    if _tries_may_share_an_id() and this.try_number > 1:
        return {_FOLLOWED_BY: this.try_number}
    return {}


def who_follows(this: TryAtWork) -> Follower:
    """Return who follows the run of a try whose process is told to end; see the table above.

    :param this: the try that is being killed.
    """
    if this.is_a_test or (airflow_has_task_sdk() and not supervisor_is_another_process()):
        return Follower.NOBODY
    ask_airflow = _who_follows_by_task_sdk if airflow_has_task_sdk() else _who_follows_by_database
    answers: list[Follower] = []

    def ask() -> None:
        try:
            answers.append(ask_airflow(this))
        except Exception as error:  # noqa: BLE001 - whatever Airflow says, or does not
            log.debug("Airflow did not tell why the task is killed: %r", error)
            status = _status(error)
            if status is not None and status < _SERVER_ERRORS:
                answers.append(Follower.NOBODY)

    # In a thread, because only that can be given up on.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_LOOK_UP_SECONDS)
    return answers[0] if answers else this.follower_after_failure


def _who_follows_by_database(this: TryAtWork) -> Follower:
    """Airflow 2: the row tells all, but the end of this process counts as the next try's failure.

    So the run is left only to a try that Airflow begins after such a failure, too.
    """
    row = row_in_database(this, "state", "try_number", "max_tries")
    if row is None or row.max_tries != this.max_tries:  # Deleted, or cleared once more.
        return Follower.NOBODY
    if row.state == _DEFERRED:
        return Follower.SUCCESSOR
    if row.state not in (*_BEFORE_A_TRY, _RUNNING):
        return Follower.NOBODY
    if row.state == _RUNNING and row.try_number == this.try_number:
        return this.follower_after_failure
    number = row.try_number + (row.state in _BEFORE_A_TRY_IS_SCHEDULED)
    return Follower.SUCCESSOR if this.try_number < number <= this.max_tries else Follower.NOBODY


def _who_follows_by_task_sdk(this: TryAtWork) -> Follower:
    """Airflow 3: the API tells the state, but not of which try."""
    found = state_by_task_sdk(this)
    if found is None or _is_ended_by_user(found[0]):
        return Follower.NOBODY
    (state,) = found
    if _tries_may_share_an_id():
        # There, another id comes of a failure or a user, not of the death of a scheduler.
        if state == _UP_FOR_RETRY:
            return Follower.SUCCESSOR
        if _is_history(this):
            return Follower.NOBODY
        if state != _RUNNING or _is_followed(this):
            return Follower.SUCCESSOR
        return this.follower_after_failure
    if state == _RUNNING and not _is_history(this):
        return this.follower_after_failure
    return Follower.NOBODY if _tasks_were_cleared(this) else Follower.SUCCESSOR


def user_ended(this: TryAtWork) -> bool:
    """Return whether a user has ended the task of a process that has deferred; for Airflow 3.

    One question to Airflow's API. False where it gives no answer.

    :param this: the try that has deferred.
    """
    try:
        found = state_by_task_sdk(this)
    except Exception as error:  # noqa: BLE001 - whatever Airflow says, or does not
        log.debug("Airflow did not tell the state of the deferred task: %r", error)
        return False
    return found is None or _is_ended_by_user(found[0])


def refused_for_user(error: BaseException) -> bool:
    """Return whether an error says that Airflow 3 takes no news of a task that a user has ended."""
    status = _status(error)
    if status in _NOT_FOUND:
        return True
    refusal: Any = (_detail(error).get("detail") or {}).get("detail") or {}
    return status == _CONFLICT and _is_ended_by_user(refusal.get("previous_state", _RUNNING))


def _is_ended_by_user(state: str | None) -> bool:
    """Whether a task that was at work on a worker is in this state because of a user."""
    return state not in (*_BEFORE_A_TRY, _RUNNING, _DEFERRED)


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


def supervisor_is_another_process() -> bool:
    """Whether this is a task's process of Airflow 3, and not ``dag.test()`` or ``tasks test``."""
    task_runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    supervisor = getattr(task_runner, "SUPERVISOR_COMMS", None)
    return type(supervisor).__name__ not in ("NoneType", "InProcessSupervisorComms")


def is_asking_airflow() -> bool:
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
