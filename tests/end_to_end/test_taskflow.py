"""Decorated functions in a DAG run on the local workspace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_jobs_provider.local.workspace import LocalWorkspace
from scripts.airflow_env import connection_to
from tests.end_to_end.dag_run import DagRun, RunDag

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalWorkspace]:
    """An empty workspace."""
    with LocalWorkspace(tmp_path_factory.mktemp("workspace")) as running:
        yield running


@pytest.fixture(scope="module")
def done(workspace: LocalWorkspace, run_dag: RunDag) -> DagRun:
    """The DAG, run once."""
    return run_dag(HERE / "dags" / "taskflow.py", connection=connection_to(workspace))


def test_arguments_and_result(done: DagRun) -> None:
    """Another task's output, a context variable and text with braces arrive as they are."""
    task = done.tasks["serverless"]
    assert task["state"] == "success", done.log
    value = task["xcoms"]["return_value"]
    assert value.pop("ds").startswith("20")
    assert value == {
        "rows": [["100 % {}", 0.5], [{"a": None}, 0.5]],
        "text": "\n    indented as it was\n",
        "folder": ".airflow_jobs_provider",
        "braces": "{{job.id}}",
    }


def test_function_is_stored_below_the_home_folder(workspace: LocalWorkspace, done: DagRun) -> None:
    """There is one notebook for each function, and nothing else."""
    files = [file for file in workspace.root.glob("Users/*/*/*") if file.is_file()]
    names = sorted(file.name.rpartition("_")[0] for file in files)
    assert names == ["large", "no_json", "raising", "serverless"]
    assert {file.suffix for file in files} == {".py"}


@pytest.mark.parametrize(
    ("task_id", "words"),
    [
        ("raising", "ZeroDivisionError: integer division or modulo by zero"),
        ("large", "ValueError: The result of large has 6,000,020 bytes as JSON"),
        ("no_json", "TypeError: The result of no_json['a'][0] is of type builtins.set"),
    ],
)
def test_error_of_a_function(done: DagRun, task_id: str, words: str) -> None:
    """The function's exception is that of the task, and its trace is in the log."""
    assert done.tasks[task_id]["state"] == "failed"
    log = done.log_of(task_id)
    assert words in log
    assert "The trace of run" in log
    if task_id == "raising":
        assert "return 1 // number" in log
