"""What a run gave back, from the API's answers."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_jobs_provider.api.errors import (
    AnswerLost,
    AuthenticationFailed,
    BadRequest,
    JobsApiError,
    PassingConflict,
    ServerError,
)
from airflow_jobs_provider.api.outputs import TaskOutput, output_value, read_outputs

from .test_steps import Service


def output(key: str | None, **answer: object) -> TaskOutput:
    """Read an answer of get-output."""
    return TaskOutput.of(key, 7, dict(answer))


def test_the_text_given_to_exit() -> None:
    """The result is the text; an empty text is a text."""
    assert output_value([output(None, notebook_output={"result": "42"})]) == "42"
    assert output_value([output(None, notebook_output={"result": ""})]) == ""


def test_no_exit_means_none() -> None:
    """A notebook that never called exit, a task that is no notebook, a run without tasks: None."""
    assert output_value([output(None, notebook_output={})]) is None
    assert output_value([output(None)]) is None
    assert output_value([]) is None


def test_several_tasks_give_a_dict_by_key() -> None:
    """A run of several tasks gives what each gave."""
    outputs = [output("a", notebook_output={"result": "1"}), output("b")]
    assert output_value(outputs) == {"a": "1", "b": None}


def read(run: dict[str, Any], *answers: Any, **how: Any) -> tuple[list[str], list[TaskOutput]]:
    """Read a run's outputs; return what was asked, and the outputs."""
    service = Service(*answers)
    outputs = service.drive(read_outputs(run, **how))
    assert service.answers == []
    return service.asked, outputs


def text(result: str) -> dict[str, Any]:
    """Make an answer of get-output."""
    return {"metadata": ended("SUCCESS"), "notebook_output": {"result": result}}


def ended(result: str, **more: Any) -> dict[str, Any]:
    """Make a run or task that has ended."""
    return {"state": {"life_cycle_state": "TERMINATED", "result_state": result}, **more}


SEVERAL = BadRequest(
    status=400, api_message="Retrieving the output of runs with multiple tasks ..."
)


def test_a_run_without_tasks_is_asked_by_its_own_id() -> None:
    """The runs of API 2.0 have one output."""
    asked, outputs = read({"run_id": 7}, text("42"))
    assert asked == ["runs/get-output 7"]
    assert output_value(outputs) == "42"


def test_a_run_with_tasks_is_asked_for_each_at_its_latest_attempt() -> None:
    """Even one listed task is asked by its own run_id; of several attempts the last counts."""
    run = {
        "run_id": 7,
        "tasks": [
            {"task_key": "a", "run_id": 8, "attempt_number": 0},
            {"task_key": "a", "run_id": 10, "attempt_number": 1},
            {"task_key": "b", "run_id": 9},
            {"task_key": "not started"},
        ],
    }
    asked, outputs = read(run, text("1"), text("2"))
    assert asked == ["runs/get-output 10", "runs/get-output 9"]
    assert output_value(outputs) == {"a": "1", "b": "2"}


def test_a_run_that_a_list_told_without_its_tasks() -> None:
    """The service refuses its output, so the run is read, and then its tasks' outputs."""
    tasks = [ended("SUCCESS", task_key=key, run_id=8 + n) for n, key in enumerate("ab")]
    asked, outputs = read(
        {"run_id": 7}, SEVERAL, {"run_id": 7, "tasks": tasks}, text("1"), text("2")
    )
    assert asked == ["runs/get-output 7", "runs/get 7", "runs/get-output 8", "runs/get-output 9"]
    assert output_value(outputs) == {"a": "1", "b": "2"}


def test_a_refusal_for_another_reason_is_told() -> None:
    """A run that has no tasks to ask instead."""
    with pytest.raises(BadRequest, match="too old"):
        read({"run_id": 7}, BadRequest(status=400, api_message="too old"), {"run_id": 7})


def test_one_output_that_is_refused_leaves_the_others() -> None:
    """It is None, and its run is told; by default the refusal is raised."""
    tasks = [ended("SUCCESS", task_key=key, run_id=8 + n) for n, key in enumerate("ab")]
    refused: list[Any] = []
    _, outputs = read(
        {"run_id": 7, "tasks": tasks},
        BadRequest(status=400, api_message="too old"),
        text("2"),
        on_unreadable=lambda lost, _error: refused.append(lost),
    )
    assert output_value(outputs) == {"a": None, "b": "2"}
    assert refused == [{"a": 8}]
    with pytest.raises(BadRequest, match="too old"):
        read({"run_id": 7, "tasks": tasks}, BadRequest(status=400, api_message="too old"))


FORBIDDEN = AuthenticationFailed(status=403)
DOWN, BUSY = ServerError(status=503), PassingConflict(status=400)


@pytest.mark.parametrize(
    ("trouble", "goes_on"),
    [(FORBIDDEN, True), (DOWN, False), (BUSY, False), (AnswerLost("no answer"), False)],
)
def test_what_ails_one_output(trouble: JobsApiError, goes_on: bool) -> None:
    """A refusal is one task's; what has been waited out in vain is not for each further task."""
    tasks = [ended("SUCCESS", task_key=key, run_id=8 + n) for n, key in enumerate("abc")]
    told: list[Any] = []
    answers = [text("1"), trouble, *([text("3")] if goes_on else [])]
    run = {"run_id": 7, "tasks": tasks}
    _, outputs = read(run, *answers, on_unreadable=lambda lost, _error: told.append(lost))
    assert output_value(outputs) == {"a": "1", "b": None, "c": "3" if goes_on else None}
    assert told == [{"b": 9} if goes_on else {"b": 9, "c": 10}]
    with pytest.raises(type(trouble)):
        read(run, text("1"), trouble)


def test_only_the_tasks_that_failed_themselves() -> None:
    """Not those that succeeded, nor those that did not run because of others."""
    results = ["SUCCESS", "FAILED", "UPSTREAM_FAILED", "UPSTREAM_CANCELED", "EXCLUDED", "TIMEDOUT"]
    tasks = [ended(result, task_key=result, run_id=n) for n, result in enumerate(results)]
    asked, _ = read(
        {"run_id": 7, "tasks": tasks}, {"error": "a"}, {"error": "b"}, of_failed_tasks_only=True
    )
    assert asked == ["runs/get-output 1", "runs/get-output 5"]
