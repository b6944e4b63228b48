"""What an operator knows of its execution, of the run that it launched, and of a kill."""

from __future__ import annotations

import copy
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_jobs_provider.airflow_compat.run_successor import Successor
from airflow_jobs_provider.api.workflows.launched_run import LaunchedRun

if TYPE_CHECKING:
    from airflow_jobs_provider.airflow_compat.nested_operators import AttemptExecutions
    from airflow_jobs_provider.airflow_compat.refused_deferral import Deferral
    from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt

__all__ = ["ExecutionState", "KillState"]


class KillState(StrEnum):
    """Whether the task was killed, and what that means for its run.

    * NOT_KILLED: the task was not killed.
    * KILLED: it was killed. No run could be active, or the decision is being made.
    * UNDECIDED: it was killed during a request to Airflow, when no other request can be sent. The
      decision is made before the next step.
    * CANCEL: nothing follows the run. It is canceled, unless ``cancel_on_kill`` is False.
    * LEFT_TO_RETRY: the run goes on. The retry that Airflow starts after this try follows it.
    * LEFT_TO_SUCCESSOR: the run goes on. Another try that Airflow has started, or the trigger,
      follows it.
    """

    NOT_KILLED = "not killed"
    KILLED = "killed"
    UNDECIDED = "undecided"
    CANCEL = "cancel"
    LEFT_TO_RETRY = "left to retry"
    LEFT_TO_SUCCESSOR = "left to successor"

    @classmethod
    def from_successor(cls, successor: Successor) -> KillState:
        """Return the decision that follows from the run's successor."""
        return _BY_SUCCESSOR[successor]


_BY_SUCCESSOR = {
    Successor.NONE: KillState.CANCEL,
    Successor.RETRY: KillState.LEFT_TO_RETRY,
    Successor.EXISTING: KillState.LEFT_TO_SUCCESSOR,
}


class ExecutionState:
    """The state of one execution of an operator that launches a run.

    ==========================  ================================================================
    What happens                What changes
    ==========================  ================================================================
    The operator is made        Nothing is known.
    The execution starts, or    :meth:`next_execution` makes a new state. ``kill`` and
    resumes after a deferral    ``started_at`` are kept.
    A request is sent           ``run``; see :class:`~.launched_run.LaunchedRun`.
    The run was read            ``run_page_url``, ``job_id``.
    The task is killed          ``kill``.
    The task is about to defer  ``deferral``.
    ==========================  ================================================================

    Airflow copies operators, and the copies share the state. So an execution never changes the
    state of another one: it begins with a state of its own.

    :ivar attempt: the task's attempt; None where this object has executed nothing, as in Airflow's
        DAG processor.
    :ivar executions: all executions of operators in that attempt.
    :ivar run: the launch and its run.
    :ivar kill: whether the task was killed, and what that means for the run.
    :ivar deferral: a deferral that Airflow has not accepted yet.
    :ivar run_page_url: page of the run.
    :ivar job_id: job of the run; None if it is not known.
    :ivar started_at: when the try started, in seconds since the epoch, where Airflow has a wrong
        time; else None.
    :ivar deadline: when ``execution_timeout`` is over, in seconds since the epoch, where a deferral
        has stored it; else None.
    """

    def __init__(
        self,
        *,
        attempt: TaskAttempt | None = None,
        executions: AttemptExecutions | None = None,
        kill: KillState = KillState.NOT_KILLED,
        started_at: float | None = None,
        deadline: float | None = None,
    ) -> None:
        self.attempt = attempt
        self.executions = executions
        self.run = LaunchedRun()
        self.kill = kill
        self.deferral: Deferral | None = None
        self.run_page_url: str | None = None
        self.job_id: int | None = None
        self.started_at = started_at
        self.deadline = deadline

    def next_execution(
        self, attempt: TaskAttempt, executions: AttemptExecutions, deadline: float | None
    ) -> ExecutionState:
        """Return the state with which another execution begins.

        :param attempt: the task's attempt.
        :param executions: all executions of operators in that attempt.
        :param deadline: see :attr:`deadline`.
        """
        return ExecutionState(
            attempt=attempt,
            executions=executions,
            kill=self.kill,
            started_at=self.started_at,
            deadline=deadline,
        )

    def with_kill(self, kill: KillState) -> ExecutionState:
        """Return the same state with another :attr:`kill`."""
        changed = copy.copy(self)
        changed.kill = kill
        return changed

    def with_start(self, started_at: float) -> ExecutionState:
        """Return the same state with another :attr:`started_at`."""
        changed = copy.copy(self)
        changed.started_at = started_at
        return changed
