"""Runs that ended SUCCESS_WITH_FAILURES: their last tasks succeeded, an earlier one did not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import PokeReturnValue
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_jobs_provider.api.auth import Token
from airflow_jobs_provider.api.client import JobsClient
from airflow_jobs_provider.api.endpoints import submit_run
from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger
from tests.fakes.fake_service import FakeService, Plan
from tests.fakes.scripted_server import TOKEN, ScriptedServer, Step, answer
from tests.helpers.responses import LAUNCHED, RUNNING, SUCCEEDED, failed, history, run
from tests.helpers.tasks import (
    Logged,
    asked,
    connect,
    deferred_by,
    ending_trigger,
    events,
    fired,
    paths,
    run_now,
    sensor,
    submit,
    xcoms_of,
)

pytestmark = pytest.mark.usefixtures("triggerer_keeps_dags")

PARTIAL_RUN = run("TERMINATED", "SUCCESS_WITH_FAILURES", "1 of 3 tasks failed")
TASKS = [
    {**run("TERMINATED", "SUCCESS"), "task_key": "load", "run_id": 71},
    {**run("TERMINATED", "FAILED", "see output"), "task_key": "clean", "run_id": 72},
    {**run("TERMINATED", "UPSTREAM_FAILED"), "task_key": "after clean", "run_id": 73},
]
PARTIAL = answer({**PARTIAL_RUN, "tasks": TASKS})
LOAD = answer({"metadata": TASKS[0], "notebook_output": {"result": "9 rows"}})
CLEAN = answer({"metadata": TASKS[1], "error": "KeyError: 'day'", "error_trace": "line 3"})
AFTER = answer({"metadata": TASKS[2]})
VALUE = {"load": "9 rows", "clean": None, "after clean": None}


def operator(kind: str, **arguments: Any) -> Any:
    """Make one of the operators or the sensor."""
    if kind == "run now":
        return run_now(job_id=3, **arguments)
    return (submit if kind == "submit" else sensor)(**arguments)


def poke(task: Any, context: Any) -> Any:
    """Look once with a sensor."""
    outcome = task.poke(context)
    assert isinstance(outcome, PokeReturnValue)
    return outcome.xcom_value


def concluded(kind: str, where: str, context: Any, server: ScriptedServer, **arguments: Any) -> Any:
    """Wait for the run of PARTIAL in one of the ways; return the task's value."""
    if where == "worker":
        server.will(*([] if kind == "sensor" else [LAUNCHED]), PARTIAL)
    else:
        server.will(*([] if kind == "sensor" else [LAUNCHED]), RUNNING, PARTIAL)
    outputs = [LOAD, CLEAN, AFTER] if arguments.get("fail_on_partial_success") is False else [CLEAN]
    if where == "worker":
        server.will(*outputs)
        task = operator(kind, **arguments)
        return poke(task, context) if kind == "sensor" else task.execute(context)
    ends = where == "triggerer"
    task = operator(kind, deferrable=True, end_from_trigger=ends, **arguments)
    deferred = deferred_by(task, context)
    server.will(*outputs)
    event = fired(deferred.trigger)
    if isinstance(event, TaskSuccessEvent):
        assert ends
        return (xcoms_of(event) or {})["return_value"]
    return operator(kind, **arguments).execute_complete(
        context, event.payload, **deferred.kwargs or {}
    )


@pytest.mark.parametrize("where", ["worker", "deferred", "triggerer"])
@pytest.mark.parametrize("kind", ["submit", "run now", "sensor"])
def test_such_a_run_fails_the_task(
    kind: str, where: str, context: Any, server: ScriptedServer
) -> None:
    """As with the official operator; the message has the task that failed, and its own error."""
    with pytest.raises(DatabricksRunFailedError) as failure:
        concluded(kind, where, context, server)
    message = str(failure.value)
    assert "Run 7 succeeded with failures (TERMINATED/SUCCESS_WITH_FAILURES" in message
    assert "Task 'clean': KeyError: 'day'" in message
    assert "after clean" not in message
    assert "fail_on_partial_success=False" in message


@pytest.mark.parametrize("where", ["worker", "deferred", "triggerer"])
@pytest.mark.parametrize("kind", ["submit", "run now", "sensor"])
def test_it_can_be_a_success_with_a_warning(
    kind: str, where: str, context: Any, server: ScriptedServer, logged: Logged
) -> None:
    """The warning names each task that failed, and no other; the outputs are pushed."""
    assert concluded(kind, where, context, server, fail_on_partial_success=False) == VALUE
    lines = logged()
    assert (
        "Run 7 succeeded with failures, as is accepted (TERMINATED/SUCCESS_WITH_FAILURES" in lines
    )
    assert "Task 'clean': KeyError: 'day'" in lines
    assert "Task 'load'" not in lines
    assert "Task 'after clean'" not in lines


def test_the_warning_names_the_tasks_where_no_output_is_wanted(
    context: Any, server: ScriptedServer, logged: Logged
) -> None:
    """A list does not tell a run's tasks, so the run is read."""
    server.will(answer(PARTIAL_RUN), PARTIAL)
    task = sensor(fail_on_partial_success=False, do_xcom_push=False)
    assert poke(task, context) is None
    assert paths(server) == ["runs/get", "runs/get"]
    assert "Task 'clean': TERMINATED/FAILED: see output" in logged()


def test_a_warning_that_cannot_name_the_tasks_fails_nobody(
    context: Any, server: ScriptedServer, logged: Logged
) -> None:
    """The run ended as the user accepts it, whatever is answered afterwards."""
    server.will(answer(PARTIAL_RUN), answer({"message": "not for you"}, 403))
    task = sensor(fail_on_partial_success=False, do_xcom_push=False)
    assert poke(task, context) is None
    lines = logged()
    assert "The tasks of run 7 cannot be read" in lines
    assert "Run 7 succeeded with failures" in lines


@pytest.mark.parametrize("accepted", [True, False])
def test_a_retry_follows_such_a_run_only_where_it_is_a_success(
    accepted: bool, context: Any, server: ScriptedServer
) -> None:
    """Else it launches a new run, as after any failure."""
    context["task"] = type("Task", (), {"retries": 1})()
    outputs = [LOAD, CLEAN, AFTER]
    server.will(LAUNCHED, PARTIAL)
    if accepted:
        server.will(*outputs)
    else:
        good = answer({**run("TERMINATED", "SUCCESS"), "run_id": 8})
        server.will(answer({"run_id": 8}), good, LOAD)
    value = submit(fail_on_partial_success=not accepted).execute(context)
    assert value == (VALUE if accepted else "9 rows")
    assert paths(server).count("runs/submit") == (1 if accepted else 2)


@pytest.mark.parametrize("accepted", [True, False])
def test_such_a_run_is_repaired_only_where_it_is_a_failure(
    accepted: bool, context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has failed tasks to run again."""
    connect(monkeypatch, server, "2.2")
    context["ti"].try_number, context["ti"].max_tries = 1, 0
    server.will(LAUNCHED, PARTIAL)
    if accepted:
        server.will(LOAD, CLEAN, AFTER)
    else:
        again = answer({**PARTIAL_RUN, "tasks": TASKS, **history()})
        server.will(again, answer({"repair_id": 21}), RUNNING, SUCCEEDED, LOAD)
    task = run_now(job_id=3, repair_run=True, fail_on_partial_success=not accepted)
    assert task.execute(context) == (VALUE if accepted else "9 rows")
    assert asked(server).count("runs/repair 7") == (0 if accepted else 1)


def test_a_repair_that_ends_so_is_accepted(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed run is repaired; what the repair leaves is the user's to accept."""
    connect(monkeypatch, server, "2.2")
    context["ti"].try_number, context["ti"].max_tries = 1, 0
    no_retries = answer({"job_id": 3, "settings": {}})
    server.will(LAUNCHED, answer(run("TERMINATED", "FAILED")), no_retries, failed())
    server.will(answer({"repair_id": 21}), RUNNING, PARTIAL, LOAD, CLEAN, AFTER)
    task = run_now(job_id=3, repair_run=True, max_repairs=2, fail_on_partial_success=False)
    assert task.execute(context) == VALUE
    assert asked(server).count("runs/repair 7") == 1


def test_the_services_own_retry_is_not_waited_for(context: Any, server: ScriptedServer) -> None:
    """It retries runs with the result FAILED or in INTERNAL_ERROR, so its job is not even read."""
    context["ti"].try_number, context["ti"].max_tries = 1, 0
    server.will(LAUNCHED, PARTIAL, CLEAN)
    with pytest.raises(DatabricksRunFailedError):
        run_now(job_id=3).execute(context)
    assert paths(server) == ["run-now", "runs/get", "runs/get-output"]


@pytest.mark.parametrize("result", ["SUCCESS", "SUCCESS_WITH_FAILURES"])
@pytest.mark.parametrize("where", ["worker", "triggerer"])
def test_internal_error_fails_whatever_its_result(
    where: str, result: str, context: Any, server: ScriptedServer
) -> None:
    """The result of a run in that state does not count."""
    ended: Step = answer(run("INTERNAL_ERROR", result, "the driver is gone"))
    error = answer({"metadata": run("INTERNAL_ERROR", result), "error": "driver lost"})
    arguments: dict[str, Any] = {"fail_on_partial_success": False}
    event: dict[str, Any] | None = None
    if where == "triggerer":
        arguments |= {"deferrable": True, "end_from_trigger": True}
        server.will(LAUNCHED, RUNNING)
        trigger = deferred_by(submit(**arguments), context).trigger
        server.will(ended)
        event = fired(trigger).payload
    else:
        server.will(LAUNCHED, ended)
    server.will(error)
    task = submit(**arguments)
    with pytest.raises(DatabricksRunFailedError, match="driver lost"):
        task.execute(context) if event is None else task.execute_complete(context, event)


def test_a_stored_trigger_without_the_argument_keeps_its_meaning(
    context: Any, server: ScriptedServer
) -> None:
    """Before there was one, such a run was a success, so the trigger ended its task."""
    trigger = ending_trigger()
    name, stored = trigger.serialize()
    assert name.endswith("DatabricksJobRunTrigger")
    del stored["fail_on_partial_success"]
    server.will(PARTIAL, LOAD, CLEAN, AFTER)
    event = fired(DatabricksJobRunTrigger(**json.loads(json.dumps(stored))))
    assert (xcoms_of(event) or {})["return_value"] == VALUE


def test_outside_a_triggerer_a_worker_decides(context: Any, server: ScriptedServer) -> None:
    """The event brings the run as it ended, whatever it counts as."""
    server.will(PARTIAL)
    (event,) = events(DatabricksJobRunTrigger(7, polling_period_seconds=0.01))
    server.will(LOAD, CLEAN, AFTER)
    assert submit(fail_on_partial_success=False).execute_complete(context, event) == VALUE


def test_a_hundred_at_once(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Followed together by lists, each decides by its own argument."""
    with FakeService(Plan(result="SUCCESS_WITH_FAILURES")) as service:
        connection = {"conn_type": "databricks_jobs", "host": service.url, "password": TOKEN}
        monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))
        with JobsClient(service.url, Token(TOKEN)) as client:
            run_ids = [client.send(submit_run({})) for _ in range(100)]

        async def first(trigger: DatabricksJobRunTrigger, number: int) -> TriggerEvent:
            trigger.trigger_id = number
            return await anext(trigger.run())

        async def all_events() -> list[TriggerEvent]:
            waits = [
                first(
                    DatabricksJobRunTrigger(
                        run_id,
                        polling_period_seconds=0.2,
                        end_from_trigger=True,
                        do_xcom_push=False,
                        fail_on_partial_success=bool(number % 2),
                    ),
                    number,
                )
                for number, run_id in enumerate(run_ids, 1)
            ]
            return await asyncio.gather(*waits)

        ended = asyncio.run(all_events())
    for number, event in enumerate(ended, 1):
        assert isinstance(event, TaskSuccessEvent) == (number % 2 == 0)
