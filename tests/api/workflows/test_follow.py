"""Tests of follow_run: the wait for a run's end and for the service's own retries."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from airflow_jobs_provider.api.calls import Page
from airflow_jobs_provider.api.errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    RateLimitError,
    ServerError,
    UnexpectedResponseError,
)
from airflow_jobs_provider.api.workflows.base import run_workflow
from airflow_jobs_provider.api.workflows.follow import FollowResult, follow_run, read_run, whole_run
from airflow_jobs_provider.api.workflows.launched_run import JUST_LAUNCHED_SECONDS
from airflow_jobs_provider.api.workflows.progress import RunProgress
from tests.helpers.workflow_driver import GONE, RUNNING, SUCCEEDED, WorkflowDriver, run


def follow(driver: WorkflowDriver, **options: Any) -> FollowResult:
    """Follow run 7, polling every 10 seconds."""
    steps = follow_run(
        7,
        polling_period=lambda: 10,
        progress=RunProgress(7, logging.getLogger("task")),
        clock=lambda: driver.now,
        **options,
    )
    ended = driver.execute(steps)
    assert isinstance(ended, FollowResult)
    return ended


def test_a_run_is_followed_to_its_end() -> None:
    """Look, wait, look; a look already taken is not taken again."""
    driver = WorkflowDriver(RUNNING, run("A_NEW_STATE"), SUCCEEDED)
    assert follow(driver) == FollowResult(SUCCEEDED)
    assert driver.now == 1_000_020
    driver = WorkflowDriver(SUCCEEDED)
    assert follow(driver, first_look=RUNNING) == FollowResult(SUCCEEDED)


def test_a_run_that_does_not_start_in_time_is_not_waited_for() -> None:
    """Queued and pending time counts from the run's start_time; running time does not count."""
    since: dict[str, Any] = {"start_time": (1_000_000 - 95) * 1000}
    driver = WorkflowDriver(*[run("PENDING", **since)] * 9)
    assert follow(driver, queued_timeout_seconds=100).queued_too_long
    assert driver.now == 1_000_010
    driver = WorkflowDriver(*[run("RUNNING", **since)] * 50, SUCCEEDED)
    assert follow(driver, queued_timeout_seconds=100) == FollowResult(SUCCEEDED)
    driver = WorkflowDriver(*[run("QUEUED")] * 50)
    assert follow(driver, queued_timeout_seconds=100).queued_too_long
    assert driver.now == 1_000_100


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


def test_the_drivers_own_retries_are_followed() -> None:
    """The run that run-now gave stays FAILED; the last attempt is what counts."""
    first, second, third = attempt(0, "FAILED"), attempt(1, "FAILED", 8), attempt(2, "SUCCESS", 9)
    settings = job(max_retries=3, min_retry_interval_millis=15_000)
    driver = WorkflowDriver(
        first,
        settings,
        page(first),  # not there yet
        page(second, first),
        settings,
        page(third, second, first),
    )
    assert follow(driver) == FollowResult(third)
    assert driver.identified == [8, 9]


@pytest.mark.parametrize(
    ("last", "settings"),
    [
        (attempt(0, "FAILED"), job()),
        (attempt(0, "FAILED"), job(max_retries=0)),
        (attempt(1, "FAILED"), job(max_retries=1)),
        (attempt(2, "FAILED"), job(max_retries=2)),
        (attempt(0, "TIMEDOUT"), job(max_retries=2)),
        (attempt(0, "FAILED"), NotFoundError(status=400)),
        (attempt(0, "FAILED"), AuthenticationError(status=403)),
        (attempt(0, "FAILED"), BadRequestError(status=400, error_code="PERMISSION_DENIED")),
    ],
)
def test_no_attempt_is_waited_for_if_the_job_has_no_retry_left(last: Any, settings: Any) -> None:
    """No retries left, none on time-outs, or a job that cannot be read: the run is the last."""
    driver = WorkflowDriver(last, settings)
    assert follow(driver) == FollowResult(last)
    assert driver.asked == ["runs/get 7", "get 3"]


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
def test_the_job_is_not_read_if_the_run_is_not_retried(last: Any) -> None:
    """The job is not even asked for."""
    driver = WorkflowDriver(last)
    assert follow(driver) == FollowResult(last)
    assert driver.asked == ["runs/get 7"]


def test_a_retry_on_timeout() -> None:
    """A job that says so is retried after a time-out, too; -1 is without end."""
    first, second = attempt(0, "TIMEDOUT"), attempt(1, "SUCCESS", 8)
    driver = WorkflowDriver(first, job(max_retries=-1, retry_on_timeout=True), page(second, first))
    assert follow(driver) == FollowResult(second)


def test_a_missing_attempt_is_waited_for_one_minute() -> None:
    """After its interval and a minute of grace, the run that failed is the last."""
    last = attempt(0, "FAILED")
    driver = WorkflowDriver(
        last, job(max_retries=1, min_retry_interval_millis=30_000), *[page(last)] * 50
    )
    assert follow(driver) == FollowResult(last)
    assert driver.now == 1_000_090


@pytest.mark.parametrize(("interval_millis", "seconds"), [(0, 60), (500, 70), (20_000_000, 20_060)])
def test_the_minute_begins_after_the_jobs_interval(interval_millis: int, seconds: int) -> None:
    """The list is read every ten seconds."""
    last = attempt(0, "FAILED")
    settings = job(max_retries=1, min_retry_interval_millis=interval_millis)
    driver = WorkflowDriver(last, settings, *[page(last)] * 3000)
    assert follow(driver) == FollowResult(last)
    assert driver.now == 1_000_000 + seconds


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
def test_an_error_while_looking_for_the_next_attempt_is_raised(error: APIStatusError) -> None:
    """What the job's settings or its runs cannot be read for is told, be it so after all tries."""
    last = attempt(0, "FAILED")
    with pytest.raises(type(error)):
        follow(WorkflowDriver(last, error))
    with pytest.raises(type(error)):
        follow(WorkflowDriver(last, job(max_retries=1), *[error] * 50))


def test_a_list_that_does_not_advance_is_read_again() -> None:
    """The next attempt is found as soon as the list is what it should be."""
    first, second = attempt(0, "FAILED"), attempt(1, "SUCCESS", 8)
    stuck = Page([first], "a"), Page([first], "a")
    driver = WorkflowDriver(first, job(max_retries=1), *stuck, page(second, first))
    assert follow(driver) == FollowResult(second)
    assert driver.now == 1_000_010


def test_attempts_are_not_followed_if_not_wanted() -> None:
    """Where the run itself is what counts."""
    last = attempt(0, "FAILED")
    assert follow(WorkflowDriver(last), follow_attempts=False) == FollowResult(last)


GONE_IN_2_1 = APIStatusError(status=404)


def reading(driver: WorkflowDriver, **options: Any) -> Any:
    """Read run 7."""
    return driver.execute(read_run(7, clock=lambda: driver.now, **options))


def test_a_run_is_read() -> None:
    """With its repairs only if they are asked for."""
    calls: list[Any] = []

    class Driver(WorkflowDriver):
        def send(self, call: Any) -> Any:
            calls.append(call.parameters)
            return super().send(call)

    assert reading(Driver(RUNNING)) is RUNNING
    assert reading(Driver(RUNNING), include_history=True) is RUNNING
    assert calls == [{"run_id": 7}, {"run_id": 7, "include_history": True}]


@pytest.mark.parametrize("error", [GONE, GONE_IN_2_1])
@pytest.mark.parametrize(("options", "pause"), [({}, 5), ({"period": 2}, 2), ({"period": 60}, 5)])
def test_a_run_that_was_just_launched_may_not_be_shown_yet(
    error: APIStatusError, options: dict[str, Any], pause: float
) -> None:
    """It is read again after the period, or after five seconds, whichever is less."""
    driver = WorkflowDriver(error, error, RUNNING)
    assert reading(driver, launched_at=driver.now, **options) is RUNNING
    assert driver.now == 1_000_000 + 2 * pause


def test_a_run_that_stays_away_is_not_there() -> None:
    """After a minute by this clock, or of waits where the launch was timed by another one."""
    driver = WorkflowDriver(*[GONE] * 99)
    with pytest.raises(NotFoundError):
        reading(driver, launched_at=driver.now - JUST_LAUNCHED_SECONDS + 1)
    assert driver.now == 1_000_005
    driver = WorkflowDriver(*[GONE] * 99)
    with pytest.raises(NotFoundError):
        reading(driver, launched_at=driver.now + 10_000, period=1)
    assert driver.now == 1_000_000 + JUST_LAUNCHED_SECONDS


@pytest.mark.parametrize("launched_at", [None, 900_000.0])
def test_a_run_that_was_launched_long_ago_is_not_there(launched_at: float | None) -> None:
    """It is not read again."""
    driver = WorkflowDriver(GONE)
    with pytest.raises(NotFoundError):
        reading(driver, launched_at=launched_at)
    assert driver.now == 1_000_000


def test_another_error_of_a_run_that_was_just_launched_is_raised() -> None:
    """Only "does not exist" may change by itself."""
    driver = WorkflowDriver(AuthenticationError(status=403))
    with pytest.raises(AuthenticationError):
        reading(driver, launched_at=driver.now)


def test_a_run_that_was_just_launched_is_followed() -> None:
    """Also where it is not shown at first, or once more between two reads."""
    driver = WorkflowDriver(GONE, RUNNING, GONE, SUCCEEDED)
    assert follow(driver, launched_at=driver.now) == FollowResult(SUCCEEDED)
    assert driver.now == 1_000_020


def test_queued_time_can_count_from_another_time() -> None:
    """Such as that of a repair, which keeps the run's start_time."""
    pending = run("PENDING", start_time=1000)
    driver = WorkflowDriver(*[pending] * 9)
    ended = follow(driver, queued_timeout_seconds=100, queued_since=999_950)
    assert ended == FollowResult(pending, queued_too_long=True)
    assert driver.now == 1_000_050
    assert FollowResult(pending).queued_too_long is False


@pytest.mark.parametrize("life", ["QUEUED", "PENDING", "BLOCKED"])
def test_the_states_of_a_run_that_has_not_started(life: str) -> None:
    """Each counts as queued."""
    driver = WorkflowDriver(run(life), run(life))
    assert follow(driver, queued_timeout_seconds=10).queued_too_long


def test_the_next_attempt_is_queued_from_when_it_was_found() -> None:
    """Neither the first attempt's time nor a given one counts for it."""
    first = attempt(0, "FAILED")
    second: Any = {**attempt(1, "SUCCESS", 8), **run("PENDING", None, 8)}
    del second["start_time"]
    driver = WorkflowDriver(first, job(max_retries=1), page(second, first), *[second] * 20)
    ended = follow(driver, queued_timeout_seconds=50, queued_since=1_000)
    assert ended == FollowResult(second, queued_too_long=True)
    assert driver.now == 1_000_050


def test_the_next_attempt_may_not_be_shown_yet() -> None:
    """It was just launched; the run that is followed may be long known."""
    first, second = attempt(0, "FAILED"), {**attempt(1, "SUCCESS", 8), **run("RUNNING", None, 8)}
    driver = WorkflowDriver(
        first, job(max_retries=1), page(second, first), GONE, run("TERMINATED", "SUCCESS", 8)
    )
    assert follow(driver).run["run_id"] == 8
    assert driver.asked[-2:] == ["runs/get 8", "runs/get 8"]
    assert [event.launched_at for event in driver.events] == [1_000_000.0]  # type: ignore[union-attr]


def test_the_log_names_the_attempt_that_is_followed(caplog: pytest.LogCaptureFixture) -> None:
    """And that the service retries the run."""
    caplog.set_level("INFO")
    first, second = attempt(0, "FAILED"), attempt(1, "SUCCESS", 8)
    follow(WorkflowDriver(first, job(max_retries=1), page(second, first)))
    assert caplog.messages == [
        "Run 7 is TERMINATED/FAILED",
        "Run 7 is retried by the service as run 8",
        "Run 8 is TERMINATED/SUCCESS; attempt 2",
    ]


def test_the_tasks_of_a_long_run_are_read_for_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Once in ten minutes, from the version that lists them; whether that works or not."""
    caplog.set_level("INFO")
    listed = run("RUNNING", format="MULTI_TASK", job_id=3)
    ended = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}
    tasks = [
        {"task_key": "a", "state": ended},
        {"task_key": "b", "state": {"life_cycle_state": "RUNNING"}},
    ]
    driver = WorkflowDriver(
        *[listed] * 61,
        ServerError(status=503),
        *[listed] * 60,
        {**listed, "tasks": tasks[:1], "next_page_token": "more"},
        {**listed, "tasks": tasks[1:]},
        SUCCEEDED,
    )
    calls: list[Any] = []

    def send(call: Any) -> Any:
        calls.append(call)
        return driver.send(call)

    steps = follow_run(
        7,
        polling_period=lambda: 10,
        progress=RunProgress(7, logging.getLogger("task"), clock=lambda: driver.now),
        clock=lambda: driver.now,
    )
    assert run_workflow(steps, send=send, wait=driver.wait) == FollowResult(SUCCEEDED)
    assert driver.answers == []
    optional = [call for call in calls if call.is_optional]
    assert [call.api_version() for call in optional] == ["2.2"] * 3
    assert [call.parameters.get("page_token") for call in optional] == [None, None, "more"]
    assert caplog.messages == [
        "Run 7 is RUNNING",
        "Run 7 is still RUNNING, for 10 min 0 s",
        "Run 7 is still RUNNING, for 20 min 0 s",
        "Run 7: 1 of 2 tasks ended (50 %): succeeded: a; running: b",
        "Run 7 is TERMINATED/SUCCESS after 20 min 10 s RUNNING",
    ]


def test_the_wait_for_an_attempt_can_count_from_the_runs_end() -> None:
    """For a workflow that starts anew at each poll."""
    last: Any = {**attempt(0, "FAILED"), "end_time": (1_000_000 - 45) * 1000}
    driver = WorkflowDriver(last, job(max_retries=1), *[page(last)] * 50)
    assert follow(driver, attempts_from_end=True) == FollowResult(last)
    assert driver.now == 1_000_020
    for end_time, seconds in ((None, 60), (999_940_000, 0), (999_940_001, 10)):
        last["end_time"] = end_time
        driver = WorkflowDriver(last, job(max_retries=1), *[page(last)] * 50)
        assert follow(driver, attempts_from_end=True) == FollowResult(last)
        assert driver.now == 1_000_000 + seconds
    driver = WorkflowDriver(last, job(max_retries=1), *[page(last)] * 50)
    assert follow(driver) == FollowResult(last)
    assert driver.now == 1_000_060


def test_a_list_that_stays_stuck_is_an_error_after_the_grace() -> None:
    """One minute."""
    first = attempt(0, "FAILED")
    stuck = [Page([first], "a"), Page([first], "a")] * 50
    driver = WorkflowDriver(first, job(max_retries=1), *stuck)
    with pytest.raises(UnexpectedResponseError):
        follow(driver)
    assert driver.now == 1_000_060


def test_runs_of_others_are_no_attempts() -> None:
    """Nor is an earlier attempt, nor what stands below this run in the list."""
    first = attempt(1, "FAILED")
    other = {**attempt(2, "SUCCESS", 9), "original_attempt_run_id": 5}
    before = {**attempt(0, "FAILED", 6), "start_time": 1001}
    older = {**other, "run_id": 10, "start_time": 900}
    second = attempt(2, "SUCCESS", 8)
    driver = WorkflowDriver(first, job(max_retries=3), page(other, first, before, second))
    assert follow(driver) == FollowResult(second)
    driver = WorkflowDriver(first, job(max_retries=3), *[page(other, first, older, second)] * 50)
    assert follow(driver) == FollowResult(first)


def test_an_attempt_without_the_fields_of_attempts_has_itself_as_original() -> None:
    """And is the first one."""
    first = run("TERMINATED", "FAILED", job_id=3)
    second = run("TERMINATED", "SUCCESS", 8, original_attempt_run_id=7, attempt_number=1)
    driver = WorkflowDriver(first, job(max_retries=1), page({"run_id": 9}, first, second))
    assert follow(driver) == FollowResult(second)


def test_the_attempts_are_looked_for_on_all_pages() -> None:
    """Up to the run itself."""
    first, second = attempt(0, "FAILED"), attempt(1, "SUCCESS", 8)
    others = [{**attempt(0, "SUCCESS", n), "original_attempt_run_id": n} for n in (20, 21)]
    driver = WorkflowDriver(
        first, job(max_retries=1), Page(others[:1], "a"), Page([*others[1:], second, first])
    )
    assert follow(driver) == FollowResult(second)


class Versions(WorkflowDriver):
    """Notes the version and the page token of each call, and whether a 403 is retried."""

    def __init__(self, *answers: Any) -> None:
        super().__init__(*answers)
        self.calls: list[tuple[str, str | None]] = []
        self.final: list[str] = []

    def send(self, call: Any) -> Any:
        """Give the next answer."""
        self.calls.append((call.api_version(), call.parameters.get("page_token")))
        self.final += [call.path] if call.forbidden_is_final else []
        return super().send(call)


def test_a_job_that_may_not_be_read_is_not_asked_for_again() -> None:
    """Its 403 is an answer; that of its runs may pass."""
    first, second = attempt(0, "FAILED"), attempt(1, "SUCCESS", 8)
    driver = Versions(first, job(max_retries=1), page(second, first))
    assert follow(driver) == FollowResult(second)
    assert driver.final == ["get"]


def test_a_whole_run_has_the_tasks_of_all_pages() -> None:
    """Read from the version that has pages of tasks; the token is not kept."""
    first = {**SUCCEEDED, "tasks": [1], "next_page_token": "a"}
    driver = Versions(first, {"tasks": [2], "next_page_token": "b"}, {"tasks": [3]})
    assert driver.execute(whole_run(7)) == {**SUCCEEDED, "tasks": [1, 2, 3]}
    assert driver.calls == [("2.0", None), ("2.2", "a"), ("2.2", "b")]


def test_a_whole_run_has_all_its_iterations() -> None:
    """It names itself as its only task on each page."""
    first = {**SUCCEEDED, "tasks": [1], "iterations": [4], "next_page_token": "a"}
    driver = Versions(first, {"tasks": [1], "iterations": [5]})
    whole = driver.execute(whole_run(7, api_version="2.2"))
    assert whole == {**SUCCEEDED, "tasks": [1], "iterations": [4, 5]}
    assert driver.calls == [("2.2", None), ("2.2", "a")]


def test_a_page_without_anything_does_no_harm() -> None:
    """What is known is kept; what no page has is not made up."""
    driver = Versions({**SUCCEEDED, "tasks": [1], "next_page_token": "a"}, {})
    assert driver.execute(whole_run(7)) == {**SUCCEEDED, "tasks": [1]}
    driver = Versions({**SUCCEEDED, "next_page_token": "a"}, {"tasks": [2]})
    assert driver.execute(whole_run(7)) == {**SUCCEEDED, "tasks": [2]}
    assert Versions(SUCCEEDED).execute(whole_run(7)) == SUCCEEDED


def test_a_page_token_that_comes_again_is_an_error() -> None:
    """The tasks would never end."""
    driver = Versions(*[{**SUCCEEDED, "tasks": [1], "next_page_token": "a"}] * 9)
    with pytest.raises(UnexpectedResponseError, match="with the page 'a' once more") as caught:
        driver.execute(whole_run(7))
    assert caught.value.status == 200
    assert len(driver.calls) == 2


def test_tasks_that_the_oldest_version_leaves_out_are_read_from_the_latest() -> None:
    """Unless a version was asked for, or the run has no tasks."""
    several = {**SUCCEEDED, "format": "MULTI_TASK"}
    driver = Versions(several, {**several, "tasks": [1]})
    assert driver.execute(whole_run(7)) == {**several, "tasks": [1]}
    assert driver.calls == [("2.0", None), ("2.2", None)]
    assert len(Versions({**several, "tasks": [1]}).execute(whole_run(7))["tasks"]) == 1
    assert Versions(several).execute(whole_run(7, api_version="2.2")) == several
    assert Versions({**SUCCEEDED, "format": "SINGLE_TASK"}).execute(whole_run(7))["run_id"] == 7


def test_a_run_of_a_list_with_more_tasks_is_read_whole() -> None:
    """A list shows the first hundred tasks of a run, and no page token."""
    listed = {**SUCCEEDED, "tasks": [1], "has_more": True}
    first = {**SUCCEEDED, "tasks": [1], "next_page_token": "a"}
    driver = Versions(first, {"tasks": [2]})
    whole: Any = follow(driver, first_look=listed, follow_attempts=False).run
    assert whole["tasks"] == [1, 2]
    assert driver.calls == [("2.2", None), ("2.2", "a")]
    driver = Versions({"tasks": [2]})
    whole = follow(driver, first_look={**listed, "next_page_token": "a"}).run
    assert whole["tasks"] == [1, 2]
