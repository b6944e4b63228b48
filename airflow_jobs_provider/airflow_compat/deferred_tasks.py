"""Whether the tasks of cancelled triggers are still deferred: asked for many tasks at once.

Airflow cancels a trigger where a user has cleared or marked its task, and also where another
triggerer has taken the trigger over. So Airflow is asked for the task's state. A task that was
cleared may be deferred again already, with another run.

Hundreds of triggers may be cancelled at the same moment, and the triggerer answers their questions
in the one thread that also sends its heartbeat. So the questions of all triggers are collected and
sent together. An error, or no answer, is no state: Airflow is asked again.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import tenacity

from airflow_jobs_provider.airflow_compat.task_state import airflow_has_task_sdk
from airflow_jobs_provider.api.ids import parse_id
from airflow_jobs_provider.api.retry import async_sleep

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

__all__ = ["is_no_longer_deferred", "prepare_questions"]

# Questions are collected for so long before they are sent.
COLLECT_SECONDS = 0.2
# From the moment at which a question is sent. A triggerer's first answer may take 20 seconds.
ANSWER_SECONDS = 60.0
GIVE_UP_SECONDS = 600.0
# Limits of one question: the length of a URL's query, and the rows that Airflow reads for it.
QUERY_LENGTH = 30_000
ROWS = 1_000
# XComs asked for at the same time: the triggerer answers them all before its next heartbeat.
XCOMS_AT_ONCE = 4
_DEFERRED = "deferred"


@dataclass(frozen=True, slots=True)
class DeferredTask:
    """The task instance that a trigger belongs to."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    trigger_id: int | None

    @classmethod
    def from_trigger(cls, trigger: BaseTrigger) -> Self | None:
        """Return the task instance of a trigger; None where it has none."""
        task_instance: Any = trigger.task_instance
        if task_instance is None:
            return None
        return cls(
            dag_id=task_instance.dag_id,
            run_id=task_instance.run_id,
            task_id=task_instance.task_id,
            map_index=-1 if task_instance.map_index is None else task_instance.map_index,
            trigger_id=getattr(trigger, "trigger_id", None),
        )

    @property
    def key(self) -> str:
        """Its key in Airflow's answers."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}_{self.map_index}"


async def is_no_longer_deferred(trigger: BaseTrigger, run_id: int) -> bool:
    """Return whether the trigger's task has stopped waiting for the run.

    :param trigger: the trigger that is being cancelled.
    :param run_id: the run that it waits for.
    :raises Exception: Airflow gave no usable answer for 10 minutes.
    """
    task = DeferredTask.from_trigger(trigger)
    if task is None or (task.trigger_id is None and not airflow_has_task_sdk()):
        return False  # not in a triggerer
    questions = _questions()
    retrying = tenacity.AsyncRetrying(
        # idle_for: with faked sleeping the waits count although the clock stood still.
        stop=lambda state: max(state.seconds_since_start or 0, state.idle_for) > GIVE_UP_SECONDS,
        wait=tenacity.wait_random_exponential(multiplier=1, min=1, max=30),
        sleep=async_sleep,
        # Asking again makes no number of an XCom that is none.
        retry=tenacity.retry_if_not_exception_type(ValueError),
        reraise=True,
    )
    return await retrying(questions.is_no_longer_deferred, task, run_id)


def prepare_questions(trigger: BaseTrigger) -> None:
    """Let the triggerer build what it answers questions from, before one matters.

    From Airflow 3.0 on, a triggerer builds the Execution API in its own process at its first
    question. That takes seconds, in which a cleared task's next run would begin beside the first.
    """
    task = DeferredTask.from_trigger(trigger)
    if task is not None and task.trigger_id is not None and airflow_has_task_sdk():
        _questions().prepare(task)


class _Questions:
    """The questions of all triggers of an event loop."""

    def __init__(self) -> None:
        self._open: dict[DeferredTask, asyncio.Future[bool]] = {}
        self._asking: asyncio.Task[None] | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._xcoms = asyncio.Semaphore(XCOMS_AT_ONCE)

    async def is_no_longer_deferred(self, task: DeferredTask, run_id: int) -> bool:
        if not await self._is_deferred(task):
            return True
        if not airflow_has_task_sdk():
            return False  # deferred with this very trigger
        async with self._xcoms:
            launched = await _launched_run_id(task)
        # None: the task pushes no XComs, so its state is all there is to go by.
        return launched is not None and launched != run_id

    def prepare(self, task: DeferredTask) -> None:
        if self._preparing is None:
            self._preparing = _new_task(self._prepare(task))

    async def _prepare(self, task: DeferredTask) -> None:
        with suppress(Exception):  # the answer does not matter
            await self._is_deferred(task)

    async def _is_deferred(self, task: DeferredTask) -> bool:
        future = self._open.get(task)
        if future is None:
            future = self._open[task] = asyncio.get_running_loop().create_future()
        if self._asking is None or self._asking.done():
            self._asking = _new_task(self._ask())
        # Several triggers of a task may wait for the same answer.
        return await asyncio.shield(future)

    async def _ask(self) -> None:
        await asyncio.sleep(COLLECT_SECONDS)
        while self._open:
            collected, self._open = self._open, {}
            try:
                for tasks in _portions(collected):
                    try:
                        deferred = await _answer(_deferred_of(tasks))
                    except Exception as error:  # noqa: BLE001 - whatever Airflow's API says
                        _fail((collected[task] for task in tasks), error)
                    else:
                        for task in tasks:
                            collected[task].set_result(task in deferred)
            finally:
                # The event loop ends: there will be no answers.
                _fail(collected.values(), ConnectionError("the triggerer stops"))


_loops: dict[asyncio.AbstractEventLoop, _Questions] = {}
# Airflow 3.0 loses its place in its answers where a question is cancelled, so none ever is.
_sent: set[asyncio.Future[Any]] = set()


def _questions() -> _Questions:
    for closed in [loop for loop in _loops if loop.is_closed()]:
        del _loops[closed]
    return _loops.setdefault(asyncio.get_running_loop(), _Questions())


def _new_task(work: Any) -> asyncio.Task[None]:
    """Start work for many triggers, in a context of its own: no single trigger's log is its own."""
    return asyncio.get_running_loop().create_task(work, context=contextvars.Context())


def _fail(futures: Iterable[asyncio.Future[bool]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
            future.exception()  # whoever asked may have gone


async def _answer(question: Awaitable[Any]) -> Any:
    """Return the answer to a question that is sent now.

    :raises TimeoutError: there is none for a minute.
    """
    sent = asyncio.ensure_future(question)
    _sent.add(sent)
    sent.add_done_callback(_received)
    await asyncio.wait({sent}, timeout=ANSWER_SECONDS)
    if not sent.done():
        raise TimeoutError(f"no answer for {ANSWER_SECONDS:.0f} s")
    if sent.cancelled():
        raise ConnectionError("the triggerer stops")
    return sent.result()


def _received(sent: asyncio.Future[Any]) -> None:
    _sent.discard(sent)
    if not sent.cancelled():
        sent.exception()


def _portions(tasks: Iterable[DeferredTask]) -> Iterator[list[DeferredTask]]:
    """Divide tasks into those that one question asks for."""
    by_dag: dict[str, list[DeferredTask]] = {}
    for task in sorted(tasks, key=lambda task: (task.run_id, task.task_id, task.map_index)):
        by_dag.setdefault(task.dag_id, []).append(task)
    for of_dag in by_dag.values():
        task_ids = {task.task_id for task in of_dag}
        portion = _Portion()
        for task in of_dag:
            if _is_ambiguous(task, task_ids):
                yield [task]
            elif not portion.add(task):
                yield portion.tasks
                portion = _Portion()
                portion.add(task)
        if portion.tasks:
            yield portion.tasks


@dataclass(slots=True)
class _Portion:
    """Tasks of one DAG, as many as one question may ask for."""

    tasks: list[DeferredTask] = field(default_factory=list)
    _run_ids: set[str] = field(default_factory=set)
    _task_ids: set[str] = field(default_factory=set)
    _length: int = 0

    def add(self, task: DeferredTask) -> bool:
        """Add a task; False where it is one too many."""
        new_run = task.run_id not in self._run_ids
        new_task = task.task_id not in self._task_ids
        rows = (len(self._run_ids) + new_run) * (len(self._task_ids) + new_task)
        length = self._length
        length += len(quote(f"&run_ids={task.run_id}")) if new_run else 0
        length += len(quote(f"&task_ids={task.task_id}")) if new_task else 0
        if self.tasks and (rows > ROWS or length > QUERY_LENGTH):
            return False
        self.tasks.append(task)
        self._run_ids.add(task.run_id)
        self._task_ids.add(task.task_id)
        self._length = length
        return True


def _is_ambiguous(task: DeferredTask, task_ids: set[str]) -> bool:
    """Whether another task's key in the same answer may be the same.

    The first of the mapped tasks ``etl`` has the key of the task ``etl_0``.
    """
    key = task.key
    others = task_ids - {task.task_id}
    name, _, index = key.rpartition("_")
    return key in others or (index.isdigit() and name in others)


async def _deferred_of(tasks: list[DeferredTask]) -> set[DeferredTask]:
    """Return those of the tasks, of one DAG, that are deferred."""
    if not airflow_has_task_sdk():
        from asgiref.sync import sync_to_async

        return await sync_to_async(_deferred_in_database)(tasks)
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
    return {task for task in tasks if states.get(task.run_id, {}).get(task.key) == _DEFERRED}


def _deferred_in_database(tasks: list[DeferredTask]) -> set[DeferredTask]:
    """Airflow 2: a task instance's row tells its state and the trigger that it waits for."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = session.query(TaskInstance.trigger_id).filter(
            TaskInstance.trigger_id.in_([task.trigger_id for task in tasks]),
            TaskInstance.state == _DEFERRED,
        )
        trigger_ids = {trigger_id for (trigger_id,) in rows}
    return {task for task in tasks if task.trigger_id in trigger_ids}


async def _launched_run_id(task: DeferredTask) -> int | None:
    """Return the run that the task launched last, as its XCom says; None without that XCom.

    :raises ValueError: the XCom is no run's id.
    """
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import GetXCom, XComResult

    answer = await _answer(
        task_runner.SUPERVISOR_COMMS.asend(
            GetXCom(
                key="run_id",
                dag_id=task.dag_id,
                run_id=task.run_id,
                task_id=task.task_id,
                map_index=task.map_index,
            )
        )
    )
    if not isinstance(answer, XComResult):
        raise TypeError(f"an answer of another kind: {answer!r}")
    value: Any = answer.value
    if value is not None and not isinstance(value, int):
        # An XCom backend may block. In asgiref's thread, since Airflow's way back to the event loop
        # goes through it.
        from airflow.sdk.execution_time.xcom import XCom
        from asgiref.sync import sync_to_async

        value = await _answer(sync_to_async(XCom.deserialize_value)(answer))
    if value is None:
        return None
    run_id = parse_id(value)
    if run_id is None:
        raise ValueError(f"its XCom run_id is {value!r}, not the id of a run")
    return run_id
