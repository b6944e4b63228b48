"""What an attempt of a task in a workflow group does next: tables of the decisions, no requests."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt
from airflow_jobs_provider.airflow_compat.workflow_records import (
    UNKNOWN_ATTEMPT,
    LaterAttempt,
    TaskRecord,
)
from airflow_jobs_provider.operators.workflow_next_step import (
    NextStep,
    Rerun,
    next_step,
    runs_again_too,
    unmet_conditions,
)
from tests.helpers.responses import run


def attempt(try_number: int, retries: int = 0, clear: bool = False) -> TaskAttempt:
    """Make an attempt: the first after a clear, or a retry."""
    max_tries = try_number - 1 + retries if clear else retries
    return TaskAttempt(
        dag_id="d",
        run_id="r",
        dag_run_start="",
        task_id="t",
        map_index=-1,
        try_number=try_number,
        max_tries=max_tries,
        attempt_index=0 if clear else try_number - 1,
        operator_task_id="t",
    )


FIRST, RETRY, CLEARED = attempt(1), attempt(2, 1), attempt(2, 0, clear=True)
NEVER, REPORTED = TaskRecord(), TaskRecord(reported=7, max_tries=0, try_number=1)
OF_RUN_BEFORE = TaskRecord(try_number=1)  # what an attempt reads if the launch was cleared, too


def reported_before(max_tries: int) -> TaskRecord:
    """Make the record of the first attempt, which has reported an earlier run."""
    return TaskRecord(6, max_tries=max_tries, try_number=1)


def wanted(run_id: int, *, by: int) -> TaskRecord:
    """Make the record of an attempt that wants the task to run again."""
    return TaskRecord(wants_rerun_of=run_id, try_number=by)


def followed(run_id: int = 7, *, by: int) -> TaskRecord:
    """Make the record of an attempt that follows a run of the task."""
    return TaskRecord(follows=run_id, try_number=by)


@pytest.mark.parametrize(
    ("life", "result", "one", "record", "step"),
    [
        ("RUNNING", None, FIRST, NEVER, NextStep.REPORT),
        ("RUNNING", None, RETRY, NEVER, NextStep.REPORT),
        ("RUNNING", None, CLEARED, REPORTED, NextStep.REPORT),
        # Cleared while it was active: the first attempt of all records nothing.
        ("RUNNING", None, CLEARED, NEVER, NextStep.RERUN),
        ("RUNNING", None, attempt(3, clear=True), followed(by=2), NextStep.RERUN),
        ("RUNNING", None, attempt(3, clear=True), wanted(7, by=2), NextStep.RERUN),
        # A retry after the clear, an earlier run, and a clear with the launching task.
        ("RUNNING", None, attempt(3, 2), followed(by=2), NextStep.REPORT),
        ("RUNNING", None, attempt(3, clear=True), followed(6, by=2), NextStep.REPORT),
        ("RUNNING", None, CLEARED, OF_RUN_BEFORE, NextStep.REPORT),
        ("TERMINATED", "SUCCESS", FIRST, NEVER, NextStep.REPORT),
        # The worker of the attempt before has died.
        ("TERMINATED", "SUCCESS", RETRY, NEVER, NextStep.REPORT),
        ("TERMINATED", "FAILED", RETRY, NEVER, NextStep.RERUN),
        ("TERMINATED", "SUCCESS", RETRY, TaskRecord(7, 1, try_number=1), NextStep.REPORT),
        # Cleared, or retried, after the end was reported.
        ("TERMINATED", "SUCCESS", CLEARED, REPORTED, NextStep.RERUN),
        ("TERMINATED", "FAILED", CLEARED, REPORTED, NextStep.RERUN),
        ("TERMINATED", "FAILED", RETRY, TaskRecord(7, 1, try_number=1), NextStep.RERUN),
        # An attempt died between a clear and its repair.
        ("TERMINATED", "SUCCESS", attempt(3, 2), REPORTED, NextStep.RERUN),
        # Another task's repair has run it again already, to whatever end.
        ("TERMINATED", "FAILED", CLEARED, reported_before(0), NextStep.REPORT),
        ("TERMINATED", "FAILED", RETRY, reported_before(1), NextStep.REPORT),
        ("TERMINATED", "SUCCESS", CLEARED, reported_before(0), NextStep.REPORT),
        # The same; an attempt that was to report this has died, or never started.
        ("TERMINATED", "FAILED", attempt(3, clear=True), reported_before(0), NextStep.RERUN),
        ("TERMINATED", "FAILED", attempt(3, 2), reported_before(2), NextStep.RERUN),
        ("TERMINATED", "SUCCESS", attempt(3, 2), reported_before(2), NextStep.REPORT),
        # The attempt that has followed it has died.
        ("TERMINATED", "FAILED", attempt(3, 2), followed(by=2), NextStep.RERUN),
        ("TERMINATED", "SUCCESS", attempt(3, 2), followed(by=2), NextStep.REPORT),
        # The only attempt never started; then the task was cleared.
        ("TERMINATED", "FAILED", CLEARED, NEVER, NextStep.RERUN),
        ("TERMINATED", "TIMEDOUT", CLEARED, NEVER, NextStep.RERUN),
        ("TERMINATED", "SUCCESS", CLEARED, NEVER, NextStep.REPORT),
        # The launching task was cleared, too, and so were the records.
        ("TERMINATED", "FAILED", CLEARED, OF_RUN_BEFORE, NextStep.REPORT),
        ("TERMINATED", "FAILED", attempt(3, 2), OF_RUN_BEFORE, NextStep.RERUN),
        # This attempt, or the one before, wanted it to run again.
        ("TERMINATED", "FAILED", RETRY, wanted(7, by=2), NextStep.RERUN),
        ("TERMINATED", "FAILED", RETRY, wanted(7, by=1), NextStep.RERUN),
        # The same, and it has run again.
        ("TERMINATED", "FAILED", RETRY, wanted(6, by=2), NextStep.REPORT),
        ("TERMINATED", "FAILED", RETRY, wanted(6, by=1), NextStep.RERUN),
        # A kill has canceled it.
        ("TERMINATED", "CANCELED", FIRST, NEVER, NextStep.REPORT),
        ("TERMINATED", "CANCELED", CLEARED, NEVER, NextStep.RERUN),
        # A task before it has failed, and counts as successful by now.
        ("TERMINATED", "UPSTREAM_FAILED", FIRST, NEVER, NextStep.RERUN),
        ("TERMINATED", "EXCLUDED", FIRST, NEVER, NextStep.REPORT),
    ],
)
def test_the_latest_run_of_a_task_decides(
    life: str, result: str | None, one: TaskAttempt, record: TaskRecord, step: NextStep
) -> None:
    """See the table of the module."""
    assert next_step(run(life, result), record, one) is step


def test_a_cleared_task_that_is_not_canceled_is_followed() -> None:
    """With cancel_on_kill=False its active run goes on."""
    assert next_step(run("RUNNING"), NEVER, CLEARED, cancels=False) is NextStep.REPORT


def test_a_run_that_the_attempt_has_started_itself_is_reported() -> None:
    """Whatever its end: the repair of an attempt is made once."""
    for result in ("CANCELED", "UPSTREAM_FAILED", "FAILED"):
        task = run("TERMINATED", result)
        assert next_step(task, NEVER, RETRY, own=7) is NextStep.REPORT


@pytest.mark.parametrize(
    ("one", "record", "run_number", "max_retries", "step"),
    [
        # The first attempt has died, and the repair of another task was for the second one.
        (RETRY, NEVER, 2, 0, NextStep.REPORT),
        (CLEARED, NEVER, 2, 0, NextStep.REPORT),
        # Both attempts have died. The third one has had no run yet.
        (attempt(3, 2), NEVER, 2, 0, NextStep.RERUN),
        (attempt(3, 2), NEVER, 3, 0, NextStep.REPORT),
        # The second run may be a retry by the service for the first attempt.
        (RETRY, NEVER, 2, 1, NextStep.RERUN),
        # The attempt before has followed the run of the repair, or an earlier one was reported.
        (attempt(3, 2), followed(by=2), 2, 0, NextStep.RERUN),
        (attempt(3, 2), reported_before(2), 2, 0, NextStep.RERUN),
        # The launching task was cleared: some attempts belong to an earlier run.
        (attempt(3, 2), OF_RUN_BEFORE, 2, 0, NextStep.RERUN),
    ],
)
def test_a_failed_run_that_a_repair_has_started(
    one: TaskAttempt, record: TaskRecord, run_number: int, max_retries: int, step: NextStep
) -> None:
    """An attempt reports it if it was made for that attempt: there is no run too many."""
    repaired = {**run("TERMINATED", "FAILED"), "attempt_number": run_number - 1}
    assert next_step(repaired, record, one, max_retries=max_retries) is step


def test_a_run_that_another_repair_has_started_is_not_canceled() -> None:
    """No attempt before the clear has followed it: such an attempt would have recorded that."""
    repaired = {**run("RUNNING"), "attempt_number": 1}
    assert next_step(repaired, NEVER, CLEARED) is NextStep.REPORT
    assert next_step(repaired, followed(by=1), CLEARED) is NextStep.RERUN
    # It may be a retry of the service.
    for max_retries in (1, -1):
        assert next_step(repaired, NEVER, CLEARED, max_retries=max_retries) is NextStep.RERUN


@pytest.mark.parametrize(
    ("state", "record", "rerun"),
    [
        (None, {"reported": 7}, Rerun.YES),
        ("scheduled", {"reported": 7}, Rerun.YES),
        ("queued", {"reported": 7}, Rerun.YES),
        ("up_for_retry", {"reported": 7}, Rerun.YES),
        ("restarting", {"reported": 7}, Rerun.YES),
        ("deferred", {"reported": 7, "wants_rerun_of": 7}, Rerun.YES),
        ("running", {"reported": 7, "wants_rerun_of": 7}, Rerun.YES),
        # It has run in Databricks, and Airflow has not executed it yet, or resumes it.
        (None, {}, Rerun.NO),
        ("scheduled", {}, Rerun.UNDECIDED),
        ("queued", {"reported": 6}, Rerun.UNDECIDED),
        ("restarting", {}, Rerun.UNDECIDED),
        # An attempt has died. With a record it may have ended before a repair ran the task again.
        ("up_for_retry", {}, Rerun.YES),
        ("up_for_retry", {"reported": 6, "follows": 7, "try_number": 2}, Rerun.YES),
        ("up_for_retry", {"reported": 6, "try_number": 1}, Rerun.NO),
        ("success", {"reported": 7}, Rerun.NO),
        ("failed", {"reported": 7}, Rerun.NO),
        ("upstream_failed", {"reported": 7}, Rerun.NO),
        ("removed", {"reported": 7}, Rerun.NO),
        (None, {"reported": 7, "is_alone": True}, Rerun.NO),
    ],
)
def test_which_other_task_runs_again(
    state: str | None, record: dict[str, Any], rerun: Rerun
) -> None:
    """One that Airflow will execute, or that waits for a repair, if its run was reported."""
    task = run("TERMINATED", "FAILED")
    assert runs_again_too(state, task, TaskRecord(**record)) is rerun


RESTARTED, RESTARTED_BY_CLEAR = LaterAttempt(True, False), LaterAttempt(True, True)
CLEARED_SINCE = LaterAttempt(False, True)


@pytest.mark.parametrize(
    ("state", "result", "reported", "later", "rerun", "at_last"),
    [
        # It is about to end, or has been started again and has not recorded it yet.
        ("running", "FAILED", 7, UNKNOWN_ATTEMPT, Rerun.UNDECIDED, Rerun.YES),
        ("running", "SUCCESS", 7, UNKNOWN_ATTEMPT, Rerun.UNDECIDED, Rerun.NO),
        ("running", "SUCCESS", 7, CLEARED_SINCE, Rerun.UNDECIDED, Rerun.NO),
        ("deferred", "FAILED", 7, UNKNOWN_ATTEMPT, Rerun.UNDECIDED, Rerun.NO),
        # It has been started again. A success may be the one that an attempt could not tell.
        ("running", "FAILED", 7, RESTARTED, Rerun.YES, Rerun.YES),
        ("running", "CANCELED", 7, RESTARTED, Rerun.YES, Rerun.YES),
        ("running", "SUCCESS", 7, RESTARTED, Rerun.UNDECIDED, Rerun.NO),
        ("running", "SUCCESS", 7, RESTARTED_BY_CLEAR, Rerun.YES, Rerun.YES),
        ("up_for_retry", "SUCCESS", 7, UNKNOWN_ATTEMPT, Rerun.NO, Rerun.NO),
        ("up_for_retry", "SUCCESS", 7, CLEARED_SINCE, Rerun.YES, Rerun.YES),
        ("up_for_retry", "FAILED", 7, UNKNOWN_ATTEMPT, Rerun.YES, Rerun.YES),
        # It is about to report its first run, or one that another repair has started.
        ("running", "FAILED", None, UNKNOWN_ATTEMPT, Rerun.UNDECIDED, Rerun.NO),
        ("deferred", "TIMEDOUT", 6, UNKNOWN_ATTEMPT, Rerun.UNDECIDED, Rerun.NO),
        ("deferred", "SUCCESS", 6, UNKNOWN_ATTEMPT, Rerun.NO, Rerun.NO),
        ("running", "EXCLUDED", None, UNKNOWN_ATTEMPT, Rerun.NO, Rerun.NO),
        # It is about to record that it did not run, and is to.
        ("running", "UPSTREAM_FAILED", None, UNKNOWN_ATTEMPT, Rerun.UNDECIDED, Rerun.NO),
    ],
)
def test_another_task_that_is_executed_runs_again(
    state: str,
    result: str,
    reported: int | None,
    later: LaterAttempt,
    rerun: Rerun,
    at_last: Rerun,
) -> None:
    """If that is known, or once it has had time to tell."""
    task, record = run("TERMINATED", result), TaskRecord(reported=reported)
    assert runs_again_too(state, task, record, later) is rerun
    assert runs_again_too(state, task, record, later, has_waited=True) is at_last


@pytest.mark.parametrize("record", [NEVER, REPORTED])
def test_a_task_whose_run_was_canceled(record: TaskRecord) -> None:
    """A retry runs it again. After a clear, the attempt that starts will say so."""
    canceled = {**run("TERMINATED", "CANCELED"), "run_id": 8}
    assert runs_again_too("up_for_retry", canceled, record) is Rerun.YES
    assert runs_again_too("scheduled", canceled, record) is Rerun.UNDECIDED
    assert runs_again_too("scheduled", canceled, record, has_waited=True) is Rerun.NO


@pytest.mark.parametrize("result", ["SUCCESS", "EXCLUDED"])
@pytest.mark.parametrize("state", ["queued", "up_for_retry"])
def test_a_task_that_has_not_failed_is_not_waited_for(state: str, result: str) -> None:
    """Its next attempt reports that."""
    assert runs_again_too(state, run("TERMINATED", result), NEVER) is Rerun.NO


def test_an_attempt_before_the_launching_task_was_cleared() -> None:
    """It may have died in an earlier run of the group. The next attempt reports the failure."""
    failed = run("TERMINATED", "FAILED")
    assert runs_again_too("up_for_retry", failed, NEVER, launch_was_cleared=True) is Rerun.NO


def test_a_task_that_a_repair_has_run_already_is_not_repaired_once_more() -> None:
    """Its retry may be far off, and other tasks may be repaired several times meanwhile."""
    failed = {**run("TERMINATED", "FAILED"), "attempt_number": 1}
    assert runs_again_too("up_for_retry", failed, NEVER) is Rerun.NO
    assert runs_again_too("up_for_retry", failed, NEVER, max_retries=1) is Rerun.YES
    assert runs_again_too("up_for_retry", failed, NEVER, max_retries=-1) is Rerun.YES


@pytest.mark.parametrize("state", [None, "scheduled", "up_for_retry", "running", "deferred"])
@pytest.mark.parametrize("result", ["FAILED", "CANCELED"])
def test_a_task_that_does_not_wait_for_its_run(state: str | None, result: str) -> None:
    """It records nothing, and its next attempt does not run the task again."""
    ended = run("TERMINATED", result)
    assert runs_again_too(state, ended, NEVER, follows_run=False) is Rerun.NO
    not_run = run("TERMINATED", "UPSTREAM_FAILED")
    assert runs_again_too(None, not_run, NEVER, follows_run=False) is Rerun.YES


def test_a_task_that_does_not_start_is_not_waited_for_any_longer() -> None:
    """Such as one that waits for a slot of its pool."""
    failed = run("TERMINATED", "FAILED")
    assert runs_again_too("queued", failed, NEVER, has_waited=True) is Rerun.NO


def test_a_task_that_did_not_run_because_of_others_runs_again() -> None:
    """Nobody has reported it: Airflow has not executed it either."""
    for result in ("UPSTREAM_FAILED", "UPSTREAM_CANCELED"):
        assert runs_again_too(None, run("TERMINATED", result), NEVER) is Rerun.YES
        assert runs_again_too("success", run("TERMINATED", result), NEVER) is Rerun.NO


def test_a_task_that_the_run_does_not_have_does_not_run_again() -> None:
    """Such as one that the DAG file has had since the launch."""
    assert runs_again_too(None, None, REPORTED) is Rerun.NO


@pytest.mark.parametrize(
    ("run_if", "results", "chosen", "unmet"),
    [
        (None, "SF", "x", "b"),
        (None, "SS", "x", None),
        # The task before runs again, too.
        (None, "SF", "xb", None),
        ("NONE_FAILED", "SF", "x", "b"),
        ("NONE_FAILED", "SE", "x", None),
        ("AT_LEAST_ONE_SUCCESS", "SF", "x", None),
        ("AT_LEAST_ONE_SUCCESS", "FF", "x", "a"),
        ("AT_LEAST_ONE_SUCCESS", "FF", "xb", None),
        ("ALL_DONE", "FF", "x", None),
        ("AT_LEAST_ONE_FAILED", "SF", "x", None),
        ("ALL_FAILED", "FF", "x", None),
    ],
)
def test_what_a_repair_could_not_run(
    run_if: str | None, results: str, chosen: str, unmet: str | None
) -> None:
    """A task whose condition is not met by the latest runs of the tasks before it."""
    names = {"S": "SUCCESS", "F": "FAILED", "E": "EXCLUDED"}
    latest = {key: run("TERMINATED", names[one]) for key, one in zip("ab", results, strict=True)}
    before = [{"task_key": "a"}, {"task_key": "b"}]
    definition = {"task_key": "x", "depends_on": before, **({"run_if": run_if} if run_if else {})}
    others = [{"task_key": "a"}, {"task_key": "b"}]
    found = unmet_conditions(set(chosen), [definition, *others], latest)
    assert found == ({} if unmet is None else {"x": unmet})


def test_what_a_repair_could_not_run_behind_another_such_task() -> None:
    """The whole chain is left out."""
    definitions = [
        {"task_key": key, "depends_on": [{"task_key": before}] if before else []}
        for key, before in (("a", ""), ("b", "a"), ("c", "b"), ("d", ""))
    ]
    latest = {key: run("TERMINATED", "UPSTREAM_FAILED") for key in "abcd"}
    assert unmet_conditions({"b", "c", "d"}, definitions, latest) == {"b": "a", "c": "b"}
