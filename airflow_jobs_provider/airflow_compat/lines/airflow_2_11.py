"""Airflow 2.11: workers and triggerer read Airflow's database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.airflow_compat.lines.base import (
    BEFORE_RUNNING,
    BEFORE_SCHEDULING,
    DEFERRED,
    DELETED,
    RUNNING,
    AirflowLine,
    DeferredTask,
    LaterAttempt,
    Successor,
    successor_after_failure,
)
from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger
    from airflow.triggers.shared_stream import SharedStreamProducer

__all__ = ["LINE", "Airflow211"]


class Airflow211(AirflowLine):
    """Airflow 2.11."""

    calls_on_kill = False
    renders_in_triggerer = False
    builds_api_in_triggerer = False
    fails_tasks_resumed_early = False
    completion_fault = None
    # Its web server fails with a KeyError for a mapped task whose operator has a plugin's link.
    takes_links_of_plugins = False
    shows_plugin_pages = False
    has_event_triggers = False

    def asset_stores(self, trigger: Any) -> list[Any]:  # noqa: ARG002
        """Return none."""
        return []

    def event_producer(self, handover: Any) -> SharedStreamProducer:
        """Raise an error: Airflow does not ask for one."""
        raise NotImplementedError(handover)

    def initialize_stats(self) -> None:
        """Do nothing: ``Stats`` reads its configuration itself."""

    def is_parsed_for_execution(self) -> bool:
        """Return whether Airflow has named the task to execute."""
        from importlib import import_module

        context = import_module("airflow.utils.dag_parsing_context").get_parsing_context()
        return context.task_id is not None

    def is_parsed_for_callbacks(self) -> bool:
        """Return False: a process that calls callbacks also stores the DAG."""
        return False

    def task_state(self, attempt: TaskAttempt) -> str | None:
        """Return the state in the task instance's row."""
        row = _row(attempt)
        if row is None:
            return DELETED
        state: str | None = row.state
        return state

    async def deferred_tasks(self, tasks: Sequence[DeferredTask]) -> set[DeferredTask]:
        """Return those that are deferred with the very trigger that asks."""
        from asgiref.sync import sync_to_async

        # Without a trigger_id a task is in no triggerer, and no row tells its state.
        in_triggerer = [task for task in tasks if task.trigger_id is not None]
        deferred = set(tasks) - set(in_triggerer)
        if in_triggerer:
            deferred |= await sync_to_async(_deferred)(in_triggerer)
        return deferred

    async def launched_run_id(self, task: DeferredTask) -> int | None:  # noqa: ARG002
        """Return None: the row names the trigger, and so the run."""
        return None

    def task_states(self, attempt: TaskAttempt, task_ids: Sequence[str]) -> dict[str, str | None]:
        """Return the states in the task instances' rows."""
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session

        with create_session() as session:
            rows = session.query(TaskInstance.task_id, TaskInstance.state).filter(
                TaskInstance.dag_id == attempt.dag_id,
                TaskInstance.run_id == attempt.run_id,
                TaskInstance.map_index == attempt.map_index,
                TaskInstance.task_id.in_(task_ids),
            )
            return dict(rows)

    def later_attempt(
        self,
        attempt: TaskAttempt,
        task_id: str,
        *,
        reported: int | None,  # noqa: ARG002
        try_number: int,
        max_tries: int | None,
        clear_number: int | None,  # noqa: ARG002
        pushes_xcoms: bool,  # noqa: ARG002
    ) -> LaterAttempt:
        """Compare the numbers in the task instance's row."""
        row = _row(attempt._replace(task_id=task_id))
        if row is None:
            return LaterAttempt(has_begun=False, was_cleared=False)
        return LaterAttempt(
            has_begun=row.try_number > try_number, was_cleared=row.max_tries != max_tries
        )

    def read_xcom(self, attempt: TaskAttempt, task_id: str, key: str) -> Any:
        """Read it from the database."""
        from airflow.models.xcom import XCom

        return XCom.get_one(
            key=key,
            dag_id=attempt.dag_id,
            task_id=task_id,
            run_id=attempt.run_id,
            map_index=attempt.map_index,
        )

    def write_xcom(self, attempt: TaskAttempt, task_id: str, key: str, value: Any) -> None:
        """Write it to the database."""
        from airflow.models.xcom import XCom

        XCom.set(
            key,
            value,
            dag_id=attempt.dag_id,
            task_id=task_id,
            run_id=attempt.run_id,
            map_index=attempt.map_index,
        )

    def runs_under_supervisor(self) -> bool:
        """Return False: there are no supervisors."""
        return False

    def is_request_in_progress(self) -> bool:
        """Return False: there are no supervisors."""
        return False

    def is_scheduled(self, attempt: TaskAttempt) -> bool:
        """Return False in ``airflow tasks test``; ``dag.test()`` never sets the task running."""
        return not attempt.is_test

    def find_successor(self, attempt: TaskAttempt) -> Successor:
        """Decide by the task instance's row, which has state and number of the latest attempt.

        Airflow takes the end of this process for a failure of the next attempt. So the run is left
        to an attempt only if Airflow begins one after such a failure, too.
        """
        row = _row(attempt)
        if row is None or row.max_tries != attempt.max_tries:  # Deleted, or cleared once more.
            return Successor.NONE
        if row.state == DEFERRED:
            return Successor.EXISTING
        if row.state not in (*BEFORE_RUNNING, RUNNING):
            return Successor.NONE
        if row.state == RUNNING and row.try_number == attempt.try_number:
            return successor_after_failure(attempt)
        number = row.try_number + (row.state in BEFORE_SCHEDULING)
        has_successor = attempt.try_number < number <= attempt.max_tries
        return Successor.EXISTING if has_successor else Successor.NONE

    def xcoms_at_start(self, attempt: TaskAttempt) -> dict[str, int]:  # noqa: ARG002
        """Return none: the row has the attempt's number."""
        return {}

    def refusal_status(self, error: BaseException) -> int | None:  # noqa: ARG002
        """Return None: there is no API between a task and the database."""
        return None

    def watch_deferral(self) -> Callable[[], bool]:
        """Return what knows of no acceptance."""
        return lambda: False

    def is_refused_after_user_action(self, error: BaseException) -> bool:  # noqa: ARG002
        """Return False: a deferral overwrites what the user has marked."""
        return False

    def can_read_xcoms(self) -> bool:
        """Return True: every process reads the database."""
        return True

    def unmap(self, task: Any, context: Context) -> Any:
        """Return the operator, with what the database has of its mapped arguments."""
        from airflow.utils.session import create_session

        with create_session() as session:
            return task.unmap((context, session))

    def trigger_timeout(self, trigger: BaseTrigger) -> datetime | None:
        """Return the time that stands in the task instance."""
        timeout: datetime | None = getattr(trigger.task_instance, "trigger_timeout", None)
        return timeout

    def first_poke(self, ti: Any) -> datetime | None:
        """Return the start of the first poke, which Airflow has stored at the first reschedule.

        Before that it is this process's start: by a later time the first poke might wait for a
        newer run than all others.
        """
        from airflow.sensors.base import (  # type: ignore[import-not-found]
            _orig_start_date,
        )

        stored = _orig_start_date(ti.dag_id, ti.task_id, ti.run_id, ti.map_index, ti.try_number)
        first: datetime | None = stored or ti.start_date
        return first

    def store_xcoms(self, task_instance: Any, xcoms: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store all, as a worker does.

        Airflow stores those of the event after the task's success: the next task may start without
        them, and they are lost if the triggerer dies between.
        """
        for key, value in xcoms.items():
            task_instance.xcom_push(key=key, value=value)
        return {}

    def delete_output(self, task_instance: Any, *, multiple_outputs: bool) -> None:  # noqa: ARG002
        """Delete all XComs of the task, as a worker does."""
        from airflow.models.xcom import XCom

        XCom.clear(
            dag_id=task_instance.dag_id,
            task_id=task_instance.task_id,
            run_id=task_instance.run_id,
            map_index=task_instance.map_index,
        )

    def read_own_xcom(self, task_instance: Any, key: str) -> Any:  # noqa: ARG002
        """Return None: only tasks that start in the triggerer record anything."""
        return None

    def delete_xcoms(self, task_instance: Any, keys: Sequence[str]) -> None:
        """Do nothing: only tasks that start in the triggerer record anything."""

    def pending_messages(self) -> dict[int, Any] | None:
        """Return None: nothing starts in this triggerer."""

    def stored_xcoms(self, place: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
        """Read the rows, and their values as the XCom backend does."""
        from airflow.models.xcom import XCom
        from airflow.utils.session import create_session

        with create_session() as session:
            # As columns: an object has its value deserialized already.
            rows = session.query(XCom.key, XCom.value).filter_by(**place)
            rows = rows.filter(XCom.key.in_(keys)).all()
            return {row.key: XCom.deserialize_value(row) for row in rows}


LINE = Airflow211()


def _row(attempt: TaskAttempt) -> Any:
    """Return state, try_number and max_tries of a task instance; None if it was deleted."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    columns = (TaskInstance.state, TaskInstance.try_number, TaskInstance.max_tries)
    with create_session() as session:
        return (
            session.query(*columns)
            .filter_by(
                dag_id=attempt.dag_id,
                run_id=attempt.run_id,
                task_id=attempt.task_id,
                map_index=attempt.map_index,
            )
            .one_or_none()
        )


def _deferred(tasks: Sequence[DeferredTask]) -> set[DeferredTask]:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = session.query(TaskInstance.trigger_id).filter(
            TaskInstance.trigger_id.in_([task.trigger_id for task in tasks]),
            TaskInstance.state == DEFERRED,
        )
        trigger_ids = {trigger_id for (trigger_id,) in rows}
    return {task for task in tasks if task.trigger_id in trigger_ids}
