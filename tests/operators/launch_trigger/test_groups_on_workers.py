"""Which attempts of a workflow group without workers are left to a worker, and what it does."""

from __future__ import annotations

import time
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

if not hasattr(BaseTrigger, "render_template_fields"):
    pytest.skip("a worker launches every run", allow_module_level=True)

from airflow.providers.common.compat.sdk import DAG, TaskDeferred

from airflow_jobs_provider.airflow_compat.early_events import LONGEST_SECONDS
from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from airflow_jobs_provider.operators.jobs import DatabricksNotebookOperator
from airflow_jobs_provider.operators.workflow import DatabricksWorkflowTaskGroup
from airflow_jobs_provider.operators.workflow_launch import DEFINITION_KEY, WAS_CLEARED_KEY
from tests.fakes.fake_service import FakeService
from tests.helpers.group_in_triggerer import (
    WITHOUT_WORKERS,
    GroupInTriggerer,
    group_dag,
)
from tests.helpers.launch_trigger import succeeded
from tests.helpers.triggerer import Attempt


@pytest.mark.parametrize("result", ["FAILED", "CANCELED", "EXCLUDED"])
def test_a_task_that_does_not_succeed_is_left_to_a_worker(
    result: str, service: FakeService, launched: GroupInTriggerer
) -> None:
    """The worker tells the reason, and skips the task where Databricks has."""
    task_run = launched.task_run("load")
    service.end_task(launched.run, task_run.key, result)
    payload = launched.start("load").payload
    assert payload["run"]["run_id"] == task_run.run_id
    assert payload["run"]["state"]["result_state"] == result


def test_a_task_that_did_not_run_is_left_to_a_worker(
    service: FakeService, launched: GroupInTriggerer
) -> None:
    """A user has marked the task before it as successful. The worker repairs the run."""
    task_run = launched.task_run("report")
    service.end_task(launched.run, task_run.key, "UPSTREAM_FAILED")
    assert "task before it" in launched.start("report").payload["start_on_worker"]
    assert "databricks_task_run.etl.report" not in launched.of("launch")


def test_without_a_run_of_the_group_a_worker_goes_on(group: GroupInTriggerer) -> None:
    """It skips the task where the launching task was skipped."""
    payload = group.start("load").payload
    assert payload == {"start_on_worker": "the task 'etl.launch' has launched no run"}


@pytest.mark.parametrize("name", ["launch", "load"])
def test_later_attempts_start_on_a_worker(
    name: str, service: FakeService, launched: GroupInTriggerer
) -> None:
    """After a clear, and as a retry."""
    if name != "launch":
        service.end_task(launched.run, launched.task_run(name).key)
        assert succeeded(launched.start(name))
    began = time.monotonic()
    for attempt in (Attempt().cleared(), Attempt(2, "00-second-clear-01").next_try()):
        payload = launched.start(name, attempt).payload
        assert payload == {"start_on_worker": "it is not the task's first attempt"}
    # No worker was there before whose end Airflow could take for that of the next one.
    assert time.monotonic() - began < LONGEST_SECONDS
    assert launched.run.cancels == 0
    assert [task.cancels for task in launched.run.task_runs] == [0, 0, 0]


def test_a_task_of_another_definition_goes_on_alone(
    service: FakeService, launched: GroupInTriggerer
) -> None:
    """The run has no such task; a worker submits it alone."""
    launched.run.task_runs = [task for task in launched.run.task_runs if task.attempt_number > 5]
    launched.run.start_tasks(["another"])
    assert "has no task" in launched.start("load").payload["start_on_worker"]


@pytest.mark.parametrize(
    ("name", "key"), [("launch", DEFINITION_KEY), ("load", "databricks_task_run.etl.load")]
)
def test_what_cannot_be_stored_is_left_to_a_worker(
    name: str, key: str, service: FakeService, group: GroupInTriggerer
) -> None:
    """Without it, the group could not be repaired, or would report a run twice."""
    group.triggerer.refuses.add(key)
    if name != "launch":
        assert succeeded(group.launch())
    payload = group.start(name).payload
    assert "XComs cannot be stored" in payload["start_on_worker"]
    assert len(service.runs) == (name != "launch")


def resumed_on_worker(group: GroupInTriggerer, name: str, event: Any, attempt: Attempt) -> Any:
    """Resume a task on a worker with the event of its trigger; return what it returns."""
    task: Any = group.dag.get_task(f"etl.{name}")
    method = task.start_trigger_args.next_method
    context = group.worker_context(task, attempt.number)
    if attempt.carrier != Attempt.carrier:  # Airflow raises it at a clear.
        context["ti"].max_tries += attempt.number - 1
    return getattr(task, method)(context, event.payload)


def test_a_worker_launches_again_after_a_clear(
    service: FakeService, launched: GroupInTriggerer
) -> None:
    """What the tasks have recorded of the run before is deleted, as Airflow does on workers."""
    service.end_task(launched.run, launched.task_run("load").key)
    assert succeeded(launched.start("load"))
    first = launched.run
    cleared = Attempt().cleared()
    metadata = resumed_on_worker(launched, "launch", launched.launch(cleared), cleared)
    assert metadata["run_id"] != first.run_id
    assert launched.of("launch")[WAS_CLEARED_KEY] is True
    assert "databricks_task_run.etl.load" not in launched.of("launch")
    assert first.cancels == 0


def test_a_worker_runs_a_cleared_task_again(
    service: FakeService, launched: GroupInTriggerer
) -> None:
    """It repairs the run that the triggerer has launched: the definition is the same."""
    for task_run in launched.run.task_runs:
        service.end_task(launched.run, task_run.key)
    assert succeeded(launched.start("load"))
    cleared = Attempt().cleared()
    event = launched.start("load", cleared)
    with pytest.raises(TaskDeferred):
        resumed_on_worker(launched, "load", event, cleared)
    (repair,) = service.asked("runs/repair")
    assert repair["rerun_tasks"] == [launched.task_run("load").key]
    assert launched.of("load")["run_id"] == launched.task_run("load").run_id


def test_a_worker_returns_what_the_triggerer_has_launched(group: GroupInTriggerer) -> None:
    """Where Airflow could not store it."""
    group.triggerer.refuses.add("return_value")
    event = group.launch()
    metadata = resumed_on_worker(group, "launch", event, Attempt())
    assert metadata["run_id"] == group.run.run_id


def test_a_worker_pushes_what_airflow_could_not_store(
    service: FakeService, launched: GroupInTriggerer
) -> None:
    """The ids and the page of the task run, also where that has failed."""
    task_run = launched.task_run("load")
    service.end_task(launched.run, task_run.key, "FAILED")
    launched.triggerer.refuses |= {"run_id", "run_page_url"}
    event = launched.start("load")
    assert "run_id" not in launched.of("load")
    launched.triggerer.refuses.clear()
    with pytest.raises(DatabricksRunFailedError):
        resumed_on_worker(launched, "load", event, Attempt())
    assert launched.of("load")["run_id"] == task_run.run_id
    assert str(task_run.run_id) in launched.of("load")["run_page_url"]


def test_a_worker_tells_that_a_task_has_failed(
    service: FakeService, launched: GroupInTriggerer
) -> None:
    """With the task's own run, which it records as reported."""
    task_run = launched.task_run("load")
    service.end_task(launched.run, task_run.key, "FAILED")
    event = launched.start("load")
    with pytest.raises(DatabricksRunFailedError) as failure:
        resumed_on_worker(launched, "load", event, Attempt())
    assert failure.value.run_id == task_run.run_id
    assert launched.record("load")["reported"] == task_run.run_id


def reasons_of(dag: Any, name: str) -> list[str]:
    """Return the reasons why a worker starts a task of the group."""
    found: list[str] = dag.get_task(f"etl.{name}").worker_start_reasons()
    return found


@pytest.mark.parametrize(
    ("arguments", "name", "reason"),
    [
        ({}, "launch", None),
        ({}, "load", None),
        ({"pool": "small"}, "load", "its pool"),
        ({"pool": "small"}, "launch", None),
        ({"wait_for_termination": False}, "load", "wait_for_termination=False"),
        ({"max_retries": "{{ ds }}"}, "load", "max_retries that are known when the task runs"),
        ({"max_retries": 2}, "load", None),
        ({"min_retry_interval_millis": "{{ var.value.c }}"}, "load", None),
        ({"min_retry_interval_millis": "{{ var.value.c }}"}, "launch", "var in a template"),
        ({"workflow_run_metadata": {"conn_id": "x"}}, "load", "workflow_run_metadata"),
        ({"render_template_as_native_obj": True}, "launch", "render_template_as_native_obj"),
    ],
)
def test_the_reasons_for_a_worker(arguments: Any, name: str, reason: str | None) -> None:
    """Each is told in the log of the task."""
    found = reasons_of(group_dag(**arguments), name)
    assert (found == []) if reason is None else any(reason in one for one in found), found


def test_a_subclass_is_launched_by_a_worker() -> None:
    """It may define its task in another way than the trigger does."""

    class Own(DatabricksNotebookOperator):
        pass

    with DAG("sales", schedule=None) as dag, DatabricksWorkflowTaskGroup(group_id="etl"):
        given: dict[str, Any] = {**WITHOUT_WORKERS, "existing_cluster_id": "c"}
        Own(task_id="own", notebook_path="/x", **given)
    assert any("subclass" in one for one in reasons_of(dag, "launch"))
    assert reasons_of(dag, "own") == ["a subclass of the operator"]


def test_a_launch_task_can_be_left_on_a_worker() -> None:
    """By its own arguments."""
    dag: Any = group_dag({"launch_task_args": {"start_from_trigger": False}})
    assert not dag.get_task("etl.launch").starts_in_triggerer()
    assert dag.get_task("etl.load").starts_in_triggerer()
