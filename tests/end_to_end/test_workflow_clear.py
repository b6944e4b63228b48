"""Clearing tasks of a workflow group in a whole Airflow repairs the run of the group.

The notebooks count their attempts, so a task that runs once too often is noticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_jobs_provider.api.auth import Token
from airflow_jobs_provider.api.client import JobsClient
from airflow_jobs_provider.api.endpoints import get_run, list_runs
from airflow_jobs_provider.api.workflows.repair import repairs_of
from airflow_jobs_provider.local.workspace import LocalWorkspace
from scripts.airflow_env import connection_to
from tests.end_to_end.airflow_cluster import AirflowCluster
from tests.end_to_end.airflow_versions import AIRFLOW_2
from tests.end_to_end.cluster_dag_run import ClusterDagRun
from tests.end_to_end.eventually import eventually

# Thorough: on a busy machine Airflow may take the end of a deferring process for that of the
# resumed one, and fails that task, when a run ends within a few seconds.
pytestmark = [pytest.mark.standalone, pytest.mark.thorough]

HERE = Path(__file__).parent
TASKS = 10
SILENCE_SECONDS = "15"
FAILED = ("g.n0", "g.n1")


@pytest.fixture(scope="module")
def dags() -> Path:
    """The DAGs of this module."""
    return HERE / "workflow_dags"


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """An Airflow that soon takes a silent process for dead."""
    if AIRFLOW_2:
        return {
            "AIRFLOW__SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": SILENCE_SECONDS,
            "AIRFLOW__SCHEDULER__ZOMBIE_DETECTION_INTERVAL": "2",
        }
    return {
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": SILENCE_SECONDS,
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    }


@pytest.fixture(scope="module")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which notebooks count their attempts."""
    return tmp_path_factory.mktemp("attempts")


@pytest.fixture(scope="module")
def local_workspace(
    attempts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalWorkspace]:
    """A workspace that really runs notebooks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTEMPTS_FOLDER", str(attempts))
        state = tmp_path_factory.mktemp("state")
        with LocalWorkspace(HERE / "notebooks", state_dir=state) as running:
            yield running


@pytest.fixture(scope="module")
def connections(local_workspace: LocalWorkspace) -> dict[str, str]:
    """The connection to the local workspace."""
    return {"AIRFLOW_CONN_DATABRICKS_DEFAULT": connection_to(local_workspace)}


@pytest.fixture
def client(local_workspace: LocalWorkspace) -> Iterator[JobsClient]:
    """A client of the workspace."""
    token = Token(local_workspace.token)
    with JobsClient(local_workspace.url, token, api_version="2.2") as one:
        yield one


def failed_run(cluster: AirflowCluster, dag_id: str) -> ClusterDagRun:
    """Begin a DAG run, and wait until two of its tasks have failed and all others succeeded."""
    if not cluster.triggerers:
        cluster.start_triggerer()
    dag_run = cluster.trigger(dag_id)
    dag_run.until_over()
    assert dag_run.states() == {"success": TASKS - 1, "failed": 2}, dag_run.logs()
    return dag_run


def attempts_of(folder: Path, dag_id: str) -> list[int]:
    """Return how often each notebook was executed."""
    return [int((folder / f"{dag_id}_{number}").read_text()) for number in range(TASKS)]


def repairs(client: JobsClient, dag_id: str) -> int:
    """Return how often the one run of a DAG's group was repaired."""
    runs = [
        run for run in client.send(list_runs(limit=25)).items if run["run_name"] == f"{dag_id}.g"
    ]
    assert len(runs) == 1, "no further run was launched"
    run = client.send(get_run(runs[0]["run_id"], include_history=True))
    assert run["state"]["result_state"] == "SUCCESS"
    return len(repairs_of(run))


def test_cleared_tasks_are_one_repair(
    cluster: AirflowCluster, client: JobsClient, attempts: Path
) -> None:
    """Two of ten have failed and are cleared together: both run again, and nothing else."""
    dag_run = failed_run(cluster, "cleared")
    dag_run.clear(FAILED)
    dag_run.until_over_with({"success": TASKS + 1})
    assert attempts_of(attempts, "cleared") == [2, 2, *[1] * (TASKS - 2)]
    assert repairs(client, "cleared") == 1


def test_a_worker_dies_between_the_clear_and_the_repair(
    cluster: AirflowCluster, client: JobsClient, attempts: Path
) -> None:
    """The next try makes the repair, or finds that of the other task."""
    dag_run = failed_run(cluster, "killed")
    before = attempts_of(attempts, "killed")
    assert before == [2, 2, *[1] * (TASKS - 2)]
    dag_run.clear(FAILED)
    note = cluster.home / f"{dag_run.run_id}.pid"
    pid = int(eventually(lambda: note.exists() and note.read_text(), "the task is executed"))
    cluster.kill_worker(pid)
    dag_run.until_over_with({"success": TASKS + 1})
    assert attempts_of(attempts, "killed") == [3, 3, *[1] * (TASKS - 2)]
    # One for Airflow's retries of the first failure, one or two after the clear: the task that was
    # killed cannot tell the other one that it is to run again.
    assert repairs(client, "killed") in (2, 3)
