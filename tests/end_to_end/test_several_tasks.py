"""A job of several tasks on the local workspace, in versions 2.0 and 2.2, repaired if it fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.api.auth import Token
from airflow_jobs_provider.api.client import JobsClient
from airflow_jobs_provider.api.endpoints import get_run
from airflow_jobs_provider.api.workflows.repair import repairs_of
from airflow_jobs_provider.local.workspace import LocalWorkspace
from tests.end_to_end.airflow_versions import AIRFLOW_3_0
from tests.end_to_end.dag_run import DagRun, RunDag

pytestmark = pytest.mark.skipif(AIRFLOW_3_0, reason="tried with the first and the last line")

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def workspace(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[LocalWorkspace]:
    """A workspace whose notebooks keep count of their attempts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTEMPTS_FOLDER", str(tmp_path_factory.mktemp("attempts")))
        with LocalWorkspace(
            HERE / "notebooks", state_dir=tmp_path_factory.mktemp("state")
        ) as running:
            yield running


@pytest.fixture(scope="module")
def done(workspace: LocalWorkspace, run_dag: RunDag) -> DagRun:
    """The DAG, run once."""

    def connection(version: str) -> str:
        return json.dumps(
            {
                "conn_type": "databricks_jobs",
                "host": workspace.url,
                "password": workspace.token,
                "extra": {"api_version": version},
            }
        )

    return run_dag(
        HERE / "dags" / "several_tasks.py",
        connection=connection("2.2"),
        env={"AIRFLOW_CONN_VERSION_2_0": connection("2.0")},
    )


def repairs(workspace: LocalWorkspace, task: dict[str, Any]) -> int:
    """Return how often the run that a task launched was repaired."""
    with JobsClient(workspace.url, Token(workspace.token), api_version="2.2") as client:
        run = client.send(get_run(int(task["xcoms"]["run_id"]), include_history=True))
    return len(repairs_of(run))


@pytest.mark.parametrize(
    ("task_id", "attempt"),
    [
        ("repaired_blocking", 2),
        ("repaired_deferrable", 2),
        ("repaired_twice", 3),
        ("of_version_2_0", 1),
    ],
)
def test_the_outputs_come_by_task_key(
    done: DagRun, workspace: LocalWorkspace, task_id: str, attempt: int
) -> None:
    """The last attempt of each task counts, with the parameters that the run was given."""
    task = done.tasks[task_id]
    assert task["state"] == "success", done.log
    assert task["xcoms"]["return_value"] == {
        "steady": f"steady for {task_id}",
        "shaky": f"attempt {attempt} for {task_id}",
        "last": f"steady for {task_id}",
    }
    assert repairs(workspace, task) == attempt - 1


def test_a_run_that_no_repair_mends_fails_with_its_reason(
    done: DagRun, workspace: LocalWorkspace
) -> None:
    """After the last repair the failure is told, with each task that failed."""
    task = done.tasks["not_often_enough"]
    assert task["state"] == "failed"
    log = done.log_of("not_often_enough")
    assert "Task 'shaky': ValueError: attempt 2 is too early" in log
    assert "Its failed tasks run again" in log
    assert repairs(workspace, task) == 1


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("launched_by", ["run", "submitted", "sensed"])
def test_the_output_of_one_task_is_an_xcom_of_its_own(
    done: DagRun, launched_by: str, deferrable: bool
) -> None:
    """``run.output["steady"]`` of another task, with multiple_outputs; never over run_id."""
    task_id = f"{launched_by}_{deferrable}"
    xcoms = done.tasks[task_id]["xcoms"]
    assert done.tasks[f"take_{task_id}"]["state"] == "success", done.log
    steady, last, run_id = done.tasks[f"take_{task_id}"]["xcoms"]["return_value"]
    whole = xcoms["return_value"]
    assert (steady, last) == (whole["steady"], whole["last"])
    assert steady.startswith("steady for ")
    assert isinstance(run_id, int)
    assert run_id == xcoms["run_id"]
    if launched_by == "submitted":
        assert whole["run_id"] == "steady for all"
        assert "The output of task 'run_id' is in return_value only" in done.log_of(task_id)


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_run_of_one_notebook_may_have_the_flag(done: DagRun, deferrable: bool) -> None:
    """Airflow by itself would fail the task of the good run: its output is no dict."""
    task = done.tasks[f"single_{deferrable}"]
    assert (task["state"], task["xcoms"]["return_value"]) == ("success", "steady for all")
