"""The identity of a task's attempt, and the idempotency tokens of its launches.

The service launches exactly one run for a token. A token that is made from the task's identity
alone needs no stored state: the process that executes the task's next attempt makes the same tokens
and so finds the run that an earlier attempt launched.

The identity is DAG, DAG run, task and map index. Two more values tell a task that was started again
from the same task before: the DAG run's start date (a DAG run that is deleted and created again
keeps its id) and ``max_tries`` (Airflow raises it when a task is cleared, not at a retry). Where a
task executes several operators, or one of them several times, each execution has an identity of
its own: the operator's task_id, and how often it was executed before in the same attempt. The
request is no part of it, since templates may render to something else at the next attempt.

A task instance that is deleted and created anew in the same DAG run cannot be told from the deleted
one: its id is another one at each attempt, and its context_carrier is that of the DAG run where
Airflow makes no traces.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["TaskAttempt"]


class TaskAttempt(NamedTuple):
    """One attempt (Airflow: try) of one task, as its process knows it from the beginning.

    :ivar dag_id: DAG.
    :ivar run_id: DAG run.
    :ivar dag_run_start: start of the DAG run, as text; empty if it has none.
    :ivar task_id: task.
    :ivar map_index: index of a mapped task, else -1.
    :ivar try_number: Airflow's ``try_number``.
    :ivar max_tries: Airflow's ``max_tries``, the same for all attempts since the task was cleared.
    :ivar attempt_index: number of attempts before this one since the task was cleared.
    :ivar operator_task_id: task_id of the operator that is executed: the task's, unless the task's
        operator executes others.
    :ivar execution: how often an operator of this task_id was executed before in this attempt.
    :ivar ti_id: the task instance's id in Airflow 3; None in Airflow 2.
    :ivar clear_number: how often tasks of the DAG run were cleared before; None in Airflow 2.
    :ivar is_test: whether this is ``airflow tasks test`` in Airflow 2, which no scheduler knows of.
    """

    dag_id: str
    run_id: str
    dag_run_start: str
    task_id: str
    map_index: int
    try_number: int
    max_tries: int
    attempt_index: int
    operator_task_id: str
    execution: int = 0
    ti_id: Any = None
    clear_number: int | None = None
    is_test: bool = False

    @classmethod
    def from_context(
        cls,
        context: Context,
        *,
        operator_task_id: str | None = None,
        execution: int = 0,
        first_try: int | None = None,
        max_tries: int | None = None,
    ) -> TaskAttempt:
        """Read the attempt from a task's context.

        :param operator_task_id: task_id of the operator that is executed; default the task's.
        :param execution: how often an operator of this task_id was executed before in this attempt;
            default 0.
        :param first_try: ``try_number`` of the first attempt since the task was cleared, for the
            context of a trigger, which does not have ``max_tries``; default: computed from it.
        :param max_tries: ``max_tries``, where it is recorded beside ``first_try``; default:
            computed from the task's retries.
        """
        ti = context["ti"]
        dag_run = context.get("dag_run")
        start = getattr(dag_run, "start_date", None)
        retries = int(getattr(context.get("task"), "retries", 0) or 0)
        # Airflow sets max_tries to the number of attempts so far plus the task's retries.
        if first_try is None:
            max_tries = int(ti.max_tries)
            # No attempt is before the first: retries may have been raised in the DAG file since.
            first_try = max(1, max_tries - retries + 1)
        elif max_tries is None:
            max_tries = first_try - 1 + retries
        return cls(
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            # To the microsecond in UTC, however this Airflow version writes a time.
            dag_run_start="" if start is None else f"{start.timestamp():.6f}",
            task_id=ti.task_id,
            map_index=-1 if ti.map_index is None else ti.map_index,
            try_number=ti.try_number,
            max_tries=max_tries,
            attempt_index=max(0, ti.try_number - first_try),
            operator_task_id=operator_task_id or ti.task_id,
            execution=execution,
            ti_id=getattr(ti, "id", None),
            clear_number=getattr(dag_run, "clear_number", None),
            is_test=bool(context.get("test_mode")),
        )

    @property
    def attempts_before_clear(self) -> int:
        """Number of attempts before the task was last cleared; 0 if it was not cleared."""
        return max(0, self.try_number - self.attempt_index - 1)

    @property
    def has_retry_left(self) -> bool:
        """Whether Airflow retries the task if this attempt fails."""
        return self.try_number <= self.max_tries

    def token(self, attempt_index: int) -> str:
        """Return an attempt's token: 64 hexadecimal digits, the most that the API takes.

        :param attempt_index: number of attempts before that one since the task was cleared.
        """
        identity: list[str | int] = [
            self.dag_id,
            self.run_id,
            self.dag_run_start,
            self.task_id,
            self.map_index,
            self.max_tries,
            attempt_index,
        ]
        # The task's own operator, executed once, has the tokens that it always had.
        if self.operator_task_id != self.task_id or self.execution:
            identity += [self.operator_task_id, self.execution]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    def tokens(self) -> list[str]:
        """Return the tokens of the attempts before this one, then its own."""
        return [self.token(attempt_index) for attempt_index in range(self.attempt_index + 1)]
