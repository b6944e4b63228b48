"""The sensor by run, job and task, in each of its modes, over real HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    PokeReturnValue,
    TaskDeferred,
)

from airflow_jobs_provider.api.workflows.find import Target
from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor
from airflow_jobs_provider.triggers.sensor import DatabricksJobRunSensorTrigger
from tests.fakes.fake_service import FAULTS, FakeService, Fault
from tests.helpers.reschedules import Reschedules
from tests.helpers.sensors import Sense, sensor
from tests.helpers.tasks import fired, keep_xcoms

pytestmark = pytest.mark.usefixtures("triggerer_keeps_dags")

HOUR = 3600.0
SECOND_ATTEMPT: dict[str, Any] = {"original_attempt_run_id": 7, "attempt_number": 1}


def test_a_run_by_its_id(sense: Sense, service: FakeService, context: Any) -> None:
    """It is read until it has ended; output, id and page are pushed."""
    service.start(7)
    service.at("runs/get", 3, lambda: service.end(7))
    assert sense(run_id="7") == "output of 7"
    assert context["ti"].xcoms == {"run_id": 7, "run_page_url": "http://w/7"}
    assert service.count("runs/list") == 0


def test_a_job_that_has_no_run_yet(sense: Sense, service: FakeService, context: Any) -> None:
    """Older runs do not count; the first that starts does. One page of the list is enough."""
    for run_id in range(100, 160):
        service.start(run_id, ago=2 * HOUR + run_id)
        service.end(run_id)
    service.at("runs/list", 3, lambda: service.start(7))
    service.at("runs/get", 2, lambda: service.end(7))
    assert sense(job_id="3") == "output of 7"
    assert context["ti"].xcoms == {"run_id": 7, "run_page_url": "http://w/7"}
    lists = service.asked("runs/list")
    assert all(query["job_id"] == "3" and "offset" not in query for query in lists)


def test_a_job_that_has_run_already(sense: Sense, service: FakeService) -> None:
    """The newest run counts, and nothing is waited for."""
    for run_id, ago in ((6, 1000), (7, 500), (5, 2 * HOUR)):
        service.start(run_id, ago=ago)
        service.end(run_id)
    assert sense(job_id=3) == "output of 7"
    assert service.count("runs/list") == 1


def test_a_newer_run_that_starts_meanwhile(sense: Sense, service: FakeService) -> None:
    """The sensor goes on with the run that it found first."""
    service.start(7, ago=500)
    service.at("runs/get", 2, lambda: service.start(8))
    service.at("runs/get", 4, lambda: service.end(7))
    assert sense(job_id=3) == "output of 7"
    assert 8 in service.runs


def test_two_runs_that_start_meanwhile(sense: Sense, service: FakeService) -> None:
    """Where there was none at first, the first one counts."""
    service.at("runs/list", 3, lambda: service.start(7))
    service.at("runs/get", 2, lambda: service.start(8, ago=-1))
    service.at("runs/get", 4, lambda: service.end(7))
    assert sense(job_id=3) == "output of 7"


def test_many_runs_that_start_meanwhile(sense: Sense, service: FakeService) -> None:
    """More than a page of them: the list is read on to the one that was found first."""

    def busy() -> None:
        for run_id in range(100, 160):
            service.start(run_id, ago=-1.0 * run_id)

    service.start(7, ago=500)
    service.at("runs/get", 2, busy)
    service.at("runs/get", 4, lambda: service.end(7))
    assert sense(job_id=3) == "output of 7"


def test_a_skipped_run_has_not_started(sense: Sense, service: FakeService) -> None:
    """The service skipped it, so it does not count."""
    service.start(8, ago=100, life_cycle_state="SKIPPED")
    service.start(7, ago=500)
    service.end(7)
    assert sense(job_id=3) == "output of 7"


def test_a_job_by_its_name(sense: Sense, service: FakeService) -> None:
    """The name stands for the id."""
    service.jobs[4] = {"name": "nightly, but another one"}
    service.start(7, ago=500)
    service.at("runs/get", 2, lambda: service.end(7))
    assert sense(job_name="nightly") == "output of 7"


@pytest.mark.parametrize(
    ("name", "message"),
    [("weekly", "no job has the name 'weekly'"), ("twice", r"2 jobs have the name .* 5, 6")],
)
def test_a_job_name_without_a_single_job(
    name: str, message: str, sense: Sense, service: FakeService
) -> None:
    """The sensor fails and names the job."""
    service.jobs |= {5: {"name": "twice"}, 6: {"name": "twice"}}
    with pytest.raises(AirflowException, match=message):
        sense(job_name=name)


def test_a_failed_run(sense: Sense, service: FakeService, context: Any) -> None:
    """The sensor fails with the run's reason; which run it was is pushed all the same."""
    service.start(7, ago=500)
    service.at("runs/get", 2, lambda: service.end(7, "FAILED"))
    with pytest.raises(DatabricksRunFailedError, match="error of 7"):
        sense(job_id=3)
    assert context["ti"].xcoms["run_id"] == 7


def test_a_failed_run_with_soft_fail(sense: Sense, service: FakeService) -> None:
    """With soft_fail the task is skipped."""
    service.start(7, ago=500)
    service.end(7, "FAILED")
    with pytest.raises(AirflowSkipException, match="error of 7"):
        sense(job_id=3, soft_fail=True)


def test_the_services_own_retries(sense: Sense, service: FakeService, context: Any) -> None:
    """A job with max_retries: the last attempt, which is a run of its own, decides."""
    service.jobs[3]["max_retries"] = 2
    service.start(7, ago=5)
    service.at("runs/get", 2, lambda: service.end(7, "FAILED"))
    # A list or two later, in all ways: once to find the run, and again for the attempt.
    service.at("runs/list", 4, lambda: service.start(8, ago=-2, **SECOND_ATTEMPT))
    service.at("runs/get", 6, lambda: service.end(8))
    assert sense(job_id=3) == "output of 8"
    assert context["ti"].xcoms["run_id"] == 8


def test_a_missing_retry_of_the_service(
    service: FakeService, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sensor stops waiting for it in time, also with a new process for each poke."""
    Reschedules(monkeypatch, context["ti"]).start_poke()
    service.jobs[3]["max_retries"] = 1
    service.start(7, ago=500)
    service.end(7, "FAILED")
    assert sensor(job_id=3, mode="reschedule").poke(context) is False
    service.end(7, "FAILED", ago=61)
    with pytest.raises(DatabricksRunFailedError, match="error of 7"):
        sensor(job_id=3, mode="reschedule").poke(context)


def test_the_services_own_retries_of_a_run_that_a_trigger_found(
    service: FakeService, context: Any
) -> None:
    """They are followed as for a run that the worker found."""
    service.jobs[3]["max_retries"] = 2
    one = sensor(job_id=3, start_from_trigger=True)
    assert one.start_trigger_args is not None
    trigger = DatabricksJobRunSensorTrigger(**one.start_trigger_args.trigger_kwargs or {})
    service.start(7, ago=5)
    service.end(7, "FAILED")
    service.at("runs/list", 3, lambda: service.start(8, ago=-2, **SECOND_ATTEMPT))
    service.at("runs/get", 3, lambda: service.end(8))
    assert fired(trigger).payload["run"]["run_id"] == 8


def test_a_retry_finds_its_own_run(
    service: FakeService, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 3.0 starts a retry with the event that ended the try before, and its XComs."""
    xcoms = keep_xcoms(monkeypatch, context["ti"])
    xcoms |= {"run_id": 7, "task_run_ids": {"load": 71, "report": 72}}
    service.start(8, ago=100)
    service.end(8)
    event = {"run": {"run_id": 7, "state": {"life_cycle_state": "INTERNAL_ERROR"}}}
    one = sensor(job_id=3, deferrable=True)
    assert one.execute_complete(context, event, try_number=1) == "output of 8"
    assert xcoms["run_id"] == 8
    assert "task_run_ids" not in xcoms


def test_the_first_poke_of_a_rescheduled_sensor(
    service: FakeService, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 2 does not tell the first poke when it began; its run counts as for later pokes."""
    base = pytest.importorskip("airflow.sensors.base")
    if not hasattr(base, "_orig_start_date"):
        pytest.skip("Airflow 3 notes the end of the first poke")
    noted: list[datetime] = []
    monkeypatch.setattr(base, "_orig_start_date", lambda *_: noted[0] if noted else None)
    context["ti"].start_date = datetime.now(UTC) - timedelta(seconds=2)
    service.start(7, ago=500)
    service.start(8, ago=1)
    arguments: dict[str, Any] = {"job_id": 3, "mode": "reschedule"}
    assert sensor(**arguments).poke(context) is False
    noted.append(context["ti"].start_date)
    service.end(7)
    outcome = sensor(**arguments).poke(context)
    assert isinstance(outcome, PokeReturnValue)
    assert outcome.xcom_value == "output of 7"
    assert {query["run_id"] for query in service.asked("runs/get")} == {"7"}


def test_silent_fail(service: FakeService, context: Any) -> None:
    """After an error the next pokes look for the same run."""

    def refuse(handler: Any) -> None:
        service.start(8)
        handler.say(400, b'{"error_code": "ODD", "message": "no"}')

    service.start(7, ago=500)
    refusal = Fault(handled=False, do=refuse)
    service.at("runs/get", 1, lambda: service.trouble("runs/get", refusal))
    service.at("runs/get", 3, lambda: service.end(7))
    assert sensor(job_id=3, silent_fail=True, timeout=20).execute(context) == "output of 7"


@pytest.mark.parametrize(
    ("timeout", "execution_timeout", "least", "most"),
    [(HOUR, None, HOUR, HOUR), (HOUR, 600, 480, 500), (60, 600, 60, 60), (HOUR, 50, 0, 0)],
)
def test_execution_timeout_in_the_triggerer(
    timeout: float,
    execution_timeout: float | None,
    least: float,
    most: float,
    service: FakeService,
    context: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Airflow 3 forgets it there; it counts from the start of this try, 100 s ago."""
    service.start(7)
    context["ti"].start_date = datetime.now(UTC) - timedelta(seconds=100)
    limit = execution_timeout and timedelta(seconds=execution_timeout)
    arguments: dict[str, Any] = {"timeout": timeout, "execution_timeout": limit, "run_id": 7}
    with pytest.raises(TaskDeferred) as deferred:
        sensor(deferrable=True, **arguments).execute(context)
    assert deferred.value.timeout is not None
    assert least <= deferred.value.timeout.total_seconds() <= most
    # Airflow 3.0 begins a retry with the start of the try before.
    if execution_timeout:
        keep_xcoms(monkeypatch, context["ti"])
        with pytest.raises(TaskDeferred) as retried:
            sensor(deferrable=True, **arguments).execute_complete(context, {}, try_number=1)
        assert retried.value.timeout is not None
        expected = min(timeout, execution_timeout)
        assert expected - 20 <= retried.value.timeout.total_seconds() <= expected


def test_an_outage_before_the_run_is_found(service: FakeService, context: Any) -> None:
    """It is waited out in the triggerer."""
    one = sensor(job_id=3, deferrable=True, databricks_retry_delay=0.01)
    with pytest.raises(TaskDeferred) as deferred:
        one.execute(context)
    service.start(7)
    service.end(7)
    service.trouble("runs/list", FAULTS["503"], times=3)
    asked = service.count("runs/list")
    assert fired(deferred.value.trigger).payload["run"]["run_id"] == 7
    assert service.count("runs/list") >= asked + 4


JANUARY, FEBRUARY, MARCH = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 3))


@pytest.mark.parametrize(
    ("dag_run", "since"),
    [
        ({"data_interval_start": JANUARY}, JANUARY),
        ({"data_interval_start": None, "run_after": FEBRUARY}, FEBRUARY),
        ({"data_interval_start": None, "run_after": None, "start_date": MARCH}, MARCH),
    ],
)
def test_the_default_of_started_since(dag_run: dict[str, Any], since: datetime) -> None:
    """From the start of the data interval; a DAG run without one has a time of its own."""
    one = DatabricksJobRunSensor(task_id="wait", job_id=3)
    one.render_template_fields({"dag_run": SimpleNamespace(**dag_run)})
    target = Target.from_arguments(job_id=3, started_since=one.started_since)
    assert target.started_since == since.timestamp()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"run_id": 7, "started_since": "yesterday"}, "started_since is for job_id"),
        ({}, "exactly one of run_id, job_id and job_name must be given; none is"),
        ({"run_id": 7, "job_id": 3}, "2 are given"),
        ({"job_id": 3, "job_name": "nightly"}, "2 are given"),
    ],
)
def test_arguments_that_do_not_fit_together(given: dict[str, Any], message: str) -> None:
    """They are refused when the DAG is parsed."""
    with pytest.raises(ValueError, match=message):
        DatabricksJobRunSensor(task_id="wait", **given)


def test_an_invalid_started_since(service: FakeService, context: Any) -> None:
    """A template may render to anything."""
    with pytest.raises(AirflowFailException, match="a time in ISO 8601; it is 'yesterday'"):
        sensor(job_id=3, started_since="yesterday").poke(context)
    one = sensor(job_name="{{ '' }}")
    one.render_template_fields(context)
    with pytest.raises(AirflowFailException, match="exactly one of run_id"):
        one.poke(context)


# What Airflow's database may hold of the sensor's trigger. Never remove an argument here.
STORED_SENSOR_TRIGGER: dict[str, Any] = {
    "run_id": None,
    "job_id": 3,
    "job_name": None,
    "started_since": "2026-01-01",
    "began": 1.5,
    "task_key": None,
    "timeout_seconds": None,
    "without_effect": None,
    "databricks_conn_id": "databricks_default",
    "polling_period_seconds": 30,
    "retry_limit": None,
    "retry_delay": None,
    "retry_args": None,
    "caller": "DatabricksJobRunTrigger",
    "cancel_on_kill": False,
    "deadline": None,
    "queued_timeout_seconds": None,
    "queued_since": None,
    "follow_attempts": False,
    "life_cycle_state": None,
    "end_from_trigger": False,
    "do_xcom_push": True,
    "max_output_bytes": None,
    "launched_at": None,
    "reached_by": None,
    "output_in_event": False,
    "fail_on_partial_success": False,
    "multiple_outputs": False,
}


def test_the_triggers_stored_form() -> None:
    """All of it is text and numbers, and makes the same trigger again under the same path."""
    trigger = DatabricksJobRunSensorTrigger(job_id=3, started_since="2026-01-01", began=1.5)
    path, arguments = trigger.serialize()
    assert path == "airflow_jobs_provider.triggers.sensor.DatabricksJobRunSensorTrigger"
    assert arguments == STORED_SENSOR_TRIGGER
    assert json.loads(json.dumps(arguments)) == arguments
    assert DatabricksJobRunSensorTrigger(**arguments).serialize() == trigger.serialize()


def test_a_trigger_stored_by_an_older_version() -> None:
    """It has fewer arguments; the others get their defaults."""
    stored = {"run_id": 7, "job_id": None, "job_name": None, "polling_period_seconds": 5}
    trigger = DatabricksJobRunSensorTrigger(**stored)  # type: ignore[arg-type]
    expected = {**STORED_SENSOR_TRIGGER, "started_since": None, "began": None, "job_id": None}
    assert trigger.serialize()[1] == {**expected, "run_id": 7, "polling_period_seconds": 5}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, set()),
        ({"end_from_trigger": True}, {"end_from_trigger has no effect: it needs deferrable=True."}),
        ({"end_from_trigger": True, "deferrable": True}, set()),
        (
            {"deferrable": True, "mode": "reschedule", "exponential_backoff": True},
            {
                "mode=reschedule has no effect: the triggerer waits for the run.",
                "exponential_backoff has no effect: the triggerer waits for the run.",
            },
        ),
        (
            {"deferrable": True, "max_wait": 9, "silent_fail": True},
            {
                "max_wait has no effect: the triggerer waits for the run.",
                "silent_fail has no effect: the triggerer waits for the run.",
            },
        ),
        ({"exponential_backoff": True, "max_wait": 9, "silent_fail": True}, set()),
    ],
)
def test_arguments_without_effect_are_named(
    arguments: dict[str, Any],
    named: set[str],
    service: FakeService,
    context: Any,
    logged: Callable[[], str],
) -> None:
    """By the log of the task, not when the DAG is parsed."""
    service.start(7)
    service.end(7)
    one = sensor(run_id=7, **arguments)
    assert "has no effect" not in logged()
    one.execute(context)
    assert set(re.findall(r"[\w=]+ has no effect: .*?\.", logged())) == named
