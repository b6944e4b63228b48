"""What becomes of the run when a user acts on its task, or a triggerer goes: in a real Airflow.

The workspace counts what it is asked, so each test knows how many runs were launched and how many
cancels were seen. docs/guarantees.md has these figures for each version of Airflow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.airflow_cluster import AirflowCluster, DagRun, eventually
from tests.end_to_end.counting_workspace import CountedRun, CountingWorkspace

pytestmark = pytest.mark.standalone

HERE = Path(__file__).parent


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
    with AirflowCluster(home, HERE / "cluster_dags", connections) as running:
        yield running


class Scene:
    """A DAG run, and what the workspace knows of it."""

    def __init__(
        self,
        dag_run: DagRun,
        workspace: CountingWorkspace,
        record: Callable[[str, object], None],
    ) -> None:
        self.dag_run = dag_run
        self.workspace = workspace
        self._record = record

    @property
    def runs(self) -> list[CountedRun]:
        """The runs that were launched for the DAG run."""
        return self.workspace.runs_of(self.dag_run.run_id)

    def running(self, count: int = 1) -> CountedRun:
        """Wait until so many runs were launched in all and the last one goes on; return it."""
        what = f"{self.dag_run.run_id} has launched {count} runs"
        try:
            runs = eventually(lambda: self.runs if len(self.runs) == count else [], what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.dag_run.logs()}") from None
        assert runs[-1].is_active
        return runs[-1]

    def deferred(self, count: int = 1, *, watched: int = 1) -> CountedRun:
        """Wait until the task is deferred with its run of that number, and a triggerer watches."""
        run = self.running(count)
        self.dag_run.until_watched(run.run_id, times=watched)
        self.dag_run.until("deferred")
        return run

    def succeed(self) -> None:
        """Let the last run end well, and with it the task."""
        self.workspace.end(self.runs[-1])
        self.dag_run.until("success")

    def all_stopped(self) -> None:
        """Wait until no run goes on."""
        try:
            eventually(lambda: not any(run.is_active for run in self.runs), "all runs have ended")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.dag_run.logs()}") from None

    def saw(self, *, runs: int, cancels: int) -> None:
        """Check and note how many runs and cancels the workspace saw."""
        seen = (len(self.runs), sum(run.cancels for run in self.runs))
        self._record("runs", seen[0])
        self._record("cancels", seen[1])
        assert seen == (runs, cancels), self.dag_run.logs()


Begin = Callable[[str], Scene]


@pytest.fixture
def begin(
    cluster: AirflowCluster,
    workspace: CountingWorkspace,
    record_property: Callable[[str, object], None],
) -> Begin:
    """Begin a scene."""
    return lambda dag_id: Scene(cluster.trigger(dag_id), workspace, record_property)


# The task waits in the triggerer.


def test_deferred_and_cleared(begin: Begin) -> None:
    """The run of the cleared task is cancelled, and the next try launches one of its own."""
    scene = begin("deferred")
    first = scene.deferred()
    scene.dag_run.clear()
    scene.deferred(2)
    eventually(lambda: first.cancels, "the first run is cancelled")
    scene.succeed()
    scene.saw(runs=2, cancels=1)


@pytest.mark.parametrize("state", ["failed", "success"])
def test_deferred_and_marked(begin: Begin, state: str) -> None:
    """The run is cancelled."""
    scene = begin("deferred")
    scene.deferred()
    scene.dag_run.mark(state)
    scene.all_stopped()
    scene.dag_run.until(state)
    scene.saw(runs=1, cancels=1)
