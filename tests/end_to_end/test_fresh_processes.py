"""Each task in a fresh process that is asked to stop or is lost, as pods on Kubernetes are.

Kubernetes sends SIGTERM to a pod's first process (or, with ``DUMB_INIT_SETSID``, to its whole
process group) and kills what is left after the termination grace period. A lost node says nothing.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.airflow_cluster import AIRFLOW_2, AIRFLOW_3_0, AirflowCluster, eventually
from tests.end_to_end.processes import is_alive, send
from tests.end_to_end.scenes import Begin, Scene
from tests.fakes.counting_workspace import CountingWorkspace

pytestmark = [
    pytest.mark.standalone,
    pytest.mark.skipif(AIRFLOW_2 or AIRFLOW_3_0, reason="its executors have another interface"),
]

HERE = Path(__file__).parent
# Kubernetes' own default, and Airflow's.
GRACE_SECONDS = 30
SETTINGS = {
    "AIRFLOW__CORE__EXECUTOR": "tests.end_to_end.fresh_process_executor.FreshProcessExecutor",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "12",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
}


@pytest.fixture(scope="module")
def workspace() -> Iterator[CountingWorkspace]:
    """A workspace that counts."""
    with CountingWorkspace() as running:
        yield running


@pytest.fixture(scope="module")
def cluster(
    workspace: CountingWorkspace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowCluster]:
    """One Airflow for all tests of this module."""
    connections = {"AIRFLOW_CONN_DATABRICKS_DEFAULT": workspace.connection}
    home = tmp_path_factory.mktemp("cluster")
    with AirflowCluster(home, HERE / "cluster_dags", connections, SETTINGS) as running:
        yield running


@pytest.fixture
def begin(
    cluster: AirflowCluster,
    workspace: CountingWorkspace,
    record_property: Callable[[str, object], None],
) -> Begin:
    """Begin a scene when its time has come."""
    return lambda dag_id: Scene(cluster.trigger(dag_id), workspace, record_property)


class Pod:
    """The processes of a task."""

    def __init__(self, scene: Scene) -> None:
        scene.running()
        scene.dag_run.xcom("run_page_url")
        home, run_id = scene.dag_run.cluster.home, scene.dag_run.run_id
        self.first = int((home / f"{run_id}.main_pid").read_text())
        self._all = [psutil.Process(self.first), psutil.Process(scene.dag_run.pid())]

    def stop(self, *, group: bool) -> None:
        """Stop as Kubernetes does: SIGTERM, and SIGKILL to what is left after the grace period."""
        (os.killpg if group else os.kill)(self.first, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while any(map(is_alive, self._all)) and time.monotonic() < deadline:
            time.sleep(0.2)
        self.lose()

    def lose(self) -> None:
        """Kill all processes at once."""
        send(self._all, signal.SIGSTOP, signal.SIGKILL)
        eventually(lambda: not any(map(is_alive, self._all)), "the processes are dead")


def followed(scene: Scene) -> None:
    """Wait until a later try reads the run of the first, then let it end well."""
    line = f"Following run {scene.running().run_id}, "
    eventually(lambda: line in scene.dag_run.logs(), f"{scene.dag_run.run_id}: {line}")
    scene.succeed()
    scene.saw(runs=1, cancels=0)


def failed_and_cancelled(scene: Scene) -> None:
    """The task fails for good, and its one run is cancelled."""
    scene.dag_run.until("failed")
    scene.all_stopped()
    runs, cancels = scene.seen()
    assert (runs, cancels > 0) == (1, True), scene.dag_run.logs()


@pytest.mark.parametrize("group", [False, True], ids=["first process", "process group"])
def test_pod_stopped(begin: Begin, group: bool) -> None:
    """A drained node, with a retry left: the run goes on, and the next try follows it."""
    scene = begin("blocking_steady")
    Pod(scene).stop(group=group)
    followed(scene)


@pytest.mark.parametrize("group", [False, True], ids=["first process", "process group"])
def test_pod_stopped_with_no_retry_left(begin: Begin, group: bool) -> None:
    """The same at the last try: the run is cancelled."""
    scene = begin("blocking")
    Pod(scene).stop(group=group)
    failed_and_cancelled(scene)


def test_pod_lost(begin: Begin) -> None:
    """A lost node, with a retry left: the next try follows the run."""
    scene = begin("blocking_steady")
    Pod(scene).lose()
    followed(scene)


def test_pod_lost_with_no_retry_left(begin: Begin) -> None:
    """The same at the last try: the run is cancelled."""
    scene = begin("blocking")
    Pod(scene).lose()
    failed_and_cancelled(scene)
