"""For 60 seconds after a launch "not found" is no verdict: the run is read again."""

from __future__ import annotations

import time
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, TaskDeferred

from airflow_jobs_provider.api.errors import NotFoundError
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.api.workflows import base, follow, launched_run
from airflow_jobs_provider.operators.jobs import DatabricksRunNowOperator
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger
from tests.fakes.scripted_server import ScriptedServer, answer
from tests.helpers.responses import LAUNCHED, OUTPUT, RUNNING, SUCCEEDED, run
from tests.helpers.tasks import events, fail_for_good, operator_of, paths, retrying, submit

MISSING = "Run 7 does not exist."
NOT_FOUND: dict[str, Any] = {
    "400": answer({"error_code": "INVALID_PARAMETER_VALUE", "message": MISSING}, 400),
    "404": answer({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": MISSING}, 404),
    "404 without words": answer({}, 404),
}
NOT_THERE = NOT_FOUND["400"]


@pytest.mark.parametrize("kind", ["runs/submit", "run-now"])
@pytest.mark.parametrize("not_found", NOT_FOUND)
def test_on_the_worker(context: Any, server: ScriptedServer, not_found: str, kind: str) -> None:
    """At the first look and at a later one: the run is followed to its end, and not canceled."""
    step = NOT_FOUND[not_found]
    server.will(LAUNCHED, step, step, RUNNING, step, RUNNING, step, SUCCEEDED, OUTPUT)
    operator = operator_of(kind)
    assert operator.execute(context) == "42"
    operator.on_kill()
    assert paths(server) == [kind, *["runs/get"] * 7, "runs/get-output"]


@pytest.mark.parametrize("not_found", NOT_FOUND)
def test_in_the_triggerer(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, not_found: str
) -> None:
    """A task that has deferred soon after its launch goes on waiting."""
    monkeypatch.setattr(follow, "LONGEST_PAUSE_SECONDS", 0.01)
    server.will(LAUNCHED, NOT_FOUND[not_found], RUNNING)
    before = time.time()
    with pytest.raises(TaskDeferred) as deferred:
        submit(deferrable=True).execute(context)
    trigger = deferred.value.trigger
    assert isinstance(trigger, DatabricksJobRunTrigger)
    assert before <= float(trigger.launched_at or 0) <= time.time()
    server.will(*[NOT_FOUND[not_found]] * 2, RUNNING, NOT_FOUND[not_found])
    server.will_always(SUCCEEDED)
    with no_waiting():
        (event,) = events(trigger)
    assert event["run"]["state"]["result_state"] == "SUCCESS"


def test_a_run_launched_long_ago_is_not_waited_for(context: Any, server: ScriptedServer) -> None:
    """A trigger that was stored before, or for long, takes the answer as it is."""
    for launched_at in (None, time.time() - launched_run.JUST_LAUNCHED_SECONDS):
        server.will(NOT_THERE)
        trigger = DatabricksJobRunTrigger(
            run_id=7, polling_period_seconds=0.01, launched_at=launched_at
        )
        (event,) = events(trigger)
        assert "does not exist" in event["error"]


def test_a_clock_that_is_behind_prolongs_nothing(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The triggerer's own waits count, too, where the worker's clock is an hour ahead."""
    monkeypatch.setattr(launched_run, "JUST_LAUNCHED_SECONDS", 0.05)
    server.will(*[NOT_THERE] * 1000)
    trigger = DatabricksJobRunTrigger(
        run_id=7, polling_period_seconds=0.01, launched_at=time.time() + 3600
    )
    (event,) = events(trigger)
    assert "does not exist" in event["error"]
    assert len(server.requests) < 20


def test_it_is_a_verdict_after_a_minute(
    context: Any, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Sixty seconds of looks, 5 s apart at the most; then the task fails, and cancels nothing."""
    operator = operator_of("runs/submit", polling_period_seconds=10)
    server.will(LAUNCHED, *[NOT_THERE] * 100)
    with no_waiting() as waits, pytest.raises(AirflowException, match="does not exist"):
        operator.execute(context)
    assert waits == [5.0] * 12
    assert paths(server) == ["runs/submit", *["runs/get"] * 13]


def test_a_retry_does_not_abandon_a_run_that_is_not_shown_yet(
    context: Any, server: ScriptedServer
) -> None:
    """The first try died before its launch, so this one launches with its token."""
    retrying(context)
    server.will(LAUNCHED, NOT_THERE, NOT_THERE, RUNNING, SUCCEEDED, OUTPUT)
    assert submit().execute(context) == "42"
    assert paths(server).count("runs/submit") == 1


def test_a_retry_abandons_a_run_that_is_not_there_for_a_minute(
    context: Any, server: ScriptedServer
) -> None:
    """Where a token still answers with a run that was deleted."""
    retrying(context)
    new = answer({**run("TERMINATED", "SUCCESS"), "run_id": 8})
    server.will(LAUNCHED, *[NOT_THERE] * 13, answer({"run_id": 8}), new, OUTPUT)
    with no_waiting():
        assert submit(polling_period_seconds=10).execute(context) == "42"
    assert paths(server).count("runs/submit") == 2


@pytest.mark.parametrize(
    "refused",
    [
        answer({"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}, 400),
        answer({"error_code": "INVALID_STATE", "message": "not now"}, 400),
    ],
)
def test_a_retry_abandons_no_run_that_cannot_be_read(
    context: Any, server: ScriptedServer, refused: Any
) -> None:
    """The first token has found a run, which may be live: nothing else is launched."""
    retrying(context)
    server.will(LAUNCHED, refused)
    with pytest.raises(AirflowException):
        submit().execute(context)
    assert paths(server) == ["runs/submit", "runs/get"]


def test_a_kill_just_after_the_launch(context: Any, server: ScriptedServer) -> None:
    """A cancel that does not find the run is sent again, for as long as the run may be hidden."""
    operator = operator_of("runs/submit")
    server.will(LAUNCHED, RUNNING, answer({}, 400))
    with pytest.raises(AirflowException):
        operator.execute(context)
    server.will(*NOT_FOUND.values(), *NOT_FOUND.values(), answer({}))
    with no_waiting() as waits:
        operator.on_kill()
    assert paths(server)[-7:] == ["runs/cancel"] * 7
    assert waits == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_a_run_of_a_task_that_failed_just_after_its_launch_in_the_triggerer(
    context: Any, server: ScriptedServer
) -> None:
    """The trigger's event tells when the launch was answered; the worker cancels the run."""
    operator = operator_of("runs/submit", deferrable=True)
    event = {"run_id": 7, "error": "no", "launched_at": time.time()}
    with pytest.raises(AirflowException, match="cannot be followed"):
        operator.execute_complete(context, event)
    server.will(*[NOT_THERE] * 4, answer({}))
    with no_waiting():
        fail_for_good(operator, context)
    assert paths(server) == ["runs/cancel"] * 5


@pytest.mark.parametrize(("shown_after", "attempts"), [(2, 3), (100, 6)])
def test_the_run_of_a_process_that_died_just_after_its_launch(
    context: Any,
    server: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
    shown_after: int,
    attempts: int,
) -> None:
    """Only its id is recorded. The DAG processor cancels it, and gives up after some seconds."""
    context["ti"].xcoms["run_id"] = 7
    server.will(*[NOT_THERE] * shown_after, answer({}))
    with no_waiting() as waits:
        fail_for_good(operator_of("runs/submit"), context)
    assert paths(server) == ["runs/cancel"] * attempts
    assert sum(waits) <= 12.5
    assert ("may still run" in caplog.text) is (shown_after == 100)


def test_a_run_that_is_long_gone_may_not_still_run(
    context: Any, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The failure callback finds nothing to cancel, and says just that."""
    caplog.set_level("INFO")
    operator = operator_of("runs/submit", deferrable=True)
    with pytest.raises(AirflowException, match="cannot be followed"):
        operator.execute_complete(context, {"run_id": 7, "error": MISSING})
    server.will(NOT_THERE)
    fail_for_good(operator, context)
    assert paths(server) == ["runs/cancel"]
    assert "Run 7 does not exist any more" in caplog.text
    assert "may still run" not in caplog.text


def test_a_repair_of_a_run_that_failed_at_once(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look before the repair and the look for it are repeated likewise."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_DATABRICKS_DEFAULT",
        f'{{"conn_type": "databricks_jobs", "host": "{server.url}", "password": "p",'
        ' "extra": {"api_version": "2.1"}}',
    )
    just_now: dict[str, Any] = {"start_time": int(time.time() * 1000)}
    failed = answer(run("TERMINATED", "FAILED", **just_now))
    server.will(
        LAUNCHED,
        failed,
        answer({"job_id": 3, "settings": {}}),
        NOT_THERE,
        failed,
        answer({"repair_id": 9}),
        NOT_THERE,
        RUNNING,
        SUCCEEDED,
        OUTPUT,
    )
    operator = DatabricksRunNowOperator(
        task_id="etl", job_id=3, repair_run=True, polling_period_seconds=0.01
    )
    assert operator.execute(context) == "42"


def test_the_rule_itself(server: ScriptedServer) -> None:
    """Every NotFoundError within a minute, and none after it."""
    for age, pauses in ((0.0, 12), (30.0, 6), (59.9, 1), (60.0, 0), (3600.0, 0)):
        now = 1_000_000.0 + age
        looks = follow.read_run(7, launched_at=1_000_000.0, clock=lambda: now)  # noqa: B023
        next(looks)
        for _ in range(pauses):
            step = looks.throw(NotFoundError(status=404))
            assert isinstance(step, base.Wait)
            now += step.seconds
            looks.send(None)
        with pytest.raises(NotFoundError):
            looks.throw(NotFoundError(status=404))
