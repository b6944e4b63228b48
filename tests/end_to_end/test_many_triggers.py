"""Hundreds of deferred tasks at once, in a real Airflow: whose runs are cancelled, and when.

Most tasks are in the triggerer without a worker (``many_dags``), so that there can be many of them.
The tests of this module go on from where the one before ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from airflow_jobs_provider.api import calls
from airflow_jobs_provider.api.auth import Token
from airflow_jobs_provider.api.client import JobsClient
from tests.end_to_end.airflow_cluster import AIRFLOW_2, AirflowCluster, DagRun, eventually
from tests.end_to_end.counting_workspace import TOKEN, CountedRun, CountingWorkspace
from tests.end_to_end.many_dags.many import DAGS, FIRST_RUN_ID, TASKS
from tests.end_to_end.scenes import Scene

pytestmark = pytest.mark.standalone

HERE = Path(__file__).parent
TRIGGERS = DAGS * TASKS
# What the runs of a cleared task may overlap.
OVERLAP_SECONDS = 5
SILENCE_SECONDS = 10
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def workspace() -> Iterator[CountingWorkspace]:
    """A workspace with a run for each task."""
    with CountingWorkspace() as running:
        client = JobsClient(running.url, Token(TOKEN))
        request = {"existing_cluster_id": "c", "notebook_task": {"notebook_path": "/Shared/long"}}
        for number in range(TRIGGERS):
            assert client.send(calls.submit_run(request)) == FIRST_RUN_ID + number
        client.close()
        yield running


@pytest.fixture(scope="module")
def cluster(
    workspace: CountingWorkspace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowCluster]:
    """One Airflow for all tests of this module."""
    connections = {"AIRFLOW_CONN_DATABRICKS_DEFAULT": workspace.connection}
    home = tmp_path_factory.mktemp("cluster")
    with AirflowCluster(home, HERE / "many_dags", connections) as running:
        yield running


@contextmanager
def silences(cluster: AirflowCluster, triggerer: str) -> Iterator[list[float]]:
    """Note the times between two heartbeats of a triggerer, in seconds."""
    noted: list[float] = []
    over = threading.Event()

    def watch() -> None:
        last = cluster.heartbeat_of(triggerer)
        while not over.wait(0.1):
            beat = cluster.heartbeat_of(triggerer)
            if beat > last:
                noted.append(beat - last)
                last = beat

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield noted
    finally:
        cluster.until_beaten(triggerer, since=time.time(), seconds=0)
        time.sleep(0.3)
        over.set()
        thread.join()


def begin(cluster: AirflowCluster, number: int, triggerer: str) -> DagRun:
    """Begin a DAG run, and wait until a triggerer has started the triggers of all its tasks."""
    run = cluster.trigger(f"many_{number}")
    pattern = rf"trigger many_{number}/.* \(ID (\d+)\) starting"
    eventually(
        lambda: len(cluster.logged_by_triggers(triggerer, pattern)) == TASKS, "all have started"
    )
    if AIRFLOW_2:
        return run
    for index in range(TASKS):
        # As a worker does, which launched the run.
        path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/wait_{index}/xcomEntries"
        run_id = FIRST_RUN_ID + TASKS * number + index
        cluster.ask("POST", path, {"key": "run_id", "value": run_id, "map_index": -1})
    return run


def runs_of(workspace: CountingWorkspace, number: int) -> list[CountedRun]:
    """Return the runs that the tasks of a DAG wait for."""
    first = FIRST_RUN_ID + TASKS * number
    return [workspace.run(run_id) for run_id in range(first, first + TASKS)]


def cancels(workspace: CountingWorkspace) -> list[int]:
    """Return how many cancels were seen for the runs of each DAG."""
    return [sum(run.cancels for run in runs_of(workspace, number)) for number in range(DAGS)]


def test_cleared_beside_a_hundred(
    cluster: AirflowCluster, workspace: CountingWorkspace, record_property: Record
) -> None:
    """The triggerer is silent for one build at the most; then it is quick to cancel."""
    (triggerer,) = cluster.triggerers
    with silences(cluster, triggerer) as at_first:
        begin(cluster, 0, triggerer)
    record_property("longest silence at first, s", round(max(at_first), 1))
    scene = Scene(cluster.trigger("one"), workspace, record_property)
    first = scene.deferred()
    with silences(cluster, triggerer) as later:
        scene.dag_run.clear()
        second = scene.deferred(2)
        eventually(lambda: not first.is_active, "the first run has ended")
    assert first.cancelled_at is not None
    overlap = first.cancelled_at - second.launched_at
    record_property("overlap, s", round(overlap, 1))
    record_property("longest silence later, s", round(max(later), 1))
    assert overlap < OVERLAP_SECONDS
    assert max(later) < SILENCE_SECONDS
    scene.succeed()
    scene.saw(runs=2, cancels=1)
    assert cancels(workspace) == [0] * DAGS


@pytest.fixture(scope="module")
def taken_over(cluster: AirflowCluster) -> tuple[str, str]:
    """Two triggerers; the first is frozen until the second has taken its triggers over."""
    (frozen,) = cluster.triggerers
    for number in range(1, DAGS):
        begin(cluster, number, frozen)
    other = cluster.start_triggerer()
    pattern = r"trigger many_.* \(ID (\d+)\) starting"
    cluster.freeze(frozen)
    try:
        eventually(
            lambda: len(cluster.logged_by_triggers(other, pattern)) == TRIGGERS, "it took them over"
        )
    finally:
        cluster.thaw(frozen)
    return frozen, other


def test_hundreds_are_taken_over(
    taken_over: tuple[str, str],
    cluster: AirflowCluster,
    workspace: CountingWorkspace,
    record_property: Record,
) -> None:
    """The triggerer that wakes up without its triggers cancels no run, and knows why."""
    thawed = time.monotonic()
    frozen, _ = taken_over
    pattern = r"Run (\d+) is not canceled: its task still waits for it"
    eventually(
        lambda: len(cluster.logged_by_triggers(frozen, pattern)) == TRIGGERS, "none is cancelled"
    )
    record_property("until all were known, s", round(time.monotonic() - thawed, 1))
    assert cancels(workspace) == [0] * DAGS


def test_one_dag_run_of_several_is_marked(
    taken_over: tuple[str, str],
    cluster: AirflowCluster,
    workspace: CountingWorkspace,
    record_property: Record,
) -> None:
    """The runs of its hundred tasks are cancelled within a minute, and no others."""
    marked = time.monotonic()
    cluster.ask("PATCH", "/dags/many_0/dagRuns/many_0_1", {"state": "failed"})
    mine = runs_of(workspace, 0)
    eventually(lambda: all(run.cancels for run in mine), "all its runs are cancelled", 60)
    record_property("until all were cancelled, s", round(time.monotonic() - marked, 1))
    for triggerer in taken_over:
        cluster.until_beaten(triggerer, since=time.time())
    assert cancels(workspace) == [TASKS, *[0] * (DAGS - 1)]
