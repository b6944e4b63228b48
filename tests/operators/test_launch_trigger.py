"""Runs that are launched in the triggerer: one run for each try, whatever dies."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

if not hasattr(BaseTrigger, "render_template_fields"):
    pytest.skip("a worker launches every run", allow_module_level=True)

from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowException,
    AirflowFailException,
    BaseOperator,
    Param,
    TaskDeferred,
    XComArg,
)

from airflow_jobs_provider.airflow_compat import completion_reasons
from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt
from airflow_jobs_provider.airflow_compat.triggerer_health import triggerer_health
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.exceptions import (
    DatabricksRunFailedError,
    DatabricksRunTimeoutError,
)
from airflow_jobs_provider.operators.jobs import (
    DatabricksNotebookOperator,
    DatabricksRunNowOperator,
    DatabricksTaskOperator,
    DatabricksWorkflowTaskGroup,
)
from airflow_jobs_provider.operators.launch import LaunchRunOperator
from airflow_jobs_provider.operators.launch_trigger import DatabricksLaunchTrigger
from airflow_jobs_provider.operators.task_base import default_task_key
from tests.fakes.fake_service import FAULTS, UNTIL_ENDED, FakeService, Plan
from tests.helpers.start_from_trigger import operator
from tests.helpers.triggerer import (
    RUN_ID,
    START,
    Attempt,
    Triggerer,
    comms,
    task_runner,
    values_of,
)


@pytest.fixture(scope="module")
def running() -> Iterator[FakeService]:
    """A service for all tests of this module."""
    with FakeService() as service:
        yield service


@pytest.fixture
def service(running: FakeService) -> FakeService:
    """A service whose runs succeed at the second read."""
    running.forget()
    running.plan, running.accepts = Plan(), None
    return running


def start(service: FakeService, monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> Triggerer:
    """Make a DAG with one task that starts in the triggerer, and the triggerer."""
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", service.connection)
    with DAG("sales", schedule=None, catchup=False) as dag:
        other = BaseOperator(task_id="other")
        for name, value in arguments.items():
            if value == "of another task":
                arguments[name] = XComArg(other, "p")
        operator(**arguments)
    triggerer = Triggerer(dag, service)
    # It has run for so long without a pause.
    monkeypatch.setattr(f"{DatabricksLaunchTrigger.__module__}.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", triggerer, raising=False)
    return triggerer


def pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clock tell that the triggerer was paused for two minutes."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 120)


def succeeded(event: Any) -> bool:
    """Whether an event ends the task as successful."""
    return type(event).__name__ == "TaskSuccessEvent"


def test_a_run_is_launched_and_its_output_is_pushed(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is a worker's: name, rendered parameters, validated, with the task's token."""
    triggerer = start(service, monkeypatch)
    assert succeeded(triggerer.start(Attempt()))
    (run,) = service.runs.values()
    assert run.request["run_name"] == "sales.etl manual__2026 try 1"
    assert run.request["notebook_task"]["base_parameters"] == {"day": "2026-01-02"}
    assert values_of(triggerer) == {
        "run_id": run.run_id,
        "job_id": run.job_id,
        "run_page_url": f"http://workspace.invalid/#job/{run.job_id}/run/{run.run_id}",
        "return_value": f"output of {run.run_id}",
    }


def messages(triggerer: Triggerer) -> list[str]:
    """Return what the trigger has asked of Airflow about XComs, in order."""
    handled = [moment for moment in triggerer.moments if moment.endswith(" handled")]
    return [one.removesuffix(" handled") for one in handled if "XCom " in one]


@pytest.mark.parametrize("stores_xcoms", [True, False])
def test_what_is_asked_of_airflow_and_of_the_service(
    stores_xcoms: bool, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each message to Airflow takes the triggerer about 16 ms of CPU time.

    The first tasks of a triggerer record their attempts: its XComs may be out of order.
    """
    triggerer = start(service, monkeypatch)
    triggerer.stores_xcoms = stores_xcoms
    assert succeeded(triggerer.start(Attempt()))
    record = [] if stores_xcoms else ["GetXCom launch_record", "SetXCom launch_record"]
    assert messages(triggerer) == [
        *record,
        "SetXCom run_id",
        "SetXCom job_id",
        "SetXCom run_page_url",
        "SetXCom return_value",
    ]
    assert [seen.endpoint for seen in service.seen] == [
        "runs/submit",
        "runs/get",
        "runs/get",
        "runs/get-output",
    ]


@pytest.mark.parametrize(
    ("kind", "arguments", "sent"),
    [
        (
            DatabricksRunNowOperator,
            {"job_name": "the job", "notebook_params": {"day": "{{ ds }}"}},
            {"job_id": 501, "notebook_params": {"day": "2026-01-02"}},
        ),
        (
            DatabricksRunNowOperator,
            {"job_id": 501, "params": {"day": 2, "unset": None}},
            {"job_id": 501, "job_parameters": {"day": "2"}},
        ),
        (
            DatabricksNotebookOperator,
            {
                "notebook_path": "/{{ ds }}",
                "source": "WORKSPACE",
                "existing_cluster_id": "c",
                "max_retries": "{{ 1 + 1 }}",
            },
            {
                "run_name": "sales.etl manual__2026 try 1",
                "tasks": [
                    {
                        "task_key": default_task_key("sales", "etl"),
                        "notebook_task": {"notebook_path": "/2026-01-02", "source": "WORKSPACE"},
                        "existing_cluster_id": "c",
                        "max_retries": 2,
                    }
                ],
            },
        ),
        (
            DatabricksTaskOperator,
            {
                "databricks_task_key": "own",
                "existing_cluster_id": "c",
                "task_config": {"spark_jar_task": {"main_class_name": "{{ ti.task_id }}"}},
            },
            {
                "run_name": "own",
                "spark_jar_task": {"main_class_name": "etl"},
                "existing_cluster_id": "c",
            },
        ),
    ],
)
def test_the_request_is_that_of_a_worker(
    kind: type[LaunchRunOperator],
    arguments: dict[str, Any],
    sent: dict[str, Any],
    service: FakeService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A job is looked up by its name; the DAG's params are forwarded as the operator does."""
    service.jobs[501] = {"name": "the job"}
    triggerer = start(service, monkeypatch, kind=kind, **arguments)
    assert succeeded(triggerer.start(Attempt()))
    (run,) = service.runs.values()
    request = {name: value for name, value in run.request.items() if name != "idempotency_token"}
    assert request == sent
    assert values_of(triggerer)["run_id"] == run.run_id


@pytest.mark.parametrize("given", [{"billing_tags": True}, {}])
def test_the_settings_of_the_triggerer_count(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    """For the run's name, and for tags unless the operator says otherwise."""
    cluster = {"spark_version": "15", "node_type_id": "n", "num_workers": 1}
    triggerer = start(
        service,
        monkeypatch,
        existing_cluster_id=None,
        new_cluster=cluster,
        owner="Ann",
        **given,
    )
    monkeypatch.setenv("AIRFLOW__DATABRICKS_JOBS__RUN_NAME_TEMPLATE", "prod {task}")
    if not given:
        monkeypatch.setenv("AIRFLOW__DATABRICKS_JOBS__BILLING_TAGS", "True")
    assert succeeded(triggerer.start(Attempt()))
    (run,) = service.runs.values()
    assert run.request["run_name"] == "prod etl"
    assert run.request["new_cluster"]["custom_tags"] == {
        "airflow_dag_id": "sales",
        "airflow_task_id": "etl",
        "airflow_owner": "Ann",
        "airflow_run_id": RUN_ID,
        "airflow_try_number": "1",
    }


def test_an_invalid_run_name_template_is_final_in_the_triggerer(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker tells it, and Airflow does not retry."""
    triggerer = start(service, monkeypatch)
    monkeypatch.setenv("AIRFLOW__DATABRICKS_JOBS__RUN_NAME_TEMPLATE", "{dag}")
    payload = triggerer.start(Attempt()).payload
    assert (payload["is_launch"], payload["is_final"]) == (True, True)
    assert "run_name_template is invalid" in payload["error"]
    assert not service.runs


@pytest.mark.parametrize(
    ("kind", "arguments", "reason"),
    [
        (DatabricksRunNowOperator, {"job_id": 1, "repair_run": True}, "repair_run"),
        (
            DatabricksRunNowOperator,
            {"job_id": 1, "cancel_previous_runs": True},
            "cancel_previous_runs",
        ),
        (
            DatabricksRunNowOperator,
            {"job_id": 1, "openlineage_inject_parent_job_info": True},
            "OpenLineage",
        ),
    ],
)
def test_what_of_an_operator_needs_a_worker(
    kind: type[LaunchRunOperator], arguments: dict[str, Any], reason: str
) -> None:
    """What takes requests beside the launch."""
    with DAG("sales", schedule=None, catchup=False):
        assert operator(kind, **arguments).worker_start_reasons() == [reason]


def test_a_task_of_a_workflow_group_starts_on_a_worker() -> None:
    """It follows a task of the group's run."""
    with (
        DAG("sales", schedule=None, catchup=False),
        DatabricksWorkflowTaskGroup(group_id="group"),
    ):
        task = operator(DatabricksNotebookOperator, notebook_path="/x", existing_cluster_id="c")
    assert task.worker_start_reasons() == ["a workflow group"]
    assert not task.start_from_trigger


@pytest.mark.slow
@pytest.mark.parametrize("stores_xcoms", [True, False])
def test_killed_at_each_moment_there_is_one_run(
    stores_xcoms: bool, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after each request, and each message to Airflow; another triggerer takes over."""
    triggerer = start(service, monkeypatch)
    triggerer.stores_xcoms = stores_xcoms
    assert succeeded(triggerer.start(Attempt()))
    moments = list(triggerer.moments)
    # Afterwards it is the same, with and without a record.
    until_launch = moments.index("runs/submit received")
    if not stores_xcoms:
        moments = moments[:until_launch]
    assert len(moments) >= (16 if stores_xcoms else 4)
    killed = 0
    for number in range(len(moments)):
        service.forget()
        triggerer = start(service, monkeypatch)
        triggerer.stores_xcoms = stores_xcoms
        attempt = Attempt()
        triggerer.die_at = number
        event = triggerer.start(attempt)
        killed += triggerer.is_dead
        triggerer.die_at = None
        if triggerer.is_dead:
            event = triggerer.start(attempt)
        assert succeeded(event), moments[number]
        (run,) = service.runs.values()
        assert values_of(triggerer)["return_value"] == f"output of {run.run_id}", moments[number]
        assert (run.cancels, run.beside) == (0, 0)
    # A start that is slower reads the run once more or less.
    assert killed >= len(moments) - 3


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


def until_launched(triggerer: Triggerer, service: FakeService, attempt: Attempt) -> None:
    """Start a task, and kill the triggerer while it follows the run, which goes on."""
    service.plans.append(UNTIL_ENDED)
    service.at("runs/list", service.count("runs/list") + 1, triggerer.kill)
    service.at("runs/get", service.count("runs/get") + 2, triggerer.kill)
    assert triggerer.start(attempt) is None
    triggerer.is_dead = False  # another one is there


def test_the_tokens_are_those_of_a_worker(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a worker that goes on with the attempt, or makes the next one, finds the run."""
    triggerer = start(service, monkeypatch)
    first = Attempt(4)
    until_launched(triggerer, service, first)
    (run,) = service.runs.values()
    ti = SimpleNamespace(
        dag_id="sales", run_id=RUN_ID, task_id="etl", map_index=-1, try_number=5, max_tries=5
    )
    dag_run = SimpleNamespace(start_date=START)
    context: Any = {"ti": ti, "task": SimpleNamespace(retries=2), "dag_run": dag_run}
    assert TaskAttempt.from_context(context).tokens()[0] == run.token


def test_a_retry_follows_the_run_of_the_try_before(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run could not be read; a worker failed the try; the run is still active."""
    triggerer = start(service, monkeypatch)
    first = Attempt()
    until_launched(triggerer, service, first)
    with no_waiting():
        service.accepts = set()
        event = triggerer.start(first)
    service.accepts = None
    assert event.payload["is_launch"]
    service.end(1001)
    assert succeeded(triggerer.start(first.next_try()))
    (run,) = service.runs.values()
    assert values_of(triggerer)["return_value"] == f"output of {run.run_id}"


def test_a_failed_run_is_followed_by_one_of_the_next_try(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event brings the run to a worker, which tells the reason."""
    triggerer = start(service, monkeypatch)
    service.plans.append(Plan("FAILED"))
    first = Attempt()
    event = triggerer.start(first)
    assert event.payload["run"]["state"]["result_state"] == "FAILED"
    assert succeeded(triggerer.start(first.next_try()))
    assert [run.launches for run in service.runs.values()] == [2, 1]
    assert values_of(triggerer)["run_id"] == 1002


def test_a_task_that_a_dead_scheduler_has_lost_fails_with_its_run(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow starts it once more, although no retry is left, and not to launch another run."""
    triggerer = start(service, monkeypatch, retries=0)
    service.plans.append(Plan("FAILED"))
    first = Attempt()
    for attempt in (first, first.next_try()):
        event = triggerer.start(attempt)
        assert event.payload["run"]["run_id"] == 1001
        assert event.payload["run"]["state"]["result_state"] == "FAILED"
    assert len(service.runs) == 1


@pytest.mark.parametrize("carrier", ["00-second-clear-01", "00-first-clear-01"])
def test_a_cleared_task_starts_afresh(
    carrier: str, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a success, and while a run is active that no triggerer has canceled.

    A clear that leaves the DAG run's state alone keeps the carrier.
    """
    triggerer = start(service, monkeypatch)
    first = Attempt()
    assert succeeded(triggerer.start(first))
    second = first.cleared(carrier)
    until_launched(triggerer, service, second)
    assert succeeded(triggerer.start(second.cleared(carrier)))
    done, left, again = service.runs.values()
    assert (done.cancels, left.cancels, again.cancels) == (0, 1, 0)
    assert values_of(triggerer)["return_value"] == f"output of {again.run_id}"


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


def kill_by_user(
    triggerer: Triggerer,
    service: FakeService,
    attempt: Attempt,
    endpoint: str = "runs/submit",
    number: int = 1,
) -> None:
    """Let Airflow call on_kill of a trigger when a request of it has reached the service."""

    async def follow(trigger: Any) -> None:
        launched, loop = asyncio.Event(), asyncio.get_running_loop()
        service.at(endpoint, number, lambda: loop.call_soon_threadsafe(launched.set))
        work = asyncio.ensure_future(triggerer.first_event(trigger))
        await launched.wait()
        work.cancel()
        await asyncio.wait({work})
        await trigger.on_kill()

    triggerer.run(follow, attempt)


@pytest.mark.parametrize(("endpoint", "number"), [("runs/submit", 1), ("runs/get", 2)])
@pytest.mark.parametrize(
    ("state", "later", "cancels"),
    [
        # on_kill asks Airflow for 20 s, since the state may be about to change.
        pytest.param("deferred", False, 0, marks=pytest.mark.slow),
        ("deferred", True, 1),
        ("success", False, 1),
        ("failed", False, 1),
    ],
)
def test_a_user_cancels_the_run_and_a_takeover_does_not(
    state: str,
    later: bool,
    cancels: int,
    endpoint: str,
    number: int,
    service: FakeService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Airflow calls on_kill for both; a task that has deferred again has a later attempt."""
    service.plan = UNTIL_ENDED
    triggerer = start(service, monkeypatch)
    triggerer.state = state
    if later:
        service.at("runs/submit", 1, lambda: triggerer.record(try_number=2, first_try=2))
    kill_by_user(triggerer, service, Attempt(), endpoint, number)
    (run,) = service.runs.values()
    assert run.cancels == cancels


@pytest.mark.parametrize(
    ("arguments", "record", "cancels"),
    [
        ({}, {"try_number": 2}, 0),
        ({"reattach": False}, {"try_number": 2}, 1),
        ({"idempotency_token": "t", "reattach": False}, {"try_number": 2}, 0),
        ({"json": {"idempotency_token": "t"}, "reattach": False}, {"try_number": 2}, 0),
        ({}, {"try_number": 1, "carrier": "of a DAG run that was created again"}, 1),
    ],
)
def test_a_frozen_triggerer_does_not_cancel_the_run_that_a_retry_follows(
    arguments: dict[str, Any],
    record: dict[str, Any],
    cancels: int,
    service: FakeService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It wakes up when the retry has begun in another one."""
    service.plan = UNTIL_ENDED
    triggerer = start(service, monkeypatch, **arguments)
    service.at("runs/get", 2, lambda: triggerer.record(**record))
    kill_by_user(triggerer, service, Attempt(), "runs/get", 2)
    (run,) = service.runs.values()
    assert run.cancels == cancels


@pytest.mark.parametrize(
    "moment",
    [
        "GetXCom launch_record",
        "SetXCom launch_record",
        "SetXCom run_id",
        "SetXCom return_value",
    ],
)
def test_the_message_of_a_cancel_reaches_airflow(
    moment: str, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its message Airflow does not call on_kill; a thread may wait for Airflow then."""
    triggerer = start(service, monkeypatch)
    answer = triggerer._answer

    async def cancel(trigger: Any) -> None:
        asked, canceled = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def hold(msg: Any) -> Any:
            if f"{type(msg).__name__} {getattr(msg, 'key', '')}" == moment:
                loop.call_soon_threadsafe(asked.set)
                assert canceled.wait(10)
            return answer(msg)

        monkeypatch.setattr(triggerer, "_answer", hold)
        work = asyncio.ensure_future(triggerer.first_event(trigger))
        await asyncio.wait_for(asked.wait(), 10)
        work.cancel("a user acts")
        try:
            with pytest.raises(asyncio.CancelledError) as error:
                await work
        finally:
            canceled.set()
        assert error.value.args == ("a user acts",)

    # The first attempt asks less.
    triggerer.run(cancel, Attempt(2))


def test_a_run_of_an_unknown_id_that_has_ended_is_not_canceled(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another triggerer has followed it to its end, while this one stood still."""
    triggerer = start(service, monkeypatch)
    triggerer.state = "success"
    service.plan = Plan(looks=0)
    service.trouble("runs/submit", FAULTS["time-out after handling"])
    kill_by_user(triggerer, service, Attempt())
    (run,) = service.runs.values()
    assert (run.launches, run.cancels) == (2, 0)


@pytest.mark.parametrize(
    ("state", "record", "cancels"),
    [
        ("failed", {}, 1),
        ("failed", None, 1),
        ("success", {}, 1),
        ("deferred", None, 0),
        # Another triggerer goes on with the run, or a worker does.
        ("deferred", {}, 0),
        ("running", {"handed_over": True}, 0),
        ("failed", {"try_number": 2}, 0),
        ("failed", {"carrier": "of a DAG run that was created again"}, 0),
    ],
)
def test_a_task_is_marked_while_no_triggerer_is_running(
    state: str,
    record: dict[str, Any] | None,
    cancels: int,
    service: FakeService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next triggerer cancels the run, although its trigger is canceled before it asks."""
    triggerer = start(service, monkeypatch)
    attempt = Attempt()
    until_launched(triggerer, service, attempt)
    triggerer.state = state
    if record is not None:
        triggerer.record(**record)
    triggerer.run(lambda trigger: trigger.on_kill(), attempt)
    (run,) = service.runs.values()
    assert run.cancels == cancels


@pytest.mark.parametrize("is_answered", [True, False])
def test_a_run_that_airflow_does_not_know_is_canceled_once_the_next_attempt_is_recorded(
    is_answered: bool, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cleared task is deferred again already, while its trigger is not running yet.

    The launch was not answered, or the XCom ``run_id`` could not be stored.
    """
    service.plan = UNTIL_ENDED
    triggerer = start(service, monkeypatch)
    if is_answered:
        triggerer.refuses.add("run_id")
    else:
        service.trouble("runs/submit", FAULTS["time-out after handling"])
    asked = iter(range(9))

    def answer(msg: Any, answered: Any = triggerer._answer) -> Any:
        if type(msg).__name__ == "GetTaskStates" and next(asked) == 1:
            triggerer.record(try_number=2, first_try=2)
        return answered(msg)

    monkeypatch.setattr(triggerer, "_answer", answer)
    with no_waiting():
        kill_by_user(triggerer, service, Attempt(), *(("runs/get", 2) if is_answered else ()))
    (run,) = service.runs.values()
    assert (run.launches, run.cancels) == (1 if is_answered else 2, 1)


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


def test_the_run_of_another_triggerer_for_the_same_attempt_is_no_orphan(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has launched the run while this one stood still between two questions to Airflow."""
    triggerer = start(service, monkeypatch)
    first = Attempt()
    assert succeeded(triggerer.start(first))
    service.start(7)

    def answer(msg: Any, answered: Any = triggerer._answer) -> Any:
        value = answered(msg)
        if getattr(msg, "key", "") == "launch_record":
            triggerer.xcoms["etl", "run_id"] = 7
        return value

    monkeypatch.setattr(triggerer, "_answer", answer)
    assert succeeded(triggerer.start(first.cleared()))
    assert service.runs[7].cancels == 0


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


def test_a_missing_connection_is_a_failure_that_a_worker_reports(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a run before a clear cannot be read for that reason."""
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
    event = triggerer.start(first.cleared())
    assert event.payload["is_launch"]
    assert "databricks_default" in event.payload["error"]
    assert triggerer.xcoms["etl", "launch_record"]["handed_over"]


@pytest.mark.parametrize(("token", "cancels"), [("own", 0), ("own {{ ti.try_number }}", 1)])
def test_a_cleared_task_follows_the_run_of_the_users_token(
    token: str, cancels: int, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No triggerer was running when it was cleared; on a worker, it would follow the run, too."""
    triggerer = start(service, monkeypatch, idempotency_token=token)
    first = Attempt()
    until_launched(triggerer, service, first)
    if not cancels:
        for endpoint, number in (("runs/list", 1), ("runs/get", 2)):
            service.at(endpoint, service.count(endpoint) + number, lambda: service.end(1001))
    assert succeeded(triggerer.start(first.cleared()))
    assert [run.cancels for run in service.runs.values()] == [cancels, 0][: 1 + cancels]


def test_a_launch_without_an_answer_is_canceled(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent again, it brings the run's id, and starts no second run."""
    service.plan = UNTIL_ENDED
    triggerer = start(service, monkeypatch)
    triggerer.state = "failed"
    service.trouble("runs/submit", FAULTS["time-out after handling"])
    kill_by_user(triggerer, service, Attempt())
    (run,) = service.runs.values()
    assert (run.launches, run.cancels) == (2, 1)


def test_execution_timeout_cancels_the_run(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the run is followed."""
    service.plan = UNTIL_ENDED
    triggerer = start(service, monkeypatch, execution_timeout=timedelta(seconds=1))
    event = triggerer.start(Attempt(), datetime.now(UTC) + timedelta(seconds=0.5))
    assert event.payload["timed_out"] == "execution_timeout"
    (run,) = service.runs.values()
    assert run.cancels == 1


def test_execution_timeout_cancels_a_launch_without_an_answer(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id is asked for by the same token."""
    service.plan = UNTIL_ENDED
    triggerer = start(service, monkeypatch, execution_timeout=timedelta(seconds=1))
    service.trouble("runs/submit", FAULTS["time-out after handling"])
    event = triggerer.start(Attempt(), datetime.now(UTC) + timedelta(seconds=0.5))
    (run,) = service.runs.values()
    assert (run.launches, run.cancels) == (2, 1)
    assert event.payload == {"run": {"run_id": run.run_id}, "timed_out": "execution_timeout"}


def test_execution_timeout_of_an_attempt_that_is_over_cancels_nothing(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow has failed it while this triggerer was paused, and a retry follows the run."""
    service.plan = UNTIL_ENDED
    triggerer = start(service, monkeypatch, execution_timeout=timedelta(seconds=1))

    def wake_up_late() -> None:
        triggerer.record(try_number=2, handed_over=True)
        pause(monkeypatch)

    service.trouble("runs/submit", FAULTS["time-out after handling"])
    service.at("runs/submit", 1, wake_up_late)

    async def wait(trigger: Any) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(triggerer.first_event(trigger), 1)

    triggerer.run(wait, Attempt(), datetime.now(UTC) + timedelta(seconds=0.5))
    (run,) = service.runs.values()
    assert (run.launches, run.cancels) == (1, 0)


def test_a_request_that_cannot_succeed_is_not_sent(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is known after rendering only; a worker fails the task without a retry."""
    event = start(service, monkeypatch, libraries="{{ 'x' }}").start(Attempt())
    assert event.payload["is_final"]
    assert "libraries" in event.payload["error"]
    assert service.requests == 0


@pytest.mark.parametrize("stored", [True, False])
def test_the_output_of_another_task_keeps_its_type(
    stored: bool, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where that task has pushed none, a worker starts the task, as it always would."""
    triggerer = start(service, monkeypatch, notebook_task="of another task")
    if stored:
        parameters = {"n": 1, "day": "{{ ds }}"}
        task = {"notebook_path": "/x", "base_parameters": parameters}
        triggerer.xcoms["other", "p"] = task
    event = triggerer.start(Attempt())
    if stored:
        (run,) = service.runs.values()
        sent = run.request["notebook_task"]["base_parameters"]
        assert sent == {"n": "1", "day": "{{ ds }}"}
    else:
        assert "no XCom 'p'" in event.payload["start_on_worker"]
        assert service.requests == 0


def test_a_template_that_fails_is_left_to_a_worker(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An undefined name is an error in the triggerer, too."""
    event = start(service, monkeypatch, run_name="{{ params.unknown }}").start(Attempt())
    assert "unknown" in event.payload["start_on_worker"]
    assert service.requests == 0


def test_nothing_is_launched_that_is_not_recorded(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a retry could not find the run."""
    triggerer = start(service, monkeypatch)
    triggerer.refuses.add("launch_record")
    triggerer.stores_xcoms = False
    event = triggerer.start(Attempt())
    assert "start_on_worker" in event.payload
    assert service.requests == 0


def test_a_triggerer_that_wakes_up_late_launches_nothing(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later attempt has begun meanwhile: Airflow is about to cancel this trigger."""
    triggerer = start(service, monkeypatch)
    first = Attempt()
    assert succeeded(triggerer.start(first.next_try()))

    async def wait(trigger: Any) -> None:
        pause(monkeypatch)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(triggerer.first_event(trigger), 0.3)

    triggerer.run(wait, first)
    assert len(service.runs) == 1


# -- on a worker -------------------------------------------------------------------------------


def worker_context(triggerer: Triggerer, try_number: int = 1) -> Any:
    """Make the context of a worker that goes on with the first attempt, or one after a clear."""
    ti = SimpleNamespace(
        dag_id="sales",
        run_id=RUN_ID,
        task_id="etl",
        map_index=-1,
        try_number=try_number,
        max_tries=try_number + 1,
        start_date=None,
        xcom_push=lambda key, value: triggerer.xcoms.update({("etl", key): value}),
        xcom_pull=lambda key, **_: triggerer.xcoms.get(("etl", key)),
    )
    dag_run = SimpleNamespace(start_date=START)
    return {"ti": ti, "task": SimpleNamespace(retries=2), "dag_run": dag_run, "params": {}}


def test_a_worker_that_starts_the_task_finds_the_run(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The triggerer could not go on; the worker defers with the run that it has launched."""
    triggerer = start(service, monkeypatch)
    until_launched(triggerer, service, Attempt())
    task = operator()
    with pytest.raises(TaskDeferred) as deferred:
        task.execute_complete(worker_context(triggerer), {"start_on_worker": "it cannot"})
    (run,) = service.runs.values()
    assert (run.launches, run.cancels) == (2, 0)
    trigger: Any = deferred.value.trigger
    assert trigger.run_id == run.run_id


def test_a_worker_cancels_the_run_after_a_time_out_that_no_trigger_has_seen(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow has failed the trigger of a dead triggerer; the record tells a retry of it."""
    triggerer = start(service, monkeypatch)
    until_launched(triggerer, service, Attempt())
    task = operator(execution_timeout=timedelta(seconds=1))
    failure = {"error": "Trigger/execution timeout"}
    with pytest.raises(DatabricksRunTimeoutError, match="execution_timeout"):
        task.resume_execution("__fail__", failure, worker_context(triggerer))
    (run,) = service.runs.values()
    assert run.cancels == 1
    assert triggerer.xcoms["etl", "launch_record"]["handed_over"]


def test_after_a_success_on_a_worker_a_cleared_task_starts_afresh(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the clear leaves the DAG run's state alone, and so looks like a retry."""
    triggerer = start(service, monkeypatch, end_from_trigger=False)
    first = Attempt()
    event = triggerer.start(first)
    assert operator().execute_complete(worker_context(triggerer), event.payload) == "output of 1001"
    assert triggerer.start(first.cleared(first.carrier)).payload["run"]["run_id"] == 1002


def test_after_a_start_on_a_worker_and_a_success_a_cleared_task_starts_afresh(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The triggerer has handed the attempt to a worker before the launch. A worker ends it, too."""
    triggerer = start(service, monkeypatch, notebook_task="of another task")
    first = Attempt()
    event = triggerer.start(first)
    assert triggerer.xcoms["etl", "launch_record"]["handed_over"]
    service.plan = UNTIL_ENDED
    context = worker_context(triggerer)
    with pytest.raises(TaskDeferred) as deferred:
        operator().execute_complete(context, event.payload)
    trigger: Any = deferred.value.trigger
    assert not trigger.end_from_trigger
    service.end(1001)
    done = triggerer.run(lambda _: triggerer.first_event(trigger), first)
    kwargs = deferred.value.kwargs or {}
    assert operator().execute_complete(context, done.payload, **kwargs) == "output of 1001"
    service.plan = Plan()
    triggerer.xcoms["other", "p"] = {"notebook_path": "/x"}
    assert succeeded(triggerer.start(first.cleared(first.carrier)))
    assert values_of(triggerer)["run_id"] == 1002


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


def test_a_required_param_ends_the_triggerer(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why such a task starts on a worker. Where this fails, Airflow has mended it."""
    monkeypatch.setattr(completion_reasons, "required_params", lambda task: [])  # noqa: ARG005
    triggerer = start(service, monkeypatch, params={"day": Param(type="string")})
    with pytest.raises(ValueError, match="no default"):
        triggerer.trigger(Attempt())
