"""Runs that are launched in the triggerer: their XComs and failures."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

if not hasattr(BaseTrigger, "render_template_fields"):
    pytest.skip("a worker launches every run", allow_module_level=True)

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_jobs_provider.airflow_compat.triggerer_health import triggerer_health
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from tests.fakes.fake_service import FakeService, Plan
from tests.helpers.launch_trigger import (
    messages,
    pause,
    start,
    succeeded,
    until_launched,
    worker_context,
)
from tests.helpers.start_from_trigger import operator
from tests.helpers.triggerer import Attempt, comms, values_of


def test_nothing_to_push_tells_nothing_of_the_storage_of_xcoms(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run may have neither a job nor a page; its id could not be stored."""
    triggerer = start(service, monkeypatch)
    triggerer.refuses.add("run_id")

    async def push(trigger: Any) -> None:
        await trigger._push({"run_id": 1})
        await trigger._push({"job_id": None, "run_page_url": None})
        assert not triggerer_health().stores_xcoms

    triggerer.run(push, Attempt())


@pytest.mark.parametrize("ends_on_worker", [False, True])
def test_xcoms_that_airflow_could_not_store_are_pushed_at_the_end(
    ends_on_worker: bool, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next task gets the run's id also where Airflow stored no XCom for a moment."""
    triggerer = start(service, monkeypatch)
    triggerer.refuses |= {"run_id", "job_id", "run_page_url"}
    if ends_on_worker:
        triggerer.refuses.add("return_value")
    else:
        service.at("runs/get-output", 1, triggerer.refuses.clear)
    event = triggerer.start(Attempt())
    assert succeeded(event) is not ends_on_worker
    if ends_on_worker:
        operator().execute_complete(worker_context(triggerer), event.payload)
    (run,) = service.runs.values()
    found = values_of(triggerer)
    assert (found["run_id"], found["job_id"]) == (run.run_id, run.job_id)
    assert found["run_page_url"].endswith(f"/{run.run_id}")


def test_without_an_output_a_cleared_task_keeps_no_old_one(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow deletes XComs only where a worker starts a task."""
    triggerer = start(service, monkeypatch)
    first = Attempt()
    assert succeeded(triggerer.start(first))
    until_launched(triggerer, service, first.cleared())
    service.runs[1002].has_output = False
    service.end(1002)
    assert succeeded(triggerer.start(first.cleared()))
    assert "return_value" not in values_of(triggerer)


def with_tasks(service: FakeService) -> None:
    """Let the first run have two tasks."""
    tasks = [{"run_id": run_id, "task_key": key} for key, run_id in (("load", 71), ("report", 72))]
    state = service.runs[1001].state()
    service.runs[1001].more["tasks"] = [{**task, "state": state} for task in tasks]


def test_a_retry_with_a_run_of_one_task_keeps_no_ids_of_task_runs(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker has reported the failed run of several tasks, and pushed their ids."""
    triggerer = start(service, monkeypatch)
    service.plans.append(Plan("FAILED"))
    service.at("runs/get", 1, lambda: with_tasks(service))
    first = Attempt()
    event = triggerer.start(first)
    with pytest.raises(DatabricksRunFailedError):
        operator().execute_complete(worker_context(triggerer), event.payload)
    assert values_of(triggerer)["task_run_ids"] == {"load": 71, "report": 72}
    assert succeeded(triggerer.start(first.next_try()))
    assert values_of(triggerer)["run_id"] == 1002
    assert "task_run_ids" not in values_of(triggerer)


def test_a_worker_that_starts_a_cleared_task_keeps_no_old_output(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow takes the start for the end of a deferral, before which it deletes no XCom."""
    triggerer = start(service, monkeypatch, timeout_seconds="{{ 60 // (2 - ti.try_number) }}")
    service.at("runs/get", 1, lambda: with_tasks(service))
    first = Attempt()
    assert succeeded(triggerer.start(first))
    assert values_of(triggerer)["task_run_ids"] == {"load": 71, "report": 72}
    event = triggerer.start(first.cleared())
    assert "division" in event.payload["start_on_worker"]
    service.plans.append(Plan(looks=0))
    read = service.count("runs/get") + 1
    service.at("runs/get", read, lambda: setattr(service.runs[1002], "has_output", False))
    context = worker_context(triggerer, try_number=2)
    assert operator().execute_complete(context, event.payload) is None
    xcoms = values_of(triggerer)
    assert xcoms["run_id"] == 1002
    assert not {"return_value", "task_run_ids"} & xcoms.keys()


def test_a_triggerer_frozen_during_the_launch_pushes_nothing(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The XCom ``run_id`` is that of the later attempt, by which that one's run is canceled."""
    triggerer = start(service, monkeypatch)

    def wake_up_late() -> None:
        triggerer.record(try_number=2, first_try=2)
        pause(monkeypatch)

    service.at("runs/submit", 1, wake_up_late)

    async def wait(trigger: Any) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(triggerer.first_event(trigger), 0.3)
        assert trigger._run_id == 1001

    triggerer.run(wait, Attempt())
    assert values_of(triggerer) == {}


def test_a_triggerer_that_wakes_up_before_it_records_deletes_no_output(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one has ended the same attempt since this one has read that there is no record."""
    triggerer = start(service, monkeypatch)
    second = Attempt().cleared()

    def answer(msg: Any, answered: Any = triggerer._answer) -> Any:
        value = answered(msg)
        is_read = (type(msg).__name__, getattr(msg, "key", "")) == ("GetXCom", "launch_record")
        if is_read and value.value is None:
            triggerer.record(carrier=second.carrier, first_try=2, try_number=2)
            triggerer.xcoms["etl", "return_value"] = "output"
            pause(monkeypatch)
        return value

    monkeypatch.setattr(triggerer, "_answer", answer)
    assert succeeded(triggerer.start(second))
    assert not [one for one in messages(triggerer) if one.startswith("DeleteXCom")]


@pytest.mark.parametrize(("endpoint", "number"), [("runs/get", 2), ("runs/get-output", 1)])
def test_a_triggerer_that_wakes_up_late_pushes_no_output(
    endpoint: str, number: int, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has missed that its attempt was cleared: the output is that of a later one."""
    triggerer = start(service, monkeypatch)

    def wake_up_late() -> None:
        triggerer.record(try_number=2)
        pause(monkeypatch)

    service.at(endpoint, number, wake_up_late)

    async def wait(trigger: Any) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(triggerer.first_event(trigger), 0.5)

    triggerer.run(wait, Attempt())
    assert "return_value" not in values_of(triggerer)


def test_a_missing_connection_is_a_failure_that_a_worker_reports(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a run before a clear cannot be read for that reason.

    The connection was there before, so it is looked up for ten minutes, once.
    """
    triggerer = start(service, monkeypatch)
    first = Attempt()
    assert succeeded(triggerer.start(first))
    monkeypatch.delenv("AIRFLOW_CONN_DATABRICKS_DEFAULT")

    def answer(msg: Any, answered: Any = triggerer._answer) -> Any:
        if type(msg).__name__ == "GetConnection":
            error = "CONNECTION_NOT_FOUND"
            return comms.ErrorResponse(error=error, detail={"conn_id": msg.conn_id})
        return answered(msg)

    monkeypatch.setattr(triggerer, "_answer", answer)
    with no_waiting() as waits:
        event = triggerer.start(first.cleared())
    assert 600 <= sum(waits) < 700
    assert event.payload["is_launch"]
    assert "databricks_default" in event.payload["error"]
    assert triggerer.xcoms["etl", "launch_record"]["handed_over"]


@pytest.mark.parametrize("is_final", [True, False])
def test_a_worker_tells_why_nothing_was_launched(
    is_final: bool, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that is wrong is not retried."""
    triggerer = start(service, monkeypatch)
    event = {"run_id": None, "error": "no", "is_final": is_final, "is_launch": True}
    with pytest.raises(AirflowException, match="The run was not launched: no") as caught:
        operator().execute_complete(worker_context(triggerer), event)
    assert isinstance(caught.value, AirflowFailException) is is_final
