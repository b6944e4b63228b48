"""A triggerer of Airflow 3.3 in this process: it starts tasks, dies, and answers its triggers.

Airflow's own: the serialized DAG, the trigger's stored arguments, the context and its templates.
What Airflow's database has is a dict here: the XComs and the state of the one task.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from airflow_jobs_provider.airflow_compat.triggerer_health import triggerer_health
from tests.fakes.fake_service import FakeService, Seen

runner: Any = pytest.importorskip("airflow.jobs.triggerer_job_runner")
task_runner: Any = pytest.importorskip(
    "airflow.sdk.execution_time.task_runner", reason="Airflow 2 starts nothing in the triggerer"
)
comms: Any = pytest.importorskip("airflow.sdk.execution_time.comms")
exceptions: Any = pytest.importorskip("airflow.sdk.exceptions")

START = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
RUN_ID = "manual__2026"


# The name of a moment, and how often it has come since the start.
Moment = tuple[str, int]


class TriggererDiedError(Exception):
    """The triggerer is dead; nothing that it asks is answered."""


@dataclass
class Attempt:
    """A row of Airflow's table of task instances, as the triggerer gets it.

    :ivar number: ``try_number``.
    :ivar carrier: what a clear changes.
    :ivar map_index: index of a mapped task, else -1.
    """

    number: int = 1
    carrier: str = "00-first-clear-01"
    map_index: int = -1
    id: Any = field(default_factory=uuid4)

    def next_try(self) -> Attempt:
        """Return the retry of this attempt."""
        return Attempt(self.number + 1, self.carrier, self.map_index)

    def cleared(self, carrier: str = "00-second-clear-01") -> Attempt:
        """Return the attempt after a clear."""
        return Attempt(self.number + 1, carrier, self.map_index)


class Triggerer:
    """Runs the trigger of one task; it can be killed at any message and any request.

    :param dag: the DAG.
    :param task_id: the task that starts in the triggerer.
    :ivar xcoms: the XComs by task id and key. Those of a mapped task have ``etl[0]`` as task id.
    :ivar state: the task's state.
    :ivar refuses: keys of XComs that cannot be stored.
    :ivar unreadable: tasks whose XComs cannot be read.
    :ivar moments: what has happened since the last start, in order.
    :ivar die_at: index of the moment at which the triggerer dies, or its name and how often it has
        come then; None for never.
    :ivar is_changed: whether the task was changed, so that it does not start in the triggerer any
        more. Airflow then makes no context for its trigger, and does not render it.
    :ivar stores_xcoms: whether it has stored XComs before. Without a pause it then stores no record
        of a first attempt.
    """

    def __init__(self, dag: Any, service: FakeService, task_id: str = "etl") -> None:
        from airflow.serialization.serialized_objects import DagSerialization

        self._data = json.loads(json.dumps(DagSerialization.to_dict(dag)))
        self._dag = DagSerialization.from_dict(self._data)
        #: The task that starts in the triggerer.
        self.task_id = task_id
        self._service = service
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work: asyncio.Task[Any] | None = None
        self.xcoms: dict[tuple[str, str], Any] = {}
        self.state = "deferred"
        self.refuses: set[str] = set()
        self.unreadable: set[str] = set()
        self.moments: list[str] = []
        self.die_at: int | Moment | None = None
        self.is_dead = False
        self.stores_xcoms = True
        self.is_changed = False
        self._pending: dict[int, Any] = {}
        service.hook = self._request

    # -- what a test does ----------------------------------------------------------------------

    def start(self, attempt: Attempt, timeout_after: datetime | None = None) -> Any:
        """Run the trigger until it fires; return its event, None where the triggerer has died."""
        return self.run(self.first_event, attempt, timeout_after)

    def run(
        self,
        work: Callable[[Any], Coroutine[Any, Any, Any]],
        attempt: Attempt,
        timeout_after: datetime | None = None,
    ) -> Any:
        """Do something with the started task's trigger, in an event loop of its own."""
        self.moments, self.is_dead = [], False

        async def main() -> Any:
            self._loop = asyncio.get_running_loop()
            triggerer_health().stores_xcoms = self.stores_xcoms
            trigger = self.trigger(attempt, timeout_after)
            self._work = asyncio.ensure_future(work(trigger))
            try:
                return await self._work
            except asyncio.CancelledError:
                assert self.is_dead
                return None

        return asyncio.run(main())

    def trigger(self, attempt: Attempt, timeout_after: datetime | None = None) -> Any:
        """Make the trigger as Airflow does, and render it."""
        from airflow.executors.workloads.task import TaskInstanceDTO
        from airflow.models.trigger import Trigger
        from airflow.serialization.decoders import smart_decode_trigger_kwargs

        arguments: Any = self._dag.get_task(self.task_id).start_trigger_args
        stored = Trigger(classpath=arguments.trigger_cls, kwargs=arguments.trigger_kwargs)
        kwargs = {
            name: smart_decode_trigger_kwargs(value)
            for name, value in Trigger._decrypt_kwargs(stored.encrypted_kwargs).items()
        }
        module, _, name = arguments.trigger_cls.rpartition(".")
        trigger = getattr(__import__(module, fromlist=[name]), name)(**kwargs)
        row = TaskInstanceDTO(
            id=attempt.id,
            task_id=self.task_id,
            dag_id=self._dag.dag_id,
            run_id=RUN_ID,
            try_number=attempt.number,
            map_index=attempt.map_index,
            dag_version_id=uuid4(),
            pool_slots=1,
            priority_weight=1,
            context_carrier={"traceparent": attempt.carrier},
        )
        trigger.trigger_id, trigger.timeout_after = attempt.number, timeout_after
        if self.is_changed:
            trigger.task_instance = row
            return trigger
        dag_run = dag_run_data(self._dag.dag_id)
        trigger.task_instance = runner.TriggerRunner.create_runtime_ti(row, self._data, dag_run)
        trigger.render_template_fields(context=trigger.task_instance.get_template_context())
        return trigger

    async def first_event(self, trigger: Any) -> Any:
        """Run a trigger until it fires."""
        async for event in trigger.run():
            return event
        raise AssertionError("no event")

    def record(self, **changes: Any) -> None:
        """Change the launch record, as a later attempt in another triggerer does."""
        first = {"carrier": Attempt.carrier, "first_try": 1, "try_number": 1, "handed_over": False}
        self.xcoms.setdefault((self.task_id, "launch_record"), first).update(changes)

    def start_with(self, arguments: Any) -> None:
        """Let the serialized DAG have other arguments of the task's first trigger."""
        self._dag.get_task(self.task_id).start_trigger_args = arguments

    def kill(self) -> None:
        """Kill the triggerer now: nothing of it runs any more."""
        self.is_dead = True
        assert self._loop is not None
        assert self._work is not None
        self._loop.call_soon_threadsafe(self._work.cancel)

    # -- what its triggers ask -----------------------------------------------------------------

    def send(self, msg: Any) -> Any:
        """Answer a message of a thread."""
        name = f"{type(msg).__name__} {getattr(msg, 'key', '')}".strip()
        self._pass(f"{name} received")
        answer = self._answer(msg)
        self._pass(f"{name} handled")
        return answer

    async def asend(self, msg: Any) -> Any:
        """Answer a message of the event loop."""
        await asyncio.sleep(0)
        return self.send(msg)

    def _answer(self, msg: Any) -> Any:
        kind = type(msg).__name__
        if kind == "GetTaskStates":
            suffix = "" if msg.map_index is None else f"_{msg.map_index}"
            states = {f"{task_id}{suffix}": self.state for task_id in msg.task_ids}
            return comms.TaskStatesResult(task_states={RUN_ID: states})
        task_id = msg.task_id if msg.map_index in (None, -1) else f"{msg.task_id}[{msg.map_index}]"
        if kind == "GetXCom" and msg.task_id in self.unreadable:
            error = comms.ErrorResponse(error="API_SERVER_ERROR", detail={"status_code": 500})
            raise exceptions.AirflowRuntimeError(error)
        if kind == "GetXCom":
            value = self.xcoms.get((task_id, msg.key))
            return comms.XComResult(key=msg.key, value=value)
        if kind == "SetXCom" and msg.key in self.refuses:
            raise ConnectionError("no XCom is stored")
        if kind == "SetXCom":
            self.xcoms[task_id, msg.key] = msg.value
        elif kind == "DeleteXCom":
            self.xcoms.pop((task_id, msg.key), None)
        return SimpleNamespace(ok=True)

    def _request(self, seen: Seen, moment: str) -> bool:
        try:
            self._pass(f"{seen.endpoint} {moment}")
        except TriggererDiedError:
            return True
        return False

    def _pass(self, moment: str) -> None:
        with self._lock:
            if not self.is_dead:
                self.moments.append(moment)
                index, count = len(self.moments) - 1, self.moments.count(moment)
                if self.die_at in (index, (moment, count)):
                    self.kill()
            if self.is_dead:
                raise TriggererDiedError(moment)


def counted(moments: Sequence[str]) -> list[Moment]:
    """Return moments in order, each with how often it had come."""
    return [(name, moments[: index + 1].count(name)) for index, name in enumerate(moments)]


def comes_at_each_start(moment: Moment) -> bool:
    """Whether a moment comes however fast a start is.

    A triggerer asks for states in the background, and after a pause for a later attempt. A start
    that is slower reads the run once more or less.
    """
    name, count = moment
    what, _, _ = name.rpartition(" ")
    is_question = what in ("GetTaskStates", "GetXCom launch_record")
    return not is_question and (count == 1 or what not in ("runs/get", "runs/list"))


def dag_run_data(dag_id: str) -> dict[str, Any]:
    """Return what Airflow tells a task of its DAG run."""
    return {
        "dag_id": dag_id,
        "run_id": RUN_ID,
        "logical_date": START,
        "data_interval_start": START,
        "data_interval_end": START,
        "run_after": START,
        "start_date": START,
        "run_type": "manual",
        "state": "running",
        "conf": {},
        "consumed_asset_events": [],
        "end_date": None,
        "partition_key": None,
    }


def context_on_worker(task: Any) -> Any:
    """Return the context of the first attempt of a task that a worker executes."""
    from airflow.sdk.api.datamodels._generated import TIRunContext

    told = {"dag_run": dag_run_data(task.dag_id), "max_tries": task.retries}
    ti = task_runner.RuntimeTaskInstance.model_construct(
        id=uuid4(),
        task_id=task.task_id,
        dag_id=task.dag_id,
        run_id=RUN_ID,
        try_number=1,
        map_index=-1,
        start_date=START,
        max_tries=task.retries,
        task=task,
        _ti_context_from_server=TIRunContext.model_validate(told),
    )
    return ti.get_template_context()


def values_of(triggerer: Triggerer, task_id: str = "etl") -> dict[str, Any]:
    """Return the XComs that a task has pushed, without its launch record."""
    return {
        key: value
        for (task, key), value in triggerer.xcoms.items()
        if task == task_id and key != "launch_record"
    }
