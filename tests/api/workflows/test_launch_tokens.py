"""Tests of launch_once: which token launches, and which run is followed."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_jobs_provider.api.endpoints import run_now
from airflow_jobs_provider.api.errors import AuthenticationError, BadRequestError
from airflow_jobs_provider.api.workflows.launch import LaunchResult, launch_once
from tests.helpers.workflow_driver import (
    CANCELED,
    FAILED,
    GONE,
    RUNNING,
    SUCCEEDED,
    TERMINATING,
    WorkflowDriver,
    run,
)


def launch(
    driver: WorkflowDriver, tokens: list[str], first: int = 0, *, adopt_failed: bool = False
) -> LaunchResult:
    """Launch with these tokens."""
    steps = launch_once(
        run_now({"job_id": 1}),
        tokens,
        first_attempt_index=first,
        polling_period_seconds=5,
        adopt_failed=adopt_failed,
        clock=lambda: driver.now,
    )
    launched = driver.execute(steps)
    assert isinstance(launched, LaunchResult)
    assert driver.identified[-1] == launched.run_id
    assert launched.launched_at is not None
    assert launched.is_own == (launched.attempt_index == len(tokens) - 1)
    assert launched.is_new == launched.is_own
    return launched._replace(launched_at=None, is_own=True, is_new=True)


@pytest.mark.parametrize("found", [RUNNING, SUCCEEDED, FAILED, CANCELED, TERMINATING])
def test_the_first_try_takes_its_run_in_any_state(found: Any) -> None:
    """One launch, one look, whatever the state."""
    driver = WorkflowDriver(7, found)
    assert launch(driver, ["a"]) == LaunchResult(7, found, 0)
    assert driver.asked == ["run-now a", "runs/get 7"]


@pytest.mark.parametrize("found", [RUNNING, SUCCEEDED, run("QUEUED"), run("A_NEW_STATE")])
def test_a_retry_follows_an_earlier_run_that_is_active_or_succeeded(
    found: Any,
) -> None:
    """The worker died, the run did not: nothing is launched again."""
    driver = WorkflowDriver(7, found)
    assert launch(driver, ["a", "b", "c"]) == LaunchResult(7, found, 0)
    assert driver.asked == ["run-now a", "runs/get 7"]


@pytest.mark.parametrize("bad", [FAILED, CANCELED, run("SKIPPED"), run("INTERNAL_ERROR", "FAILED")])
def test_a_retry_launches_a_new_run_after_a_failed_one(bad: dict[str, Any]) -> None:
    """One new run for each retry of Airflow's."""
    new = run("PENDING", run_id=8)
    driver = WorkflowDriver(7, bad, 8, new)
    assert launch(driver, ["a", "b"]) == LaunchResult(8, new, 1)
    assert driver.asked == ["run-now a", "runs/get 7", "run-now b", "runs/get 8"]


@pytest.mark.parametrize(
    ("ended", "is_adopted"),
    [
        (FAILED, True),
        (run("TERMINATED", "TIMEDOUT"), True),
        (run("TERMINATED", "SUCCESS_WITH_FAILURES"), True),
        (run("INTERNAL_ERROR", "FAILED"), True),
        (CANCELED, False),
        (run("SKIPPED"), False),
        (run("TERMINATED", "MAXIMUM_CONCURRENT_RUNS_REACHED"), False),
    ],
)
def test_a_retry_adopts_a_failed_run_where_it_is_told_to(ended: Any, is_adopted: bool) -> None:
    """A run that was canceled, or never began, is launched anew."""
    new = run("PENDING", run_id=8)
    driver = WorkflowDriver(7, ended, *(() if is_adopted else (8, new)))
    expected = LaunchResult(7, ended, 0) if is_adopted else LaunchResult(8, new, 1)
    assert launch(driver, ["a", "b"], adopt_failed=True) == expected


def test_a_deleted_run_counts_as_failed() -> None:
    """Its token is an error from then on; so is its id."""
    for answers in ((GONE,), (7, *[GONE] * 13)):
        new = run("PENDING", run_id=8)
        assert launch(WorkflowDriver(*answers, 8, new), ["a", "b"]) == LaunchResult(8, new, 1)


def test_a_terminating_run_is_waited_for() -> None:
    """The next try must know how it ends before it launches."""
    new = run("PENDING", run_id=8)
    driver = WorkflowDriver(7, TERMINATING, TERMINATING, CANCELED, 8, new)
    assert launch(driver, ["a", "b"]) == LaunchResult(8, new, 1)
    assert driver.now == 1_000_010
    assert launch(WorkflowDriver(7, TERMINATING, SUCCEEDED), ["a", "b"]) == LaunchResult(
        7, SUCCEEDED, 0
    )


def test_launching_can_begin_with_a_later_token() -> None:
    """After an adopted run was canceled, the tokens after its own have their turn."""
    new = run("PENDING", run_id=9)
    driver = WorkflowDriver(8, CANCELED, 9, new)
    assert launch(driver, ["a", "b", "c"], first=1) == LaunchResult(9, new, 2)
    assert driver.asked[0] == "run-now b"


def test_a_refused_launch_raises() -> None:
    """A request that cannot succeed is told with the last token's error; others with the first."""
    code = "INVALID_PARAMETER_VALUE"
    refused = [BadRequestError(status=400, error_code=code, api_message=f"no {n}") for n in (1, 2)]
    with pytest.raises(BadRequestError, match="no 2"):
        launch(WorkflowDriver(*refused), ["a", "b"])
    with pytest.raises(AuthenticationError):
        launch(WorkflowDriver(AuthenticationError(status=403)), ["a", "b"])
    with pytest.raises(BadRequestError, match="QUOTA_EXCEEDED"):
        launch(WorkflowDriver(BadRequestError(status=400, error_code="QUOTA_EXCEEDED")), ["a", "b"])
