"""A trigger that is cancelled: a user's act, or a triggerer that stops or hands over?

Airflow's answers are chosen here, at the connection between a trigger and its supervisor. Airflow 2
has a database in its place; there, and for all of it together, see tests/end_to_end.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger

from .conftest import TOKEN, ScriptedServer, answer

task_runner: Any = pytest.importorskip(
    "airflow.sdk.execution_time.task_runner", reason="Airflow 2 asks its database"
)
comms: Any = pytest.importorskip("airflow.sdk.execution_time.comms")

# Airflow 3.0 reads a connection in a roundabout way that imports much else.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

End = Callable[[DatabricksJobRunTrigger], None]


async def again_and_again(doing: asyncio.Task[None]) -> None:
    """Cancel as Airflow does: each time it looks, until the trigger is gone."""
    while not doing.done():
        doing.cancel()
        await asyncio.sleep(0.01)


def on_kill(trigger: DatabricksJobRunTrigger) -> None:
    """End the trigger as Airflow does from 3.3 on, where its number is no longer wanted."""

    async def run() -> None:
        doing = asyncio.create_task(trigger.on_kill())
        await asyncio.sleep(0.01)
        await again_and_again(doing)

    asyncio.run(run())


def cancel(trigger: DatabricksJobRunTrigger) -> None:
    """End the trigger as Airflow did before, whatever the reason."""

    async def run() -> None:
        async def wait() -> None:
            async for _ in trigger.run():
                pass

        doing = asyncio.create_task(wait())
        await asyncio.sleep(0.05)
        await again_and_again(doing)
        assert doing.cancelled()

    asyncio.run(run())


@pytest.fixture(params=[*([on_kill] if hasattr(BaseTrigger, "on_kill") else []), cancel])
def end(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> End:
    """Both ways for a trigger to end."""
    if request.param is cancel:
        monkeypatch.delattr(BaseTrigger, "on_kill", raising=False)
    chosen: End = request.param
    return chosen


class Supervisor:
    """Answers what a trigger asks about its task."""

    def __init__(self, state: str | None, launched: int | None) -> None:
        self.state = state
        self.launched = launched

    def send(self, msg: Any) -> Any:
        """Answer, not at once."""
        time.sleep(0.1)
        if self.state is None:
            raise ConnectionError("the supervisor has gone")
        if type(msg).__name__ == "GetTaskStates":
            return SimpleNamespace(task_states={"a_run": {"etl": self.state}})
        return comms.XComResult(key="run_id", value=self.launched)


@pytest.fixture
def cancelled(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, end: End) -> Any:
    """Whether the service sees a cancel when the trigger of run 7 ends."""
    connection = {"conn_type": "databricks_jobs", "host": server.url, "password": TOKEN}
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))
    server.will(*[answer({"run_id": 7, "state": {"life_cycle_state": "RUNNING"}})])

    def look(state: str | None, launched: int | None = 7, **arguments: Any) -> bool:
        supervisor = Supervisor(state, launched)
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
        arguments.setdefault("cancel_on_kill", True)
        task = SimpleNamespace(dag_id="sales", run_id="a_run", task_id="etl", map_index=-1)
        # A property in some versions of Airflow, an attribute that __init__ empties in others.
        always = property(lambda _self: task, lambda _self, _value: None)
        monkeypatch.setattr(DatabricksJobRunTrigger, "task_instance", always, raising=False)
        trigger = DatabricksJobRunTrigger(run_id=7, **arguments)
        end(trigger)
        return any(request.path.endswith("/runs/cancel") for request in server.requests)

    return look


@pytest.mark.parametrize("state", ["failed", "success", "queued", "running", "None"])
def test_a_task_that_waits_no_more(cancelled: Any, state: str) -> None:
    """Marked, cleared, or on its next try already: the run is cancelled."""
    assert cancelled(state)


def test_a_task_that_waits_for_another_run(cancelled: Any) -> None:
    """It was cleared and is deferred again: the earlier run is cancelled."""
    assert cancelled("deferred", launched=8)


@pytest.mark.parametrize("launched", [7, None])
def test_a_task_that_still_waits(cancelled: Any, launched: int | None) -> None:
    """The triggerer stops, or another one has taken over: the run is left alone."""
    assert not cancelled("deferred", launched=launched)


def test_a_run_that_shall_live(cancelled: Any) -> None:
    """cancel_on_kill=False leaves the run alone, whatever a user does."""
    assert not cancelled("failed", cancel_on_kill=False)


def test_a_task_whose_state_is_not_known(cancelled: Any, end: End) -> None:
    """Then Airflow's word counts, where it gives one: on_kill cancels, else the run is left."""
    assert cancelled(None) is (end is on_kill)


def test_a_run_that_is_on_its_way_out(cancelled: Any, end: End) -> None:
    """It is not cancelled once more, where the trigger has seen it: another one was as quick."""
    assert cancelled("failed", life_cycle_state="TERMINATING") is (end is on_kill)
