"""Workflow groups on the local workspace, in one DAG run: nested, mapped, skipped, repaired."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_jobs_provider.api.auth import Token
from airflow_jobs_provider.api.client import JobsClient
from airflow_jobs_provider.api.endpoints import get_run, list_runs
from airflow_jobs_provider.api.workflows.follow import whole_run
from airflow_jobs_provider.api.workflows.outputs import read_outputs
from airflow_jobs_provider.api.workflows.repair import repairs_of
from airflow_jobs_provider.local.workspace import LocalWorkspace
from scripts.airflow_env import connection_to
from tests.end_to_end.dag_run import DagRun, RunDag

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalWorkspace]:
    """A workspace whose notebooks keep count of their attempts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTEMPTS_FOLDER", str(tmp_path_factory.mktemp("attempts")))
        state = tmp_path_factory.mktemp("state")
        with LocalWorkspace(HERE / "notebooks", state_dir=state) as running:
            yield running


@pytest.fixture(scope="module")
def done(workspace: LocalWorkspace, run_dag: RunDag) -> DagRun:
    """The DAG, run once."""
    return run_dag(HERE / "dags" / "workflow_groups.py", connection=connection_to(workspace))


def test_each_task_returns_the_output_of_its_own_run(done: DagRun) -> None:
    """Deferred or not, at any depth, with templates and with values from outside the group."""
    assert done.state == "success", done.log
    outputs = {
        task_id: task["xcoms"].get("return_value")
        for task_id, task in done.tasks.items()
        if task_id.startswith("etl.") and task_id != "etl.launch"
    }
    run_id = done.tasks["etl.launch"]["xcoms"]["run_id"]
    day = outputs.pop("etl.inner.nested")
    assert outputs == {
        "etl.first": "steady for first",
        "etl.taking": "steady for from outside",
        "etl.not_needed": None,
    }
    assert day.startswith("steady for 20")
    runs = [done.tasks[name]["xcoms"]["run_id"] for name in ("etl.first", "etl.taking")]
    assert len({run_id, *runs}) == 1 + len(runs), "each task has a run of its own"


def test_a_task_whose_trigger_rule_is_not_met_is_skipped(done: DagRun) -> None:
    """In Airflow as in Databricks."""
    assert done.tasks["etl.not_needed"]["state"] == "skipped"


def test_retries_of_two_tasks_are_one_repair(done: DagRun, workspace: LocalWorkspace) -> None:
    """Both run once more in the same run; the third task is untouched."""
    values = {
        name: task["xcoms"].get("return_value")
        for name, task in done.tasks.items()
        if name.startswith("shaky.") and name != "shaky.launch"
    }
    assert values == {
        "shaky.retried_1": "attempt 2 for retried_1",
        "shaky.retried_2": "attempt 2 for retried_2",
        "shaky.untouched": "attempt 1 for untouched",
    }
    run_id = int(done.tasks["shaky.launch"]["xcoms"]["run_id"])
    with JobsClient(workspace.url, Token(workspace.token), api_version="2.2") as client:
        run = client.send(get_run(run_id, include_history=True))
    assert len(repairs_of(run)) == 1
    assert run["state"]["result_state"] == "SUCCESS"


def test_a_run_of_another_definition_is_not_repaired(
    done: DagRun, workspace: LocalWorkspace
) -> None:
    """The task runs alone, with the group's cluster and parameters, and the log says why."""
    launch, alone = done.tasks["changing.launch"]["xcoms"], done.tasks["changing.alone"]["xcoms"]
    assert alone["return_value"] == "attempt 2 for changing"
    assert "the group's definition has changed since the run was launched" in done.log
    with JobsClient(workspace.url, Token(workspace.token), api_version="2.2") as client:
        first, second = (client.send(get_run(int(one["run_id"]))) for one in (launch, alone))
    assert (first["run_type"], second["run_type"]) == ("JOB_RUN", "SUBMIT_RUN")
    (task,) = second["tasks"]
    assert task["notebook_task"]["base_parameters"]["try"] == "2"
    assert task["new_cluster"]["num_workers"] == 1


def test_an_expanded_group_runs_each_definition(done: DagRun, workspace: LocalWorkspace) -> None:
    """Each map index has a run with its own parameters."""
    states = {done.tasks[f"each.of.greet[{index}]"]["state"] for index in (0, 1)}
    assert states == {"success"}
    with JobsClient(workspace.url, Token(workspace.token), api_version="2.2") as client:
        runs = client.send(list_runs(limit=25)).items
        ids = [run["run_id"] for run in runs if run["run_name"] == "workflow_groups.each.of"]
        whole = [client.run(whole_run(run_id, api_version="2.2")) for run_id in ids]
        outputs = [client.run(read_outputs(run)) for run in whole]
    assert {one.result for several in outputs for one in several} == {
        "steady for ann",
        "steady for bob",
    }
