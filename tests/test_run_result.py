"""The result of a task from its ended run: its XComs, its log lines, or an exception."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from airflow_jobs_provider.api.errors import (
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    ServerError,
)
from airflow_jobs_provider.api.workflows.outputs import TaskOutput
from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from airflow_jobs_provider.run_result import RunResult, read_result, result_or_raise
from tests.helpers.workflow_driver import WorkflowDriver

LOG = logging.getLogger("a task")
FORBIDDEN = AuthenticationError(status=403)


def ended(result: str, run_id: int = 7, **more: Any) -> Any:
    """Make a run, or the run of a task, that has ended."""
    state = {"life_cycle_state": "TERMINATED", "result_state": result}
    return {"run_id": run_id, "state": state, **more}


def task(key: str, run_id: int, result: str = "SUCCESS") -> Any:
    """Make the run of a task."""
    return ended(result, run_id, task_key=key, notebook_task={})


def text(result: str, **more: Any) -> dict[str, Any]:
    """Make an answer of get-output."""
    return {"metadata": ended("SUCCESS"), "notebook_output": {"result": result, **more}}


def output(key: str | None, run_id: int = 7, **answer: Any) -> TaskOutput:
    """Make the output of a task."""
    return TaskOutput.from_answer(key, run_id, answer)


def read(run: Any, *answers: Any, **options: Any) -> tuple[RunResult, list[str]]:
    """Read a run's result; return it, and what was asked."""
    driver = WorkflowDriver(*answers)
    result = driver.execute(read_result(run, LOG, **options))
    assert isinstance(result, RunResult)
    assert driver.answers == []
    return result, driver.asked


def test_the_output_is_the_return_value() -> None:
    """And nothing else is pushed."""
    result, asked = read(ended("SUCCESS"), text("42"))
    assert asked == ["runs/get-output 7"]
    assert result == RunResult("42", False, {})
    assert result.xcoms(LOG) == {"return_value": "42"}


def test_no_output_is_no_xcom(caplog: pytest.LogCaptureFixture) -> None:
    """Neither a return value nor a flag, and no line in the log."""
    caplog.set_level("INFO")
    assert RunResult() == RunResult(None, False, {})
    assert RunResult().xcoms(LOG) == {}
    assert RunResult().xcoms(LOG, multiple_outputs=True) == {}
    assert caplog.messages == []


def test_an_empty_text_is_an_output() -> None:
    """It is not None."""
    assert RunResult("").xcoms(LOG) == {"return_value": ""}


def test_tasks_have_xcoms_of_their_own_if_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    """Also None; not under the keys of other XComs."""
    caplog.set_level("INFO")
    value: Any = {"b": "1", "a": None, "run_id": "2", "job_id": "3"}
    result = RunResult(value, by_task=value)
    assert result.xcoms(LOG) == {"return_value": value}
    assert caplog.messages == []
    assert result.xcoms(LOG, multiple_outputs=True) == {"b": "1", "a": None, "return_value": value}
    told = "The output of task '{0}' is in return_value only: the XCom '{0}' is something else."
    assert caplog.messages == [told.format("job_id"), told.format("run_id")]


def test_a_run_that_tells_no_tasks_has_one_output(caplog: pytest.LogCaptureFixture) -> None:
    """The log says where it is."""
    caplog.set_level("INFO")
    assert RunResult("42").xcoms(LOG, multiple_outputs=True) == {"return_value": "42"}
    assert caplog.messages == ["multiple_outputs: the run has no task keys; see return_value."]


def test_an_output_that_is_too_long_is_cut_and_flagged(caplog: pytest.LogCaptureFixture) -> None:
    """By the limit that is given, or by the service; a line names each run."""
    run = ended("SUCCESS", tasks=[task("a", 71), task("b", 72), task("c", 73)])
    result, _ = read(run, text("long"), text("x"), text("y", truncated=True), max_output_bytes=2)
    assert result.xcoms(LOG)["output_truncated"] is True
    assert result.by_task == {"a": "lo", "b": "x", "c": "y"}
    assert caplog.messages == [
        f"The output of run {run_id} is too long; it was cut off." for run_id in (71, 73)
    ]


def test_an_output_that_is_not_wanted_is_not_read() -> None:
    """The run has succeeded all the same."""
    assert read(ended("SUCCESS"), want_output=False) == (RunResult(), [])


def test_the_errors_of_a_run_that_failed_are_always_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log has the traces of what failed, and the exception the errors."""
    failed = {"metadata": ended("FAILED"), "error": "oh", "error_trace": "line 1\nline 2"}
    run = ended(
        "FAILED",
        run_page_url="http://w/7",
        task_key="outer",
        tasks=[task("a", 71), task("b", 72, "FAILED")],
    )
    with pytest.raises(DatabricksRunFailedError) as caught:
        read(run, failed, want_output=False)
    assert (caught.value.run_id, caught.value.run_page_url) == (7, "http://w/7")
    assert caught.value.task_key == "outer"
    assert [one.error for one in caught.value.outputs] == ["oh"]
    assert caplog.messages == ["The trace of run 72:\n    line 1\n    line 2"]


def test_a_trace_of_what_succeeded_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nor is one that is empty."""
    outputs = [
        output("a", 71, metadata=ended("SUCCESS"), error_trace="a warning"),
        output("b", 72, metadata=ended("FAILED")),
    ]
    with pytest.raises(DatabricksRunFailedError) as caught:
        result_or_raise(ended("FAILED"), outputs, LOG)
    assert caught.value.run_page_url == ""
    assert caplog.messages == []


def test_an_output_that_cannot_be_read_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The run has succeeded."""
    assert read(ended("SUCCESS"), FORBIDDEN)[0] == RunResult()
    assert caplog.messages == [f"The output of run 7 cannot be read: {FORBIDDEN}"]


def test_an_output_of_one_task_that_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    """The others are read, and the line is about this one only."""
    run = ended("SUCCESS", tasks=[task("a", 71), task("b", 72), task("c", 73)])
    error = NotFoundError(status=400)
    result, _ = read(run, error, text("x"), text("y"))
    assert result.by_task == {"a": None, "b": "x", "c": "y"}
    assert caplog.messages == [f"The output of run 71 (task a) cannot be read: {error}"]


def test_after_an_outage_no_further_output_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    """The log names the tasks."""
    run = ended("SUCCESS", tasks=[task("a", 71), task("b", 72), task("c", 73)])
    down = ServerError(status=503)
    result, asked = read(run, text("x"), down)
    assert asked == ["runs/get-output 71", "runs/get-output 72"]
    assert result.by_task == {"a": "x", "b": None, "c": None}
    assert caplog.messages == [
        f"The output of run 72 (task b) cannot be read: {down}",
        "So the outputs of these tasks were not asked for, either: c",
    ]


PARTIAL = "SUCCESS_WITH_FAILURES"
TASKS = [task("a", 71), task("b", 72, "FAILED")]


def test_a_success_with_failures_is_a_failure_by_default() -> None:
    """Whether or not its outputs are read here."""
    run = ended(PARTIAL, tasks=TASKS)
    with pytest.raises(DatabricksRunFailedError):
        read(run, {"metadata": ended("FAILED")})
    with pytest.raises(DatabricksRunFailedError):
        result_or_raise(run, [], LOG)


def test_a_success_with_failures_can_be_accepted(caplog: pytest.LogCaptureFixture) -> None:
    """The log names what failed."""
    run = ended(PARTIAL, tasks=TASKS)
    answers = text("x"), {"metadata": ended("FAILED", 72), "error": "oh"}
    result, _ = read(run, *answers, fail_on_partial_success=False)
    assert result.by_task == {"a": "x", "b": None}
    (line,) = caplog.messages
    assert line.splitlines() == [
        f"Run 7 succeeded with failures, as is accepted (TERMINATED/{PARTIAL})",
        "Task 'b': oh",
    ]


def test_the_failed_tasks_are_named_where_no_output_is_wanted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """From the run, which is read anew where a list left its tasks out."""
    result, asked = read(
        ended(PARTIAL),
        ended(PARTIAL, tasks=[task("b", 72, "FAILED"), {**task("c", 0, "FAILED"), "run_id": None}]),
        want_output=False,
        fail_on_partial_success=False,
    )
    assert asked == ["runs/get 7"]
    assert result == RunResult()
    assert caplog.messages[0].splitlines()[1:] == [
        "Task 'b': TERMINATED/FAILED",
        "Task 'c': TERMINATED/FAILED",
    ]
    assert read(ended(PARTIAL, tasks=TASKS), want_output=False, fail_on_partial_success=False) == (
        RunResult(),
        [],
    )


def test_tasks_that_cannot_be_read_are_not_named(caplog: pytest.LogCaptureFixture) -> None:
    """The result is accepted all the same."""
    error = BadRequestError(status=400)
    read(ended(PARTIAL), error, want_output=False, fail_on_partial_success=False)
    assert caplog.messages == [
        f"The tasks of run 7 cannot be read: {error}",
        f"Run 7 succeeded with failures, as is accepted (TERMINATED/{PARTIAL})",
    ]
