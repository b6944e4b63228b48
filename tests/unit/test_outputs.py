"""What a run gave back, from the API's answers."""

from __future__ import annotations

from airflow_jobs_provider.api.outputs import TaskOutput, output_calls, output_value


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


def test_a_run_without_tasks_is_asked_by_its_own_id() -> None:
    """The runs of API 2.0 have one output."""
    ((key, run_id, call),) = output_calls({"run_id": 7})
    assert (key, run_id, call.path, call.parameters) == (None, 7, "runs/get-output", {"run_id": 7})


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
    assert [(key, run_id) for key, run_id, _ in output_calls(run)] == [("a", 10), ("b", 9)]
