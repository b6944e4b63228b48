"""What becomes of the run when a user acts on its task, or a triggerer goes: in a real Airflow.

The workspace counts what it is asked, so each test knows how many runs were launched and how many
cancels were seen. docs/guarantees.md has these figures for each version of Airflow.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_jobs_provider.api import endpoints
from airflow_jobs_provider.api.auth import Token
from airflow_jobs_provider.api.client import JobsClient
from airflow_jobs_provider.local.workspace import LocalWorkspace
from scripts.airflow_env import connection_to
from tests.end_to_end.airflow_cluster import (
    AIRFLOW_2,
    AIRFLOW_3_0,
    AirflowCluster,
    DagRun,
    eventually,
)
from tests.end_to_end.scenes import Begin, Scene
from tests.fakes.counting_workspace import CountingWorkspace

pytestmark = pytest.mark.standalone

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def workspace() -> Iterator[CountingWorkspace]:
    """A workspace that counts."""
    with CountingWorkspace() as running:
        yield running


@pytest.fixture(scope="module")
def local_workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalWorkspace]:
    """A workspace that really runs notebooks."""
    state = tmp_path_factory.mktemp("state")
    with LocalWorkspace(HERE / "notebooks", state_dir=state) as running:
        yield running


@pytest.fixture(scope="module")
def cluster(
    workspace: CountingWorkspace,
    local_workspace: LocalWorkspace,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[AirflowCluster]:
    """One Airflow for all tests of this module."""
    connections = {
        "AIRFLOW_CONN_DATABRICKS_DEFAULT": workspace.connection,
        "AIRFLOW_CONN_LOCAL_WORKSPACE": connection_to(local_workspace),
    }
    home = tmp_path_factory.mktemp("cluster")
    with AirflowCluster(home, HERE / "cluster_dags", connections) as running:
        yield running


@pytest.fixture(scope="module")
def begun(cluster: AirflowCluster, request: pytest.FixtureRequest) -> dict[str, DagRun]:
    """The DAG runs of all tests that name theirs, begun at once: Airflow takes its time."""
    return {
        item.name: cluster.trigger(str(item.callspec.params["scene"]))
        for item in request.session.items
        if item.path == request.path
        and isinstance(item, pytest.Function)
        and hasattr(item, "callspec")
        and "scene" in item.callspec.params
    }


@pytest.fixture
def scene(
    begun: dict[str, DagRun],
    workspace: CountingWorkspace,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> Scene:
    """The scene of a test that names its DAG."""
    return Scene(begun[request.node.name], workspace, record_property)


@pytest.fixture
def begin(
    cluster: AirflowCluster,
    workspace: CountingWorkspace,
    record_property: Callable[[str, object], None],
) -> Begin:
    """Begin a scene when its time has come."""
    return lambda dag_id: Scene(cluster.trigger(dag_id), workspace, record_property)


@pytest.fixture
def triggerer(cluster: AirflowCluster) -> str:
    """The only triggerer at work."""
    first, *others = cluster.triggerers or [cluster.start_triggerer()]
    for name in others:
        cluster.terminate(name)
    return first


@pytest.fixture
def two_triggerers(cluster: AirflowCluster) -> None:
    """Two triggerers are at work."""
    while len(cluster.triggerers) < 2:
        cluster.start_triggerer()


def of(*dag_ids: str) -> pytest.MarkDecorator:
    """Name the DAGs that a test is about; their runs begin before the first test."""
    return pytest.mark.parametrize("scene", dag_ids, indirect=True)


# The task waits in the triggerer.


@of("deferred")
def test_deferred_then_cleared(scene: Scene) -> None:
    """The run of the cleared task is cancelled, and the next try launches one of its own."""
    first = scene.deferred()
    scene.dag_run.clear()
    scene.deferred(2)
    eventually(lambda: not first.is_active, "the first run has ended")
    scene.succeed()
    scene.saw(runs=2, cancels=1)


@of("deferred")
@pytest.mark.parametrize("state", ["failed", "success"])
def test_deferred_then_marked(scene: Scene, state: str) -> None:
    """The run is cancelled, and the task stays as it was marked."""
    scene.deferred()
    scene.dag_run.mark(state)
    scene.all_stopped()
    scene.dag_run.until(state)
    scene.saw(runs=1, cancels=1)


@of("deferred_timed")
def test_deferred_beyond_execution_timeout(scene: Scene) -> None:
    """The run is cancelled and the task fails; the trigger names the limit."""
    scene.dag_run.until("failed")
    scene.all_stopped()
    scene.saw(runs=1, cancels=1)
    assert "it took longer than execution_timeout allows" in scene.dag_run.logs()


@of("deferred_kept")
def test_deferred_then_marked_but_not_to_be_cancelled(
    scene: Scene, cluster: AirflowCluster, triggerer: str
) -> None:
    """With cancel_on_kill=False the run goes on."""
    run = scene.deferred()
    scene.dag_run.mark("failed")
    scene.dag_run.until("failed")
    cluster.until_beaten(triggerer, since=time.time())
    assert run.is_active
    scene.saw(runs=1, cancels=0)


@of("deferred")
def test_dag_run_marked_failed(scene: Scene) -> None:
    """Marking the whole DAG run cancels the run of its deferred task."""
    scene.deferred()
    scene.dag_run.mark_all("failed")
    scene.all_stopped()
    scene.saw(runs=1, cancels=1)


@of("deferred")
def test_dag_run_deleted(scene: Scene) -> None:
    """Deleting the whole DAG run cancels the run of its deferred task."""
    scene.deferred()
    try:
        scene.dag_run.delete()
    except AssertionError as refused:
        if "cannot be deleted in running state" not in str(refused):
            raise
        scene.succeed()
        pytest.skip("this version of Airflow deletes no DAG run that is running")
    scene.all_stopped()
    scene.saw(runs=1, cancels=1)


def test_dag_run_beyond_dagrun_timeout(begin: Begin) -> None:
    """A DAG run that takes too long takes the run of its deferred task along."""
    scene = begin("deferred_limited")
    scene.deferred()
    scene.dag_run.until("skipped")
    scene.all_stopped()
    scene.saw(runs=1, cancels=1)


@of("mapped")
def test_one_of_the_mapped_tasks_marked_then_cleared(scene: Scene) -> None:
    """Only its own run is cancelled and launched anew; the other two go on."""
    scene.running(3)
    scene.dag_run.until_settled(times=3)
    scene.dag_run.until_watched(times=3)
    first = scene.runs
    scene.dag_run.mark("failed", map_index=1)
    eventually(lambda: any(run.cancels for run in first), "a run is cancelled")
    assert ["[1]" in run.name for run in first] == [bool(run.cancels) for run in first]
    scene.dag_run.clear(only_failed=True)
    scene.running(4)
    scene.dag_run.until_settled(times=4)
    for run in scene.runs:
        scene.workspace.end(run)
    for map_index in range(3):
        scene.dag_run.until("success", map_index=map_index)
    scene.saw(runs=4, cancels=1)


# On a worker or in the triggerer.


@of("blocking_retried", "deferred_retried")
def test_run_fails_at_every_try(scene: Scene) -> None:
    """Each of Airflow's retries launches one new run."""
    for launched in (1, 2, 3):
        run = scene.running(launched)
        if scene.dag_run.dag_id.startswith("deferred"):
            scene.deferred(launched)
        scene.workspace.end(run, "FAILED")
    scene.dag_run.until("failed")
    scene.saw(runs=3, cancels=0)


@of("blocking", "deferred")
def test_run_fails_and_the_task_is_cleared(scene: Scene) -> None:
    """A failed task that is cleared starts afresh, with a run of its own."""
    is_deferred = scene.dag_run.dag_id == "deferred"
    run = scene.deferred() if is_deferred else scene.running()
    scene.workspace.end(run, "FAILED")
    scene.dag_run.until("failed")
    scene.dag_run.until_over()
    scene.dag_run.clear()
    _ = scene.deferred(2) if is_deferred else scene.running(2)
    scene.succeed()
    scene.saw(runs=2, cancels=0)


# The task waits on the worker.


@of("blocking")
def test_blocking_then_cleared(scene: Scene) -> None:
    """The kill cancels the run, and the next try launches one of its own."""
    first = scene.running()
    scene.dag_run.clear()
    eventually(lambda: not first.is_active, "the first run has ended")
    if AIRFLOW_3_0:
        # It leaves the task in its state "restarting"; there is no next try.
        scene.saw(runs=1, cancels=1)
        return
    scene.running(2)
    scene.succeed()
    scene.saw(runs=2, cancels=1)


@of("blocking")
@pytest.mark.skipif(AIRFLOW_2, reason="its command is slower than the kill")
def test_blocking_then_cleared_twice(scene: Scene) -> None:
    """What the second time leaves no trace of in the task's state is known all the same."""
    first = scene.running()
    scene.dag_run.clear()
    scene.dag_run.clear()
    scene.running(2)
    eventually(lambda: not first.is_active, "the first run has ended")
    scene.succeed()
    scene.saw(runs=2, cancels=1)


@of("blocking")
@pytest.mark.parametrize("state", ["failed", "success"])
def test_blocking_then_marked(scene: Scene, state: str) -> None:
    """The kill cancels the run, and the task stays as it was marked."""
    scene.running()
    scene.dag_run.mark(state)
    scene.all_stopped()
    scene.dag_run.until(state)
    scene.saw(runs=1, cancels=1)


@of("blocking_timed")
def test_blocking_beyond_execution_timeout(scene: Scene) -> None:
    """The run is cancelled and the task fails."""
    scene.dag_run.until("failed")
    scene.all_stopped()
    scene.saw(runs=1, cancels=1)


@of("blocking_retried")
@pytest.mark.parametrize(
    "sign", [signal.SIGTERM, signal.SIGKILL], ids=lambda sign: str(sign.name).lower()
)
def test_blocking_task_gets(scene: Scene, sign: signal.Signals) -> None:
    """No user has sent the signal: the run goes on, and Airflow's retry follows it."""
    run = scene.running()
    os.kill(scene.dag_run.pid(), sign)
    if AIRFLOW_3_0 and sign == signal.SIGKILL:
        # It fails the task although a retry is left, and runs no callback: a known limit.
        scene.dag_run.until("failed")
        assert run.is_active
        scene.saw(runs=1, cancels=0)
        return
    scene.followed()
    scene.succeed()
    scene.saw(runs=1, cancels=0)


@of("blocking")
def test_blocking_task_gets_sigterm_with_no_retry_left(scene: Scene) -> None:
    """The task fails, and its run is cancelled."""
    scene.running()
    os.kill(scene.dag_run.pid(), signal.SIGTERM)
    scene.dag_run.until("failed")
    scene.all_stopped()
    scene.saw(runs=1, cancels=1)


@of("blocking")
def test_blocking_task_gets_sigkill_with_no_retry_left(scene: Scene) -> None:
    """As from the system that runs out of memory: Airflow 3 runs no callback, a known limit."""
    run = scene.running()
    assert scene.dag_run.xcom("run_id") == str(run.run_id)
    os.kill(scene.dag_run.pid(), signal.SIGKILL)
    scene.dag_run.until("failed")
    if AIRFLOW_2:
        scene.all_stopped()
        scene.saw(runs=1, cancels=1)
        return
    scene.dag_run.until_over()
    assert run.is_active
    scene.saw(runs=1, cancels=0)


@of("blocking")
def test_blocking_task_gets_sigquit(scene: Scene) -> None:
    """With the LocalExecutor, the process writes where it is, and goes on."""
    run = scene.running()
    os.kill(scene.dag_run.pid(), signal.SIGQUIT)
    looks = run.looks
    eventually(lambda: run.looks > looks + 1, "the task looks at the run")
    scene.succeed()
    scene.saw(runs=1, cancels=0)


# A workspace that really runs notebooks.


@of("really_running")
def test_a_notebook_at_work_is_stopped(scene: Scene, local_workspace: LocalWorkspace) -> None:
    """Marking the task failed stops the notebook that runs for it."""
    run_id = int(scene.dag_run.xcom("run_id"))
    scene.dag_run.until_watched()
    scene.dag_run.mark("failed")
    client = JobsClient(local_workspace.url, Token(local_workspace.token))
    try:

        def result() -> str | None:
            state: dict[str, str] = client.send(endpoints.get_run(run_id))["state"]
            return state.get("result_state")

        assert eventually(result, "the run has ended") == "CANCELED"
        launched = list(client.iterate(endpoints.list_runs()))
    finally:
        client.close()
    assert [run["run_id"] for run in launched] == [run_id]


# Triggerers come and go. These tests begin their scenes themselves.


def test_triggerer_restarted(begin: Begin, cluster: AirflowCluster, triggerer: str) -> None:
    """A triggerer that is told to stop cancels nothing; the next one goes on."""
    scene = begin("deferred")
    scene.deferred()
    cluster.terminate(triggerer)
    cluster.start_triggerer()
    scene.deferred(watched=2)
    scene.succeed()
    scene.saw(runs=1, cancels=0)


def test_triggerer_killed(begin: Begin, cluster: AirflowCluster, triggerer: str) -> None:
    """A triggerer that is killed with SIGKILL cancels nothing; the next one goes on."""
    scene = begin("deferred")
    scene.deferred()
    cluster.kill(triggerer)
    cluster.start_triggerer()
    scene.deferred(watched=2)
    scene.succeed()
    scene.saw(runs=1, cancels=0)


def test_another_triggerer_takes_over(
    begin: Begin, cluster: AirflowCluster, triggerer: str
) -> None:
    """Of two triggerers one is killed: the other one goes on with the run, nothing is cancelled."""
    scene = begin("deferred")
    scene.deferred()
    cluster.start_triggerer()
    cluster.kill(triggerer)
    scene.deferred(watched=2)
    scene.succeed()
    scene.saw(runs=1, cancels=0)


def test_frozen_triggerer_wakes_up(begin: Begin, cluster: AirflowCluster, triggerer: str) -> None:
    """Another triggerer has taken over meanwhile: the one that wakes up cancels nothing."""
    scene = begin("deferred")
    scene.deferred()
    cluster.start_triggerer()
    cluster.freeze(triggerer)
    try:
        scene.deferred(watched=2)
    finally:
        awake = time.time()
        cluster.thaw(triggerer)
    cluster.until_beaten(triggerer, since=awake)
    scene.succeed()
    scene.saw(runs=1, cancels=0)


@pytest.mark.usefixtures("two_triggerers")
def test_marked_while_two_triggerers_are_at_work(begin: Begin) -> None:
    """One of them cancels, once."""
    scene = begin("deferred")
    scene.deferred()
    scene.dag_run.mark("failed")
    scene.all_stopped()
    scene.dag_run.until("failed")
    scene.saw(runs=1, cancels=1)


@pytest.mark.usefixtures("two_triggerers")
def test_cleared_while_two_triggerers_are_at_work(begin: Begin) -> None:
    """One of them cancels, once; the next try launches a run of its own."""
    scene = begin("deferred")
    first = scene.deferred()
    scene.dag_run.clear()
    scene.deferred(2)
    eventually(lambda: not first.is_active, "the first run has ended")
    scene.succeed()
    scene.saw(runs=2, cancels=1)


def test_marked_while_no_triggerer_is_at_work(
    begin: Begin, cluster: AirflowCluster, triggerer: str
) -> None:
    """The next triggerer cancels the run; that of Airflow 2 never looks at it, a known limit."""
    scene = begin("deferred")
    scene.deferred()
    cluster.terminate(triggerer)
    scene.dag_run.mark("failed")
    next_triggerer = cluster.start_triggerer()
    if AIRFLOW_2:
        cluster.until_beaten(next_triggerer, since=time.time())
        scene.saw(runs=1, cancels=0)
        return
    scene.all_stopped()
    scene.dag_run.until("failed")
    scene.saw(runs=1, cancels=1)


def test_cleared_while_no_triggerer_is_at_work(
    begin: Begin, cluster: AirflowCluster, triggerer: str
) -> None:
    """A known limit: once the next try has deferred, nobody is told of the first run."""
    scene = begin("deferred")
    first = scene.deferred()
    cluster.terminate(triggerer)
    scene.dag_run.clear()
    scene.running(2)
    scene.dag_run.until("deferred")
    next_triggerer = cluster.start_triggerer()
    scene.deferred(2)
    cluster.until_beaten(next_triggerer, since=time.time())
    scene.succeed()
    assert first.is_active
    scene.saw(runs=2, cancels=0)
