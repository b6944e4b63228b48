"""Launching a run once: its defaults, its events, and what comes before the launch.

Which token launches, and which run is followed, is in test_launch_tokens.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from airflow_jobs_provider.api.endpoints import get_run, run_now
from airflow_jobs_provider.api.errors import (
    BadRequestError,
    JobsAPIError,
    NotFoundError,
    ServerError,
)
from airflow_jobs_provider.api.workflows.events import LaunchPrepared, RunIdentified
from airflow_jobs_provider.api.workflows.launch import LaunchResult, launch_once
from tests.helpers.workflow_driver import WorkflowDriver

CALL = run_now({"job_id": 1})


def run(life: str, result: str | None = None, run_id: int = 7) -> Any:
    """Make a run."""
    return {"run_id": run_id, "state": {"life_cycle_state": life, "result_state": result}}


def launch(driver: WorkflowDriver, tokens: Sequence[str], **options: Any) -> LaunchResult:
    """Launch with these tokens and the defaults."""
    options = {"polling_period_seconds": 5, "clock": lambda: driver.now, **options}
    launched = driver.execute(launch_once(CALL, tokens, **options))
    assert isinstance(launched, LaunchResult)
    return launched


def test_the_first_token_is_used_first() -> None:
    """By default; the run it finds belongs to an earlier try."""
    running = run("RUNNING")
    driver = WorkflowDriver(7, running)
    assert launch(driver, ["a", "b"]) == LaunchResult(
        7, running, 0, queued_since=None, launched_at=1_000_000.0, is_own=False, is_new=False
    )
    assert driver.asked == ["run-now a", "runs/get 7"]


def test_the_last_token_is_its_own() -> None:
    """Its run is taken in any state."""
    failed = run("TERMINATED", "FAILED")
    driver = WorkflowDriver(7, failed)
    assert launch(driver, ["a"]) == LaunchResult(7, failed, 0, launched_at=1_000_000.0, is_own=True)


def test_each_launch_has_its_events() -> None:
    """Before it the call with its token, after its response the run and the time."""
    driver = WorkflowDriver(7, run("TERMINATED", "FAILED"), 8, run("RUNNING", run_id=8))
    launch(driver, ["a", "b"])
    assert driver.events == [
        LaunchPrepared(CALL.with_parameters(idempotency_token="a")),
        RunIdentified(7, 1_000_000.0),
        LaunchPrepared(CALL.with_parameters(idempotency_token="b")),
        RunIdentified(8, 1_000_000.0),
    ]


def test_another_workflow_can_come_before_its_own_launch() -> None:
    """Not before an earlier try's run is looked for."""

    def before() -> Any:
        yield get_run(5)

    driver = WorkflowDriver(7, run("RUNNING"))
    launch(driver, ["a", "b"], before_own_launch=before())
    assert driver.asked == ["run-now a", "runs/get 7"]
    driver = WorkflowDriver(7, run("TERMINATED", "FAILED"), {}, 8, run("RUNNING", run_id=8))
    launch(driver, ["a", "b"], before_own_launch=before())
    asked = ["run-now a", "runs/get 7", "runs/get 5", "run-now b", "runs/get 8"]
    assert driver.asked == asked


def test_a_partial_success_is_a_bad_end_unless_it_is_accepted() -> None:
    """By default the next token launches a new run."""
    partial, new = run("TERMINATED", "SUCCESS_WITH_FAILURES"), run("PENDING", run_id=8)
    assert launch(WorkflowDriver(7, partial, 8, new), ["a", "b"]).run_id == 8
    accepted = launch(WorkflowDriver(7, partial), ["a", "b"], fail_on_partial_success=False)
    assert accepted.run_id == 7


def test_a_run_that_succeeded_while_it_is_terminated_is_not_waited_for() -> None:
    """Its result is known."""
    ended = run("TERMINATING", "SUCCESS")
    driver = WorkflowDriver(7, ended)
    assert launch(driver, ["a", "b"]).run is ended
    assert driver.now == 1_000_000.0


def test_its_own_run_is_not_waited_for_while_it_is_terminated() -> None:
    """Following it is the next step's."""
    driver = WorkflowDriver(7, run("TERMINATING"))
    assert launch(driver, ["a"]).run_id == 7


@pytest.mark.parametrize(
    "refusal",
    [
        BadRequestError(status=400, error_code="INVALID_STATE", api_message="no"),
        ServerError(status=503),
    ],
)
def test_a_refusal_that_is_not_about_a_deleted_run_is_raised(refusal: JobsAPIError) -> None:
    """No further token is used: a run of this one may be active."""
    driver = WorkflowDriver(refusal)
    with pytest.raises(type(refusal)):
        launch(driver, ["a", "b"])
    assert driver.asked == ["run-now a"]


def test_a_refusal_after_a_lost_response_is_raised() -> None:
    """An earlier attempt of the call may have launched a run."""
    lost = BadRequestError(
        status=400, error_code="INVALID_PARAMETER_VALUE", api_message="Run 7 does not exist."
    )
    lost.outcome_unknown = True
    with pytest.raises(BadRequestError):
        launch(WorkflowDriver(lost), ["a", "b"])


def test_its_own_run_that_is_not_there_is_an_error() -> None:
    """After the time in which a new run may not be shown yet."""
    gone = NotFoundError(status=400, api_message="Run 7 does not exist.")
    with pytest.raises(NotFoundError):
        launch(WorkflowDriver(7, *[gone] * 20), ["a"])


def test_a_launch_needs_a_token() -> None:
    """Without one nothing is sent."""
    driver = WorkflowDriver()
    with pytest.raises(AssertionError, match="no token was given"):
        launch(driver, [])
    assert driver.asked == []
