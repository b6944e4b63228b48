"""CeleryExecutor with two workers, two triggerers, PostgreSQL and Redis, in which everything dies.

The workspace counts what it is asked, so each test knows how many runs were launched and how many
cancels were seen. ``make test-distributed`` runs them all; the ones marked ``thorough`` are not
among those of the whole check.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.end_to_end.airflow_cluster import PATIENCE_SECONDS, eventually
from tests.end_to_end.deployment import Deployment, WorkerOfTask
from tests.end_to_end.processes import has_pending, is_alive, stopped
from tests.end_to_end.scenes import Begin, Scene
from tests.end_to_end.services import PostgresServer, RedisServer
from tests.fakes.counting_workspace import CountedRun, CountingWorkspace

pytestmark = pytest.mark.distributed

HERE = Path(__file__).parent
OUTAGE_SECONDS = 20


@pytest.fixture(scope="module")
def workspace() -> Iterator[CountingWorkspace]:
    """A workspace that counts."""
    with CountingWorkspace() as running:
        yield running


@pytest.fixture(scope="module")
def cluster(
    workspace: CountingWorkspace,
    postgres: PostgresServer,
    redis: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """One Airflow for all tests of this module."""
    connections = {"AIRFLOW_CONN_DATABRICKS_DEFAULT": workspace.connection}
    home = tmp_path_factory.mktemp("cluster")
    with Deployment(home, HERE / "cluster_dags", connections, postgres, redis) as running:
        yield running


@pytest.fixture(autouse=True)
def whole(cluster: Deployment) -> Iterator[None]:
    """After each test, whatever has died is started again."""
    yield
    cluster.restart_what_ended()


@pytest.fixture
def begin(
    cluster: Deployment,
    workspace: CountingWorkspace,
    record_property: Callable[[str, object], None],
) -> Begin:
    """Begin a scene when its time has come."""
    return lambda dag_id: Scene(cluster.trigger(dag_id), workspace, record_property)


def executed(scene: Scene, cluster: Deployment) -> tuple[CountedRun, WorkerOfTask]:
    """Wait until a blocking task waits for its run; return the run and what executes the task."""
    run = scene.running()
    scene.dag_run.xcom("run_page_url")
    return run, cluster.worker_of(scene.dag_run.pid())


def followed(scene: Scene) -> None:
    """Wait until a later try of a blocking task reads the run of the first."""
    run = scene.running()
    line = f"Following run {run.run_id}, "
    eventually(lambda: line in scene.dag_run.logs(), f"{scene.dag_run.run_id}: {line}")
    looks = run.looks
    eventually(lambda: run.looks > looks, "the try reads the run")


def concluded(*scenes: Scene) -> None:
    """The one run of each ends well and its task with it; nobody cancelled anything."""
    for scene in scenes:
        scene.succeed()
        scene.saw(runs=1, cancels=0)


def succeeded(scene: Scene, cluster: Deployment) -> bool:
    """Start what has ended, as a service manager does; return whether the task has succeeded."""
    cluster.restart_what_ended()
    return bool(scene.dag_run.task()["state"] == "success")


def failed_and_cancelled(scene: Scene) -> None:
    """The task fails for good, and its one run is cancelled."""
    scene.dag_run.until("failed")
    scene.all_stopped()
    runs, cancels = scene.seen()
    assert (runs, cancels > 0) == (1, True), scene.dag_run.logs()


# A blocking task's worker dies.


def test_pool_process_killed(begin: Begin, cluster: Deployment) -> None:
    """SIGKILL to the pool process: the next try follows the run."""
    scene = begin("blocking_steady")
    _, worker = executed(scene, cluster)
    worker.pool.kill()
    followed(scene)
    concluded(scene)


def test_pool_process_killed_with_no_retry_left(begin: Begin, cluster: Deployment) -> None:
    """SIGKILL to the pool process of the last try: the run is cancelled."""
    scene = begin("blocking")
    _, worker = executed(scene, cluster)
    worker.pool.kill()
    failed_and_cancelled(scene)


@pytest.mark.parametrize("whole_tree", [False, True], ids=["main process", "all its processes"])
def test_worker_killed(begin: Begin, cluster: Deployment, whole_tree: bool) -> None:
    """SIGKILL to the worker, alone or with all that it started: the next try follows the run."""
    scene = begin("blocking_steady")
    _, worker = executed(scene, cluster)
    (cluster.kill_whole if whole_tree else cluster.kill_alone)(worker.name)
    followed(scene)
    concluded(scene)


def test_worker_killed_with_no_retry_left(begin: Begin, cluster: Deployment) -> None:
    """SIGKILL to the whole worker at the last try: the run is cancelled."""
    scene = begin("blocking")
    _, worker = executed(scene, cluster)
    cluster.kill_whole(worker.name)
    failed_and_cancelled(scene)


def test_killed_while_resuming(
    begin: Begin, cluster: Deployment, workspace: CountingWorkspace
) -> None:
    """SIGKILL to the worker that reads the output after a deferral: the next try reads it."""
    scene = begin("deferred_steady")
    run = scene.deferred()
    first = scene.dag_run.pid()
    with workspace.holding("runs/get-output") as asked:
        workspace.end(run)
        assert asked.wait(PATIENCE_SECONDS), "a worker reads the output"
        assert scene.dag_run.pid() != first
        worker = cluster.worker_of(scene.dag_run.pid())
        worker.pool.kill()
        worker.task.kill()
    scene.dag_run.until("success")
    scene.saw(runs=1, cancels=0)


# A worker is asked to stop.


def test_warm_shutdown(begin: Begin, cluster: Deployment) -> None:
    """SIGTERM to the worker's main process: it ends when its task has."""
    scene = begin("blocking")
    _, worker = executed(scene, cluster)
    before = cluster.log_of(worker.name).count("Warm shutdown")
    cluster.signal(worker.name, signal.SIGTERM)
    eventually(
        lambda: cluster.log_of(worker.name).count("Warm shutdown") > before,
        f"{worker.name} is shutting down",
    )
    concluded(scene)
    cluster.await_end(worker.name)


def test_sigterm_to_process_group(begin: Begin, cluster: Deployment) -> None:
    """A rolling deployment signals the worker's whole process group: the next try follows."""
    scene = begin("blocking_steady")
    _, worker = executed(scene, cluster)
    cluster.signal(worker.name, signal.SIGTERM, group=True)
    eventually(lambda: not is_alive(worker.task), "the task's process has ended")
    cluster.kill_whole(worker.name)
    followed(scene)
    concluded(scene)


@pytest.mark.parametrize(
    "first", ["pool process first", pytest.param("main process first", marks=pytest.mark.thorough)]
)
def test_sigquit_to_process_group(begin: Begin, cluster: Deployment, first: str) -> None:
    """SIGQUIT to the worker's whole process group: the next try follows the run.

    The pool process ends at once, without a word to the task's process, which goes on. If the main
    process is quicker, it sends SIGTERM to the pool process, which passes it on. Left alone it is a
    matter of chance; so one of them is stopped until the other one has acted.
    """
    scene = begin("blocking_steady")
    _, worker = executed(scene, cluster)
    main = cluster.main_process(worker.name)
    if first == "pool process first":
        with stopped(main):
            cluster.signal(worker.name, signal.SIGQUIT, group=True)
            eventually(lambda: not is_alive(worker.pool), "the pool process has ended")
        assert is_alive(worker.task)
    else:
        with stopped(worker.pool):
            cluster.signal(worker.name, signal.SIGQUIT, group=True)
            eventually(lambda: has_pending(worker.pool, signal.SIGTERM), "it gets SIGTERM, too")
        eventually(lambda: not is_alive(worker.task), "the task's process has ended")
    cluster.await_end(worker.name)
    followed(scene)
    concluded(scene)
    eventually(lambda: not is_alive(worker.task), "the task's process has ended")


def test_sigterm_to_process_group_with_no_retry_left(begin: Begin, cluster: Deployment) -> None:
    """The same at the last try: the run is cancelled."""
    scene = begin("blocking")
    _, worker = executed(scene, cluster)
    cluster.signal(worker.name, signal.SIGTERM, group=True)
    failed_and_cancelled(scene)
    cluster.kill_whole(worker.name)


@pytest.mark.thorough
def test_sigterm_to_pool_process(begin: Begin, cluster: Deployment) -> None:
    """SIGTERM to the pool process alone: the next try follows the run."""
    scene = begin("blocking_steady")
    _, worker = executed(scene, cluster)
    worker.pool.terminate()
    followed(scene)
    concluded(scene)


@pytest.mark.thorough
def test_cold_shutdown(begin: Begin, cluster: Deployment) -> None:
    """SIGQUIT to the worker's main process ends its pool: the next try follows the run."""
    scene = begin("blocking_steady")
    _, worker = executed(scene, cluster)
    cluster.signal(worker.name, signal.SIGQUIT)
    cluster.await_end(worker.name)
    followed(scene)
    concluded(scene)


# What workers depend on goes away.


def test_scheduler_killed(begin: Begin, cluster: Deployment) -> None:
    """The next scheduler adopts the tasks: nobody notices."""
    blocking, deferred = begin("blocking_steady"), begin("deferred_steady")
    executed(blocking, cluster)
    deferred.deferred()
    cluster.kill_whole("scheduler")
    cluster.restart("scheduler")
    concluded(blocking, deferred)


def test_redis_killed_and_back_empty(begin: Begin, cluster: Deployment, redis: RedisServer) -> None:
    """The broker loses all messages: tasks at work go on, queued ones are queued anew."""
    blocking, deferred = begin("blocking_steady"), begin("deferred_steady")
    executed(blocking, cluster)
    deferred.deferred()
    redis.kill()
    queued = begin("blocking_steady")
    queued.dag_run.until("queued")
    redis.start()
    queued.running()
    concluded(blocking, deferred, queued)


def test_postgres_gone_while_runs_end(
    begin: Begin, cluster: Deployment, workspace: CountingWorkspace, postgres: PostgresServer
) -> None:
    """The metadata database is gone for 20 s, in which the runs end."""
    blocking, deferred = begin("blocking_steady"), begin("deferred_steady")
    executed(blocking, cluster)
    deferred.deferred()
    postgres.kill()
    for scene in (blocking, deferred):
        workspace.end(scene.runs[-1])
    time.sleep(OUTAGE_SECONDS)
    postgres.start()
    for scene in (blocking, deferred):
        # A component may notice late that the database was gone, and end then.
        eventually(partial(succeeded, scene, cluster), f"{scene.dag_run.run_id} succeeds")
        scene.saw(runs=1, cancels=0)


# Triggerers.


def test_triggerer_killed(begin: Begin, cluster: Deployment) -> None:
    """SIGKILL to the triggerer of a task: the other one takes over."""
    scene = begin("deferred")
    scene.deferred()
    cluster.kill(cluster.triggerer_of(scene.dag_run))
    scene.deferred(watched=2)
    concluded(scene)


@pytest.mark.thorough
def test_triggerers_restarted_in_turn(begin: Begin, cluster: Deployment) -> None:
    """A rolling deployment of the triggerers: the run goes on."""
    scene = begin("deferred")
    scene.deferred()
    for name in cluster.triggerers:
        cluster.terminate(name)
        cluster.start_triggerer()
    concluded(scene)


def test_both_triggerers_killed(begin: Begin, cluster: Deployment) -> None:
    """SIGKILL to both at once: the next one goes on."""
    scene = begin("deferred")
    scene.deferred()
    cluster.kill_whole(*cluster.triggerers)
    cluster.start_triggerer()
    scene.deferred(watched=2)
    concluded(scene)


# A user acts.


def test_blocking_then_cleared(begin: Begin, cluster: Deployment) -> None:
    """The run of the cleared task is cancelled, and the next try launches one of its own."""
    scene = begin("blocking")
    first, _ = executed(scene, cluster)
    scene.dag_run.clear()
    scene.running(2)
    eventually(lambda: not first.is_active, "the first run has ended")
    scene.succeed()
    scene.saw(runs=2, cancels=1)


@pytest.mark.thorough
def test_blocking_then_cleared_twice(begin: Begin, cluster: Deployment) -> None:
    """Each clear cancels the run there is and leads to one new run."""
    scene = begin("blocking")
    executed(scene, cluster)
    scene.dag_run.clear()
    scene.running(2)
    scene.dag_run.until("running", try_number=2)
    scene.dag_run.clear()
    scene.running(3)
    scene.succeed()
    scene.all_stopped()
    scene.saw(runs=3, cancels=2)


def test_deferred_then_cleared(begin: Begin) -> None:
    """The same for a task that waits in the triggerer."""
    scene = begin("deferred")
    first = scene.deferred()
    scene.dag_run.clear()
    scene.deferred(2)
    eventually(lambda: not first.is_active, "the first run has ended")
    scene.succeed()
    scene.saw(runs=2, cancels=1)


@pytest.mark.thorough
def test_deferred_then_cleared_twice(begin: Begin) -> None:
    """Each clear cancels the run there is and leads to one new run."""
    scene = begin("deferred")
    scene.deferred()
    for count in (2, 3):
        scene.dag_run.clear()
        scene.deferred(count)
    eventually(lambda: sum(run.is_active for run in scene.runs) == 1, "two runs have ended")
    scene.succeed()
    scene.saw(runs=3, cancels=2)


@pytest.mark.parametrize("dag_id", ["blocking", "deferred"])
def test_marked_failed(begin: Begin, cluster: Deployment, dag_id: str) -> None:
    """The run is cancelled, and the task stays as it was marked."""
    scene = begin(dag_id)
    if dag_id == "blocking":
        executed(scene, cluster)
    else:
        scene.deferred()
    scene.dag_run.mark("failed")
    scene.all_stopped()
    assert scene.dag_run.task()["state"] == "failed"
    scene.saw(runs=1, cancels=1)
