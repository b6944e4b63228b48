"""Hundreds of deferred tasks whose runs are there before: the DAGs of ``many_dags``."""

from __future__ import annotations

from airflow_jobs_provider.api import endpoints
from airflow_jobs_provider.api.auth import Token
from airflow_jobs_provider.api.client import JobsClient
from tests.end_to_end.airflow_cluster import AirflowCluster
from tests.end_to_end.airflow_versions import AIRFLOW_2
from tests.end_to_end.cluster_dag_run import ClusterDagRun
from tests.end_to_end.eventually import eventually
from tests.end_to_end.many_dags.many import DAGS, FIRST_RUN_ID, TASKS
from tests.fakes.fake_service import TOKEN, FakeService, Run

__all__ = [
    "TRIGGERS",
    "begin",
    "cancels",
    "launch_runs",
    "left_alone",
    "mark_failed",
    "runs_of",
    "started",
]

TRIGGERS = DAGS * TASKS


def launch_runs(workspace: FakeService) -> None:
    """Launch a run for each task."""
    client = JobsClient(workspace.url, Token(TOKEN))
    request = {"existing_cluster_id": "c", "notebook_task": {"notebook_path": "/Shared/long"}}
    for number in range(TRIGGERS):
        assert client.send(endpoints.submit_run(request)) == FIRST_RUN_ID + number
    client.close()


def begin(cluster: AirflowCluster, number: int, *triggerers: str) -> ClusterDagRun:
    """Begin a DAG run, and wait until triggerers have started the triggers of all its tasks."""
    run = cluster.trigger(f"many_{number}")
    eventually(
        # One may have taken triggers over from another while that one was silent.
        lambda: len(set().union(*(_started(cluster, one, number) for one in triggerers))) == TASKS,
        "all have started",
    )
    if AIRFLOW_2:
        return run
    for index in range(TASKS):
        # As a worker does, which launched the run.
        path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/wait_{index}/xcomEntries"
        run_id = FIRST_RUN_ID + TASKS * number + index
        cluster.ask("POST", path, {"key": "run_id", "value": run_id, "map_index": -1})
    return run


def started(cluster: AirflowCluster, triggerer: str) -> int:
    """Return how many triggers a triggerer has started."""
    return len(_started(cluster, triggerer))


def _started(cluster: AirflowCluster, triggerer: str, number: int | None = None) -> set[str]:
    dag_id = "many_.*" if number is None else f"many_{number}"
    return cluster.logged_by_triggers(triggerer, rf"trigger {dag_id}/.* \(ID (\d+)\) starting")


def left_alone(cluster: AirflowCluster, triggerer: str) -> int:
    """Return of how many triggers that it lost a triggerer knows that their tasks still wait."""
    pattern = r"Run (\d+) is not canceled: its task is still deferred"
    return len(cluster.logged_by_triggers(triggerer, pattern))


def runs_of(workspace: FakeService, number: int) -> list[Run]:
    """Return the runs that the tasks of a DAG wait for."""
    first = FIRST_RUN_ID + TASKS * number
    return [workspace.run(run_id) for run_id in range(first, first + TASKS)]


def mark_failed(cluster: AirflowCluster, number: int) -> None:
    """Mark the only DAG run of a DAG failed."""
    query = "select run_id from dag_run where dag_id = :dag_id"
    ((run_id,),) = cluster.rows(query, dag_id=f"many_{number}")
    cluster.ask("PATCH", f"/dags/many_{number}/dagRuns/{run_id}", {"state": "failed"})


def cancels(workspace: FakeService) -> list[int]:
    """Return how many cancels were seen for the runs of each DAG."""
    return [sum(run.cancels for run in runs_of(workspace, number)) for number in range(DAGS)]
