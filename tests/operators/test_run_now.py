"""What only runs of a job have: previous runs that make way, and repair. Answer by answer."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, TaskDeferred

from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from airflow_jobs_provider.operators.jobs import DatabricksRunNowOperator
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger
from tests.fakes.scripted_server import ScriptedServer, Step, answer, lose
from tests.helpers.responses import (
    FAILED,
    FAILED_OUTPUT,
    LAUNCHED,
    OUTPUT,
    RUNNING,
    SUCCEEDED,
    failed,
    history,
    run,
)
from tests.helpers.tasks import TaskInstance, asked, connect, events

# The service is asked whether it retries a failed run by itself, as the job may say.
FAILS = (FAILED, answer({"job_id": 3, "settings": {}}))
REFUSED = answer({"error_code": "INVALID_STATE", "message": "Run 7 cannot be repaired."}, 400)


@pytest.fixture
def context(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The context of a task's first try, and a connection with API 2.2."""
    connect(monkeypatch, server, "2.2")
    ti = TaskInstance()
    ti.try_number = 1
    ti.max_tries = 0
    return {"ti": ti, "params": {}, "dag_run": None, "task": None}


def second_try(context: Any) -> None:
    """Make it the task's second try."""
    context["ti"].try_number, context["ti"].max_tries = 2, 1
    context["task"] = type("Task", (), {"retries": 1})()


def run_now(**arguments: Any) -> DatabricksRunNowOperator:
    """Make a run-now operator that polls fast."""
    arguments.setdefault("job_id", 3)
    arguments.setdefault("polling_period_seconds", 0.01)
    return DatabricksRunNowOperator(task_id="etl", **arguments)


# -- the version ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.0", "2.1", "2.2"])
def test_the_connection_picks_the_version(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """All calls go to the version that the extra names."""
    connect(monkeypatch, server, version)
    server.will(LAUNCHED, RUNNING, SUCCEEDED, OUTPUT)
    assert run_now().execute(context) == "42"
    assert {request.path.split("/")[2] for request in server.requests} == {version}


# -- previous runs -------------------------------------------------------------------------------


def active(*runs: tuple[int, int], **more: Any) -> Any:
    """Answer a list of active runs, each of an id and a start."""
    return answer(
        {"runs": [run("RUNNING") | {"run_id": i, "start_time": s} for i, s in runs], **more}
    )


def test_previous_runs_make_way(context: Any, server: ScriptedServer) -> None:
    """All active runs are canceled, over all pages, and have ended before the launch."""
    server.will(
        active((5, 50), next_page_token="more"),
        active((4, 40)),
        answer(),
        answer(),
        active((4, 40)),
        active(),
        LAUNCHED,
        SUCCEEDED,
        OUTPUT,
    )
    assert run_now(cancel_previous_runs=True).execute(context) == "42"
    assert asked(server) == [
        "runs/list",
        "runs/list",
        "runs/cancel 4",
        "runs/cancel 5",
        "runs/list",
        "runs/list",
        "run-now",
        "runs/get 7",
        "runs/get-output 7",
    ]
    assert server.requests[1].query["page_token"] == "more"
    assert server.requests[0].query["job_id"] == "3"


def test_runs_that_start_meanwhile_are_left_alone(context: Any, server: ScriptedServer) -> None:
    """Whoever starts runs faster than they are canceled does not hold the task up for ever."""
    server.will(active((5, 50)), answer(), active((6, 60)), LAUNCHED, SUCCEEDED, OUTPUT)
    assert run_now(cancel_previous_runs=True).execute(context) == "42"
    assert "runs/cancel 6" not in asked(server)


def test_a_previous_run_that_is_deleted_meanwhile_is_out_of_the_way(
    context: Any, server: ScriptedServer
) -> None:
    """Then there is nothing to cancel."""
    gone = answer(
        {"error_code": "INVALID_PARAMETER_VALUE", "message": "Run 5 does not exist."}, 400
    )
    server.will(active((5, 50)), gone, active(), LAUNCHED, SUCCEEDED, OUTPUT)
    assert run_now(cancel_previous_runs=True).execute(context) == "42"


def test_a_retry_does_not_cancel_its_own_run(context: Any, server: ScriptedServer) -> None:
    """The run of the first try is found and followed; those before it are canceled."""
    second_try(context)
    server.will(LAUNCHED, answer(run("RUNNING", start_time=60)))
    server.will(active((8, 70), (7, 60), (5, 50)), answer(), active((8, 70), (7, 60)))
    server.will(SUCCEEDED, OUTPUT)
    assert run_now(cancel_previous_runs=True).execute(context) == "42"
    assert [what for what in asked(server) if "cancel" in what] == ["runs/cancel 5"]


def test_a_retry_whose_run_failed_clears_the_way_again(
    context: Any, server: ScriptedServer
) -> None:
    """Before the second run is launched, not before the first is found."""
    second_try(context)
    server.will(LAUNCHED, FAILED, active((9, 90)), answer(), active())
    second = answer({**run("TERMINATED", "SUCCESS"), "run_id": 8})
    server.will(answer({"run_id": 8}), second, OUTPUT)
    run_now(cancel_previous_runs=True).execute(context)
    assert asked(server)[:6] == [
        "run-now",
        "runs/get 7",
        "runs/list",
        "runs/cancel 9",
        "runs/list",
        "run-now",
    ]


def test_a_retry_with_a_token_of_the_users_own_does_not_cancel_its_own_run(
    context: Any, server: ScriptedServer
) -> None:
    """Nobody knows before the launch whether the token has a run."""
    second_try(context)
    server.will(LAUNCHED, answer(run("RUNNING", start_time=60)), active((7, 60)), SUCCEEDED, OUTPUT)
    operator = run_now(cancel_previous_runs=True, idempotency_token="mine")
    assert operator.execute(context) == "42"
    assert not [what for what in asked(server) if "cancel" in what]


# -- repair --------------------------------------------------------------------------------------


REPAIRING = answer({**run("RUNNING"), **history(21, ended=False)})


def test_a_failed_run_is_repaired(context: Any, server: ScriptedServer) -> None:
    """Its failed tasks run again, with the parameters it had, and the task ends green."""
    parameters = {
        "overriding_parameters": {"notebook_params": {"day": "1"}},
        "job_parameters": [
            {"name": "region", "default": "eu", "value": "us"},
            {"name": "size", "default": "s"},
        ],
    }
    server.will(LAUNCHED, *FAILS, failed(**parameters), answer({"repair_id": 21}), REPAIRING)
    server.will(RUNNING, SUCCEEDED, OUTPUT)
    assert run_now(repair_run=True).execute(context) == "42"
    assert asked(server) == [
        "run-now",
        "runs/get 7",
        "get",
        "runs/get 7",
        "runs/repair 7",
        "runs/get 7",
        "runs/get 7",
        "runs/get 7",
        "runs/get-output 7",
    ]
    assert server.requests[3].query["include_history"] == "true"
    assert server.requests[4].body == {
        "run_id": 7,
        "rerun_all_failed_tasks": True,
        "notebook_params": {"day": "1"},
        "job_parameters": {"region": "us"},
    }


def test_repairs_are_counted_by_the_service(context: Any, server: ScriptedServer) -> None:
    """The second repair names the first; after the last one the run's end is the task's."""
    server.will(LAUNCHED, *FAILS, failed(21), answer({"repair_id": 22}), failed(21, 22))
    server.will(FAILS[1], failed(21, 22), FAILED_OUTPUT)
    with pytest.raises(DatabricksRunFailedError, match="ValueError: no rows"):
        run_now(repair_run=True, max_repairs=2).execute(context)
    assert server.requests[4].body["latest_repair_id"] == 21
    assert asked(server).count("runs/repair 7") == 1


def test_the_old_end_is_not_taken_for_the_repairs(context: Any, server: ScriptedServer) -> None:
    """A run that is shown as failed right after the repair was accepted is looked at again."""
    server.will(LAUNCHED, *FAILS, failed(), answer({"repair_id": 21}), failed(), REPAIRING)
    server.will(SUCCEEDED, OUTPUT)
    assert run_now(repair_run=True).execute(context) == "42"


def test_a_repair_whose_answer_is_lost_is_not_made_twice(
    context: Any, server: ScriptedServer
) -> None:
    """The service refuses the second, since the first is at work; the run is followed."""
    server.will(LAUNCHED, *FAILS, failed(), lose, REFUSED, REPAIRING, SUCCEEDED, OUTPUT)
    operator = run_now(repair_run=True, databricks_retry_delay=0.01)
    assert operator.execute(context) == "42"


@pytest.mark.parametrize("last", [lose, answer({}, 503), answer({}, 403)])
def test_a_repair_of_which_every_answer_is_lost_is_found(
    context: Any, server: ScriptedServer, last: Step
) -> None:
    """The run is read once more, so a repair that was accepted is followed."""
    server.will(LAUNCHED, *FAILS, failed(), lose, last, REPAIRING, SUCCEEDED, OUTPUT)
    arguments = {"databricks_retry_delay": 0.01, "databricks_retry_limit": 2}
    assert run_now(repair_run=True, **arguments).execute(context) == "42"
    assert asked(server).count("runs/repair 7") == 2


def test_a_repair_that_is_refused_leaves_the_runs_own_failure(
    context: Any,
    server: ScriptedServer,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The task fails with the run's reason; the refusal is in the log."""
    server.will(LAUNCHED, *FAILS, failed(), REFUSED, *[failed()] * 3, FAILED_OUTPUT)
    with pytest.raises(DatabricksRunFailedError, match="ValueError: no rows"):
        run_now(repair_run=True).execute(context)
    assert "Run 7 is not repaired" in caplog.text + "".join(capsys.readouterr())


def test_a_canceled_run_is_not_repaired(context: Any, server: ScriptedServer) -> None:
    """Somebody did not want it to go on."""
    server.will(LAUNCHED, answer(run("TERMINATED", "CANCELED")), FAILED_OUTPUT)
    with pytest.raises(DatabricksRunFailedError):
        run_now(repair_run=True).execute(context)
    assert asked(server) == ["run-now", "runs/get 7", "runs/get-output 7"]


def test_a_deferred_run_is_repaired(context: Any, server: ScriptedServer) -> None:
    """The resumed task asks for the repair and defers again."""
    server.will(LAUNCHED, RUNNING)
    with pytest.raises(TaskDeferred) as deferred:
        run_now(repair_run=True, deferrable=True).execute(context)
    for _ in range(2):
        assert isinstance(deferred.value.trigger, DatabricksJobRunTrigger)
        server.will(*FAILS)
        (event,) = events(deferred.value.trigger)
        operator = run_now(repair_run=True, deferrable=True, max_repairs=2)
        arguments = deferred.value.kwargs or {}
        server.will(failed(), answer({"repair_id": 21}), REPAIRING)
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute_complete(context, event, **arguments)
    assert isinstance(deferred.value.trigger, DatabricksJobRunTrigger)
    assert deferred.value.trigger.run_id == 7
    server.will(SUCCEEDED, OUTPUT)
    (event,) = events(deferred.value.trigger)
    assert run_now(repair_run=True).execute_complete(context, event) == "42"


def test_a_run_that_the_official_provider_deferred_is_repaired(
    context: Any, server: ScriptedServer
) -> None:
    """The event is that of its trigger: the DAG was migrated while the task was deferred."""
    server.will(*FAILS, failed(), answer({"repair_id": 21}), REPAIRING, SUCCEEDED, OUTPUT)
    state = {"life_cycle_state": "TERMINATED", "result_state": "FAILED", "state_message": ""}
    event = {"run_id": 7, "run_page_url": "http://w/7", "run_state": json.dumps(state)}
    event |= {"repair_run": True, "errors": []}
    assert run_now(repair_run=True).execute_complete(context, event) == "42"
    assert asked(server).count("runs/repair 7") == 1
    assert "run-now" not in asked(server)


def test_the_kill_of_a_task_cancels_a_run_under_repair(
    context: Any, server: ScriptedServer
) -> None:
    """A repaired run is still the task's own."""
    server.will(LAUNCHED, *FAILS, failed(), answer({"repair_id": 21}), REPAIRING, answer({}, 400))
    operator = run_now(repair_run=True)
    with pytest.raises(Exception, match="400"):
        operator.execute(context)
    operator.on_kill()
    assert asked(server)[-1] == "runs/cancel 7"


def test_repair_needs_a_later_version(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """API 2.0 knows no repair: nothing is launched, and the message says what to change."""
    connect(monkeypatch, server, "2.0")
    with pytest.raises(AirflowFailException, match=r'"api_version": "2\.2"'):
        run_now(repair_run=True).execute(context)
    assert server.requests == []


@pytest.fixture(params=[True, False], ids=["and raises", "and goes on"])
def kill(
    request: pytest.FixtureRequest,
) -> Iterator[Callable[[DatabricksRunNowOperator, Step], Step]]:
    """Make an answer that comes when the task has been killed, as Airflow 2 and 3 kill it."""
    operators: list[DatabricksRunNowOperator] = []

    def on_signal(*_: object) -> None:
        for operator in operators:
            operator.on_kill()
        if request.param:
            raise KilledError

    def killing(operator: DatabricksRunNowOperator, then: Step) -> Step:
        operators.append(operator)

        def step(connection: socket.socket) -> None:
            os.kill(os.getpid(), signal.SIGUSR1)
            with contextlib.suppress(OSError):  # who asked may be gone
                then(connection)

        return step

    before = signal.signal(signal.SIGUSR1, on_signal)
    yield killing
    signal.signal(signal.SIGUSR1, before)


class KilledError(Exception):
    """What Airflow 2 raises in a task that it kills."""


def test_a_kill_while_a_repair_begins_cancels_it(
    context: Any, server: ScriptedServer, kill: Any
) -> None:
    """Whether the answer has come or not."""
    operator = run_now(repair_run=True)
    server.will(LAUNCHED, *FAILS, failed(), kill(operator, answer({"repair_id": 21})))
    with pytest.raises((KilledError, AirflowException)):
        operator.execute(context)
    repaired = asked(server).index("runs/repair 7")
    assert "runs/cancel 7" in asked(server)[repaired:]
    assert asked(server)[-1] == "runs/cancel 7"


def test_a_killed_task_asks_for_no_repair(context: Any, server: ScriptedServer, kill: Any) -> None:
    """Airflow 3 lets its process go on for a while."""
    operator = run_now(repair_run=True)
    server.will(LAUNCHED, *FAILS, kill(operator, failed()))
    with pytest.raises((KilledError, AirflowException)):
        operator.execute(context)
    assert "runs/repair 7" not in asked(server)


def test_a_killed_task_cancels_no_more_previous_runs(
    context: Any, server: ScriptedServer, kill: Any
) -> None:
    """They may be somebody else's."""
    operator = run_now(cancel_previous_runs=True)
    server.will(kill(operator, active((5, 50))))
    with pytest.raises((KilledError, AirflowException)):
        operator.execute(context)
    assert asked(server) == ["runs/list"]


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_repaired_run_has_its_time_in_the_queue_anew(
    context: Any, server: ScriptedServer, deferrable: bool
) -> None:
    """It keeps its start_time; the limit counts from the repair."""
    queued = {**run("PENDING", start_time=1000), **history(21, ended=False)}
    queued["repair_history"][-1]["start_time"] = int(time.time() * 1000)
    server.will(LAUNCHED, *FAILS, failed(), answer({"repair_id": 21}), answer(queued))
    operator = run_now(repair_run=True, queued_timeout_seconds=60, deferrable=deferrable)
    if deferrable:
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context)
        server.will(answer(run("PENDING", start_time=1000)), SUCCEEDED, OUTPUT)
        assert isinstance(deferred.value.trigger, DatabricksJobRunTrigger)
        (event,) = events(deferred.value.trigger)
        assert run_now().execute_complete(context, event) == "42"
    else:
        server.will(answer(run("PENDING", start_time=1000)), SUCCEEDED, OUTPUT)
        assert operator.execute(context) == "42"


def test_the_time_limit_does_not_begin_anew_with_a_repair(
    context: Any, server: ScriptedServer
) -> None:
    """Airflow 3.0 tells a new start each time that the task is resumed."""
    arguments = {"repair_run": True, "deferrable": True, "execution_timeout": timedelta(hours=1)}
    server.will(LAUNCHED, RUNNING)
    with pytest.raises(TaskDeferred) as first:
        run_now(**arguments).execute(context)
    context["ti"].start_date += timedelta(minutes=50)
    server.will(*FAILS)
    assert isinstance(first.value.trigger, DatabricksJobRunTrigger)
    first.value.trigger.deadline = None  # long past for this test's clock
    (event,) = events(first.value.trigger)
    server.will(failed(), answer({"repair_id": 21}), REPAIRING)
    with pytest.raises(TaskDeferred) as second:
        run_now(**arguments).execute_complete(context, event, **first.value.kwargs or {})
    assert isinstance(second.value.trigger, DatabricksJobRunTrigger)
    start = TaskInstance.start_date.timestamp()
    assert second.value.trigger.deadline == start + 3600


def test_a_previous_run_that_may_not_be_canceled_leaves_the_own_one_followed(
    context: Any, server: ScriptedServer
) -> None:
    """An earlier try has launched it, so the task goes on with it."""
    second_try(context)
    server.will(LAUNCHED, answer(run("RUNNING", start_time=60)), active((7, 60), (5, 50)))
    server.will(answer({"error_code": "PERMISSION_DENIED", "message": "Not yours."}, 403))
    server.will(SUCCEEDED, OUTPUT)
    operator = run_now(cancel_previous_runs=True, databricks_retry_limit=1)
    assert operator.execute(context) == "42"


@pytest.mark.parametrize("deferrable", [False, True])
def test_repair_without_waiting_has_no_effect(
    context: Any, server: ScriptedServer, deferrable: bool, logged: Callable[[], str]
) -> None:
    """As with the official provider: the task ends at the launch, and the log says so."""
    server.will(LAUNCHED, RUNNING)
    operator = run_now(repair_run=True, wait_for_termination=False, deferrable=deferrable)
    assert operator.execute(context) is None
    assert asked(server) == ["run-now", "runs/get 7"]
    assert "repair_run has no effect" in logged()


# -- many tasks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("deferrable", [False, True])
def test_all_tasks_of_a_run_are_seen(
    context: Any, server: ScriptedServer, deferrable: bool
) -> None:
    """API 2.2 shows a hundred tasks at a time; the outputs of all are there."""
    good = run("TERMINATED", "SUCCESS")
    tasks = [{**good, "task_key": f"t{n}", "run_id": 100 + n} for n in range(120)]
    first = answer({**good, "tasks": tasks[:100], "next_page_token": "rest"})
    rest = answer({**good, "tasks": tasks[100:]})
    outputs = [
        answer({"metadata": good, "notebook_output": {"result": str(n)}}) for n in range(120)
    ]
    if deferrable:
        server.will(LAUNCHED, RUNNING)
        with pytest.raises(TaskDeferred) as deferred:
            run_now(deferrable=True).execute(context)
        server.will(first, rest)
        assert isinstance(deferred.value.trigger, DatabricksJobRunTrigger)
        (event,) = events(deferred.value.trigger)
        server.will(*outputs)
        result = run_now().execute_complete(context, event)
    else:
        server.will(LAUNCHED, RUNNING, first, rest, *outputs)
        result = run_now().execute(context)
    assert result == {f"t{n}": str(n) for n in range(120)}
