"""Launches in the triggerer: one run for each try, whatever dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

if not hasattr(BaseTrigger, "render_template_fields"):
    pytest.skip("a worker launches every run", allow_module_level=True)

from airflow.providers.common.compat.sdk import AirflowException, TaskDeferred

from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt
from airflow_jobs_provider.api.retry import no_waiting
from tests.fakes.fake_service import FAULTS, NOT_SHOWN_YET, UNTIL_ENDED, FakeService, Fault, Plan
from tests.helpers.group_in_triggerer import until
from tests.helpers.launch_trigger import pause, start, succeeded, until_launched, worker_context
from tests.helpers.start_from_trigger import operator
from tests.helpers.tasks import fail_for_good
from tests.helpers.triggerer import (
    RUN_ID,
    START,
    Attempt,
    comes_at_each_start,
    comms,
    counted,
    values_of,
)


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
    survived = []
    for moment in counted(moments):
        service.forget()
        triggerer = start(service, monkeypatch)
        triggerer.stores_xcoms = stores_xcoms
        attempt = Attempt()
        triggerer.die_at = moment
        event = triggerer.start(attempt)
        triggerer.die_at = None
        if triggerer.is_dead:
            event = triggerer.start(attempt)
        else:
            survived.append(moment)
        assert succeeded(event), moment
        (run,) = service.runs.values()
        assert values_of(triggerer)["return_value"] == f"output of {run.run_id}", moment
        assert (run.cancels, run.beside) == (0, 0)
    assert not any(map(comes_at_each_start, survived)), survived


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({}, 0),
        ({"reattach": False}, 0),
        ({"reattach": False, "idempotency_token": "own-{{ ds }}"}, 1),
    ],
)
def test_an_argument_without_effect_is_logged(
    arguments: dict[str, Any],
    count: int,
    service: FakeService,
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], str],
) -> None:
    """By the trigger, where no worker has a part in the task."""
    triggerer = start(service, monkeypatch, **arguments)
    assert succeeded(triggerer.start(Attempt()))
    log = logged()
    line = "reattach=False has no effect: idempotency_token decides which run a try gets."
    assert (log.count(line), log.count("has no effect")) == (count, count)


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


@pytest.mark.parametrize("retries", [0, 1, 5])
def test_a_retry_follows_the_run_also_with_other_retries_in_the_dag_file(
    retries: int, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file was changed after the first try. Airflow keeps ``max_tries``, and so the tokens."""
    triggerer = start(service, monkeypatch, retries=2)
    first = Attempt()
    until_launched(triggerer, service, first)
    with no_waiting():
        service.accepts = set()
        triggerer.start(first)
    service.accepts = None
    changed = start(service, monkeypatch, retries=retries)
    changed.xcoms = triggerer.xcoms
    service.end(1001)
    assert succeeded(changed.start(first.next_try()))
    (run,) = service.runs.values()
    assert (run.run_id, run.cancels) == (1001, 0)


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


@pytest.mark.parametrize("launched_by", ["this attempt", "one before a clear", "none"])
def test_a_triggerer_that_takes_over_looks_for_the_connection_again(
    launched_by: str, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its secrets backend fails for a moment. A task that has launched nothing fails at once."""
    triggerer = start(service, monkeypatch)
    attempt, looked_up = Attempt(), []
    if launched_by != "none":
        until_launched(triggerer, service, attempt)
    if launched_by == "this attempt":
        service.end(1001)
    elif launched_by == "one before a clear":
        attempt = attempt.cleared()
    monkeypatch.delenv("AIRFLOW_CONN_DATABRICKS_DEFAULT")

    def answer(msg: Any, answered: Any = triggerer._answer) -> Any:
        if type(msg).__name__ != "GetConnection":
            return answered(msg)
        looked_up.append(msg)
        if len(looked_up) == 2:
            monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", service.connection)
        return comms.ErrorResponse(error="CONNECTION_NOT_FOUND", detail={"conn_id": msg.conn_id})

    monkeypatch.setattr(triggerer, "_answer", answer)
    with no_waiting():
        event = triggerer.start(attempt)
    runs = [(run.launches, run.cancels) for run in service.runs.values()]
    if launched_by == "this attempt":
        assert succeeded(event)
        assert runs == [(2, 0)]
    elif launched_by == "one before a clear":
        assert succeeded(event)
        assert runs == [(1, 1), (1, 0)]
    else:
        assert event.payload["is_launch"]
        assert "databricks_default" in event.payload["error"]
    assert len(looked_up) == 2


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


@pytest.mark.parametrize(
    ("endpoints", "fault"),
    [
        (("runs/get", "runs/cancel"), NOT_SHOWN_YET),
        (("runs/get",), FAULTS["503"]),
        (("runs/cancel",), FAULTS["503"]),
    ],
)
def test_the_run_of_an_attempt_before_a_clear_is_canceled_also_in_an_outage(
    endpoints: tuple[str, ...], fault: Fault, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where the service does not show it yet. No triggerer has canceled it."""
    triggerer, first = start(service, monkeypatch), Attempt()
    until_launched(triggerer, service, first)
    for endpoint in endpoints:
        service.trouble(endpoint, fault, 4)
    with no_waiting():
        assert succeeded(triggerer.start(first.cleared()))
    left, again = service.runs.values()
    assert (left.cancels, again.cancels) == (1, 0)


def test_that_run_is_canceled_also_if_a_user_marks_the_task_meanwhile(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service has not answered yet whether the run is active."""
    triggerer, first = start(service, monkeypatch), Attempt()
    until_launched(triggerer, service, first)

    async def mark(trigger: Any) -> None:
        with service.holding("runs/get") as asked:
            starting = asyncio.ensure_future(triggerer.first_event(trigger))
            assert await asyncio.to_thread(asked.wait, 10)
            triggerer.state = "failed"
            starting.cancel()
            await asyncio.wait({starting})
            await trigger.on_kill()
        await until(lambda: service.runs[1001].cancels == 1)

    triggerer.run(lambda trigger: asyncio.wait_for(mark(trigger), 10), first.cleared())
    assert len(service.runs) == 1


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


def test_nothing_is_launched_after_a_pause_without_airflows_answer(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows whether a later attempt has begun: a worker starts the task, if it has not."""
    triggerer = start(service, monkeypatch)
    triggerer.unreadable.add("etl")

    async def start_late(trigger: Any) -> Any:
        pause(monkeypatch)
        return await triggerer.first_event(trigger)

    event = triggerer.run(start_late, Attempt())
    assert "XCom" in event.payload["start_on_worker"]
    assert service.count("runs/submit") == 0


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


@pytest.mark.parametrize("is_launched", [True, False])
def test_a_worker_goes_on_with_a_task_that_was_changed(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, *, is_launched: bool
) -> None:
    """It does not start in the triggerer any more, while an attempt of it waits there.

    Another triggerer takes the attempt over.
    """
    triggerer, attempt = start(service, monkeypatch), Attempt()
    if is_launched:
        until_launched(triggerer, service, attempt)
    triggerer.is_changed = True
    event = triggerer.start(attempt)
    reason = "a task that does not start in the triggerer any more"
    assert event.payload == {"start_on_worker": reason}
    service.plan = UNTIL_ENDED
    task = operator(start_from_trigger=False, deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        task.execute_complete(worker_context(triggerer), event.payload)
    (run,) = service.runs.values()
    assert run.cancels == 0
    trigger: Any = deferred.value.trigger
    assert trigger.run_id == run.run_id


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


@pytest.mark.parametrize("retry_is_left", [True, False])
def test_a_refusal_after_a_lost_response_leaves_the_run_to_the_retry_or_cancels_it(
    retry_is_left: bool, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launch is sent once more for the run's id, as on a worker."""
    service.plan = UNTIL_ENDED
    service.trouble("runs/submit", FAULTS["lost answer"])
    service.trouble("runs/submit", FAULTS["403"])
    triggerer, first = start(service, monkeypatch), Attempt()
    with no_waiting():
        event = triggerer.start(first)
    task, context = operator(), worker_context(triggerer)
    with pytest.raises(AirflowException, match=r"Run 1001 cannot be followed: runs/submit: .*403"):
        task.execute_complete(context, event.payload)
    (run,) = service.runs.values()
    if retry_is_left:
        service.end(run.run_id)
        assert succeeded(triggerer.start(first.next_try()))
    else:
        # The service does not show the run yet.
        service.trouble("runs/cancel", NOT_SHOWN_YET, 4)
        with no_waiting():
            fail_for_good(task, context)
    assert (list(service.runs), run.cancels) == ([1001], int(not retry_is_left))
