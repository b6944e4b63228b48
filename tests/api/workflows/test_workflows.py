"""The workflows and their two drivers, with no client: every answer is the test's."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest

from airflow_jobs_provider.api.endpoints import Call, Page, get_run, run_now
from airflow_jobs_provider.api.errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    RateLimitError,
    ServerError,
    UnexpectedResponseError,
)
from airflow_jobs_provider.api.workflows.base import (
    Wait,
    Workflow,
    WorkflowExecution,
    run_workflow,
    run_workflow_async,
)
from airflow_jobs_provider.api.workflows.events import Event, LaunchPrepared, RunIdentified
from airflow_jobs_provider.api.workflows.follow import Ended, follow_run
from airflow_jobs_provider.api.workflows.launch import Launched, launch_once
from airflow_jobs_provider.api.workflows.progress import RunProgress
from tests.helpers.workflow_driver import WorkflowDriver


def run(life: str, result: str | None = None, run_id: int = 7, **more: Any) -> Any:
    """Make a run."""
    return {"run_id": run_id, "state": {"life_cycle_state": life, "result_state": result}, **more}


RUNNING, SUCCEEDED = run("RUNNING"), run("TERMINATED", "SUCCESS")
FAILED, CANCELED = run("TERMINATED", "FAILED"), run("TERMINATED", "CANCELED")
TERMINATING = run("TERMINATING")
GONE = NotFoundError(status=400, api_message="Run 7 does not exist.")


def launch(service: WorkflowDriver, tokens: list[str], first: int = 0) -> Launched:
    """Launch with these tokens."""
    steps = launch_once(
        run_now({"job_id": 1}),
        tokens,
        first_attempt_index=first,
        polling_period_seconds=5,
        clock=lambda: service.now,
    )
    launched = service.execute(steps)
    assert isinstance(launched, Launched)
    assert service.identified[-1] == launched.run_id
    assert launched.launched_at is not None
    assert launched.is_own == (launched.attempt_index == len(tokens) - 1)
    return replace(launched, launched_at=None, is_own=True)


@pytest.mark.parametrize("found", [RUNNING, SUCCEEDED, FAILED, CANCELED, TERMINATING])
def test_the_first_try_takes_what_it_gets(found: Any) -> None:
    """One launch, one look, whatever the state."""
    service = WorkflowDriver(7, found)
    assert launch(service, ["a"]) == Launched(7, found, 0)
    assert service.asked == ["run-now a", "runs/get 7"]


@pytest.mark.parametrize("found", [RUNNING, SUCCEEDED, run("QUEUED"), run("A_NEW_STATE")])
def test_a_retry_takes_an_earlier_tries_run_that_is_active_or_succeeded(
    found: Any,
) -> None:
    """The worker died, the run did not: nothing is launched again."""
    service = WorkflowDriver(7, found)
    assert launch(service, ["a", "b", "c"]) == Launched(7, found, 0)
    assert service.asked == ["run-now a", "runs/get 7"]


@pytest.mark.parametrize("bad", [FAILED, CANCELED, run("SKIPPED"), run("INTERNAL_ERROR", "FAILED")])
def test_a_retry_launches_anew_after_a_bad_end(bad: dict[str, Any]) -> None:
    """One new run for each retry of Airflow's."""
    new = run("PENDING", run_id=8)
    service = WorkflowDriver(7, bad, 8, new)
    assert launch(service, ["a", "b"]) == Launched(8, new, 1)
    assert service.asked == ["run-now a", "runs/get 7", "run-now b", "runs/get 8"]


def test_a_deleted_run_counts_as_badly_ended() -> None:
    """Its token is an error from then on; so is its id."""
    for answers in ((GONE,), (7, *[GONE] * 13)):
        new = run("PENDING", run_id=8)
        assert launch(WorkflowDriver(*answers, 8, new), ["a", "b"]) == Launched(8, new, 1)


def test_a_run_that_is_being_terminated_is_waited_for() -> None:
    """The next try must know how it ends before it launches."""
    new = run("PENDING", run_id=8)
    service = WorkflowDriver(7, TERMINATING, TERMINATING, CANCELED, 8, new)
    assert launch(service, ["a", "b"]) == Launched(8, new, 1)
    assert service.now == 1_000_010
    assert launch(WorkflowDriver(7, TERMINATING, SUCCEEDED), ["a", "b"]) == Launched(
        7, SUCCEEDED, 0
    )


def test_the_walk_can_go_on() -> None:
    """After an adopted run was cancelled, the tokens after its own have their turn."""
    new = run("PENDING", run_id=9)
    service = WorkflowDriver(8, CANCELED, 9, new)
    assert launch(service, ["a", "b", "c"], first=1) == Launched(9, new, 2)
    assert service.asked[0] == "run-now b"


def test_a_refusal_comes_through() -> None:
    """A request that cannot succeed is told with the last token's error; others with the first."""
    code = "INVALID_PARAMETER_VALUE"
    refused = [BadRequestError(status=400, error_code=code, api_message=f"no {n}") for n in (1, 2)]
    with pytest.raises(BadRequestError, match="no 2"):
        launch(WorkflowDriver(*refused), ["a", "b"])
    with pytest.raises(AuthenticationError):
        launch(WorkflowDriver(AuthenticationError(status=403)), ["a", "b"])
    with pytest.raises(BadRequestError, match="QUOTA_EXCEEDED"):
        launch(WorkflowDriver(BadRequestError(status=400, error_code="QUOTA_EXCEEDED")), ["a", "b"])


def follow(service: WorkflowDriver, **options: Any) -> Ended:
    """Follow run 7, polling every 10 seconds."""
    steps = follow_run(
        7,
        polling_period=lambda: 10,
        progress=RunProgress(7, logging.getLogger("task")),
        clock=lambda: service.now,
        **options,
    )
    ended = service.execute(steps)
    assert isinstance(ended, Ended)
    return ended


def test_a_run_is_followed_to_its_end() -> None:
    """Look, wait, look; a look already taken is not taken again."""
    service = WorkflowDriver(RUNNING, run("A_NEW_STATE"), SUCCEEDED)
    assert follow(service) == Ended(SUCCEEDED)
    assert service.now == 1_000_020
    service = WorkflowDriver(SUCCEEDED)
    assert follow(service, first_look=RUNNING) == Ended(SUCCEEDED)


def test_a_run_that_does_not_begin_is_given_up() -> None:
    """Queued and pending time counts from the run's start_time; running time does not count."""
    since: dict[str, Any] = {"start_time": (1_000_000 - 95) * 1000}
    service = WorkflowDriver(*[run("PENDING", **since)] * 9)
    assert follow(service, queued_timeout_seconds=100).queued_too_long
    assert service.now == 1_000_010
    service = WorkflowDriver(*[run("RUNNING", **since)] * 50, SUCCEEDED)
    assert follow(service, queued_timeout_seconds=100) == Ended(SUCCEEDED)
    service = WorkflowDriver(*[run("QUEUED")] * 50)
    assert follow(service, queued_timeout_seconds=100).queued_too_long
    assert service.now == 1_000_100


def attempt(number: int, result: str, run_id: int = 7) -> Any:
    """Make an attempt of a job's run as API 2.0 shows it."""
    return run(
        "TERMINATED",
        result,
        run_id,
        job_id=3,
        run_type="JOB_RUN",
        attempt_number=number,
        original_attempt_run_id=7,
        start_time=1000 + number,
    )


def job(**settings: Any) -> dict[str, Any]:
    """Make a job."""
    return {"job_id": 3, "settings": settings}


def page(*runs: dict[str, Any]) -> Page[dict[str, Any]]:
    """Make the only page of a list of runs."""
    return Page(list(runs), None)


def test_the_services_own_retries_are_followed() -> None:
    """The run that run-now gave stays FAILED; the last attempt is what counts."""
    first, second, third = attempt(0, "FAILED"), attempt(1, "FAILED", 8), attempt(2, "SUCCESS", 9)
    settings = job(max_retries=3, min_retry_interval_millis=15_000)
    service = WorkflowDriver(
        first,
        settings,
        page(first),  # not there yet
        page(second, first),
        settings,
        page(third, second, first),
    )
    assert follow(service) == Ended(third)
    assert service.identified == [8, 9]


@pytest.mark.parametrize(
    ("last", "settings"),
    [
        (attempt(0, "FAILED"), job()),
        (attempt(0, "FAILED"), job(max_retries=0)),
        (attempt(2, "FAILED"), job(max_retries=2)),
        (attempt(0, "TIMEDOUT"), job(max_retries=2)),
        (attempt(0, "FAILED"), NotFoundError(status=400)),
        (attempt(0, "FAILED"), AuthenticationError(status=403)),
        (attempt(0, "FAILED"), BadRequestError(status=400, error_code="PERMISSION_DENIED")),
    ],
)
def test_where_the_service_does_not_retry(last: Any, settings: Any) -> None:
    """No retries left, none on time-outs, or a job that cannot be read: the run is the last."""
    service = WorkflowDriver(last, settings)
    assert follow(service) == Ended(last)
    assert service.asked == ["runs/get 7", "get 3"]


@pytest.mark.parametrize(
    "last",
    [
        attempt(0, "SUCCESS"),
        attempt(0, "CANCELED"),
        attempt(0, "SUCCESS_WITH_FAILURES"),
        {**attempt(0, "FAILED"), "run_type": "SUBMIT_RUN"},
        {**attempt(0, "FAILED"), "job_id": None},
    ],
)
def test_where_nothing_is_to_be_retried(last: Any) -> None:
    """The job is not even asked for."""
    service = WorkflowDriver(last)
    assert follow(service) == Ended(last)
    assert service.asked == ["runs/get 7"]


def test_a_retry_on_timeout() -> None:
    """A job that says so is retried after a time-out, too; -1 is without end."""
    first, second = attempt(0, "TIMEDOUT"), attempt(1, "SUCCESS", 8)
    service = WorkflowDriver(first, job(max_retries=-1, retry_on_timeout=True), page(second, first))
    assert follow(service) == Ended(second)


def test_a_retry_that_never_comes() -> None:
    """After its interval and a minute of grace, the run that failed is the last."""
    last = attempt(0, "FAILED")
    service = WorkflowDriver(
        last, job(max_retries=1, min_retry_interval_millis=30_000), *[page(last)] * 50
    )
    assert follow(service) == Ended(last)
    assert service.now == 1_000_090


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError(status=401),
        BadRequestError(status=400, error_code="INVALID_STATE"),
        RateLimitError(status=429),
        ServerError(status=503),
        UnexpectedResponseError(status=200),
    ],
)
def test_an_error_does_not_mean_that_nothing_is_retried(error: APIStatusError) -> None:
    """What the job's settings or its runs cannot be read for is told, be it so after all tries."""
    last = attempt(0, "FAILED")
    with pytest.raises(type(error)):
        follow(WorkflowDriver(last, error))
    with pytest.raises(type(error)):
        follow(WorkflowDriver(last, job(max_retries=1), *[error] * 50))


def test_an_odd_list_of_attempts_is_read_again() -> None:
    """The next attempt is found as soon as the list is what it should be."""
    first, second = attempt(0, "FAILED"), attempt(1, "SUCCESS", 8)
    stuck = Page([first], "a"), Page([first], "a")
    service = WorkflowDriver(first, job(max_retries=1), *stuck, page(second, first))
    assert follow(service) == Ended(second)
    assert service.now == 1_000_010


def test_attempts_can_be_left_alone() -> None:
    """Where the run itself is what counts."""
    last = attempt(0, "FAILED")
    assert follow(WorkflowDriver(last), follow_attempts=False) == Ended(last)


# -- the drivers ----------------------------------------------------------------------------------

RATE_LIMITED = RateLimitError(status=429)


def every_kind_of_step() -> Workflow[list[Any]]:
    """Yield calls, waits and events; return what the calls brought."""
    yield LaunchPrepared(run_now({"job_id": 1}))
    brought: list[Any] = [(yield run_now({"job_id": 1}))]
    yield RunIdentified(7)
    yield Wait(1)
    yield Wait(2)
    try:
        yield get_run(7)
    except RateLimitError as error:
        brought.append(error)
    yield RunIdentified(8)
    brought.append((yield get_run(8)))
    return brought


class Recorder:
    """Notes what a driver does, in order."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.answers = [7, RATE_LIMITED, RUNNING]

    def send(self, call: Call[Any]) -> Any:
        """Give the next answer."""
        self.done.append(call.path)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def on_event(self, event: Event) -> None:
        """Note an event."""
        self.done.append(type(event).__name__)

    def before_step(self) -> None:
        """Note that a step is next."""
        self.done.append(".")


EXPECTED_STEPS = [
    *(".", "LaunchPrepared", ".", "run-now", "RunIdentified", 1, ".", 2, "."),
    *(".", "runs/get", "RunIdentified", ".", "runs/get"),
]


def test_the_blocking_driver_takes_each_step_once_and_in_order() -> None:
    """Calls are sent, waits waited, events told; errors come back into the workflow."""
    recorder = Recorder()
    result = run_workflow(
        every_kind_of_step(),
        send=recorder.send,
        wait=recorder.done.append,
        on_event=recorder.on_event,
        before_step=recorder.before_step,
    )
    assert result == [7, RATE_LIMITED, RUNNING]
    assert recorder.done == EXPECTED_STEPS


def test_the_asyncio_driver_does_the_same() -> None:
    """Both drivers take the same steps in the same order."""
    recorder = Recorder()

    async def send(call: Call[Any]) -> Any:
        await asyncio.sleep(0)
        return recorder.send(call)

    async def wait(seconds: float) -> None:
        await asyncio.sleep(0)
        recorder.done.append(seconds)

    result = asyncio.run(
        run_workflow_async(
            every_kind_of_step(),
            send=send,
            wait=wait,
            on_event=recorder.on_event,
            before_step=recorder.before_step,
        )
    )
    assert result == [7, RATE_LIMITED, RUNNING]
    assert recorder.done == EXPECTED_STEPS


def test_an_execution_stops_at_a_wait_and_goes_on_later() -> None:
    """So a sensor goes on at its next poke."""
    recorder = Recorder()
    execution = WorkflowExecution(every_kind_of_step())
    assert execution.advance(recorder.send) == Wait(1)
    assert recorder.done == ["run-now"]
    assert execution.advance(recorder.send) == Wait(2)
    assert execution.advance(recorder.send) is None
    assert execution.result == [7, RATE_LIMITED, RUNNING]
    assert recorder.done == ["run-now", "runs/get", "runs/get"]


def test_what_is_raised_before_a_step_ends_the_workflow() -> None:
    """The step is not taken: a killed task sends nothing more."""
    recorder = Recorder()
    steps_left = 2

    def before_step() -> None:
        nonlocal steps_left
        steps_left -= 1
        if steps_left < 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_workflow(
            every_kind_of_step(),
            send=recorder.send,
            wait=recorder.done.append,
            before_step=before_step,
        )
    assert recorder.done == ["run-now", 1]


def test_an_error_that_the_workflow_does_not_handle_is_raised() -> None:
    """Only the workflow knows which errors it can do with."""
    recorder = Recorder()
    recorder.answers = [ServerError(status=500)]
    with pytest.raises(ServerError):
        run_workflow(every_kind_of_step(), send=recorder.send, wait=recorder.done.append)
