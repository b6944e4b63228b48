"""Tests of follow_run: the wait for a run's end and for the service's own retries."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from airflow_jobs_provider.api.endpoints import Page
from airflow_jobs_provider.api.errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    RateLimitError,
    ServerError,
    UnexpectedResponseError,
)
from airflow_jobs_provider.api.workflows.follow import Ended, follow_run
from airflow_jobs_provider.api.workflows.progress import RunProgress
from tests.helpers.workflow_driver import RUNNING, SUCCEEDED, WorkflowDriver, run


def follow(driver: WorkflowDriver, **options: Any) -> Ended:
    """Follow run 7, polling every 10 seconds."""
    steps = follow_run(
        7,
        polling_period=lambda: 10,
        progress=RunProgress(7, logging.getLogger("task")),
        clock=lambda: driver.now,
        **options,
    )
    ended = driver.execute(steps)
    assert isinstance(ended, Ended)
    return ended


def test_a_run_is_followed_to_its_end() -> None:
    """Look, wait, look; a look already taken is not taken again."""
    driver = WorkflowDriver(RUNNING, run("A_NEW_STATE"), SUCCEEDED)
    assert follow(driver) == Ended(SUCCEEDED)
    assert driver.now == 1_000_020
    driver = WorkflowDriver(SUCCEEDED)
    assert follow(driver, first_look=RUNNING) == Ended(SUCCEEDED)


def test_a_run_that_does_not_start_in_time_is_not_waited_for() -> None:
    """Queued and pending time counts from the run's start_time; running time does not count."""
    since: dict[str, Any] = {"start_time": (1_000_000 - 95) * 1000}
    driver = WorkflowDriver(*[run("PENDING", **since)] * 9)
    assert follow(driver, queued_timeout_seconds=100).queued_too_long
    assert driver.now == 1_000_010
    driver = WorkflowDriver(*[run("RUNNING", **since)] * 50, SUCCEEDED)
    assert follow(driver, queued_timeout_seconds=100) == Ended(SUCCEEDED)
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
    assert follow(driver) == Ended(third)
    assert driver.identified == [8, 9]


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
def test_no_attempt_is_waited_for_if_the_job_has_no_retry_left(last: Any, settings: Any) -> None:
    """No retries left, none on time-outs, or a job that cannot be read: the run is the last."""
    driver = WorkflowDriver(last, settings)
    assert follow(driver) == Ended(last)
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
    assert follow(driver) == Ended(last)
    assert driver.asked == ["runs/get 7"]


def test_a_retry_on_timeout() -> None:
    """A job that says so is retried after a time-out, too; -1 is without end."""
    first, second = attempt(0, "TIMEDOUT"), attempt(1, "SUCCESS", 8)
    driver = WorkflowDriver(first, job(max_retries=-1, retry_on_timeout=True), page(second, first))
    assert follow(driver) == Ended(second)


def test_a_missing_attempt_is_waited_for_one_minute() -> None:
    """After its interval and a minute of grace, the run that failed is the last."""
    last = attempt(0, "FAILED")
    driver = WorkflowDriver(
        last, job(max_retries=1, min_retry_interval_millis=30_000), *[page(last)] * 50
    )
    assert follow(driver) == Ended(last)
    assert driver.now == 1_000_090


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
    assert follow(driver) == Ended(second)
    assert driver.now == 1_000_010


def test_attempts_are_not_followed_if_not_wanted() -> None:
    """Where the run itself is what counts."""
    last = attempt(0, "FAILED")
    assert follow(WorkflowDriver(last), follow_attempts=False) == Ended(last)
