"""Cancels the run of a task whose deferral Airflow refuses, since a user has ended the task.

A user may mark a task, or its DAG run, after the task has launched its run and before it defers. If
the deferral comes before Airflow's signal, Airflow 3 refuses it. Then there is no trigger, no
``on_kill`` and no error that the task could see. The process finds out at its end:

* Airflow 3.2 and later log the refusal and finish the process in order. They ask for the operator's
  links, and meanwhile the task's state can be asked for. That needs no request if the deferral was
  seen to be accepted.
* Airflow 3.0 and 3.1 end the process with the refusal as the error, which tells the state. Airflow
  cannot be asked any more, but nothing needs to be asked.

Airflow 2 refuses no deferral: it overwrites what the user has marked.
"""

from __future__ import annotations

import atexit
import logging
import sys
from collections.abc import Callable

from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.airflow_compat.lines.base import is_ended_by_user
from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt
from airflow_jobs_provider.airflow_compat.task_state import task_state

__all__ = ["Deferral"]

log = logging.getLogger(__name__)


class Deferral:
    """A deferral that Airflow has not accepted yet.

    :param attempt: the attempt that is about to defer.
    :param cancel: cancels its run.
    """

    def __init__(self, attempt: TaskAttempt, cancel: Callable[[], None]) -> None:
        self._attempt = attempt
        self._cancel = cancel
        self._is_decided = not airflow_line().runs_under_supervisor()
        if not self._is_decided:
            self._is_accepted = airflow_line().watch_deferral()
            # Airflow drops what was registered before it made the task's process.
            atexit.register(self._at_exit)

    def finish(self) -> None:
        """Cancel the run if a user has ended the task; later calls do nothing.

        Airflow is asked for the task's state unless it has accepted the deferral.
        """
        if not self._is_decided:
            self._is_decided = True
            if not self._is_accepted() and self._is_ended_by_user():
                try:
                    self._cancel()
                except Exception:
                    # Airflow asks for the links, and has more to do before the process ends.
                    log.exception("The run of the task that a user has ended may still run")

    def _is_ended_by_user(self) -> bool:
        try:
            return is_ended_by_user(task_state(self._attempt))
        except Exception as error:  # noqa: BLE001 - whatever Airflow answers
            log.debug("Airflow did not tell the state of the deferred task: %r", error)
            return False

    def _at_exit(self) -> None:
        if self._is_decided:
            return
        error: BaseException | None = sys.exception()
        while error is not None:
            if airflow_line().is_refused_after_user_action(error):
                self._cancel()
                return
            error = error.__context__
