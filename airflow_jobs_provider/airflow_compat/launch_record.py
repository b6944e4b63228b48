"""The XCom that tells a launching trigger which attempt of its task it belongs to.

A worker knows ``max_tries``, which tells the attempts since the latest clear from those before it.
Airflow tells a trigger neither that nor how often the task was cleared. So the first attempt since
a clear records its number, and later ones read it. From it a trigger makes the same idempotency
tokens as a worker.

Airflow gives a task another ``context_carrier`` when it is cleared, and keeps it at a retry. Only a
clear that leaves the DAG run's state alone (``reset_dag_runs`` is false) keeps it as well. So an
attempt continues the one before it if the carrier is the same and that attempt was handed to a
worker, since each attempt fails there. Otherwise what the attempt before has launched is an orphan.

The first attempt of all needs no record for its tokens. Without one, the next attempt takes it for
an attempt that was not handed to a worker. So a triggerer without a pause stores none; see
:mod:`.triggerer_health`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt
from airflow_jobs_provider.api.ids import parse_id
from airflow_jobs_provider.xcom import (
    JOB_ID_KEY,
    LAUNCH_RECORD_KEY,
    RUN_ID_KEY,
    RUN_PAGE_URL_KEY,
)

__all__ = [
    "LaunchAttempt",
    "LaunchRecord",
    "begin_attempt",
    "begin_first_attempt",
    "first_task_attempt",
    "is_replaced",
    "read_record",
    "record_attempt",
    "record_handover",
    "record_success",
    "recorded_run_id",
]


@dataclass(frozen=True, slots=True)
class LaunchRecord:
    """The XCom ``launch_record``.

    :ivar carrier: what Airflow changes when the task is cleared.
    :ivar first_try: ``try_number`` of the first attempt since then.
    :ivar try_number: ``try_number`` of the latest attempt.
    :ivar handed_over: whether that attempt was handed to a worker.
    :ivar max_tries: ``max_tries`` of all attempts since then, as the first one knew it: the task's
        ``retries`` may change meanwhile. None where it was not recorded.
    """

    carrier: str
    first_try: int
    try_number: int
    handed_over: bool = False
    max_tries: int | None = None

    @classmethod
    def from_xcom(cls, value: Any) -> Self | None:
        """Return the record of an XCom's value; None where it is none."""
        try:
            return cls(**value)
        except TypeError:
            return None


@dataclass(frozen=True, slots=True)
class LaunchAttempt:
    """The attempt that a trigger begins, or continues after another triggerer.

    :ivar attempt: the attempt, with its tokens.
    :ivar record: its record, which is to be stored by :func:`record_attempt` before the launch.
    :ivar is_new: whether the record is not stored yet.
    :ivar orphan_run_id: the run that an attempt before a clear has launched last; None for none.
    """

    attempt: TaskAttempt
    record: LaunchRecord
    is_new: bool
    orphan_run_id: int | None = None

    @property
    def is_outdated(self) -> bool:
        """Whether a later attempt has begun: this triggerer has missed that its attempt is over."""
        return self.record.try_number > self.attempt.try_number


def read_record(task_instance: Any) -> LaunchRecord | None:
    """Return the record of a task's latest attempt; None without one. It blocks.

    :param task_instance: the task's.
    """
    return LaunchRecord.from_xcom(airflow_line().read_own_xcom(task_instance, LAUNCH_RECORD_KEY))


def recorded_run_id(task_instance: Any) -> int | None:
    """Return the run that another triggerer has launched for this attempt. It blocks.

    None where none is known, where a later attempt has begun, and where a worker goes on with this
    one.

    :param task_instance: the trigger's.
    """
    # Before the record: a later attempt stores its record before it launches its run.
    run_id = airflow_line().read_own_xcom(task_instance, RUN_ID_KEY)
    record, number = read_record(task_instance), task_instance.try_number
    if record is None and number == 1:
        record = _first_record(task_instance)
    own = LaunchRecord(_carrier(task_instance), 0, number)
    if record is None or replace(record, first_try=0, max_tries=None) != own:
        return None
    return parse_id(run_id)


def is_replaced(task_instance: Any, *, retry_finds_run: bool) -> bool | None:
    """Return whether another attempt has begun that does not follow the run of this one. It blocks.

    That is an attempt after a clear, or of a DAG run that was deleted and created again. A retry
    follows the run, unless told otherwise. None where no attempt is recorded.

    :param task_instance: the trigger's.
    :param retry_finds_run: whether a retry follows an active run of the attempt before.
    """
    record = read_record(task_instance)
    if record is None:
        return None
    number: int = task_instance.try_number
    if record.carrier != _carrier(task_instance):
        return True
    is_retry = record.first_try <= number and retry_finds_run
    return record.try_number > number and not is_retry


def begin_first_attempt(task_instance: Any) -> LaunchAttempt | None:
    """Return the attempt of a task that has had no other one, without asking Airflow; else None.

    :param task_instance: the trigger's, with its context.
    """
    if task_instance.try_number != 1:
        return None
    return LaunchAttempt(first_task_attempt(task_instance), _first_record(task_instance), False)


def first_task_attempt(task_instance: Any) -> TaskAttempt:
    """Return the first attempt of a task whose trigger runs.

    :param task_instance: the trigger's, with its context.
    """
    return _task_attempt(task_instance, _first_record(task_instance))


def begin_attempt(task_instance: Any) -> LaunchAttempt:
    """Return the attempt of a task whose trigger runs. It blocks.

    :param task_instance: the trigger's, with its context.
    """
    carrier = _carrier(task_instance)
    number: int = task_instance.try_number
    # Read before the record: afterwards it may be the run of this very attempt, which another
    # triggerer has launched meanwhile.
    last_run = airflow_line().read_own_xcom(task_instance, RUN_ID_KEY) if number > 1 else None
    stored = read_record(task_instance)
    record, orphan = LaunchRecord(carrier, number, number), None
    if stored is not None and stored.try_number >= number:
        record = stored
    elif stored is not None and stored.carrier == carrier and stored.handed_over:
        record = replace(record, first_try=stored.first_try, max_tries=stored.max_tries)
    elif number > 1:
        orphan = parse_id(last_run)
    attempt = _task_attempt(task_instance, record)
    if record is not stored:
        record = replace(record, max_tries=attempt.max_tries)
    return LaunchAttempt(attempt, record, record is not stored, orphan)


def record_attempt(
    task_instance: Any, begun: LaunchAttempt, *, multiple_outputs: bool = False
) -> None:
    """Store the record of an attempt, and delete what earlier ones have pushed. It blocks.

    :param task_instance: the trigger's.
    :param begun: the attempt.
    :param multiple_outputs: whether the task pushes the output of each task of the run under its
        key; default False.
    """
    line = airflow_line()
    if begun.attempt.try_number > 1:
        line.delete_output(task_instance, multiple_outputs=multiple_outputs)
    if begun.orphan_run_id is not None:
        line.delete_xcoms(task_instance, (RUN_ID_KEY, JOB_ID_KEY, RUN_PAGE_URL_KEY))
    line.store_xcoms(task_instance, {LAUNCH_RECORD_KEY: asdict(begun.record)})


def record_handover(task_instance: Any) -> None:
    """Store that a worker goes on with the latest attempt of a task. It blocks.

    :param task_instance: the task's, in the triggerer or on the worker.
    """
    _change(task_instance, handed_over=True)


def record_success(task_instance: Any) -> None:
    """Store that the latest attempt of a task is about to succeed on a worker. It blocks.

    Any later attempt then starts afresh.

    :param task_instance: the task's, on the worker.
    """
    _change(task_instance, handed_over=False)


def _change(task_instance: Any, *, handed_over: bool) -> None:
    record = read_record(task_instance)
    if record is None and task_instance.try_number == 1:
        record = _first_record(task_instance)
    if record is not None and record.try_number == task_instance.try_number:
        record = replace(record, handed_over=handed_over)
        if record.max_tries is None:
            record = replace(record, max_tries=_max_tries(task_instance, record))
        changed: Mapping[str, Any] = asdict(record)
        airflow_line().store_xcoms(task_instance, {LAUNCH_RECORD_KEY: changed})


def _first_record(task_instance: Any) -> LaunchRecord:
    return LaunchRecord(_carrier(task_instance), first_try=1, try_number=1)


def _max_tries(task_instance: Any, record: LaunchRecord) -> int:
    # Airflow tells it to a worker. To a trigger it tells 0.
    told: int = task_instance.max_tries
    return told or _task_attempt(task_instance, record).max_tries


def _task_attempt(task_instance: Any, record: LaunchRecord) -> TaskAttempt:
    context = task_instance.get_template_context()
    return TaskAttempt.from_context(context, first_try=record.first_try, max_tries=record.max_tries)


def _carrier(task_instance: Any) -> str:
    carrier = getattr(task_instance, "context_carrier", None)
    return str(carrier.get("traceparent", "")) if isinstance(carrier, Mapping) else ""
