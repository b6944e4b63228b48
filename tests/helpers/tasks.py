"""Task instances, operators and triggers as the tests of tasks use them."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    TaskDeferred,
)
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_jobs_provider.airflow_compat.lines import airflow_version
from airflow_jobs_provider.airflow_compat.run_successor import xcoms_at_start
from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt
from airflow_jobs_provider.operators.jobs import (
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor
from airflow_jobs_provider.triggers.base import DatabricksJobsBaseTrigger
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger
from tests.fakes.scripted_server import (
    TOKEN,
    ScriptedServer,
)


def fired(trigger: Any, task_instance: Any = None, **set_by_airflow: Any) -> TriggerEvent:
    """Run a trigger, made again from its stored form, to its one event."""
    again = type(trigger)(**json.loads(json.dumps(trigger.serialize()[1])))
    again.task_instance, again.trigger_id = task_instance, 5
    vars(again).update(set_by_airflow)

    async def collect() -> list[TriggerEvent]:
        return [event async for event in again.run()]

    (event,) = asyncio.run(collect())
    return event


def ending_trigger(**arguments: Any) -> DatabricksJobRunTrigger:
    """Make a trigger that polls fast and ends its task."""
    arguments = {"polling_period_seconds": 0.01, "end_from_trigger": True, **arguments}
    return DatabricksJobRunTrigger(7, **arguments)


def deferred_by(operator: Any, context: Any) -> TaskDeferred:
    """Execute an operator until it defers."""
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    return deferred.value


def xcoms_of(event: TriggerEvent) -> dict[str, Any] | None:
    """Return what a trigger pushes as it ends its task."""
    assert isinstance(event, TaskSuccessEvent)
    return event.xcoms


def parsed_for_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be one that parses its DAG file to execute a task."""
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "sales")
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_TASK_ID", "etl")
    if airflow_version() >= (3, 0):
        task_runner = importlib.import_module("airflow.sdk.execution_time.task_runner")
        # Airflow 3.0 sends it the secrets to be masked.
        supervisor = SimpleNamespace(send=nothing, send_request=nothing)
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)


def nothing(*_: Any) -> None:
    """Do nothing."""


class InTriggerer:
    """A task instance as a triggerer has it, of a second attempt."""

    dag_id, task_id, run_id, map_index = "sales", "etl", "scheduled__2026-01-01", 3
    try_number = 2

    def xcom_push(self, key: str, value: Any) -> None:
        """Store an XCom, in Airflow 2; it is forgotten."""


def stored_from_trigger(
    monkeypatch: pytest.MonkeyPatch, fault: Exception | None = None
) -> list[Any]:
    """Let Airflow note which XComs a trigger stores, or fail; return them."""
    stored: list[Any] = []

    def store(*arguments: Any, **more: Any) -> None:
        if fault is not None:
            raise fault
        stored.append((*arguments, *more.values()))

    def push(ti: InTriggerer, key: str, value: Any) -> None:
        store(key, value, ti.dag_id, ti.task_id, ti.run_id, ti.map_index)

    try:
        from airflow.sdk.execution_time.xcom import XCom
    except ImportError:
        monkeypatch.setattr(InTriggerer, "xcom_push", push)
    else:
        monkeypatch.setattr(XCom, "set", store)
    return stored


def operator_of(kind: str, **arguments: Any) -> Any:
    """Make an operator that tries once and has a readable log."""
    log = logging.getLogger("task")
    arguments = {"task_id": "etl", "polling_period_seconds": 0.01, **arguments}
    if kind == "run-now":
        made: Any = type("RunNow", (DatabricksRunNowOperator,), {"log": log})
        return made(job_id=3, **arguments)
    made = type("Submit", (DatabricksSubmitRunOperator,), {"log": log})
    notebook = {"notebook_path": "/etl"}
    return made(existing_cluster_id="1201-my-cluster", notebook_task=notebook, **arguments)


def connect(monkeypatch: pytest.MonkeyPatch, server: ScriptedServer, version: str) -> None:
    """Make an Airflow connection to the scripted server."""
    connection = {
        "conn_type": "databricks_jobs",
        "host": server.url,
        "password": TOKEN,
        "extra": {"api_version": version},
    }
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))


def asked(server: ScriptedServer) -> list[str]:
    """Return what was asked, in order, each with the run it was about."""
    return [
        " ".join(
            filter(
                None,
                (
                    request.path.removeprefix("/api/2.2/jobs/"),
                    str((request.query or request.body).get("run_id", "")),
                ),
            )
        )
        for request in server.requests
    ]


class TaskInstance:
    """What the operators ask of a task instance; remembers what was pushed."""

    dag_id, task_id, run_id = "sales", "etl", "scheduled__2026-01-01"
    try_number, map_index, max_tries = 2, -1, 1
    start_date = datetime(2026, 1, 1, tzinfo=UTC)

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        """Remember."""
        self.xcoms[key] = value

    def xcom_pull(self, task_ids: str, key: str, map_indexes: int) -> Any:
        """Tell what was remembered."""
        assert (task_ids, map_indexes) == (self.task_id, self.map_index)
        return self.xcoms.get(key)


def keep_xcoms(monkeypatch: pytest.MonkeyPatch, ti: TaskInstance) -> dict[str, Any]:
    """Let Airflow's XComs of a task be those that the task instance remembers; return them."""
    try:
        from airflow.sdk.execution_time.xcom import XCom
    except ImportError:
        monkeypatch.setattr("airflow.models.xcom.XCom.clear", lambda **_: ti.xcoms.clear())
    else:
        monkeypatch.setattr(XCom, "delete", lambda *, key, **_: ti.xcoms.pop(key, None))
        monkeypatch.setattr(XCom, "get_one", lambda *, key, **_: ti.xcoms.get(key))
    return ti.xcoms


def submit(**arguments: Any) -> DatabricksSubmitRunOperator:
    """Make a submit operator that polls fast."""
    arguments.setdefault("notebook_task", {"notebook_path": "/etl"})
    arguments.setdefault("existing_cluster_id", "1201-my-cluster")
    arguments.setdefault("polling_period_seconds", 0.01)
    return DatabricksSubmitRunOperator(task_id="etl", **arguments)


def paths(server: ScriptedServer) -> list[str]:
    """Return what was asked, in order."""
    return [request.path.removeprefix("/api/2.0/jobs/") for request in server.requests]


def events(trigger: DatabricksJobsBaseTrigger) -> list[Any]:
    """Run a trigger, made again from its stored form, to its end, which must come in a minute."""
    name, arguments = trigger.serialize()
    kind = type(trigger)
    assert name == f"{kind.__module__}.{kind.__name__}"
    again = kind(**json.loads(json.dumps(arguments)))

    async def collect() -> list[Any]:
        async with asyncio.timeout(60):
            return [event.payload async for event in again.run()]

    return asyncio.run(collect())


def run_now(**arguments: Any) -> DatabricksRunNowOperator:
    """Make a run-now operator that polls fast."""
    return DatabricksRunNowOperator(task_id="etl", polling_period_seconds=0.01, **arguments)


def retrying(context: Any) -> None:
    """Make the context that of the second try of two."""
    context["ti"].try_number, context["ti"].max_tries = 2, 1
    context["task"] = SimpleNamespace(retries=1)


def fail_for_good(operator: Any, context: Any) -> None:
    """Do what Airflow does when a task has failed and no retry is left."""
    context["task"] = operator
    for callback in operator.on_failure_callback:
        callback(context)


def canceled_after(requests: int, server: ScriptedServer) -> list[Any]:
    """Return the runs that were canceled after so many requests."""
    later = server.requests[requests:]
    assert all(request.path.endswith("/runs/cancel") for request in later)
    return [request.body["run_id"] for request in later]


def sensor(**arguments: Any) -> DatabricksJobRunSensor:
    """Make a sensor that polls fast."""
    return DatabricksJobRunSensor(task_id="wait", run_id="7", poke_interval=0.01, **arguments)


Logged = Callable[[], str]
# What is pushed for run 7, and what a second try pushes beside.
XCOMS = {"run_id": 7, "job_id": 3, "run_page_url": "http://w/7"} | xcoms_at_start(
    TaskAttempt.from_context({"ti": TaskInstance()})  # type: ignore[typeddict-item]
)


class TaskInstanceWithId:
    """A task instance of Airflow 3, with retries left or not."""

    dag_id, task_id, run_id = "sales", "etl", "a_run"
    map_index = -1

    def __init__(self, try_number: int, max_tries: int) -> None:
        self.id = uuid.uuid4()
        self.try_number = try_number
        self.max_tries = max_tries
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        """Remember."""
        self.xcoms[key] = value
