"""What a triggerer of Airflow 3 answers to triggers that ask about their tasks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException
from asgiref.sync import async_to_sync

from airflow_jobs_provider.triggers import background
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger

task_runner: Any = pytest.importorskip(
    "airflow.sdk.execution_time.task_runner", reason="Airflow 2 asks its database"
)
comms: Any = pytest.importorskip("airflow.sdk.execution_time.comms")


async def again_and_again(doing: asyncio.Task[None]) -> None:
    """Cancel as Airflow does: each time it looks, until the trigger is gone."""
    while not doing.done():
        doing.cancel()
        await asyncio.sleep(0.1)


async def until_all_is_done() -> None:
    """Wait for what goes on after the triggers have ended."""
    supervisor = task_runner.SUPERVISOR_COMMS
    supervisor.triggers_have_ended = True
    while background._tasks:
        await asyncio.wait(background._tasks)
    supervisor.all_is_done = True


def on_kill(*triggers: DatabricksJobRunTrigger) -> None:
    """End triggers as Airflow does from 3.3 on, where their numbers are no longer wanted."""

    async def run() -> None:
        doing = [asyncio.create_task(trigger.on_kill()) for trigger in triggers]
        await asyncio.sleep(0.01)
        await asyncio.gather(*(again_and_again(one) for one in doing))
        await until_all_is_done()

    asyncio.run(run())


def cancel(*triggers: DatabricksJobRunTrigger) -> None:
    """End triggers as Airflow did before, whatever the reason."""

    async def wait(trigger: DatabricksJobRunTrigger) -> None:
        async for _ in trigger.run():
            pass

    async def run() -> None:
        doing = [asyncio.create_task(wait(trigger)) for trigger in triggers]
        await asyncio.sleep(0.05)
        await asyncio.gather(*(again_and_again(one) for one in doing))
        assert all(one.cancelled() for one in doing)
        await until_all_is_done()

    asyncio.run(run())


@dataclass
class Row:
    """A task instance as Airflow's database has it, and the run that its XCom names."""

    state: str
    launched: Any = 7
    dag_id: str = "sales"
    run_id: str = "a_run"
    task_id: str = "etl"
    map_index: int = -1

    def trigger(self, run_id: int, **arguments: Any) -> DatabricksJobRunTrigger:
        """Make the trigger that waits for a run."""
        trigger = DatabricksJobRunTrigger(run_id=run_id, cancel_on_kill=True, **arguments)
        task: Any = SimpleNamespace(
            dag_id=self.dag_id, run_id=self.run_id, task_id=self.task_id, map_index=self.map_index
        )
        trigger.task_instance = task
        return trigger


class Supervisor:
    """Answers what triggers ask about their tasks, one question at a time, as Airflow does."""

    def __init__(
        self, *rows: Row, errors: float = 0, unanswered: int = 0, seconds: float = 0.01
    ) -> None:
        self.rows = rows
        self.errors = errors
        self.unanswered = unanswered
        self.seconds = seconds
        self.questions: list[Any] = []
        # Questions that were canceled before all triggers and their work had ended.
        self.canceled_early = 0
        self.triggers_have_ended = self.answered_after_the_end = self.all_is_done = False
        self._turn: asyncio.Lock | None = None

    def asked(self, kind: str) -> int:
        """Return how many questions of a kind were asked."""
        return sum(type(question).__name__ == kind for question in self.questions)

    def send(self, msg: Any) -> Any:
        """Answer another thread, as Airflow 3.0 does."""
        return async_to_sync(self.asend)(msg)

    async def asend(self, msg: Any) -> Any:
        """Answer, not at once."""
        if type(msg).__name__ == "MaskSecret":
            return None
        if type(msg).__name__ == "GetConnection":
            raise AirflowException(f"The conn_id `{msg.conn_id}` isn't defined")
        self.questions.append(msg)
        if len(self.questions) <= self.unanswered:
            try:
                await asyncio.Event().wait()
            finally:
                self.canceled_early += not self.all_is_done
        if self._turn is None:
            self._turn = asyncio.Lock()
        async with self._turn:
            await asyncio.sleep(self.seconds)
        self.answered_after_the_end = self.triggers_have_ended
        if len(self.questions) <= self.errors:
            raise ConnectionError("the API does not answer")
        if type(msg).__name__ == "GetTaskStates":
            return comms.TaskStatesResult(task_states=self._states(msg))
        (row,) = (
            row
            for row in self.rows
            if (row.dag_id, row.run_id, row.task_id, row.map_index)
            == (msg.dag_id, msg.run_id, msg.task_id, msg.map_index)
        )
        return comms.XComResult(key="run_id", value=row.launched)

    def _states(self, msg: Any) -> dict[str, dict[str, str]]:
        states: dict[str, dict[str, str]] = {}
        for row in self.rows:
            if (
                row.dag_id == msg.dag_id
                and row.run_id in msg.run_ids
                and row.task_id in msg.task_ids
                and msg.map_index in (None, row.map_index)
            ):
                mapped = "" if row.map_index < 0 else f"_{row.map_index}"
                states.setdefault(row.run_id, {})[f"{row.task_id}{mapped}"] = row.state
        return states
