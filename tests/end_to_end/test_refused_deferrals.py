"""A user ends tasks that have launched their runs and are about to defer: in a real Airflow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from tests.end_to_end.airflow_cluster import AirflowCluster
from tests.end_to_end.airflow_versions import AIRFLOW_2, AIRFLOW_3_0
from tests.end_to_end.eventually import eventually
from tests.end_to_end.scenarios import Begin, Scenario
from tests.fakes.fake_service import UNTIL_ENDED, FakeService

pytestmark = pytest.mark.standalone

HERE = Path(__file__).parent
TASKS = 12
# So that hardly a supervisor sees what the user did, and kills the task, before it defers.
SETTINGS = {"AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "15"}
# Airflow 3.0 begins no more tasks for minutes after it has refused deferrals.
SCOPE: Literal["function", "module"] = "function" if AIRFLOW_3_0 else "module"


@pytest.fixture(scope=SCOPE)
def workspace() -> Iterator[FakeService]:
    """A workspace that counts."""
    with FakeService(UNTIL_ENDED) as running:
        yield running


@pytest.fixture(scope=SCOPE)
def cluster(
    workspace: FakeService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowCluster]:
    """An Airflow whose tasks can be held before they defer."""
    connections = {"AIRFLOW_CONN_DATABRICKS_DEFAULT": workspace.connection}
    home = tmp_path_factory.mktemp("cluster")
    with AirflowCluster(home, HERE / "cluster_dags", connections, SETTINGS) as running:
        yield running


@pytest.fixture
def held(begin: Begin, cluster: AirflowCluster) -> tuple[Scenario, Path]:
    """Tasks that have launched their runs, and the note that keeps them from deferring."""
    scenario = begin("held_before_deferring")
    note = cluster.home / f"{scenario.dag_run.run_id}.held"
    eventually(
        lambda: note.exists() and len(note.read_text().splitlines()) == TASKS, "all are held"
    )
    scenario.running(TASKS)
    return scenario, note


@pytest.mark.skipif(AIRFLOW_2, reason="it defers such a task nevertheless")
@pytest.mark.parametrize("state", ["failed", "success"])
def test_dag_run_marked_before_its_tasks_defer(held: tuple[Scenario, Path], state: str) -> None:
    """Airflow refuses the deferrals: no trigger will wait for the runs, so they are canceled."""
    scenario, note = held
    scenario.dag_run.mark_all(state)
    note.unlink()
    scenario.all_stopped()
    # A task that is killed while it cancels its run cancels it once more, which has no effect.
    once_more = sum(run.cancels == 2 for run in scenario.runs)
    scenario.saw(runs=TASKS, cancels=TASKS + once_more)
    assert all(run.cancels for run in scenario.runs)


def test_tasks_defer(held: tuple[Scenario, Path]) -> None:
    """Airflow takes the deferrals: nothing is canceled, and all end well."""
    scenario, note = held
    note.unlink()
    scenario.dag_run.until_settled(times=TASKS)
    scenario.dag_run.until_watched(times=TASKS)
    for run in scenario.runs:
        scenario.workspace.end(run)
    scenario.dag_run.until_over()
    for map_index in range(TASKS):
        scenario.dag_run.until("success", map_index=map_index)
    scenario.saw(runs=TASKS, cancels=0)
