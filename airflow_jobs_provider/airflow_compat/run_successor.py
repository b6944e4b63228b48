"""Who goes on with the run of a task's process that is told to end: the rule for ``on_kill``.

A task's process gets the same signal for different reasons: a user has ended the task, Airflow has
given the task to another process, or the machine, the container or the worker shuts down. Airflow
changes the task's state before it sends a signal, so the process asks for the state:

==========================================  ===============================  ==================
Answer of Airflow                           Reason of the signal             The run
==========================================  ===============================  ==================
running, this attempt; a retry is left      a signal from outside            goes on: the retry
running, this attempt; no retry is left     a signal from outside            is canceled
another attempt runs or is about to begin   Airflow has given up the         goes on: that one
and the task was not cleared                process: no heartbeat, or the
                                            death of a scheduler
deferred                                    any                              goes on: the trigger
failed, success, skipped, restarting,       a user: marked, cleared or       is canceled
deleted, or cleared more than once          deleted; or a time limit of
                                            the DAG run, or ``fail_fast``
no answer within 3.5 s; a retry is left     unknown; hardly a user, whom     goes on: the retry
                                            Airflow could have told us of
no answer; no retry is left                 unknown                          is canceled
the request is refused (4xx)                unknown                          is canceled
==========================================  ===============================  ==================

Airflow is not asked, and the run is canceled, where ``execution_timeout`` is over, where the retry
would not find the run (``reattach=False`` without an ``idempotency_token``), and in ``dag.test()``
and ``airflow tasks test``. A retry is left if ``try_number <= max_tries``. A retry policy of
Airflow 3.3 may still refuse the retry; then ``on_failure_callback`` runs, and cancels the run.
"""

from __future__ import annotations

import logging
import threading

from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.airflow_compat.lines.base import Successor, successor_after_failure
from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt

__all__ = [
    "Successor",
    "find_successor",
    "is_request_in_progress",
    "runs_under_supervisor",
    "xcoms_at_start",
]

log = logging.getLogger(__name__)

# Airflow sends SIGKILL five seconds after the first signal; a cancel must fit in, too.
_LOOK_UP_SECONDS = 3.5
_SERVER_ERRORS = 500


def find_successor(attempt: TaskAttempt) -> Successor:
    """Return who goes on with the run of an attempt whose process is told to end.

    The module's table is the rule. Airflow has 3.5 seconds to answer.

    :param attempt: the attempt of this process.
    """
    line = airflow_line()
    if not line.is_scheduled(attempt):
        return Successor.NONE
    answers: list[Successor] = []

    def ask() -> None:
        try:
            answers.append(line.find_successor(attempt))
        except Exception as error:  # noqa: BLE001 - whatever Airflow answers
            log.debug("Airflow did not tell why the task is killed: %r", error)
            status = line.refusal_status(error)
            if status is not None and status < _SERVER_ERRORS:
                answers.append(Successor.NONE)

    # In a thread, because only the wait for a thread can be given up.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_LOOK_UP_SECONDS)
    return answers[0] if answers else successor_after_failure(attempt)


def xcoms_at_start(attempt: TaskAttempt) -> dict[str, int]:
    """Return the XComs that an attempt pushes as it begins, for :func:`find_successor`.

    They tell the process of an earlier attempt that there is a later one. Empty where Airflow
    itself tells attempts apart.

    :param attempt: the attempt of this process.
    """
    return airflow_line().xcoms_at_start(attempt)


def runs_under_supervisor() -> bool:
    """Return whether this is a task's process of Airflow 3, not ``dag.test()`` or ``tasks test``.

    There a signal ends neither the process nor a sleep.
    """
    return airflow_line().runs_under_supervisor()


def is_request_in_progress() -> bool:
    """Return whether this thread waits for an answer from Airflow 3: then it can ask nothing else.

    For a signal handler, which may interrupt such a wait.
    """
    return airflow_line().is_request_in_progress()
