"""The parameters that a task gets from its job's run, written into the task."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_jobs_provider.api.workflows.run_parameters import with_run_parameters

DAY = [{"name": "day", "default": "2024-01-01"}, {"name": "n", "default": "3"}]
VALUES = {"day": "2024-01-01", "n": "3"}


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        # To tasks that take parameters by name, over their own.
        (
            {"notebook_task": {"notebook_path": "/n"}},
            {"notebook_task": {"notebook_path": "/n", "base_parameters": VALUES}},
        ),
        (
            {"notebook_task": {"base_parameters": {"day": "x", "own": "1"}}},
            {"notebook_task": {"base_parameters": {"own": "1", **VALUES}}},
        ),
        (
            {"sql_task": {"warehouse_id": "w"}},
            {"sql_task": {"warehouse_id": "w", "parameters": VALUES}},
        ),
        (
            {"run_job_task": {"job_id": 1}},
            {"run_job_task": {"job_id": 1, "job_parameters": VALUES}},
        ),
        (
            {"python_wheel_task": {"named_parameters": {"own": "1"}}},
            {"python_wheel_task": {"named_parameters": {"own": "1", **VALUES}}},
        ),
        # Not to those that take them by position.
        (
            {"python_wheel_task": {"parameters": ["x"]}},
            {"python_wheel_task": {"parameters": ["x"]}},
        ),
        (
            {"spark_python_task": {"python_file": "/f"}},
            {"spark_python_task": {"python_file": "/f"}},
        ),
        # By reference everywhere; an unknown one stays.
        (
            {"spark_python_task": {"parameters": ["{{job.parameters.day}}", "{{job.id}}"]}},
            {"spark_python_task": {"parameters": ["2024-01-01", "{{job.id}}"]}},
        ),
        (
            {"dbt_task": {"commands": ["run --vars {{ job.parameters.n }}{{job.parameters.no}}"]}},
            {"dbt_task": {"commands": ["run --vars 3{{job.parameters.no}}"]}},
        ),
        # In a loop, too.
        (
            {"for_each_task": {"inputs": "[1]", "task": {"notebook_task": {}}}},
            {
                "for_each_task": {
                    "inputs": "[1]",
                    "task": {"notebook_task": {"base_parameters": VALUES}},
                }
            },
        ),
    ],
)
def test_the_parameters_of_the_job(task: dict[str, Any], expected: dict[str, Any]) -> None:
    """As the service passes them."""
    assert with_run_parameters(task, DAY) == expected
    assert with_run_parameters(task) == task


@pytest.mark.parametrize(
    ("name", "kind", "is_replaced"),
    [
        ("python_params", "spark_python_task", True),
        ("python_params", "python_wheel_task", True),
        ("jar_params", "spark_jar_task", True),
        ("spark_submit_params", "spark_submit_task", True),
        ("python_params", "spark_jar_task", False),
    ],
)
def test_the_parameters_of_the_run(name: str, kind: str, is_replaced: bool) -> None:
    """They replace those of the tasks of their kind, if there are any."""
    task = {kind: {"parameters": ["own"]}}
    given: dict[str, Any] = {name: ["of", "the", "run"]}
    made = with_run_parameters(task, **given)
    assert made[kind]["parameters"] == (["of", "the", "run"] if is_replaced else ["own"])
    nothing: dict[str, Any] = {name: None}
    assert with_run_parameters(task, **nothing) == task
    assert task == {kind: {"parameters": ["own"]}}


def test_a_wheel_with_named_parameters_takes_none_by_position() -> None:
    """It may have only one of the two."""
    task = {"python_wheel_task": {"named_parameters": {"own": "1"}}}
    assert with_run_parameters(task, python_params=["x"]) == task
