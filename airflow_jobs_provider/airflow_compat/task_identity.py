"""Who a task is, for the idempotency tokens of its launches.

The service launches exactly one run for a token, so a token that is made from the task's identity
alone needs no memory: whichever process runs the task's next try makes the same tokens and so finds
the run that an earlier try launched.

The identity is DAG, DAG run, task, map index, and what tells a wait from the same wait begun anew:
the DAG run's start date (a DAG run that is deleted and made again keeps its id) and ``max_tries``
(clearing a task raises it, a retry does not). Where a task executes several operators, or one of
them several times, each execution has an identity of its own: the executed operator's task_id, and
how often it was executed before in the same try. What is sent is no part of it, since templates may
render to something else at the next try.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["TaskAttempt"]


@dataclass(frozen=True, slots=True)
class TaskAttempt:
    """One try of one task.

    :ivar dag_id: DAG.
    :ivar run_id: DAG run.
    :ivar dag_run_start: start of the DAG run, as text.
    :ivar task_id: task.
    :ivar map_index: index of a mapped task, else -1.
    :ivar max_tries: Airflow's ``max_tries``, the same for all tries since the task was cleared.
    :ivar place: how many tries there were before this one since then.
    :ivar operator_task_id: the executed operator's own task_id, where a task executes others.
    :ivar execution: how often an operator of this task_id was executed before in this try.
    """

    dag_id: str
    run_id: str
    dag_run_start: str
    task_id: str
    map_index: int
    max_tries: int
    place: int
    operator_task_id: str
    execution: int = 0

    @classmethod
    def from_context(
        cls, context: Context, *, operator_task_id: str | None = None, execution: int = 0
    ) -> TaskAttempt:
        """Read the identity from a task's context.

        :param operator_task_id: task_id of the operator that is executed; default the task's.
        :param execution: how often an operator of this task_id was executed before in this try.
        """
        ti = context["ti"]
        start = getattr(context.get("dag_run"), "start_date", None)
        retries = int(getattr(context.get("task"), "retries", 0) or 0)
        max_tries = int(ti.max_tries)
        # Airflow sets max_tries to the number of tries so far plus the task's retries.
        first_try = max_tries - retries + 1
        return cls(
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            # To the microsecond in UTC, however this Airflow version writes a time.
            dag_run_start="" if start is None else f"{start.timestamp():.6f}",
            task_id=ti.task_id,
            map_index=-1 if ti.map_index is None else ti.map_index,
            max_tries=max_tries,
            place=max(0, ti.try_number - first_try),
            operator_task_id=operator_task_id or ti.task_id,
            execution=execution,
        )

    def token(self, attempt_index: int) -> str:
        """Return an attempt's token: 64 hexadecimal digits, the most that the API takes."""
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
        """Return the tokens of this try: those of the tries before it, then its own."""
        return [self.token(attempt_index) for attempt_index in range(self.place + 1)]
