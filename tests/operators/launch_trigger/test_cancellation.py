"""Runs that are launched in the triggerer: users' actions and time limits cancel them."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

if not hasattr(BaseTrigger, "render_template_fields"):
    pytest.skip("a worker launches every run", allow_module_level=True)

from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.exceptions import DatabricksRunTimeoutError
from tests.fakes.fake_service import FAULTS, NOT_SHOWN_YET, UNTIL_ENDED, FakeService, Plan
from tests.helpers.group_in_triggerer import until
from tests.helpers.launch_trigger import (
    pause,
    start,
    succeeded,
    until_launched,
    worker_context,
)
from tests.helpers.start_from_trigger import operator
from tests.helpers.triggerer import Attempt, Triggerer, values_of

# After that the task times out. On a busy machine the launch takes a while to be sent.
LAUNCH_SECONDS = timedelta(seconds=2)


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


def test_a_run_that_another_triggerer_has_just_launched_is_canceled(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That one has died, and the service does not show the run yet."""
    triggerer, attempt = start(service, monkeypatch), Attempt()
    until_launched(triggerer, service, attempt)
    triggerer.state = "failed"
    for endpoint in ("runs/get", "runs/cancel"):
        service.trouble(endpoint, NOT_SHOWN_YET, 2)
    with no_waiting():
        triggerer.run(lambda trigger: trigger.on_kill(), attempt)
    (run,) = service.runs.values()
    assert run.cancels == 1


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


def test_a_run_that_the_service_does_not_show_yet_is_canceled(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user marks the task right after the launch is answered: the cancel is sent again."""
    service.plan = UNTIL_ENDED
    service.trouble("runs/get", NOT_SHOWN_YET, 20)
    service.trouble("runs/cancel", NOT_SHOWN_YET, 2)
    triggerer = start(service, monkeypatch)
    triggerer.state = "failed"
    kill_by_user(triggerer, service, Attempt(), "runs/get", 2)
    (run,) = service.runs.values()
    assert (run.cancels, service.count("runs/cancel")) == (1, 3)


def test_execution_timeout_cancels_the_run(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the run is followed."""
    service.plan = UNTIL_ENDED
    triggerer = start(service, monkeypatch, execution_timeout=timedelta(seconds=1))
    event = triggerer.start(Attempt(), datetime.now(UTC) + LAUNCH_SECONDS)
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
    event = triggerer.start(Attempt(), datetime.now(UTC) + LAUNCH_SECONDS)
    (run,) = service.runs.values()
    assert (run.launches, run.cancels) == (2, 1)
    assert event.payload == {"run": {"run_id": run.run_id}, "timed_out": "execution_timeout"}


@pytest.mark.parametrize("reason", ["a user", "execution_timeout"])
def test_a_launch_without_an_answer_is_canceled_where_the_run_of_the_try_before_has_failed(
    reason: str, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first token of a retry brings the failed run, and the second one launches another."""
    service.plans.append(Plan(result="FAILED"))
    triggerer, first = start(service, monkeypatch), Attempt()
    assert triggerer.start(first).payload["run"]["state"]["result_state"] == "FAILED"
    service.plan, retry = UNTIL_ENDED, first.next_try()
    if reason == "a user":
        triggerer.state = "failed"
        kill_by_user(triggerer, service, retry, number=3)
    else:
        lost = FAULTS["time-out after handling"]
        service.at("runs/submit", 2, lambda: service.trouble("runs/submit", lost))
        event = triggerer.start(retry, datetime.now(UTC) + LAUNCH_SECONDS)
        assert event.payload == {"run": {"run_id": 1002}, "timed_out": "execution_timeout"}
    assert {number: run.cancels for number, run in service.runs.items()} == {1001: 0, 1002: 1}


@pytest.mark.parametrize("ends_by", ["execution_timeout", "a refusal", "success"])
def test_a_retry_whose_followed_run_is_canceled_launches_another(
    ends_by: str, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits of a launch hold for this one, too, and its run is not left behind."""
    service.plan = UNTIL_ENDED
    triggerer, first = start(service, monkeypatch), Attempt()
    until_launched(triggerer, service, first)
    triggerer.record(try_number=1, handed_over=True)
    number = service.count("runs/submit")
    # The retry follows the run of the first try, until that is canceled.
    follows = service.count("runs/get") + 2
    service.at("runs/get", follows, lambda: service.end(1001, "CANCELED"))

    def lose() -> None:
        if ends_by == "execution_timeout":
            service.trouble("runs/submit", FAULTS["time-out after handling"])
        elif ends_by == "a refusal":
            service.trouble("runs/submit", FAULTS["lost answer"])
            service.trouble("runs/submit", FAULTS["403"])
        else:
            service.plan = Plan()

    service.at("runs/submit", number + 1, lose)
    limit = LAUNCH_SECONDS * 2 if ends_by == "execution_timeout" else timedelta(minutes=5)
    event = triggerer.start(first.next_try(), datetime.now(UTC) + limit)
    assert set(service.runs) == {1001, 1002}
    if ends_by == "execution_timeout":
        assert event.payload == {"run": {"run_id": 1002}, "timed_out": "execution_timeout"}
        assert service.runs[1002].cancels == 1
    elif ends_by == "a refusal":
        assert event.payload["run_id"] == 1002
    else:
        assert values_of(triggerer)["return_value"] == "output of 1002"


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


def test_execution_timeout_is_over_while_the_triggerer_is_paused(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was following the run, which a retry follows by now: it cancels nothing."""
    service.plan = UNTIL_ENDED
    triggerer = start(service, monkeypatch)

    def wake_up_late() -> None:
        triggerer.record(try_number=2, handed_over=True)
        pause(monkeypatch)

    service.at("runs/get", 2, wake_up_late)

    async def wait(trigger: Any) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(triggerer.first_event(trigger), 4)

    triggerer.run(wait, Attempt(), datetime.now(UTC) + LAUNCH_SECONDS)
    (run,) = service.runs.values()
    assert (run.launches, run.cancels) == (1, 0)
    assert service.count("runs/get") > 1


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


@pytest.mark.parametrize("is_answered", [True, False])
def test_execution_timeout_of_an_attempt_that_is_known_to_be_over_cancels_nothing(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, *, is_answered: bool
) -> None:
    """A retry follows the run. Airflow has not canceled the trigger yet when the time is over."""
    service.plan = UNTIL_ENDED
    triggerer = start(service, monkeypatch)

    def wake_up_late() -> None:
        triggerer.record(try_number=2, handed_over=True)
        pause(monkeypatch)

    if not is_answered:
        service.trouble("runs/submit", FAULTS["lost answer"])
    service.at("runs/submit", 1, wake_up_late)

    async def wait(trigger: Any) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(triggerer.first_event(trigger), 4)

    triggerer.run(wait, Attempt(), datetime.now(UTC) + LAUNCH_SECONDS)
    (run,) = service.runs.values()
    assert (run.launches, run.cancels) == (1, 0)


def test_a_run_that_has_succeeded_before_execution_timeout_is_not_canceled(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its XComs were waiting for those of other tasks meanwhile. The task succeeds with all."""
    service.plan = Plan(looks=0)
    triggerer = start(service, monkeypatch)
    answer = triggerer._answer

    def hold(msg: Any) -> Any:
        if getattr(msg, "key", "") == "job_id":
            time.sleep(LAUNCH_SECONDS.total_seconds() + 1)
        return answer(msg)

    monkeypatch.setattr(triggerer, "_answer", hold)
    event = triggerer.start(Attempt(), datetime.now(UTC) + LAUNCH_SECONDS)
    assert succeeded(event)
    (run,) = service.runs.values()
    assert run.cancels == 0
    assert values_of(triggerer) == {
        "run_id": run.run_id,
        "job_id": run.job_id,
        "run_page_url": f"http://workspace.invalid/#job/{run.job_id}/run/{run.run_id}",
        "return_value": f"output of {run.run_id}",
    }


def test_the_cancel_after_execution_timeout_goes_on_if_airflow_ends_the_trigger(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service does not answer yet whether the run has succeeded. Airflow calls no on_kill."""
    service.plan = UNTIL_ENDED
    triggerer = start(service, monkeypatch)
    answer, launched, is_over = triggerer._answer, threading.Event(), threading.Event()

    def hold(msg: Any) -> Any:
        if getattr(msg, "key", "") == "job_id":
            launched.set()
            assert is_over.wait(20)
        return answer(msg)

    monkeypatch.setattr(triggerer, "_answer", hold)

    async def end(trigger: Any) -> None:
        starting = asyncio.ensure_future(triggerer.first_event(trigger))
        assert await asyncio.to_thread(launched.wait, 20)
        with service.holding("runs/get") as asked:
            assert await asyncio.to_thread(asked.wait, 20)
            starting.cancel()
            await asyncio.wait({starting})
        is_over.set()
        await until(lambda: service.runs[1001].cancels == 1)

    deadline = datetime.now(UTC) + 3 * LAUNCH_SECONDS
    triggerer.run(lambda trigger: asyncio.wait_for(end(trigger), 30), Attempt(), deadline)
