"""What one process of a task asks for: of the service, and of Airflow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.common.compat import connection as compat_connection

from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.api.schema import validation
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.operators.jobs import (
    DatabricksCancelRunsOperator,
    DatabricksCreateJobsOperator,
    DatabricksDeleteRunOperator,
    DatabricksRunNowOperator,
)
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor
from airflow_jobs_provider.triggers.events import run_payload
from tests.fakes.fake_service import UNTIL_ENDED, FakeService
from tests.helpers.tasks import (
    TaskInstance,
    deferred_by,
    fired,
    parsed_for_a_task,
    submit,
    xcoms_of,
)


class Counts:
    """What was asked for since the last look."""

    def __init__(self, service: FakeService) -> None:
        self._service = service
        self.connections: list[Any] = []
        self.looked_up: list[str] = []
        self.validated: list[str] = []

    def take(self) -> tuple[list[str], int, list[str], list[str]]:
        """Return requests, connections opened, Airflow connections read, requests validated."""
        seen = [one.endpoint for one in self._service.seen]
        taken = seen, len(self.connections), [*self.looked_up], [*self.validated]
        for counted in (self._service.seen, self.connections, self.looked_up, self.validated):
            counted.clear()
        return taken


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeService]:
    """A service whose runs last until they are ended, as the default connection names it."""
    with FakeService(UNTIL_ENDED) as service:
        monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", service.connection)
        yield service


@pytest.fixture
def counts(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> Counts:
    """Counts what the processes of this test ask for."""
    counts = Counts(service)
    process_request = service._server.process_request
    get_connection = DatabricksJobsHook.get_connection
    get_async_connection = compat_connection.get_async_connection
    validate = validation.validate

    def accept(request: Any, address: Any) -> None:
        counts.connections.append(address)
        process_request(request, address)

    def look_up(conn_id: str) -> Any:
        counts.looked_up.append(conn_id)
        return get_connection(conn_id)

    async def look_up_async(conn_id: str) -> Any:
        counts.looked_up.append(conn_id)
        return await get_async_connection(conn_id)

    def check(call_name: str, payload: Any, **more: Any) -> None:
        counts.validated.append(call_name)
        validate(call_name, payload, **more)

    monkeypatch.setattr(service._server, "process_request", accept)
    monkeypatch.setattr(DatabricksJobsHook, "get_connection", staticmethod(look_up))
    monkeypatch.setattr(compat_connection, "get_async_connection", look_up_async)
    monkeypatch.setattr(validation, "validate", check)
    # A task's process, which parses the DAG file to execute one task of it.
    parsed_for_a_task(monkeypatch)
    return counts


@pytest.fixture
def context() -> Any:
    """The context of a first try."""
    context: Any = {"ti": TaskInstance(), "params": {}, "dag_run": None, "task": None}
    context["ti"].try_number = 1
    return context


ONE = ["databricks_default"]


def test_a_deferred_task(service: FakeService, counts: Counts, context: Any) -> None:
    """Its first process and its triggerer open a connection each; the resumed process opens none.

    An event of an earlier version has no output. Then the resumed process reads it.
    """
    deferred = deferred_by(submit(deferrable=True), context)
    assert counts.take() == (["runs/submit", "runs/get"], 1, ONE, ["runs/submit"])

    (run,) = service.runs.values()
    run.end("SUCCESS", run.started)
    event: Any = fired(deferred.trigger)
    seen, *others = counts.take()
    assert (seen[-1], *others) == ("runs/get-output", 1, ONE, [])
    for payload, taken in (
        (event.payload, ([], 0, [], [])),
        ({"run": run.as_answer()}, (["runs/get-output"], 1, ONE, [])),
    ):
        resumed = submit(deferrable=True)
        output = resumed.execute_complete(context, payload, **deferred.kwargs or {})
        assert output == f"output of {run.run_id}"
        assert counts.take() == taken


def test_a_task_that_is_no_notebook(service: FakeService, counts: Counts, context: Any) -> None:
    """A run without an output takes no request once it has ended."""
    request: Any = {
        "notebook_task": None,
        "spark_python_task": {"python_file": "dbfs:/etl.py"},
        "deferrable": True,
    }
    deferred = deferred_by(submit(**request), context)
    counts.take()
    (run,) = service.runs.values()
    run.end("SUCCESS", run.started)
    run.more["task"] = {"spark_python_task": request["spark_python_task"]}
    event = run_payload(run.as_answer())
    assert submit(**request).execute_complete(context, event, **deferred.kwargs or {}) is None
    assert counts.take() == ([], 0, [], [])


@pytest.mark.skipif(
    airflow_line().completion_fault is not None, reason=str(airflow_line().completion_fault)
)
def test_a_trigger_that_ends_the_task(service: FakeService, counts: Counts, context: Any) -> None:
    """It opens one connection, reads the Airflow connection once, and validates nothing."""
    deferred = deferred_by(submit(deferrable=True, end_from_trigger=True), context)
    counts.take()
    (run,) = service.runs.values()
    run.end("SUCCESS", run.started)
    assert xcoms_of(fired(deferred.trigger)) == {"return_value": f"output of {run.run_id}"}
    seen, *others = counts.take()
    assert seen[-1] == "runs/get-output"
    assert others == [1, ONE, []]


def end_all(service: FakeService) -> None:
    """End the runs."""
    for run in service.runs.values():
        run.end("SUCCESS", run.started)


def test_a_task_that_waits_on_the_worker(
    service: FakeService, counts: Counts, context: Any
) -> None:
    """One connection and one look-up, however often the run is read."""
    service.at("runs/get", 4, lambda: end_all(service))
    assert submit().execute(context) is not None
    assert counts.take() == (
        ["runs/submit", *["runs/get"] * 4, "runs/get-output"],
        1,
        ONE,
        ["runs/submit"],
    )


def test_a_job_by_its_name(service: FakeService, counts: Counts, context: Any) -> None:
    """Finding the job takes neither another connection nor another look-up."""
    service.jobs[7] = {"name": "nightly"}
    task = DatabricksRunNowOperator(task_id="etl", job_name="nightly", deferrable=True)
    deferred_by(task, context)
    assert counts.take() == (["list", "run-now", "runs/get"], 1, ONE, ["run-now"])


def test_operators_that_launch_nothing(service: FakeService, counts: Counts, context: Any) -> None:
    """Each request that a rule can refuse is validated once."""
    job: Any = {
        "name": "nightly",
        "existing_cluster_id": "c",
        "notebook_task": {"notebook_path": "/etl"},
    }
    for request in ("create", "reset"):
        DatabricksCreateJobsOperator(task_id="job", **job).execute(context)
        assert counts.take() == (["list", request], 1, ONE, ["create"])
    run_id = DatabricksJobsHook(validate=False).submit_run({"run_name": "r"})
    counts.take()
    DatabricksCancelRunsOperator(
        task_id="cancel", run_id=run_id, wait_for_termination=False
    ).execute(context)
    assert counts.take() == (["runs/cancel"], 1, ONE, ["runs/cancel"])
    end_all(service)
    DatabricksDeleteRunOperator(task_id="delete", run_id=run_id).execute(context)
    assert counts.take() == (["runs/delete"], 1, ONE, ["runs/delete"])


def test_a_sensor(service: FakeService, counts: Counts, context: Any) -> None:
    """One connection and one look-up for all pokes of a process."""
    run_id = DatabricksJobsHook(validate=False).submit_run({"run_name": "r"})
    counts.take()
    service.at("runs/get", 3, lambda: end_all(service))
    DatabricksJobRunSensor(task_id="etl", run_id=run_id, poke_interval=0.01).execute(context)
    assert counts.take() == ([*["runs/get"] * 3, "runs/get-output"], 1, ONE, [])
