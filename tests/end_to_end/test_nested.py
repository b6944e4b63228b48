"""Tasks that execute several operators, in a real Airflow and with real notebooks."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_jobs_provider.api import endpoints
from airflow_jobs_provider.api.auth import Token
from airflow_jobs_provider.api.client import JobsClient
from airflow_jobs_provider.local.workspace import LocalWorkspace
from scripts.airflow_env import connection_to
from tests.end_to_end.dag_run import DagRun, RunDag
from tests.fakes.fake_service import FakeService, Plan, Seen

HERE = Path(__file__).parent
OUTPUTS = {
    "loop": ["steady for a", "steady for b", "steady for c"],
    "retried": ["steady for a", "attempt 2 for nested"],
    "sensed": ["steady for x", "steady for y"],
    "twice": ["steady for one", "steady for two"],
    "plain": "steady for p",
}
# The second notebook of "retried" ran twice.
RUNS = 3 + 3 + 2 + 2 + 2 + 1


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalWorkspace]:
    """A workspace of the tests' notebooks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTEMPTS_FOLDER", str(tmp_path_factory.mktemp("attempts")))
        state = tmp_path_factory.mktemp("state")
        with LocalWorkspace(HERE / "notebooks", state_dir=state) as running:
            yield running


@pytest.fixture(scope="module")
def nested(workspace: LocalWorkspace, run_dag: RunDag) -> DagRun:
    """The DAG run."""
    return run_dag(HERE / "dags" / "nested.py", connection=connection_to(workspace))


@pytest.mark.parametrize("task_id", OUTPUTS)
def test_each_launch_has_its_own_run(nested: DagRun, task_id: str) -> None:
    """Every execute returns the output of its own notebook."""
    assert nested.tasks[task_id]["state"] == "success", nested.log_of(task_id)
    assert nested.tasks[task_id]["xcoms"]["return_value"] == OUTPUTS[task_id]


def test_nothing_ran_twice(nested: DagRun, workspace: LocalWorkspace) -> None:
    """A retry finds what has succeeded."""
    assert nested.state == "success", nested.log
    with JobsClient(workspace.url, Token(workspace.token)) as client:
        assert len(list(client.iterate(endpoints.list_runs()))) == RUNS


def test_only_nested_operators_stay_on_the_worker(nested: DagRun) -> None:
    """Airflow executes the mapped and the plain task themselves, so they defer."""
    stays = "Waiting on the worker in spite of deferrable"
    for task_id in ("loop", "sensed"):
        assert stays in nested.log_of(task_id)
    for task_id in ("plain", "mapped"):
        assert stays not in nested.log_of(task_id)
        assert "Deferring: the triggerer waits for run" in nested.log_of(task_id)


def test_a_kill_reaches_the_operator_that_waits(run_dag: RunDag) -> None:
    """Airflow's own handler of SIGTERM calls on_kill of the task, and so of the second operator."""
    looks_before_kill = 4

    def kill(seen: Seen, moment: str) -> bool:
        looks = service.count("runs/get")
        if (seen.endpoint, moment, looks) == ("runs/get", "handled", looks_before_kill):
            (pid,) = {
                one.parameters["notebook_task"]["base_parameters"]["pid"]
                for one in service.seen
                if one.endpoint == "runs/submit"
            }
            os.kill(int(pid), signal.SIGTERM)
        return False

    with FakeService(Plan(looks=10_000)) as service:
        service.plans.append(Plan())
        service.hook = kill
        connection = {"conn_type": "databricks_jobs", "host": service.url, "password": "a-token"}
        killed = run_dag(HERE / "dags" / "nested_killed.py", connection=json.dumps(connection))
        results = [run.result for run in service.runs.values()]
        cancels = service.count("runs/cancel")
    assert results == ["SUCCESS", "CANCELED"], killed.log
    assert cancels == 1
