"""What Airflow knows of the tasks of a workflow group, beyond the attempt that asks.

A task of a group may be executed again: after a clear, or as a retry. Then it has to know which of
its Databricks task runs an earlier attempt has reported already, since such a run must not be
reported again. Airflow deletes the XComs of a task when it starts the task again. So these records
are XComs of the group's launching task. They are deleted when that one is cleared and starts again,
which is right: a new run begins then.

Records of other tasks in the group tell which of them are to run again, too, so that one repair
serves all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.airflow_compat.lines.base import (
    BEFORE_RUNNING,
    BEFORE_SCHEDULING,
    DEFERRED,
    RUNNING,
    UP_FOR_RETRY,
    LaterAttempt,
)
from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt

__all__ = [
    "UNKNOWN_ATTEMPT",
    "LaterAttempt",
    "TaskRecord",
    "WorkflowRecords",
    "delete_records",
    "is_about_to_start",
    "is_running",
    "is_skipped",
    "is_to_be_executed",
    "is_to_be_retried",
    "is_unfinished",
]

KEY_PREFIX = "databricks_task_run."
# A user has cleared the task while it was executed.
_RESTARTING = "restarting"
_SKIPPED = "skipped"
#: Nothing is known of attempts after the one that has recorded something.
UNKNOWN_ATTEMPT = LaterAttempt(has_begun=False, was_cleared=False)


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """What the attempts of a task have recorded.

    :ivar reported: the task run whose end an attempt has reported to Airflow; None for none yet.
    :ivar max_tries: Airflow's ``max_tries`` in that attempt, which a clear changes.
    :ivar wants_rerun_of: the task run that an attempt has found, and that has to run again.
    :ivar is_alone: whether the task runs outside the group's run, since that cannot be repaired.
    :ivar try_number: the number of the attempt that has recorded this; 0 for none.
    :ivar follows: the task run that the latest attempt has followed. The first attempt of all
        records it only if a repair has started it.
    :ivar clear_number: how often tasks of the DAG run were cleared before that attempt; None in
        Airflow 2, which has no such number, and of a trigger, which does not know it.
    :ivar is_repairing: whether the attempt is about to repair the group's run, while it is
        executed.
    """

    reported: int | None = None
    max_tries: int | None = None
    wants_rerun_of: int | None = None
    is_alone: bool = False
    try_number: int = 0
    follows: int | None = None
    clear_number: int | None = None
    is_repairing: bool = False

    def with_reported(self, run_id: int, attempt: TaskAttempt) -> TaskRecord:
        """Return the record after an attempt has reported a run of the task.

        :param run_id: the task run.
        :param attempt: the attempt.
        """
        return replace(
            self,
            reported=run_id,
            max_tries=attempt.max_tries,
            wants_rerun_of=None,
            follows=run_id,
        )


class WorkflowRecords:
    """The records of a group's tasks in one DAG run.

    :param attempt: the attempt that asks.
    :param launch_task_id: the group's launching task.
    """

    def __init__(self, attempt: TaskAttempt, launch_task_id: str) -> None:
        self._attempt = attempt
        self._launch_task_id = launch_task_id

    def read(self, task_id: str) -> TaskRecord:
        """Return the record of a task; an empty one if there is none."""
        found: Any = airflow_line().read_xcom(
            self._attempt, self._launch_task_id, KEY_PREFIX + task_id
        )
        if not isinstance(found, dict):
            return TaskRecord()
        known = TaskRecord.__dataclass_fields__
        return replace(
            TaskRecord(), **{name: value for name, value in found.items() if name in known}
        )

    def write(self, task_id: str, record: TaskRecord) -> TaskRecord:
        """Store the record of the attempt's own task with the attempt's number, and return it."""
        attempt = self._attempt
        written = replace(record, try_number=attempt.try_number, clear_number=attempt.clear_number)
        airflow_line().write_xcom(
            attempt, self._launch_task_id, KEY_PREFIX + task_id, asdict(written)
        )
        return written

    def later_attempt(
        self, task_id: str, record: TaskRecord, *, pushes_xcoms: bool
    ) -> LaterAttempt:
        """Return what Airflow tells of attempts of a task after the one that has recorded this.

        :param task_id: the task.
        :param record: its record, with ``reported``.
        :param pushes_xcoms: whether the task pushes XComs.
        """
        return airflow_line().later_attempt(
            self._attempt,
            task_id,
            reported=record.reported,
            try_number=record.try_number,
            max_tries=record.max_tries,
            clear_number=record.clear_number,
            pushes_xcoms=pushes_xcoms,
        )

    def states(self, task_ids: Iterable[str]) -> dict[str, str | None]:
        """Return the states of tasks in the group, by task id."""
        return airflow_line().task_states(self._attempt, list(task_ids))


def delete_records(launch: Any, task_ids: Iterable[str], keys: Iterable[str]) -> None:
    """Delete what the attempts of a group's tasks have recorded in the run before.

    Airflow does so where a worker starts the launching task, and not where it resumes one that has
    started in the triggerer.

    :param launch: task instance of the launching task. Its first attempt deletes nothing.
    :param task_ids: the group's tasks.
    :param keys: keys of further XComs of the launching task.
    """
    if launch.try_number > 1:
        airflow_line().delete_xcoms(launch, [*keys, *(KEY_PREFIX + one for one in task_ids)])


def is_to_be_executed(state: str | None) -> bool:
    """Return whether Airflow will execute a task of this state, as after a clear."""
    return state in (*BEFORE_RUNNING, _RESTARTING)


def is_about_to_start(state: str | None) -> bool:
    """Return whether the scheduler has decided to execute a task of this state now."""
    return is_to_be_executed(state) and state not in BEFORE_SCHEDULING


def is_to_be_retried(state: str | None) -> bool:
    """Return whether an attempt of a task of this state has failed, and Airflow will retry it."""
    return state == UP_FOR_RETRY


def is_running(state: str | None) -> bool:
    """Return whether a worker executes a task of this state."""
    return state == RUNNING


def is_skipped(state: str | None) -> bool:
    """Return whether a task of this state was skipped."""
    return state == _SKIPPED


def is_unfinished(state: str | None) -> bool:
    """Return whether Airflow executes a task of this state, or will execute it."""
    return is_to_be_executed(state) or state in (RUNNING, DEFERRED)
