"""A run's output in its trigger's event: what the resumed process pushes, and what it asks for."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from airflow.triggers.base import TriggerEvent

from airflow_jobs_provider.triggers import event_outputs
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger
from tests.fakes.scripted_server import ScriptedServer, answer
from tests.helpers.responses import FAILED, LAUNCHED, OUTPUT, RUNNING, SUCCEEDED, run, whole
from tests.helpers.tasks import TaskInstance, deferred_by, events, paths, sensor, submit


@pytest.fixture(autouse=True)
def _another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test know what another one has read."""
    monkeypatch.setattr(event_outputs, "_reader", event_outputs.OutputReader())


TWO = [
    {**run("TERMINATED", "SUCCESS"), "run_id": 70 + n, "task_key": key, "notebook_task": {}}
    for n, key in enumerate(("a", "b"))
]


def output(text: str | None, **more: Any) -> Any:
    """Answer an output."""
    return answer(
        {"metadata": run("TERMINATED", "SUCCESS"), "notebook_output": {"result": text, **more}}
    )


def deferred(context: Any, server: ScriptedServer, **arguments: Any) -> Any:
    """Let a task launch run 7 and defer; return what it defers with."""
    server.will(LAUNCHED, RUNNING)
    return deferred_by(submit(deferrable=True, **arguments), context)


def event_of(deferral: Any) -> dict[str, Any]:
    """Run the trigger to its event, and return the payload as Airflow stores it."""
    (event,) = events(deferral.trigger)
    stored: dict[str, Any] = json.loads(json.dumps(event))
    return stored


def resume(context: Any, deferral: Any, event: dict[str, Any], **arguments: Any) -> Any:
    """Resume the task in another process; return what it pushes as return_value."""
    context["ti"].xcoms.clear()
    operator = submit(deferrable=True, **arguments)
    return operator.execute_complete(context, event, **deferral.kwargs or {})


@pytest.mark.parametrize(
    ("steps", "value"),
    [
        ([SUCCEEDED, OUTPUT], "42"),
        ([SUCCEEDED, output(None)], None),
        ([whole("SUCCESS", *TWO), output("one"), output(None)], {"a": "one", "b": None}),
    ],
)
def test_the_resumed_process_asks_for_nothing(
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    steps: list[Any],
    value: Any,
) -> None:
    """It pushes the same as one that reads, without the connection and without a request."""
    deferral = deferred(context, server)
    server.will(*steps)
    event = event_of(deferral)
    assert not server.steps
    asked = len(server.requests)
    monkeypatch.delenv("AIRFLOW_CONN_DATABRICKS_DEFAULT")
    assert resume(context, deferral, event) == value
    assert len(server.requests) == asked
    ids = {"a": 70, "b": 71} if isinstance(value, dict) else None
    assert context["ti"].xcoms.get("task_run_ids") == ids


def test_a_sensor(context: Any, server: ScriptedServer) -> None:
    """Likewise."""
    server.will(RUNNING)
    deferral = deferred_by(sensor(deferrable=True), context)
    server.will(SUCCEEDED, OUTPUT)
    event = event_of(deferral)
    resumed = sensor(deferrable=True)
    assert resumed.execute_complete(context, event, **deferral.kwargs or {}) == "42"
    assert paths(server)[-1] == "runs/get-output"
    assert paths(server).count("runs/get-output") == 1


def test_an_output_that_is_cut_off(context: Any, server: ScriptedServer) -> None:
    """Only the part that is wanted is stored, and the XCom says that there is more."""
    deferral = deferred(context, server, max_output_bytes=5)
    server.will(SUCCEEDED, output("éé" * 100_000))
    event = event_of(deferral)
    assert len(json.dumps(event)) < 1000
    assert resume(context, deferral, event, max_output_bytes=5) == "éé"
    assert context["ti"].xcoms["output_truncated"] is True
    assert paths(server).count("runs/get-output") == 1


@pytest.mark.parametrize(
    ("steps", "value"),
    [
        ([SUCCEEDED, output("x" * 8_000)], "x" * 8_000),
        ([SUCCEEDED, answer({"error_code": "TEMPORARILY_UNAVAILABLE"}, 503)], "42"),
        ([SUCCEEDED, answer({"error_code": "PERMISSION_DENIED"}, 403)], "42"),
        ([SUCCEEDED, answer("<html>")], "42"),
    ],
)
def test_what_is_not_in_the_event_is_read_by_the_worker(
    context: Any, server: ScriptedServer, steps: list[Any], value: str
) -> None:
    """An output that is long, or that cannot be read at once."""
    deferral = deferred(context, server)
    server.will(*steps)
    event = event_of(deferral)
    assert not server.steps
    assert "outputs" not in event
    server.will(output(value))
    assert resume(context, deferral, event) == value


def test_a_run_that_failed_is_read_by_the_worker(context: Any, server: ScriptedServer) -> None:
    """Its error may be long, and the run may be repaired."""
    deferral = deferred(context, server)
    server.will(FAILED)
    assert "outputs" not in event_of(deferral)
    assert paths(server)[-1] == "runs/get"


def test_many_tasks_are_read_by_the_worker(context: Any, server: ScriptedServer) -> None:
    """The event does not wait for them."""
    deferral = deferred(context, server)
    tasks = [{**TWO[0], "run_id": 70 + n, "task_key": f"t{n}"} for n in range(11)]
    server.will(whole("SUCCESS", *tasks))
    assert "outputs" not in event_of(deferral)


def test_a_part_that_cannot_be_read_is_read_by_the_worker(
    context: Any, server: ScriptedServer
) -> None:
    """The event has the rest; the worker asks for that part only."""
    deferral = deferred(context, server)
    server.will(whole("SUCCESS", *TWO), answer({"error_code": "PERMISSION_DENIED"}, 403))
    server.will(output("two"))
    event = event_of(deferral)
    assert not server.steps
    server.will(output("one"))
    assert resume(context, deferral, event) == {"a": "one", "b": "two"}
    assert not server.steps


@pytest.mark.parametrize("why", ["do_xcom_push", "backend", "an earlier version"])
def test_an_event_without_the_output(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """No XCom is wanted, XComs are kept outside of the database, or the trigger is not asked to."""
    if why == "backend":
        monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "company.xcoms.InBucket")
    deferral = deferred(context, server, do_xcom_push=why != "do_xcom_push")
    if why == "an earlier version":
        deferral.trigger.output_in_event = False
    server.will(SUCCEEDED)
    assert "outputs" not in event_of(deferral)
    assert paths(server)[-1] == "runs/get"


@pytest.mark.parametrize("message", ["", "a\0"])
def test_the_log_does_not_have_the_output(
    message: str, context: Any, server: ScriptedServer
) -> None:
    """Airflow writes the event's repr into the log of the task, also with a NUL replaced."""
    deferral = deferred(context, server)
    server.will(answer(run("TERMINATED", "SUCCESS", message)), output("a secret"))
    (payload,) = events(deferral.trigger)
    assert payload["outputs"] == [{"run_id": 7, "result": "a secret"}]
    assert "a secret" not in f"{TriggerEvent(payload)!r} {TriggerEvent(payload)}"


def triggers(count: int, **arguments: Any) -> list[DatabricksJobRunTrigger]:
    """Make triggers, each with a task of its own."""
    made = []
    for number in range(count):
        trigger = DatabricksJobRunTrigger(
            7, polling_period_seconds=0.01, output_in_event=True, **arguments
        )
        task_instance: Any = TaskInstance()
        task_instance.task_id = f"etl_{number}"
        trigger.task_instance = task_instance
        made.append(trigger)
    return made


async def outputs(trigger: DatabricksJobRunTrigger) -> Any:
    """Return what a trigger's event has of outputs."""
    async for event in trigger.run():
        return event.payload.get("outputs")
    raise AssertionError("no event")


def test_a_service_that_does_not_answer(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event waits for some seconds only."""
    monkeypatch.setattr(event_outputs, "SECONDS", 0.2)
    kept: list[socket.socket] = []
    server.will(SUCCEEDED, lambda connection: kept.append(connection.dup()))
    assert asyncio.run(outputs(*triggers(1))) is None
    for connection in kept:
        connection.close()


def test_many_runs_that_end_together(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outputs of some are in their events; the others do not wait for their turn."""
    monkeypatch.setattr(event_outputs, "RUNS_AT_ONCE", 2)
    server.will(SUCCEEDED, OUTPUT, OUTPUT)

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*map(outputs, triggers(5)))

    found = asyncio.run(all_of_them())
    assert found.count(None) == 3
    assert not server.steps


def test_a_long_output_is_not_read_twice_again(context: Any, server: ScriptedServer) -> None:
    """The next run of the same task is left to the worker, those of other tasks are not."""
    first, other = triggers(2)
    server.will(SUCCEEDED, output("x" * 9_000), SUCCEEDED, SUCCEEDED, OUTPUT)

    async def one_after_the_other() -> list[Any]:
        return [await outputs(trigger) for trigger in (first, first, other)]

    assert asyncio.run(one_after_the_other()) == [None, None, [{"run_id": 7, "result": "42"}]]
    assert not server.steps
