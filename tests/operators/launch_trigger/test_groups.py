"""Workflow groups without workers: one run, the same definition, the same XComs."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

if not hasattr(BaseTrigger, "render_template_fields"):
    pytest.skip("a worker launches every run", allow_module_level=True)

from airflow.providers.common.compat.sdk import DAG, BaseOperator, TaskDeferred, TaskGroup

from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt
from airflow_jobs_provider.airflow_compat.workflow_records import TaskRecord, WorkflowRecords
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from airflow_jobs_provider.operators.jobs import DatabricksNotebookOperator
from airflow_jobs_provider.operators.workflow import DatabricksWorkflowTaskGroup
from airflow_jobs_provider.operators.workflow_launch import DEFINITION_KEY, WAS_CLEARED_KEY
from airflow_jobs_provider.operators.workflow_next_step import Rerun, runs_again_too
from tests.fakes.fake_service import FAULTS, FakeService
from tests.helpers.group_in_triggerer import WITHOUT_WORKERS, GroupInTriggerer, group_dag
from tests.helpers.launch_trigger import pause, succeeded
from tests.helpers.triggerer import Attempt

NAMES = ("load", "report", "query")


@pytest.fixture
def group(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> GroupInTriggerer:
    """A group of three tasks, of which none has started."""
    return GroupInTriggerer(group_dag(), service, monkeypatch)


@pytest.fixture
def launched(group: GroupInTriggerer) -> GroupInTriggerer:
    """A group whose run was launched; its tasks run until a test ends them."""
    assert succeeded(group.launch())
    return group


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
    killed = 0
    for number in range(len(moments)):
        group = begin()
        group.triggerer.die_at = number
        event = group.start(name)
        killed += group.triggerer.is_dead
        group.triggerer.die_at = None
        if group.triggerer.is_dead:
            with no_waiting():
                event = group.start(name)
        assert succeeded(event), moments[number]
        assert group.run.cancels == 0
        assert [task.cancels for task in group.run.task_runs] == [0, 0, 0]
        found = {key: value for key, value in group.xcoms.items() if key[1] != "launch_record"}
        assert found.keys() == {key for key in expected if key[1] != "launch_record"}
    assert killed >= len(moments) - 3


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
    for attempt in (Attempt().cleared(), Attempt(2, "00-second-clear-01").next_try()):
        payload = launched.start(name, attempt).payload
        assert payload == {"start_on_worker": "it is not the task's first attempt"}
    assert launched.run.cancels == 0
    assert [task.cancels for task in launched.run.task_runs] == [0, 0, 0]


def test_a_task_is_cleared_while_no_trigger_could_cancel_its_run(
    launched: GroupInTriggerer,
) -> None:
    """As where no triggerer was running. The next attempt cancels it; also in a group's old run."""
    killed_while_waiting(launched, "load", "deferred")
    del launched.xcoms["etl.launch", "return_value"]
    assert "start_on_worker" in launched.start("load", Attempt().cleared()).payload
    assert [task.cancels for task in launched.run.task_runs] == [1, 0, 0]


def test_a_retry_does_not_cancel_the_run_that_it_follows(
    service: FakeService, launched: GroupInTriggerer
) -> None:
    """The run could not be read; a worker has failed the try."""
    killed_while_waiting(launched, "load", "deferred")
    with no_waiting():
        service.accepts = set()
        assert "error" in launched.start("load").payload
    service.accepts = None
    assert "start_on_worker" in launched.start("load", Attempt().next_try()).payload
    assert [task.cancels for task in launched.run.task_runs] == [0, 0, 0]


def test_a_task_is_cleared_with_the_launching_one_and_soon_deferred_again(
    launched: GroupInTriggerer,
) -> None:
    """Airflow tells that it is deferred. The next attempt's record tells of the clear."""

    async def clear(trigger: Any) -> None:
        waiting = asyncio.ensure_future(launched.triggerer.first_event(trigger))
        await until(lambda: "run_id" in launched.of("load"))
        launched.triggerer.record(carrier="00-second-clear-01", try_number=2, first_try=2)
        await trigger.on_kill()
        waiting.cancel()

    launched.triggerer.task_id = "etl.load"
    launched.triggerer.run(clear, Attempt())
    assert [task.cancels for task in launched.run.task_runs] == [1, 0, 0]


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


# -- what users do ---------------------------------------------------------------------------------


async def until(has_happened: Callable[[], bool], period: float = 0.01) -> None:
    """Wait until something has happened."""
    while not has_happened():  # noqa: ASYNC110 - it happens in another thread
        await asyncio.sleep(period)


def killed_while_waiting(group: GroupInTriggerer, name: str, state: str = "success") -> None:
    """Let a user mark a task while its trigger waits."""

    async def wait_and_kill(trigger: Any) -> None:
        waiting = asyncio.ensure_future(group.triggerer.first_event(trigger))
        await until(lambda: "run_id" in group.of(name))
        await asyncio.sleep(0.05)
        group.triggerer.state = state
        await trigger.on_kill()
        waiting.cancel()

    group.triggerer.task_id = f"etl.{name}"
    group.triggerer.run(wait_and_kill, Attempt())


def test_a_marked_task_cancels_its_own_run(launched: GroupInTriggerer) -> None:
    """The other tasks of the group go on."""
    killed_while_waiting(launched, "load")
    assert [task.cancels for task in launched.run.task_runs] == [1, 0, 0]
    assert launched.run.cancels == 0


def test_a_task_that_is_still_deferred_does_not(launched: GroupInTriggerer) -> None:
    """Another triggerer has taken it over."""
    killed_while_waiting(launched, "load", "deferred")
    assert [task.cancels for task in launched.run.task_runs] == [0, 0, 0]


@pytest.mark.parametrize("moment", ["GetXCom return_value", "runs/get"])
def test_a_task_that_is_marked_before_its_run_is_known(
    moment: str, service: FakeService, launched: GroupInTriggerer
) -> None:
    """It is found, and canceled."""

    async def kill_at(trigger: Any) -> None:
        waiting = asyncio.ensure_future(launched.triggerer.first_event(trigger))
        await until(lambda: any(one.startswith(moment) for one in launched.triggerer.moments), 0.0)
        waiting.cancel()
        launched.triggerer.state = "failed"
        await trigger.on_kill()

    launched.triggerer.task_id = "etl.load"
    launched.triggerer.run(kill_at, Attempt())
    assert [task.cancels for task in launched.run.task_runs] == [1, 0, 0]


def test_a_launch_is_cleared_before_it_has_ended(
    service: FakeService, group: GroupInTriggerer
) -> None:
    """Nothing follows its run, so the attempt after the clear cancels it."""
    group.triggerer.refuses.add("return_value")
    assert "run" in group.launch().payload  # A worker would end it.
    group.triggerer.refuses.clear()
    group.triggerer.record(handed_over=False)
    assert "start_on_worker" in group.launch(Attempt().cleared()).payload
    assert group.run.cancels == 1


def test_a_frozen_triggerer_goes_no_further(
    service: FakeService, launched: GroupInTriggerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later attempt has recorded something, so the output of this one must not be stored."""
    task_run = launched.task_run("load")

    async def freeze(trigger: Any) -> None:
        waiting = asyncio.ensure_future(launched.triggerer.first_event(trigger))
        await until(lambda: "run_id" in launched.of("load"))
        launched.triggerer.record(carrier="00-second-clear-01", try_number=2)
        pause(monkeypatch)
        service.end_task(launched.run, task_run.key)
        done, _ = await asyncio.wait({waiting}, timeout=1.0)
        assert not done
        waiting.cancel()

    launched.triggerer.task_id = "etl.load"
    launched.triggerer.run(freeze, Attempt())
    assert "return_value" not in launched.of("load")


def test_a_success_does_not_run_again_with_another_task_after_an_earlier_clear(
    service: FakeService, launched: GroupInTriggerer
) -> None:
    """Tasks of the DAG run were cleared before the group started; the attempt has died at its end.

    Its retry reports the success, so the repair that another task makes leaves it alone.
    """
    task_run = launched.task_run("load")
    service.end_task(launched.run, task_run.key)
    assert succeeded(launched.start("load"))
    attempt = TaskAttempt.from_context(launched.worker_context(launched.dag.get_task("etl.report")))
    record = TaskRecord(**launched.record("load"))
    records = WorkflowRecords(attempt._replace(clear_number=1), "etl.launch")
    later = records.later_attempt("etl.load", record, pushes_xcoms=False)
    state = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}
    task = {"run_id": task_run.run_id, "state": state}
    assert runs_again_too("up_for_retry", task, record, later) is Rerun.NO


def test_execution_timeout_cancels_the_tasks_own_run(launched: GroupInTriggerer) -> None:
    """The worker fails the task."""
    end = datetime.now(UTC) + timedelta(seconds=0.5)
    payload = launched.start("load", timeout_after=end).payload
    assert payload["timed_out"] == "execution_timeout"
    assert [task.cancels for task in launched.run.task_runs] == [1, 0, 0]


def test_execution_timeout_is_over_while_the_triggerer_is_frozen(
    service: FakeService, launched: GroupInTriggerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one has failed the try before this one knew the run, and a retry follows it."""

    async def freeze(trigger: Any) -> None:
        waiting = asyncio.ensure_future(launched.triggerer.first_event(trigger))
        await until(lambda: any("runs/get" in one for one in launched.triggerer.moments), 0.0)
        launched.triggerer.record(try_number=2)
        pause(monkeypatch)
        done, _ = await asyncio.wait({waiting}, timeout=2.0)
        assert not done
        waiting.cancel()

    service.trouble("runs/get", FAULTS["503"])
    launched.triggerer.task_id = "etl.load"
    end = datetime.now(UTC) + timedelta(seconds=0.5)
    launched.triggerer.run(freeze, Attempt(), end)
    assert [task.cancels for task in launched.run.task_runs] == [0, 0, 0]


def test_a_frozen_triggerer_does_not_cancel_a_run_of_a_later_launch(
    service: FakeService, group: GroupInTriggerer
) -> None:
    """The whole group was cleared before this triggerer knew its run."""

    async def kill_late(trigger: Any) -> None:
        await trigger.on_kill()

    assert succeeded(group.launch())  # the later one
    group.triggerer.task_id = "etl.load"
    group.triggerer.record(carrier="00-second-clear-01", try_number=2, first_try=2)
    group.triggerer.run(kill_late, Attempt())
    assert [task.cancels for task in group.run.task_runs] == [0, 0, 0]


def test_execution_timeout_in_an_outage(service: FakeService, launched: GroupInTriggerer) -> None:
    """The run is not known yet; it is found once the service answers."""
    service.trouble("runs/get", FAULTS["503"])
    end = datetime.now(UTC) + timedelta(seconds=0.3)
    payload = launched.start("load", timeout_after=end).payload
    assert payload.get("timed_out") or payload["error"] == "execution_timeout is over"


# -- a worker goes on ------------------------------------------------------------------------------


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


# -- the reasons for a worker ----------------------------------------------------------------------


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
