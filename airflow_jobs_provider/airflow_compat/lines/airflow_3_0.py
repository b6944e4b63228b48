"""Airflow 3.0 and, where later modules do not say otherwise, all later lines.

A task's process and the triggerer ask Airflow's API, through their supervisors. A task instance has
an id. In 3.0 an attempt that follows an orphaned one keeps the id of that one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import FrameType
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.airflow_compat.lines.base import (
    DEFERRED,
    DELETED,
    RUNNING,
    UP_FOR_RETRY,
    AirflowLine,
    DeferredTask,
    LaterAttempt,
    Successor,
    is_ended_by_user,
    successor_after_failure,
)
from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt
from airflow_jobs_provider.api.ids import parse_id
from airflow_jobs_provider.xcom import (
    LATEST_TRY_NUMBER_KEY,
    OUTPUT_KEYS,
    RESERVED_KEYS,
    RETURN_VALUE_KEY,
    RUN_ID_KEY,
    TASK_RUN_IDS_KEY,
)

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger
    from airflow.triggers.shared_stream import SharedStreamProducer

__all__ = ["LINE", "Airflow30"]

# A later attempt has to parse its DAG file before it pushes its number.
SECONDS_UNTIL_XCOM = 2.0
# Their ids have to fit into the URL of one question.
TASKS_OF_A_QUESTION = 50
_NOT_FOUND = (404, 410)
_CONFLICT = 409


class Airflow30(AirflowLine):
    """Airflow 3.0."""

    calls_on_kill = False
    renders_in_triggerer = False
    builds_api_in_triggerer = True
    fails_tasks_resumed_early = True
    completion_fault: str | None = "Airflow 3.0 (apache/airflow#55315)"
    takes_links_of_plugins = True
    shows_plugin_pages = False
    has_event_triggers = True

    def asset_stores(self, trigger: Any) -> list[Any]:  # noqa: ARG002
        """Return none."""
        return []

    def event_producer(self, handover: Any) -> SharedStreamProducer:
        """Raise an error: Airflow does not ask for one."""
        raise NotImplementedError(handover)

    def initialize_stats(self) -> None:
        """Do nothing: ``Stats`` reads its configuration itself."""

    # -- tasks -------------------------------------------------------------------------------------

    def is_parsed_for_execution(self) -> bool:
        """Return whether Airflow has named the task to execute, to this very process.

        The name is in the environment, which a process that the task starts inherits.
        """
        from airflow.sdk import get_parsing_context

        return get_parsing_context().task_id is not None and self.runs_under_supervisor()

    def is_parsed_for_callbacks(self) -> bool:
        """Return whether the DAG processor has sent this process callbacks with the file.

        Airflow has the request in a local variable only.
        """
        processor = sys.modules.get("airflow.dag_processing.processor")
        code = getattr(getattr(processor, "_parse_file", None), "__code__", None)
        if code is None:
            return False
        frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
        while frame is not None and frame.f_code is not code:
            frame = frame.f_back
        request = None if frame is None else frame.f_locals.get("msg")
        return bool(getattr(request, "callback_requests", None))

    def task_state(self, attempt: TaskAttempt) -> str | None:
        """Return the state that Airflow's API knows; it does not tell of which attempt."""
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        states = RuntimeTaskInstance.get_task_states(
            dag_id=attempt.dag_id,
            task_ids=[attempt.task_id],
            run_ids=[attempt.run_id],
            map_index=attempt.map_index,
        )
        # The key of a mapped task is task_id_index; only one task was asked for.
        found = list(states.get(attempt.run_id, {}).values())
        return found[0] if found else DELETED

    async def deferred_tasks(self, tasks: Sequence[DeferredTask]) -> set[DeferredTask]:
        """Return those that are deferred, with whatever trigger, by one question to the API."""
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.execution_time.comms import GetTaskStates, TaskStatesResult

        map_indexes = {task.map_index for task in tasks}
        map_index = map_indexes.pop() if len(map_indexes) == 1 else -1
        answer = await task_runner.SUPERVISOR_COMMS.asend(
            GetTaskStates(
                dag_id=tasks[0].dag_id,
                run_ids=sorted({task.run_id for task in tasks}),
                task_ids=sorted({task.task_id for task in tasks}),
                map_index=None if map_index < 0 else map_index,
            )
        )
        if not isinstance(answer, TaskStatesResult):
            raise TypeError(f"an answer of another kind: {answer!r}")
        states = answer.task_states
        return {task for task in tasks if states.get(task.run_id, {}).get(task.key) == DEFERRED}

    async def launched_run_id(self, task: DeferredTask) -> int | None:
        """Return the run that the task launched last by its XCom; None where it pushes none."""
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.execution_time.comms import GetXCom, XComResult

        answer = await task_runner.SUPERVISOR_COMMS.asend(
            GetXCom(
                key=RUN_ID_KEY,
                dag_id=task.dag_id,
                run_id=task.run_id,
                task_id=task.task_id,
                map_index=task.map_index,
            )
        )
        if not isinstance(answer, XComResult):
            raise TypeError(f"an answer of another kind: {answer!r}")
        value: Any = answer.value
        if value is not None and not isinstance(value, int):
            # An XCom backend may block. In asgiref's thread, since Airflow's way back to the event
            # loop goes through it.
            from airflow.sdk.execution_time.xcom import XCom
            from asgiref.sync import sync_to_async

            value = await sync_to_async(XCom.deserialize_value)(answer)
        if value is None:
            return None
        run_id = parse_id(value)
        if run_id is None:
            raise ValueError(f"its XCom run_id is {value!r}, not the id of a run")
        return run_id

    def task_states(self, attempt: TaskAttempt, task_ids: Sequence[str]) -> dict[str, str | None]:
        """Return the states that Airflow's API knows, by one question for fifty tasks."""
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        states: dict[str, str | None] = {}
        for start in range(0, len(task_ids), TASKS_OF_A_QUESTION):
            portion = list(task_ids[start : start + TASKS_OF_A_QUESTION])
            answer = RuntimeTaskInstance.get_task_states(
                dag_id=attempt.dag_id,
                task_ids=portion,
                run_ids=[attempt.run_id],
                map_index=attempt.map_index,
            ).get(attempt.run_id, {})
            suffix = "" if attempt.map_index < 0 else f"_{attempt.map_index}"
            states |= {
                task_id: answer[f"{task_id}{suffix}"]
                for task_id in portion
                if f"{task_id}{suffix}" in answer
            }
        return states

    def later_attempt(
        self,
        attempt: TaskAttempt,
        task_id: str,
        *,
        reported: int | None,
        try_number: int,  # noqa: ARG002
        max_tries: int | None,  # noqa: ARG002
        clear_number: int | None,
        pushes_xcoms: bool,
    ) -> LaterAttempt:
        """Look for the XCom of the known attempt: a later one deletes it as it begins.

        Airflow's API tells other tasks neither ``try_number`` nor ``max_tries``. From 3.3
        ``clear_number`` grows with each clear, before that only in a DAG run that had ended.
        """
        has_begun = pushes_xcoms and self.read_xcom(attempt, task_id, RUN_ID_KEY) != reported
        numbers = (clear_number, attempt.clear_number)
        was_cleared = None not in numbers and clear_number != attempt.clear_number
        return LaterAttempt(has_begun=has_begun, was_cleared=was_cleared)

    def read_xcom(self, attempt: TaskAttempt, task_id: str, key: str) -> Any:
        """Ask Airflow's API."""
        from airflow.sdk.execution_time.xcom import XCom

        return XCom.get_one(key=key, task_id=task_id, **_task_group_of(attempt))

    def write_xcom(self, attempt: TaskAttempt, task_id: str, key: str, value: Any) -> None:
        """Tell Airflow's API."""
        from airflow.sdk.execution_time.xcom import XCom

        XCom.set(key, value, task_id=task_id, **_task_group_of(attempt))

    # -- successor --------------------------------------------------------------------------------

    def runs_under_supervisor(self) -> bool:
        """Return whether the supervisor is another process: not in ``dag.test()``."""
        task_runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
        supervisor = getattr(task_runner, "SUPERVISOR_COMMS", None)
        return type(supervisor).__name__ not in ("NoneType", "InProcessSupervisorComms")

    def is_request_in_progress(self) -> bool:
        """Return whether the module that speaks to the supervisor is on this thread's stack."""
        frame: FrameType | None = sys._getframe()  # noqa: SLF001
        while frame is not None:
            if frame.f_globals.get("__name__") == "airflow.sdk.execution_time.comms":
                return True
            frame = frame.f_back
        return False

    def is_scheduled(self, attempt: TaskAttempt) -> bool:
        """Return False in ``dag.test()`` and ``airflow tasks test``."""
        return not attempt.is_test and self.runs_under_supervisor()

    def find_successor(self, attempt: TaskAttempt) -> Successor:
        """Decide by the task's state and by what tells attempts apart."""
        state = self.task_state(attempt)
        if is_ended_by_user(state):
            return Successor.NONE
        return self._find_later_attempt(attempt, state)

    def _find_later_attempt(self, attempt: TaskAttempt, state: str | None) -> Successor:
        """Find the successor of an attempt that no user has ended, as the state tells.

        A new id comes of a failure or a user here, not of the death of a scheduler.
        """
        if state == UP_FOR_RETRY:
            return Successor.EXISTING
        if self._has_new_id(attempt):
            return Successor.NONE
        if state != RUNNING or self._has_later_number(attempt):
            return Successor.EXISTING
        return successor_after_failure(attempt)

    def _has_new_id(self, attempt: TaskAttempt) -> bool:
        """Return whether the task instance's id is not the attempt's any more."""
        from airflow.sdk.exceptions import AirflowRuntimeError
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.execution_time.comms import ValidateInletsAndOutlets

        try:
            # Of the questions about a task instance by its id, the one that changes nothing.
            task_runner.SUPERVISOR_COMMS.send(ValidateInletsAndOutlets(ti_id=attempt.ti_id))
        except AirflowRuntimeError as error:
            if self.refusal_status(error) in _NOT_FOUND:
                return True
            raise
        return False

    def _has_later_number(self, attempt: TaskAttempt) -> bool:
        """Return whether a later attempt with the same id has pushed its number; wait for it."""
        from airflow.sdk.execution_time.xcom import XCom

        deadline = time.monotonic() + SECONDS_UNTIL_XCOM
        while True:
            number = XCom.get_one(
                key=LATEST_TRY_NUMBER_KEY,
                dag_id=attempt.dag_id,
                task_id=attempt.task_id,
                run_id=attempt.run_id,
                map_index=attempt.map_index,
            )
            if number is not None and int(number) > attempt.try_number:
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)

    def xcoms_at_start(self, attempt: TaskAttempt) -> dict[str, int]:
        """Return the number of a second or later attempt, which may have the id of the first."""
        return {LATEST_TRY_NUMBER_KEY: attempt.try_number} if attempt.try_number > 1 else {}

    def refusal_status(self, error: BaseException) -> int | None:
        """Read the status from the error that the supervisor has passed on."""
        status: int | None = _detail(error).get("status_code")
        return status

    def watch_deferral(self) -> Callable[[], bool]:
        """Return what knows of no acceptance."""
        return lambda: False

    def is_refused_after_user_action(self, error: BaseException) -> bool:
        """Return whether the task is gone, or was in a state that a user has set."""
        status = self.refusal_status(error)
        if status in _NOT_FOUND:
            return True
        refusal: Any = (_detail(error).get("detail") or {}).get("detail") or {}
        return status == _CONFLICT and is_ended_by_user(refusal.get("previous_state", RUNNING))

    # -- orphaned runs -----------------------------------------------------------------------------

    def can_read_xcoms(self) -> bool:
        """Return False in a DAG processor that does not know the question, and would end."""
        processor = sys.modules.get("airflow.dag_processing.processor")
        speaks_to_manager = hasattr(processor, "ToManager")
        return not speaks_to_manager or hasattr(processor, "GetXCom")

    def unmap(self, task: Any, context: Context) -> Any:
        """Return the operator, with what Airflow's API tells of its mapped arguments."""
        arguments, _ = task.expand_input.resolve(context)
        return task.unmap(arguments)

    # -- start and completion in the triggerer -----------------------------------------------------

    def trigger_timeout(self, trigger: BaseTrigger) -> datetime | None:
        """Return the time that the triggerer sets on the trigger."""
        timeout: datetime | None = getattr(trigger, "timeout_after", None)
        return timeout

    def first_poke(self, ti: Any) -> datetime | None:
        """Return the start of the first poke; None in that poke.

        Each attempt has an id of its own here, so its first reschedule is the first of all.
        """
        from airflow.sdk.execution_time.comms import GetTaskRescheduleStartDate
        from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

        answer = SUPERVISOR_COMMS.send(GetTaskRescheduleStartDate(ti_id=ti.id, try_number=1))
        return getattr(answer, "start_date", None)

    def store_xcoms(self, task_instance: Any, xcoms: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store all, as a worker does.

        Airflow would write those of the event as JSON twice over, so that the next task gets
        ``'"42"'`` for ``"42"`` and text for a dict (seen with 3.0.6 and 3.3.2), and would write
        them past the XCom backend.
        """
        from airflow.sdk.execution_time.xcom import XCom

        place = _place(task_instance)
        for key, value in xcoms.items():
            XCom.set(key, value, **place)
        return {}

    def delete_output(self, task_instance: Any, *, multiple_outputs: bool) -> None:
        """Delete these XComs by their keys."""
        from airflow.sdk.execution_time.xcom import XCom

        place = _place(task_instance)
        keys = [*OUTPUT_KEYS, TASK_RUN_IDS_KEY]
        if multiple_outputs:
            before = XCom.get_one(key=RETURN_VALUE_KEY, **place)
            keys += sorted(set(before) - RESERVED_KEYS) if isinstance(before, Mapping) else []
        self.delete_xcoms(task_instance, keys)

    def read_own_xcom(self, task_instance: Any, key: str) -> Any:
        """Read it through the API."""
        from airflow.sdk.execution_time.xcom import XCom

        return XCom.get_one(key=key, **_place(task_instance))

    def delete_xcoms(self, task_instance: Any, keys: Sequence[str]) -> None:
        """Delete them through the API."""
        from airflow.sdk.execution_time.xcom import XCom

        for key in keys:
            XCom.delete(key=key, **_place(task_instance))

    def pending_messages(self) -> dict[int, Any] | None:
        """Return None: nothing starts in this triggerer."""

    def stored_xcoms(self, place: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
        """Read the rows, without the XCom backend, as Airflow reads its own links."""
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        query = select(XComModel).filter_by(**place).where(XComModel.key.in_(keys))
        with create_session() as session:
            return {row.key: row.value for row in session.scalars(query)}


LINE = Airflow30()


def _place(task_instance: Any) -> dict[str, Any]:
    """Return what tells a task's XComs from others."""
    names = ("dag_id", "task_id", "run_id", "map_index")
    return {name: getattr(task_instance, name) for name in names}


def _task_group_of(attempt: TaskAttempt) -> dict[str, Any]:
    """Return what the XComs of an attempt have in common with those of tasks in its group."""
    names = ("dag_id", "run_id", "map_index")
    return {name: getattr(attempt, name) for name in names}


def _detail(error: BaseException) -> dict[str, Any]:
    return getattr(getattr(error, "error", None), "detail", None) or {}
