"""What a run gave back, from the API's answers."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from airflow_jobs_provider.api.errors import (
    AuthenticationError,
    BadRequestError,
    ConflictError,
    JobsAPIError,
    ResponseLostError,
    ServerError,
    UnexpectedResponseError,
)
from airflow_jobs_provider.api.workflows.follow import follow_run
from airflow_jobs_provider.api.workflows.outputs import TaskOutput, output_value, read_outputs
from airflow_jobs_provider.api.workflows.progress import RunProgress
from tests.helpers.workflow_driver import WorkflowDriver


def output(key: str | None, **answer: object) -> TaskOutput:
    """Read an answer of get-output."""
    return TaskOutput.from_answer(key, 7, dict(answer))


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
    service = WorkflowDriver(*answers)
    outputs = service.execute(read_outputs(run, **how))
    assert service.answers == []
    return service.asked, outputs


def text(result: str) -> dict[str, Any]:
    """Make an answer of get-output."""
    return {"metadata": ended("SUCCESS"), "notebook_output": {"result": result}}


def ended(result: str, **more: Any) -> dict[str, Any]:
    """Make a run or task that has ended."""
    return {"state": {"life_cycle_state": "TERMINATED", "result_state": result}, **more}


SEVERAL = BadRequestError(
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


def test_what_gives_no_text_back_is_not_asked_for() -> None:
    """It succeeded, and is no notebook; its output is None."""
    run = ended(
        "SUCCESS",
        run_id=7,
        tasks=[
            ended("SUCCESS", task_key="jar", run_id=8, spark_jar_task={"main_class_name": "a.B"}),
            ended("SUCCESS", task_key="notebook", run_id=9, notebook_task={}),
            ended("SUCCESS", task_key="of a kind to come", run_id=10, new_task={}),
            ended("SUCCESS", task_key="sql", run_id=11, sql_task={}, notebook_task=None),
        ],
    )
    asked, outputs = read(run, text("1"), text("2"))
    assert asked == ["runs/get-output 9", "runs/get-output 10"]
    assert output_value(outputs) == {
        "jar": None,
        "notebook": "1",
        "of a kind to come": "2",
        "sql": None,
    }
    # Version 2.0 has the kind of its one task below "task".
    task = {"spark_python_task": {"python_file": "dbfs:/a.py"}}
    asked, outputs = read(ended("SUCCESS", run_id=7, task=task))
    assert (asked, output_value(outputs)) == ([], None)


def test_the_error_of_what_gives_no_text_back_is_asked_for() -> None:
    """Of its own run, and of a task whose failure the run accepts."""
    error = {"error": "no such class", "metadata": ended("FAILED")}
    asked, (output,) = read(ended("FAILED", run_id=7, task={"spark_jar_task": {}}), error)
    assert (asked, output.error) == (["runs/get-output 7"], "no such class")
    tasks = [
        ended("SUCCESS", task_key="a", run_id=8, spark_jar_task={}),
        ended("FAILED", task_key="b", run_id=9, spark_jar_task={}),
    ]
    asked, outputs = read(ended("SUCCESS_WITH_FAILURES", run_id=7, tasks=tasks), error)
    assert asked == ["runs/get-output 9"]
    assert [one.error for one in outputs] == ["", "no such class"]


def test_a_refusal_for_another_reason_is_told() -> None:
    """A run that has no tasks to ask instead."""
    with pytest.raises(BadRequestError, match="too old"):
        read({"run_id": 7}, BadRequestError(status=400, api_message="too old"), {"run_id": 7})


def test_one_output_that_is_refused_leaves_the_others() -> None:
    """It is None, and its run is told; by default the refusal is raised."""
    tasks = [
        ended("SUCCESS", task_key=key, run_id=8 + n, notebook_task={}) for n, key in enumerate("ab")
    ]
    refused: list[Any] = []
    _, outputs = read(
        {"run_id": 7, "tasks": tasks},
        BadRequestError(status=400, api_message="too old"),
        text("2"),
        on_unreadable=lambda lost, _error: refused.append(lost),
    )
    assert output_value(outputs) == {"a": None, "b": "2"}
    assert refused == [{"a": 8}]
    with pytest.raises(BadRequestError, match="too old"):
        read({"run_id": 7, "tasks": tasks}, BadRequestError(status=400, api_message="too old"))


FORBIDDEN = AuthenticationError(status=403)
DOWN, BUSY = ServerError(status=503), ConflictError(status=400)


@pytest.mark.parametrize(
    ("trouble", "goes_on"),
    [(FORBIDDEN, True), (DOWN, False), (BUSY, False), (ResponseLostError("no answer"), False)],
)
def test_what_ails_one_output(trouble: JobsAPIError, goes_on: bool) -> None:
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


def listed(n: int, result: str = "SUCCESS", attempt: int = 0, **more: Any) -> dict[str, Any]:
    """Make an iteration as the run of its for_each_task lists it."""
    return ended(result, task_key="one", run_id=n, attempt_number=attempt, **more)


def loop(*iterations: dict[str, Any], total: int | None = None, **more: Any) -> dict[str, Any]:
    """Make the run of a for_each_task, run 8."""
    stats = {} if total is None else {"task_run_stats": {"total_iterations": total}}
    itself = {"run_id": 8, "task_key": "each", "for_each_task": {"stats": stats}}
    return {"run_id": 8, "tasks": [itself], "iterations": list(iterations), **more}


OF_A_LOOP = {"run_id": 7, "tasks": [ended("SUCCESS", task_key="each", run_id=8, for_each_task={})]}


def attempt_of(first: int, result: str = "") -> dict[str, Any]:
    """Make the output of a later attempt."""
    answer = text(result)
    return {**answer, "metadata": {**answer["metadata"], "original_attempt_run_id": first}}


def test_a_later_attempt_takes_the_place_of_the_first() -> None:
    """Its output tells whose attempt it is, where the list does not; no other request does."""
    run = loop(
        listed(80), listed(81, "FAILED"), listed(82), listed(83, "FAILED", 1), listed(84, attempt=2)
    )
    answers = [attempt_of(81, "b"), attempt_of(81), text("a"), text("c")]
    asked, outputs = read(OF_A_LOOP, run, *answers)
    assert asked == ["runs/get 8", *(f"runs/get-output {n}" for n in (84, 83, 80, 82))]
    assert output_value(outputs) == ["a", "b", "c"]


def test_attempts_that_the_list_tells_are_not_asked_for() -> None:
    """Where it names the first attempt, only the latest one counts."""
    run = loop(
        listed(80, "FAILED"), listed(81), listed(82, "FAILED", 1, original_attempt_run_id=80)
    )
    asked, outputs = read(OF_A_LOOP, run, {"error": "late"}, text("b"))
    assert asked == ["runs/get 8", "runs/get-output 82", "runs/get-output 81"]
    assert output_value(outputs) == [None, "b"]


def test_a_failed_iteration_that_was_retried_well_is_no_failure() -> None:
    """Of a loop that failed, only what counts is told."""
    run = loop(listed(80, "FAILED"), listed(81, "FAILED"), listed(82, attempt=1))
    failed = {"run_id": 7, "tasks": [ended("FAILED", task_key="each", run_id=8, for_each_task={})]}
    asked, outputs = read(
        failed, run, attempt_of(80, "a"), {"error": "no b"}, of_failed_tasks_only=True
    )
    assert asked == ["runs/get 8", "runs/get-output 82", "runs/get-output 81"]
    assert outputs[0].failure_lines()[1:] == ["Task 'each', iteration 1 (run 81): no b"]


def test_iterations_that_did_not_start_are_gaps() -> None:
    """The list has as many places as the loop has inputs."""
    _, outputs = read(OF_A_LOOP, loop(listed(80), total=3), text("a"))
    assert output_value(outputs) == ["a", None, None]


def test_a_loop_without_inputs_gives_an_empty_list() -> None:
    """It has run over nothing."""
    run = loop(total=0)
    del run["iterations"]
    asked, outputs = read(OF_A_LOOP, run)
    assert (asked, output_value(outputs)) == (["runs/get 8"], [])


def test_iterations_come_by_pages() -> None:
    """Each page repeats the loop itself; a page that comes again is an error, not for ever."""
    first = loop(listed(80), next_page_token="t1")
    _, outputs = read(OF_A_LOOP, first, loop(listed(81)), text("a"), text("b"))
    assert output_value(outputs) == ["a", "b"]
    again = loop(listed(81), next_page_token="t1")
    with pytest.raises(UnexpectedResponseError, match="'t1' once more"):
        read(OF_A_LOOP, first, again)
    told: list[Any] = []
    _, outputs = read(OF_A_LOOP, first, again, on_unreadable=lambda *lost: told.append(lost[0]))
    assert (output_value(outputs), told) == (None, [{"each": 8}])


def test_what_ails_one_iteration() -> None:
    """A refusal is its own; what was waited out in vain is not waited for again."""
    run = loop(*(listed(n) for n in (80, 81, 82)))
    tasks = [*OF_A_LOOP["tasks"], ended("SUCCESS", task_key="last", run_id=9, notebook_task={})]  # type: ignore[misc]
    told: list[Any] = []
    answers = [run, text("a"), FORBIDDEN, DOWN]
    asked, outputs = read(
        {"run_id": 7, "tasks": tasks},
        *answers,
        on_unreadable=lambda lost, _error: told.append(lost),
    )
    assert asked[-1] == "runs/get-output 82"
    assert output_value(outputs) == {"each": ["a", None, None], "last": None}
    assert told == [{"each[1]": 81}, {"each[2]": 82, "last": 9}]


def test_a_list_that_shows_only_the_first_tasks_is_not_taken_for_all() -> None:
    """Version 2.2 shows a hundred of them in a list, and says so."""
    tasks = [ended("SUCCESS", task_key=key, run_id=8 + n) for n, key in enumerate("abc")]
    shown: Any = ended("SUCCESS", run_id=7, tasks=tasks[:1], has_more=True)
    first = ended("SUCCESS", run_id=7, tasks=tasks[:2], next_page_token="t")
    service = WorkflowDriver(first, {"tasks": tasks[2:]})
    steps = follow_run(
        7,
        polling_period=lambda: 1,
        progress=RunProgress(7, logging.getLogger(__name__)),
        first_look=shown,
    )
    assert service.execute(steps).run["tasks"] == tasks
