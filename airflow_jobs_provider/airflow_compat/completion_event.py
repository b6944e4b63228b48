"""The event that ends a task in the triggerer, and the XComs that its trigger stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import TaskSuccessEvent

from airflow_jobs_provider.airflow_compat.event_loops import PerEventLoop
from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.airflow_compat.threads import in_thread
from airflow_jobs_provider.airflow_compat.turns import Turns
from airflow_jobs_provider.xcom import JOB_ID_KEY, RUN_ID_KEY, RUN_PAGE_URL_KEY

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

__all__ = [
    "BeforePush",
    "delete_output",
    "delete_run",
    "push_xcoms",
    "success_event",
    "until_runs_are_stored",
    "xcom_turn",
]

#: Runs whose ids are not stored yet, before other launches wait for that.
UNSTORED_RUNS = 4

BeforePush = Callable[[], Awaitable[None]]

# Airflow stores one XCom after the other, 20 to 50 a second. DAGs take turns. The tasks of a DAG
# come in the order of their launches, so that they end one after the other: while a thousand
# triggers wait, a triggerer starts none of another DAG.
_turns = PerEventLoop(Turns)


class _UnstoredRuns:
    """The runs whose ids are being stored."""

    def __init__(self) -> None:
        self._count = 0
        self._are_few = asyncio.Event()
        self._are_few.set()

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Count a run until the context ends."""
        self._change(1)
        try:
            yield
        finally:
            self._change(-1)

    async def until_few(self) -> None:
        """Wait until another run may be launched."""
        await self._are_few.wait()

    def _change(self, difference: int) -> None:
        self._count += difference
        if self._count < UNSTORED_RUNS:
            self._are_few.set()
        else:
            self._are_few.clear()


_unstored_runs = PerEventLoop(_UnstoredRuns)


async def until_runs_are_stored() -> None:
    """Wait until Airflow has stored the ids of all launched runs but a few.

    A triggerer may launch more runs a second than Airflow stores ids. If it died before they are
    stored, and a user cleared the tasks then, nobody would know of the runs.
    """
    await _unstored_runs.get().until_few()


async def success_event(
    trigger: BaseTrigger, xcoms: Mapping[str, Any], *, before_push: BeforePush
) -> TaskSuccessEvent:
    """Store a task's XComs and return the event that ends the task as successful.

    :param trigger: the trigger that runs.
    :param xcoms: what the task pushes.
    :param before_push: awaited in the turn, before the XComs are stored. What it raises is raised.
    :raises Exception: the XComs cannot be stored; a worker may be able to.
    """
    task_instance: Any = trigger.task_instance
    if task_instance is not None and xcoms:
        async with xcom_turn(trigger, before_push=before_push):
            xcoms = await in_thread(airflow_line().store_xcoms, task_instance, xcoms)
    return TaskSuccessEvent(xcoms=dict(xcoms) or None)


async def push_xcoms(
    trigger: BaseTrigger,
    xcoms: Mapping[str, Any],
    *,
    before_push: BeforePush,
    of_launch: bool = False,
) -> None:
    """Store XComs of a trigger's task while the trigger waits (Airflow 3).

    The id of a run that was launched does not wait for all other XComs of its DAG: if the triggerer
    dies before it is stored, and a user clears the task then, nobody knows of the run.

    :param trigger: the trigger that runs.
    :param xcoms: the XComs by key.
    :param before_push: awaited in the turn, before the XComs are stored. What it raises is raised.
    :param of_launch: whether the XComs have the id of a run that was launched; default False.
    :raises Exception: the XComs cannot be stored.
    """
    if not xcoms:
        return
    with _unstored_runs.get().one_more() if of_launch else nullcontext():
        async with xcom_turn(trigger, before_push=before_push, is_urgent=of_launch):
            await in_thread(airflow_line().store_xcoms, trigger.task_instance, xcoms)


@asynccontextmanager
async def xcom_turn(
    trigger: BaseTrigger, *, before_push: BeforePush, is_urgent: bool = False
) -> AsyncIterator[None]:
    """Wait for the turn of a trigger to store XComs, and take it for the time of the context.

    :param trigger: the trigger that runs.
    :param before_push: awaited in the turn. What it raises is raised.
    :param is_urgent: see :meth:`.Turns.turn`.
    """
    task_instance: Any = trigger.task_instance
    since: float = getattr(trigger, "launched_at", None) or 0.0
    async with _turns.get().turn(task_instance.dag_id, is_urgent=is_urgent, since=since):
        await before_push()
        yield


def delete_output(task_instance: Any, *, multiple_outputs: bool = False) -> None:
    """Delete the output that an earlier attempt has pushed, and the ids of its task runs.

    Airflow does so where a worker starts the task, and not where it resumes one. Without it the
    next task would get the old output after a run that has none.

    :param task_instance: the task's. Its first attempt deletes nothing.
    :param multiple_outputs: whether it pushed the output of each task of the run under its key;
        default False.
    """
    if task_instance.try_number > 1:
        airflow_line().delete_output(task_instance, multiple_outputs=multiple_outputs)


def delete_run(task_instance: Any) -> None:
    """Delete what an earlier attempt has pushed about its run, as :func:`delete_output` does.

    :param task_instance: the task's. Its first attempt deletes nothing.
    """
    if task_instance.try_number > 1:
        airflow_line().delete_xcoms(task_instance, (RUN_ID_KEY, JOB_ID_KEY, RUN_PAGE_URL_KEY))
