"""Tasks that an older version has deferred are finished by the current code.

``python -m scripts.serialized_triggers`` adds a file of stored tasks at each release. It is never
changed afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import airflow.triggers.base
import pytest
from airflow.triggers.base import BaseTrigger

from airflow_jobs_provider.airflow_compat.stored_arguments import of_text
from airflow_jobs_provider.triggers.polling.watch_position import WatchPosition
from scripts.serialized_triggers import (
    FOLDER,
    GROUP_STARTS_IN_TRIGGERER,
    STARTS_IN_TRIGGERER,
    defer,
    imported,
    launch_before,
    run_to_event,
    task_context,
)
from tests.fakes.fake_service import UNTIL_ENDED, FakeService
from tests.fakes.scripted_server import ScriptedServer
from tests.helpers.responses import OUTPUT
from tests.helpers.tasks import fired, xcoms_of
from tests.helpers.workflow_group import Airflow, task, whole

FILES = {file.stem: json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.json"))}
STORED = {
    f"{version}: {name}": stored
    for version, file in FILES.items()
    for name, stored in file["tasks"].items()
}
EVENT_TRIGGERS = {
    f"{version}: {name}": stored
    for version, file in FILES.items()
    for name, stored in file.get("event_triggers", {}).items()
}
RESUMED = {key: stored for key, stored in STORED.items() if "result" in stored}


@pytest.fixture(scope="module")
def running() -> Iterator[FakeService]:
    """A service for all tests of this module."""
    with FakeService(UNTIL_ENDED) as service:
        yield service


@pytest.fixture
def service(running: FakeService, monkeypatch: pytest.MonkeyPatch) -> FakeService:
    """A service without runs, and the connection to it."""
    running.forget()
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", running.connection)
    return running


def operator_of(stored: dict[str, Any]) -> Any:
    """Make the operator from the DAG file, which has not changed."""
    return imported(stored["operator"])(task_id="etl", **stored["arguments"])


def trigger_of(stored: dict[str, Any]) -> Any:
    """Make the trigger as a triggerer does after the upgrade."""
    return imported(stored["classpath"])(**stored["kwargs"])


def resume(stored: dict[str, Any], event: Any) -> Any:
    """Resume the task with an event, on a worker after the upgrade."""
    method = getattr(operator_of(stored), stored["next_method"])
    return method(task_context(), event, **stored["next_kwargs"])


def run_of(stored: dict[str, Any], service: FakeService) -> Any:
    """Let the service have the run that the older version launched or waited for."""
    if "tasks" in stored["arguments"] or stored["arguments"].get("task_key"):
        launch_before("sensor of a task", service)
    else:
        launch_before("sensor of a job", service)
    (run,) = service.runs.values()
    service.seen.clear()
    return run


@pytest.mark.parametrize("key", STORED)
def test_a_stored_trigger_keeps_its_arguments(key: str) -> None:
    """No argument is lost or renamed; the class path stays."""
    stored = STORED[key]
    arguments = of_text(stored["kwargs"])
    if "operator" in arguments and not hasattr(BaseTrigger, "render_template_fields"):
        pytest.skip("a worker launches every run")
    path, kwargs = trigger_of(stored).serialize()
    assert path == stored["classpath"]
    assert kwargs.items() >= arguments.items()


@pytest.mark.parametrize("key", RESUMED)
def test_the_trigger_waits_for_the_run_and_a_worker_ends_the_task(
    key: str, service: FakeService
) -> None:
    """Both run the current code. Nothing is launched or canceled."""
    stored = RESUMED[key]
    run = run_of(stored, service)
    service.at("runs/get", 2, lambda: service.end(run))
    event = run_to_event(trigger_of(stored))
    assert event["run"]["state"]["result_state"] == "SUCCESS"
    assert resume(stored, json.loads(json.dumps(event))) == stored["result"]
    assert {seen.endpoint for seen in service.seen} <= {"runs/get", "runs/list", "runs/get-output"}
    assert service.count("runs/get") >= 2


@pytest.mark.parametrize("key", RESUMED)
def test_a_worker_accepts_the_event_of_an_older_trigger(key: str, service: FakeService) -> None:
    """The triggerer was upgraded after the trigger had fired."""
    stored = RESUMED[key]
    service.end(run_of(stored, service))
    assert resume(stored, stored["event"]) == stored["result"]


@pytest.mark.parametrize("version", FILES)
@pytest.mark.usefixtures("triggerer_keeps_dags")
def test_the_trigger_ends_a_task(version: str, service: FakeService) -> None:
    """The task was deferred with end_from_trigger."""
    stored = FILES[version]["tasks"]["submit, end_from_trigger"]
    assert stored["kwargs"]["end_from_trigger"]
    service.end(run_of(stored, service))
    assert xcoms_of(fired(trigger_of(stored))) == {"return_value": stored["result"]}


@pytest.mark.parametrize("key", [key for key in RESUMED if RESUMED[key]["idempotency_token"]])
def test_the_task_has_the_same_token(key: str, service: FakeService) -> None:
    """A worker that is executed again after the upgrade gets the run that was launched before."""
    stored = RESUMED[key]
    defer(operator_of(stored), task_context())
    (run,) = service.runs.values()
    assert run.token == stored["idempotency_token"]


@pytest.mark.parametrize("key", EVENT_TRIGGERS)
def test_a_stored_event_trigger_continues(key: str) -> None:
    """It has the same arguments, and finds its position in the asset's state store."""
    if not hasattr(airflow.triggers.base, "BaseEventTrigger"):
        pytest.skip("Airflow 2 has no event triggers")
    stored = EVENT_TRIGGERS[key]
    trigger = trigger_of(stored)
    path, kwargs = trigger.serialize()
    assert path == stored["classpath"]
    assert kwargs.items() >= stored["kwargs"].items()
    assert trigger.position_key == stored["position_key"]
    position = WatchPosition.from_stored([stored["position"]])
    assert position == WatchPosition(2_000, 1_000, active=frozenset({7}), reported={8: 2_500})


@pytest.mark.parametrize("version", FILES)
def test_a_task_of_a_group(
    version: str, context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for its task of the group's run."""
    stored = FILES[version]["tasks"]["member of a group"]
    airflow = Airflow(monkeypatch, deferrable=True)
    airflow.record("a", reported=50, max_tries=0, is_alone=False)
    run_id = stored["kwargs"]["run_id"]
    server.will(whole("TERMINATED", task("a", run_id, "TERMINATED", "SUCCESS")))
    event = run_to_event(trigger_of(stored))
    assert event["run"]["run_id"] == run_id
    server.will(OUTPUT)
    deferred = SimpleNamespace(method_name=stored["next_method"], kwargs=stored["next_kwargs"])
    assert airflow.execute(2, 1, resume=(deferred, event)) == "42"


@pytest.mark.parametrize("version", FILES)
def test_a_group_starts_in_the_triggerer(
    version: str, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its DAG was serialized before the upgrade: the run is launched, and a task follows it."""
    if not hasattr(BaseTrigger, "render_template_fields"):
        pytest.skip("a worker starts every task")
    from airflow.triggers.base import StartTriggerArgs

    from tests.helpers.group_in_triggerer import GroupInTriggerer, group_dag
    from tests.helpers.launch_trigger import succeeded

    group = GroupInTriggerer(group_dag(), service, monkeypatch)
    for name, task_id in GROUP_STARTS_IN_TRIGGERER.items():
        stored = FILES[version]["tasks"][name]
        group.triggerer.task_id = task_id
        group.triggerer.start_with(
            StartTriggerArgs(
                trigger_cls=stored["classpath"],
                trigger_kwargs=stored["kwargs"],
                next_method=stored["next_method"],
            )
        )
    assert succeeded(group.launch())
    service.end_task(group.run, group.task_run("load").key)
    assert succeeded(group.start("load"))


@pytest.mark.parametrize("name", STARTS_IN_TRIGGERER)
@pytest.mark.parametrize("version", FILES)
def test_a_task_starts_in_the_triggerer(
    version: str, name: str, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its DAG was serialized before the upgrade. One run is launched, and the task ends."""
    if not hasattr(BaseTrigger, "render_template_fields"):
        pytest.skip("a worker launches every run")
    from airflow.providers.common.compat.sdk import DAG
    from airflow.triggers.base import StartTriggerArgs

    from tests.helpers.triggerer import Attempt, Triggerer, task_runner, values_of

    stored = FILES[version]["tasks"][name]
    with DAG("sales", schedule=None) as dag:
        operator_of(stored)
    triggerer = Triggerer(dag, service)
    triggerer.start_with(
        StartTriggerArgs(
            trigger_cls=stored["classpath"],
            trigger_kwargs=stored["kwargs"],
            next_method=stored["next_method"],
        )
    )
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", triggerer, raising=False)
    service.at("runs/get", 2, lambda: service.end(1001))
    event = triggerer.start(Attempt())
    assert type(event).__name__ == "TaskSuccessEvent"
    assert values_of(triggerer)["return_value"] == "output of 1001"
    assert service.count("runs/submit") == 1
