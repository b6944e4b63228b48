"""What a workflow group asks of the service, counted there."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, TaskDeferred

from airflow_jobs_provider.airflow_compat.run_successor import Successor
from airflow_jobs_provider.api import run_summary
from airflow_jobs_provider.api.run_summary import latest_attempts
from airflow_jobs_provider.operators import cancel_on_kill
from airflow_jobs_provider.operators.workflow_launch import FRESH_SECONDS, TASK_RUNS_KEY
from tests.fakes.fake_service import TOKEN, FakeService, JobRun
from tests.helpers.workflow_group import Airflow

LAUNCH = {"list": 2, "create": 1, "run-now": 1, "runs/get": 1}


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeService]:
    """The service that counts, and the connection to it."""
    with FakeService() as running:
        connection = {"conn_type": "databricks_jobs", "host": running.url, "password": TOKEN}
        monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))
        yield running


def counted(service: FakeService) -> Counter[str]:
    """Return the requests since this was asked last, by endpoint."""
    seen, service.seen[:] = list(service.seen), []
    return Counter(one.endpoint for one in seen)


def launched(airflow: Airflow, service: FakeService) -> JobRun:
    """Execute the launching task; return the run."""
    airflow.xcoms["etl.launch", "return_value"] = airflow.launch(1, 0)
    (run,) = service.runs.values()
    assert isinstance(run, JobRun)
    return run


def deferred(airflow: Airflow, key: str, try_number: int = 1, max_tries: int = 0) -> TaskDeferred:
    """Execute a task of the group until it defers."""
    with pytest.raises(TaskDeferred) as caught:
        airflow.execute(try_number, max_tries, key=key)
    return caught.value


async def event_of(trigger: Any) -> Any:
    """Run a trigger, made again from its stored form, to its event."""
    again = type(trigger)(**trigger.serialize()[1])
    (payload,) = [event.payload async for event in again.run()]
    return payload


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_notebooks_side_by_side(
    count: int, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launch, one read for all, and one request for the output of each."""
    notebooks = [f"n{number}" for number in range(count)]
    airflow = Airflow(monkeypatch, keys=notebooks, deferrable=True)
    run = launched(airflow, service)
    assert counted(service) == LAUNCH
    deferrals = {key: deferred(airflow, key) for key in notebooks}
    assert counted(service) == {}
    for key in notebooks:
        task_run = run.latest[key]
        assert airflow.xcoms[f"etl.{key}", "run_id"] == task_run.run_id
        page_url = airflow.xcoms[f"etl.{key}", "run_page_url"]
        assert page_url == f"http://workspace.invalid/#run/{task_run.run_id}"
        assert airflow.xcoms[f"etl.{key}", "job_id"] == run.job_id
        service.end_task(run, key)

    async def events() -> list[Any]:
        return await asyncio.gather(*(event_of(one.trigger) for one in deferrals.values()))

    payloads = asyncio.run(events())
    assert counted(service) == {"runs/get": 1}
    for (key, deferral), payload in zip(deferrals.items(), payloads, strict=True):
        assert airflow.execute(key=key, resume=(deferral, payload)) == f"output of {key}"
    assert counted(service) == {"runs/get-output": len(notebooks)}


def test_without_xcoms_no_output_is_read(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a group whose tasks push none costs the launch and the reads of its run."""
    airflow = Airflow(monkeypatch, deferrable=True, do_xcom_push=False)
    run = launched(airflow, service)
    deferral = deferred(airflow, "a")
    service.end_task(run, "a")
    payload = asyncio.run(event_of(deferral.trigger))
    assert airflow.execute(resume=(deferral, payload)) is None
    assert counted(service) == {**LAUNCH, "runs/get": 2}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"run_id": 99}, id="of another run"),
        pytest.param({"seconds": -FRESH_SECONDS - 1}, id="long ago"),
        pytest.param({"seconds": 2 * FRESH_SECONDS}, id="clocks differ"),
        pytest.param({"tasks": {}}, id="not listed"),
    ],
)
def test_a_task_run_that_is_not_known(
    change: dict[str, Any], service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task reads it on its worker."""
    airflow = Airflow(monkeypatch, deferrable=True)
    launched(airflow, service)
    read = airflow.xcoms["etl.launch", TASK_RUNS_KEY]
    read |= change
    read["read_at"] = time.time() + read.pop("seconds", 0)
    counted(service)
    deferred(airflow, "a")
    assert counted(service) == {"runs/get": 1}


def test_what_reads_on_its_worker(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later attempt, and a task after others: its run may have ended before it starts."""
    airflow = Airflow(monkeypatch, chained=True, deferrable=True)
    launched(airflow, service)
    assert set(airflow.xcoms["etl.launch", TASK_RUNS_KEY]["tasks"]) == {"a", "c"}
    counted(service)
    deferred(airflow, "b")
    assert counted(service) == {"runs/get": 1}
    deferred(airflow, "a", try_number=2)
    assert counted(service) == {"runs/get": 1}


def test_a_task_that_starts_after_its_end(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One read of the group's run tells the end."""
    airflow = Airflow(monkeypatch, chained=True, deferrable=True)
    run = launched(airflow, service)
    service.end_task(run, "a")
    service.end_task(run, "b")
    counted(service)
    assert airflow.execute(key="b") == "output of b"
    assert counted(service) == {"runs/get": 1, "runs/get-output": 1}


def test_the_whole_group_was_cleared(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tasks defer without a request, as in the first run.

    A task that is cleared once more looks at its run, which may be canceled by then.
    """
    airflow = Airflow(monkeypatch, deferrable=True)
    airflow.xcoms["etl.launch", "return_value"] = airflow.launch(2, 1)
    (run,) = service.runs.values()
    assert isinstance(run, JobRun)
    counted(service)
    for key in airflow.keys:
        deferral = deferred(airflow, key, try_number=2, max_tries=1)
        task_run = run.latest[key].run_id
        assert deferral.trigger.run_id == task_run
        assert airflow.recorded(key)["follows"] == task_run
    assert counted(service) == {}
    service.end_task(run, "a", "CANCELED")
    deferred(airflow, "a", try_number=3, max_tries=2)
    assert counted(service)["runs/get"] > 0


def test_a_retry_after_the_whole_group_was_cleared(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the run, although the attempt before it has died and recorded nothing."""
    airflow = Airflow(monkeypatch, deferrable=True)
    airflow.xcoms["etl.launch", "return_value"] = airflow.launch(2, 1)
    counted(service)
    deferred(airflow, "a", try_number=3, max_tries=1)
    assert counted(service) == {"runs/get": 1}


@pytest.mark.parametrize(
    ("keys", "arguments"),
    [(["a"], {"deferrable": True}), (["a", "b"], {"deferrable": False})],
)
def test_nothing_is_pushed_that_nobody_needs(
    keys: list[str],
    arguments: dict[str, Any],
    service: FakeService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A single task reads the run itself, and so does each that waits on its worker.

    Nor do they ask for it: Airflow 3.0 to 3.2 warn of an XCom that is not there.
    """
    airflow = Airflow(monkeypatch, keys=keys, **arguments)
    run = launched(airflow, service)
    assert ("etl.launch", TASK_RUNS_KEY) not in airflow.xcoms
    launch, asked = airflow.group.launch_task, list[str]()
    monkeypatch.setattr(launch, "_own_xcom", lambda _context, key: asked.append(key))
    for key in keys:
        service.end_task(run, key)
    with suppress(TaskDeferred):
        airflow.execute()
    assert asked == []


def test_a_task_run_without_an_id(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    """The launch succeeds all the same, and that task reads the run."""
    airflow = Airflow(monkeypatch, deferrable=True)

    def latest(run: Any) -> dict[str, Any]:
        tasks: dict[str, Any] = latest_attempts(run)
        return {**tasks, "a": {**tasks["a"], "run_id": None}}

    with monkeypatch.context() as patch:
        patch.setattr(run_summary, "latest_attempts", latest)
        launched(airflow, service)
    assert set(airflow.xcoms["etl.launch", TASK_RUNS_KEY]["tasks"]) == {"b", "c"}


def test_a_kill_before_the_deferral(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow 3 lets the process go on; it cancels the task run that it does not read."""
    monkeypatch.setattr(cancel_on_kill, "find_successor", lambda _attempt: Successor.NONE)
    airflow = Airflow(monkeypatch, deferrable=True)
    run = launched(airflow, service)
    operator = airflow.group.members()[0]
    own_xcom = airflow.group.launch_task._own_xcom

    def read_and_kill(context: Any, key: str) -> Any:
        operator.on_kill()
        return own_xcom(context, key)

    monkeypatch.setattr(airflow.group.launch_task, "_own_xcom", read_and_kill)
    with pytest.raises(AirflowException, match="the task was killed"):
        airflow.execute()
    assert run.latest["a"].cancels == 1
