"""CeleryExecutor with two workers, two triggerers, PostgreSQL and Redis, in which everything dies.

The workspace counts what it is asked, so each test knows how many runs were launched and how many
cancels were seen. ``make test-distributed`` runs them all; the ones marked ``thorough`` are not
among those of the whole check.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.airflow_cluster import START_SECONDS, AirflowCluster, DagRun, eventually
from tests.end_to_end.counting_workspace import CountedRun, CountingWorkspace
from tests.end_to_end.scenes import Begin, Scene
from tests.end_to_end.services import PostgresServer, RedisServer

pytestmark = pytest.mark.distributed

HERE = Path(__file__).parent
WORKERS = ("worker-1", "worker-2")
COMPONENTS = ("scheduler", "dagprocessor", "apiserver", *WORKERS)
TRIGGERERS = 2
# After so many seconds without a heartbeat Airflow takes a task or a scheduler for dead; by default
# these are minutes.
SILENCE_SECONDS = "12"
OUTAGE_SECONDS = 20
SETTINGS = {
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    "AIRFLOW__CORE__PARALLELISM": "64",
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "400",
    "AIRFLOW__CELERY__WORKER_CONCURRENCY": "6",
    "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": SILENCE_SECONDS,
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": SILENCE_SECONDS,
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    # A task that a lost broker message leaves queued is queued anew after so long.
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "3",
}


@pytest.fixture(scope="module")
def workspace() -> Iterator[CountingWorkspace]:
    """A workspace that counts."""
    with CountingWorkspace() as running:
        yield running


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """The server of Airflow's metadata and Celery's results."""
    with PostgresServer() as running:
        yield running


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """The broker."""
    with RedisServer() as running:
        yield running


class Deployment(AirflowCluster):
    """Airflow with Celery workers."""

    def worker_of(self, pid: int) -> WorkerOfTask:
        """Return what executes a task.

        :param pid: the task's process.
        """
        task = psutil.Process(pid)
        above = task.parents()
        for name in WORKERS:
            main = self._processes.get(name)
            if main is not None and main.pid in {process.pid for process in above}:
                ids = [process.pid for process in above]
                # The pool process is the main process's child.
                return WorkerOfTask(name, above[ids.index(main.pid) - 1], task)
        raise AssertionError(f"no worker executes process {pid}")

    def signal(self, name: str, sign: signal.Signals, *, group: bool = False) -> None:
        """Send a signal to a component's main process, or to its whole process group."""
        (os.killpg if group else os.kill)(self._processes[name].pid, sign)

    def await_end(self, name: str, seconds: float = 60) -> None:
        """Wait until a component has ended after a signal, and what it left behind is gone."""
        self._processes.pop(name).wait(seconds)

    def restart_what_ended(self) -> None:
        """Start what has ended by itself, until all is at work, as a service manager does."""
        eventually(self._is_whole, "all components are at work", START_SECONDS)

    def _is_whole(self) -> bool:
        for name in [name for name, one in self._processes.items() if one.poll() is not None]:
            del self._processes[name]
        for name in COMPONENTS:
            if name not in self._processes:
                (self.home / f"{name}.pid").unlink(missing_ok=True)
                self.start(name)
        try:
            while len(self.triggerers) < TRIGGERERS:
                self.start_triggerer()
            return self._is_ready()
        except AssertionError:  # One more has ended meanwhile.
            return False

    def triggerer_of(self, dag_run: DagRun) -> str:
        """Return the triggerer that waits for a DAG run's task."""
        number = dag_run.task()["triggerer_job"]["id"]
        return next(name for name, one in self._triggerer_ids.items() if one == number)


@dataclass(frozen=True)
class WorkerOfTask:
    """The processes that execute a task.

    :ivar name: the worker's name.
    :ivar pool: its pool process, which supervises the task.
    :ivar task: the task's own process.
    """

    name: str
    pool: psutil.Process
    task: psutil.Process

    def is_gone(self) -> bool:
        """Whether the task's process has ended."""
        with suppress(psutil.NoSuchProcess):
            return bool(self.task.status() == psutil.STATUS_ZOMBIE)
        return True


@pytest.fixture(scope="module")
def cluster(
    workspace: CountingWorkspace,
    postgres: PostgresServer,
    redis: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """One Airflow for all tests of this module."""
    connections = {"AIRFLOW_CONN_DATABRICKS_DEFAULT": workspace.connection}
    results = f"db+{postgres.url}/postgres"
    settings = SETTINGS | {
        "AIRFLOW__CELERY__BROKER_URL": redis.url,
        "AIRFLOW__CELERY__RESULT_BACKEND": results,
    }
    with Deployment(
        tmp_path_factory.mktemp("cluster"),
        HERE / "cluster_dags",
        connections,
        settings,
        database_server=postgres.url,
        components=COMPONENTS,
    ) as running:
        running.start_triggerer()
        eventually(
            lambda: all(" ready." in running.log_of(name) for name in WORKERS), "workers are ready"
        )
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
        assert asked.wait(60), "a worker reads the output"
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
    cluster.signal(worker.name, signal.SIGTERM)
    eventually(
        lambda: "Warm shutdown" in cluster.log_of(worker.name), f"{worker.name} is shutting down"
    )
    concluded(scene)
    cluster.await_end(worker.name)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGQUIT], ids=lambda sign: sign.name)
def test_signal_to_process_group(begin: Begin, cluster: Deployment, sign: signal.Signals) -> None:
    """A rolling deployment signals the worker's whole process group: the next try follows."""
    scene = begin("blocking_steady")
    _, worker = executed(scene, cluster)
    cluster.signal(worker.name, sign, group=True)
    eventually(worker.is_gone, "the task's process has ended")
    cluster.kill_whole(worker.name)
    followed(scene)
    concluded(scene)


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
    cluster.restart_what_ended()
    for scene in (blocking, deferred):
        scene.dag_run.until("success")
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
