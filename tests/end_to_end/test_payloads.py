"""A request given as text or as a file, and a DAG's params, in a real Airflow."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.local.workspace import LocalWorkspace
from scripts.airflow_env import connection_to
from tests.end_to_end.dag_run import DagRun, RunDag

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalWorkspace]:
    """A workspace with a notebook that returns its parameter."""
    with LocalWorkspace(HERE / "notebooks", state_dir=tmp_path_factory.mktemp("state")) as running:
        yield running


@pytest.fixture(scope="module")
def done(workspace: LocalWorkspace, run_dag: RunDag) -> DagRun:
    """The DAG, run once with a conf that overrides a param."""
    return run_dag(
        HERE / "dags" / "payloads.py",
        connection=connection_to(workspace),
        conf={"day": "given", "other": 1},
    )


@pytest.mark.parametrize(
    ("task_id", "day"),
    [
        ("python", "given"),
        ("as_json", "given"),
        ("file", "given of the file"),
        ("kept_back", "none given"),
    ],
)
def test_each_request_runs_with_its_parameters(done: DagRun, task_id: str, day: str) -> None:
    """As Python writes a dict, as JSON, as a file; the request's own parameters come first."""
    assert done.state == "success", done.log
    assert done.tasks[task_id]["xcoms"]["return_value"] == day


def test_rendered_templates_show_the_file(done: DagRun) -> None:
    """Airflow stores the file's content, rendered, not its name."""
    with closing(sqlite3.connect(done.home / "airflow.db")) as database:
        ((stored,),) = database.execute(
            "select rendered_fields from rendered_task_instance_fields where task_id = 'file'"
        )
    rendered: Any = json.loads(json.loads(stored)["json"])
    assert rendered["run_name"] == "file"
    assert rendered["notebook_task"]["base_parameters"] == {"day": "given of the file"}
