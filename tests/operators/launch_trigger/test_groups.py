"""Workflow groups without workers: one run, the same definition, the same XComs."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

if not hasattr(BaseTrigger, "render_template_fields"):
    pytest.skip("a worker launches every run", allow_module_level=True)

from airflow.providers.common.compat.sdk import DAG, BaseOperator, TaskGroup

from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.operators.jobs import DatabricksNotebookOperator
from airflow_jobs_provider.operators.workflow import DatabricksWorkflowTaskGroup
from airflow_jobs_provider.operators.workflow_launch import DEFINITION_KEY
from tests.fakes.fake_service import FakeService
from tests.helpers.group_in_triggerer import (
    WITHOUT_WORKERS,
    GroupInTriggerer,
    group_dag,
)
from tests.helpers.launch_trigger import succeeded
from tests.helpers.triggerer import Attempt, comes_at_each_start, counted

NAMES = ("load", "report", "query")


def test_a_group_needs_no_worker(service: FakeService, group: GroupInTriggerer) -> None:
    """The launch, each task's own run with its output, and the records for a later clear."""
    assert succeeded(group.launch())
    run = group.run
    metadata = {"conn_id": "databricks_default", "job_id": run.job_id, "run_id": run.run_id}
    assert group.of("launch")["return_value"] == metadata
    assert group.of("launch")["run_id"] == run.run_id
    for name in NAMES:
        task_run = group.task_run(name)
        service.end_task(run, task_run.key)
        assert succeeded(group.start(name)), name
        xcoms = group.of(name)
        assert xcoms["return_value"] == f"output of {task_run.key}"
        assert (xcoms["run_id"], xcoms["job_id"]) == (task_run.run_id, run.job_id)
        assert str(task_run.run_id) in xcoms["run_page_url"]
        record = group.record(name)
        assert (record["reported"], record["try_number"]) == (task_run.run_id, 1)


def nested_dag() -> DAG:
    """Make a group in another one, with a group in it."""
    given: dict[str, Any] = {**WITHOUT_WORKERS, "existing_cluster_id": "c"}
    with (
        DAG("sales", schedule=None, catchup=False) as dag,
        TaskGroup("outer"),
        DatabricksWorkflowTaskGroup(group_id="etl"),
    ):
        first = DatabricksNotebookOperator(task_id="load", notebook_path="/a", **given)
        with TaskGroup("inner"):
            first >> DatabricksNotebookOperator(task_id="b", notebook_path="/b", **given)
    return dag


GROUPS: dict[str, Callable[[], Any]] = {
    "plain": group_dag,
    "tags": lambda: group_dag({"billing_tags": True}, default_args={"owner": "ann"}),
    "permissions": lambda: group_dag(
        {"access_control_list": [{"user_name": "{{ ds }}", "permission_level": "CAN_VIEW"}]}
    ),
    "settings": lambda: group_dag(
        {"extra_job_params": {"tags": {"day": "{{ ds_nodash }}"}, "timeout_seconds": 60}}
    ),
    "a task's own limits": lambda: group_dag(
        execution_timeout=timedelta(minutes=3), max_retries=0, databricks_task_key=""
    ),
    "nested": nested_dag,
    "durations": lambda: group_dag({"extra_job_params": {"timeout_seconds": timedelta(minutes=2)}}),
    "sequences": lambda: group_dag(
        {"extra_job_params": {"parameters": ({"name": "a", "default": "line\n"},)}},
        min_retry_interval_millis="{{ 5 }}",
    ),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_the_job_is_defined_as_on_a_worker(
    kind: str, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a task that is cleared later finds its group's definition unchanged."""
    dag = GROUPS[kind]()
    launch = next(task for task in dag.tasks if task.task_id.endswith("launch"))
    group = GroupInTriggerer(dag, service, monkeypatch, launch.task_id)
    assert succeeded(group.triggerer.start(Attempt()))
    context = group.worker_context(launch)
    settings, digest = launch.definition(context, workspace_url=service.url)
    assert group.xcoms[launch.task_id, DEFINITION_KEY] == digest
    (job,) = service.jobs.values()
    # The service has them elsewhere.
    settings.pop("access_control_list", None)
    sent = json.loads(json.dumps(settings))
    assert {name: job.get(name) for name in sent} == sent


@pytest.mark.slow
@pytest.mark.parametrize("name", ["launch", "load"])
def test_killed_at_each_moment_there_is_one_run(
    name: str, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after each request, and each message to Airflow; another triggerer takes over."""

    def begin() -> GroupInTriggerer:
        service.forget()
        group = GroupInTriggerer(group_dag(), service, monkeypatch)
        if name != "launch":
            assert succeeded(group.launch())
            service.end_task(group.run, group.task_run(name).key)
        return group

    group = begin()
    assert succeeded(group.start(name))
    moments, expected = list(group.triggerer.moments), {**group.xcoms}
    assert len(moments) >= 10
    survived = []
    for moment in counted(moments):
        group = begin()
        group.triggerer.die_at = moment
        event = group.start(name)
        group.triggerer.die_at = None
        if group.triggerer.is_dead:
            with no_waiting():
                event = group.start(name)
        else:
            survived.append(moment)
        assert succeeded(event), moment
        assert group.run.cancels == 0
        assert [task.cancels for task in group.run.task_runs] == [0, 0, 0]
        found = {key: value for key, value in group.xcoms.items() if key[1] != "launch_record"}
        assert found.keys() == {key for key in expected if key[1] != "launch_record"}
    assert not any(map(comes_at_each_start, survived)), survived


def test_the_tasks_of_a_run_share_its_reads(
    service: FakeService, launched: GroupInTriggerer
) -> None:
    """Three tasks that start together, and wait for half a second."""
    before, waited = service.count("runs/get"), 0

    def end_all() -> None:
        for task in launched.run.task_runs:
            service.end_task(launched.run, task.key)

    service.at("runs/get", before + 4, end_all)
    events = launched.start_together(*NAMES)
    assert all(map(succeeded, events)), waited
    assert service.count("runs/get") - before <= 5


def test_a_task_without_time_limit_has_none_in_the_triggerer(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although Airflow's configuration has one for tasks that are given none."""
    dag = group_dag(execution_timeout=None)
    init: Any = inspect.unwrap(BaseOperator.__init__)
    monkeypatch.setitem(init.__kwdefaults__, "execution_timeout", timedelta(minutes=5))
    group = GroupInTriggerer(dag, service, monkeypatch)
    assert succeeded(group.launch())
    (job,) = service.jobs.values()
    assert not any("timeout_seconds" in task for task in job["tasks"])
