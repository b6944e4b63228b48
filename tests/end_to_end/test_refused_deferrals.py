"""A user ends tasks that have launched their runs and are about to defer: in a real Airflow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.end_to_end.airflow_cluster import AirflowCluster
from tests.end_to_end.airflow_versions import AIRFLOW_2, AIRFLOW_3_0
from tests.end_to_end.eventually import eventually
from tests.end_to_end.scenarios import Scenario, unrecorded
from tests.fakes.fake_service import FakeService

pytestmark = pytest.mark.standalone

# Of a DAG run. More of them start too slowly for Airflow 3.0 on a busy machine: its API server has
# 5 s to answer.
TASKS = 6


@dataclass
class Held:
    """Tasks that have launched their runs, and the note that keeps them from deferring."""

    scenario: Scenario
    note: Path

    def until_held(self, tasks: int = TASKS) -> None:
        """Wait until all have launched their runs."""
        eventually(
            lambda: self.note.exists() and len(self.note.read_text().splitlines()) == tasks,
            f"all of {self.scenario.dag_run.run_id} are held",
        )
        self.scenario.running(tasks)


def hold(
    cluster: AirflowCluster, workspace: FakeService, dag_id: str = "held_before_deferring"
) -> Held:
    """Begin a DAG run whose tasks are held before they defer."""
    dag_run = cluster.trigger(dag_id)
    scenario = Scenario(dag_run, workspace, unrecorded)
    return Held(scenario, cluster.home / f"{dag_run.run_id}.held")


def test_tasks_defer(cluster: AirflowCluster, workspace: FakeService) -> None:
    """Airflow takes the deferrals: nothing is canceled, and all end well."""
    held = hold(cluster, workspace)
    held.until_held()
    held.note.unlink()
    scenario = held.scenario
    scenario.dag_run.until_settled(times=TASKS)
    scenario.dag_run.until_watched(times=TASKS)
    # Not all at once, so that they resume within the 5 s, too.
    for map_index in range(TASKS):
        (run,) = (one for one in scenario.runs if f"[{map_index}]" in one.name)
        scenario.workspace.end(run)
        if map_index % 2:
            scenario.dag_run.until("success", map_index=map_index)
    scenario.dag_run.until_over_with({"success": TASKS})
    scenario.saw(runs=TASKS, cancels=0)


@pytest.fixture(scope="module")
def marked(cluster: AirflowCluster, workspace: FakeService) -> dict[str, Scenario]:
    """DAG runs that were marked while all their tasks were held; the tasks defer now."""
    held = {state: hold(cluster, workspace) for state in ("failed", "success")}
    for one in held.values():
        one.until_held()
    for state, one in held.items():
        one.scenario.dag_run.mark_all(state)
        one.note.unlink()
    return {state: one.scenario for state, one in held.items()}


@pytest.mark.skipif(AIRFLOW_2, reason="it defers such a task nevertheless")
@pytest.mark.parametrize("state", ["failed", "success"])
def test_dag_run_marked_before_its_tasks_defer(marked: dict[str, Scenario], state: str) -> None:
    """Airflow refuses the deferrals: no trigger will wait for the runs, so they are canceled."""
    scenario = marked[state]
    scenario.all_stopped()
    scenario.saw(runs=TASKS, cancels=TASKS)
    if not AIRFLOW_3_0:
        # A supervisor that sends a heartbeat in between kills its task before it defers.
        assert "a user ended the task before it had deferred" in scenario.dag_run.logs()


@pytest.mark.thorough
@pytest.mark.skipif(AIRFLOW_2, reason="it defers such a task nevertheless")
def test_dag_run_times_out_before_its_task_defers(
    cluster: AirflowCluster, workspace: FakeService
) -> None:
    """The scheduler has skipped the task: Airflow refuses the deferral, and the run is canceled."""
    held = hold(cluster, workspace, "held_limited")
    held.until_held(1)
    scenario = held.scenario
    scenario.dag_run.until("skipped")
    held.note.unlink()
    scenario.all_stopped()
    scenario.saw(runs=1, cancels=1)
    assert scenario.dag_run.state_and_try()[0] == "skipped"
