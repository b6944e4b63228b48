"""Detects, for many canceled triggers at once, whose tasks are no longer deferred.

Airflow cancels a trigger where a user has cleared or marked its task, and also where another
triggerer has taken over the trigger. So the trigger asks Airflow for the task's state. A task that
was cleared may be deferred again already, with another run.

Hundreds of triggers may be canceled at the same moment, and the triggerer answers their questions
in the thread that also sends its heartbeat. So the questions of all triggers are collected and sent
together. An error, or no answer, is no state: Airflow is asked again.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import tenacity

from airflow_jobs_provider.airflow_compat.event_loops import PerEventLoop
from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.airflow_compat.lines.base import DeferredTask
from airflow_jobs_provider.api.retry import async_sleep

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

T = TypeVar("T")

__all__ = ["is_no_longer_deferred", "warm_up"]

# For so long questions are collected before they are sent.
COLLECT_SECONDS = 0.2
# From the moment at which a question is sent. A triggerer's first answer may take 20 seconds.
ANSWER_SECONDS = 60.0
GIVE_UP_SECONDS = 600.0
# Limits of one question: the length of a URL's query, and the rows that Airflow reads for it.
QUERY_LENGTH = 30_000
ROWS = 1_000
# XComs asked for at the same time: the triggerer answers them all before its next heartbeat.
XCOMS_AT_ONCE = 4


async def is_no_longer_deferred(trigger: BaseTrigger, run_id: int | None) -> bool:
    """Return whether the trigger's task has stopped waiting for the run.

    :param trigger: the trigger that is being canceled.
    :param run_id: the run that it waits for; None asks for the task's state only.
    :raises Exception: Airflow gave no usable answer for 10 minutes.
    """
    task = DeferredTask.from_trigger(trigger)
    if task is None:
        return False  # not in a triggerer
    questions = _questions.get()
    retrying = tenacity.AsyncRetrying(
        # idle_for: with faked sleeping the waits count although the clock stood still.
        stop=lambda state: max(state.seconds_since_start or 0, state.idle_for) > GIVE_UP_SECONDS,
        wait=tenacity.wait_random_exponential(multiplier=1, min=1, max=30),
        sleep=async_sleep,
        # An XCom that is no number does not become one.
        retry=tenacity.retry_if_not_exception_type(ValueError),
        reraise=True,
    )
    return await retrying(questions.is_no_longer_deferred, task, run_id)


def warm_up(trigger: BaseTrigger) -> None:
    """Send a first question, so that later ones are answered soon.

    From Airflow 3.0 on, a triggerer builds the Execution API in its own process at its first
    question. That takes seconds. Meanwhile a cleared task would begin a second run. And Airflow
    would not call ``on_kill`` of all triggers that are canceled together: before each call it logs
    a line, which nobody takes while the API is built, and cancels the trigger again.

    :param trigger: a trigger that starts.
    """
    task = DeferredTask.from_trigger(trigger)
    if task is None or task.trigger_id is None:
        return  # not in a triggerer
    if airflow_line().builds_api_in_triggerer:
        _questions.get().prepare(task)


class _Questions:
    """The questions of all triggers of an event loop."""

    def __init__(self) -> None:
        self._open: dict[DeferredTask, asyncio.Future[bool]] = {}
        self._asking: asyncio.Task[None] | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._xcoms = asyncio.Semaphore(XCOMS_AT_ONCE)

    async def is_no_longer_deferred(self, task: DeferredTask, run_id: int | None) -> bool:
        if not await self._is_deferred(task):
            return True
        if run_id is None:
            return False
        async with self._xcoms:
            launched = await _answer(airflow_line().launched_run_id(task))
        # None: the state says enough, or is all there is, since the task pushes no XComs.
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
                for tasks in _batches(collected):
                    try:
                        deferred = await _answer(airflow_line().deferred_tasks(tasks))
                    except Exception as error:  # noqa: BLE001 - whatever Airflow's API says
                        _fail((collected[task] for task in tasks), error)
                    else:
                        for task in tasks:
                            collected[task].set_result(task in deferred)
            finally:
                # The event loop ends: there will be no answers.
                _fail(collected.values(), ConnectionError("the triggerer stops"))


_questions = PerEventLoop(_Questions)
# Airflow 3.0 mixes up its answers after a question was canceled. So none is canceled.
_sent: set[asyncio.Future[Any]] = set()


def _new_task(work: Any) -> asyncio.Task[None]:
    """Start a task that serves many triggers, in a context of its own: it has no trigger's log."""
    return asyncio.get_running_loop().create_task(work, context=contextvars.Context())


def _fail(futures: Iterable[asyncio.Future[bool]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
            future.exception()  # the trigger that asked may have ended


async def _answer(question: Coroutine[Any, Any, T]) -> T:
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


def _batches(tasks: Iterable[DeferredTask]) -> Iterator[list[DeferredTask]]:
    """Divide tasks into batches, each for one question."""
    by_dag: dict[str, list[DeferredTask]] = {}
    for task in sorted(tasks, key=lambda task: (task.run_id, task.task_id, task.map_index)):
        by_dag.setdefault(task.dag_id, []).append(task)
    for of_dag in by_dag.values():
        task_ids = {task.task_id for task in of_dag}
        batch = _Batch()
        for task in of_dag:
            if _is_ambiguous(task, task_ids):
                yield [task]
            elif not batch.add(task):
                yield batch.tasks
                batch = _Batch()
                batch.add(task)
        if batch.tasks:
            yield batch.tasks


@dataclass(slots=True)
class _Batch:
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
