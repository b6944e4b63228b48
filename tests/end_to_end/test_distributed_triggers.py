"""300 deferred tasks in two triggerers, on PostgreSQL: whose runs are canceled, and when.

The tests of this module go on from where the one before ended. They are thorough: the whole check
has one trigger that another triggerer takes over, on SQLite in test_user_actions.py and on
PostgreSQL in test_distributed.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.deployment import Deployment
from tests.end_to_end.eventually import eventually
from tests.end_to_end.many_dags.many import DAGS, TASKS
from tests.end_to_end.many_triggers import (
    TRIGGERS,
    begin,
    cancels,
    launch_runs,
    left_alone,
    mark_failed,
    runs_of,
)
from tests.end_to_end.scenarios import Scenario
from tests.fakes.fake_service import UNTIL_ENDED, FakeService

pytestmark = [pytest.mark.distributed, pytest.mark.thorough]

HERE = Path(__file__).parent
# So many triggers the frozen triggerer must have at the least, or the test proves little.
FEWEST = TRIGGERS // 5
SECONDS_TO_CANCEL = 60
# For 600 worker processes, which take half a second of CPU each and more.
MINUTES = 20
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def workspace() -> Iterator[FakeService]:
    """A workspace with a run for each task."""
    with FakeService(UNTIL_ENDED) as running:
        launch_runs(running)
        yield running


@pytest.fixture(scope="module")
def dags() -> Path:
    """The DAGs of this module."""
    return HERE / "many_dags"


@pytest.fixture(scope="module")
def airflow_settings() -> dict[str, str]:
    """A task that is queued behind hundreds of others is not to be queued anew."""
    return {"AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "600"}


@pytest.fixture(scope="module")
def cluster(deployment: Deployment) -> Deployment:
    """The Airflow of all tests of this module."""
    return deployment


def test_frozen_with_a_share_and_thawed(
    cluster: Deployment, workspace: FakeService, record_property: Record
) -> None:
    """The other triggerer takes its share over; when it wakes up it cancels nothing."""
    triggerers = cluster.triggerers
    for number in range(DAGS):
        begin(cluster, number, *triggerers)
    frozen = max(triggerers, key=cluster.triggers_of)
    (other,) = set(triggerers) - {frozen}
    share = cluster.triggers_of(frozen)
    assert share >= FEWEST
    record_property("triggers of the frozen one", share)
    cluster.freeze(frozen)
    try:
        eventually(lambda: cluster.triggers_of(other) == TRIGGERS, "it takes them over")
    finally:
        cluster.thaw(frozen)
    thawed = time.monotonic()
    eventually(lambda: left_alone(cluster, frozen) >= share, "none is canceled")
    record_property("until all were known, s", round(time.monotonic() - thawed, 1))
    assert cancels(workspace) == [0] * DAGS


def test_one_dag_run_of_three_is_marked(
    cluster: Deployment, workspace: FakeService, record_property: Record
) -> None:
    """The runs of its hundred tasks are canceled within a minute, and no others."""
    marked = time.monotonic()
    mark_failed(cluster, 0)
    mine = runs_of(workspace, 0)
    eventually(lambda: all(run.cancels for run in mine), "they are canceled", SECONDS_TO_CANCEL)
    record_property("until all were canceled, s", round(time.monotonic() - marked, 1))
    for triggerer in cluster.triggerers:
        cluster.until_beaten(triggerer, since=time.time())
    assert cancels(workspace) == [TASKS, *[0] * (DAGS - 1)]


def test_hundreds_launch_and_end(
    cluster: Deployment, workspace: FakeService, record_property: Record
) -> None:
    """300 tasks launch a run each, defer, and end on two workers when their runs end at once."""
    scenario = Scenario(cluster.trigger("launching"), workspace, record_property)
    began = time.monotonic()
    eventually(lambda: len(scenario.runs) == TRIGGERS, "all have launched a run", MINUTES * 60)
    scenario.dag_run.until_settled(times=TRIGGERS, seconds=MINUTES * 60)
    scenario.dag_run.until_watched(times=TRIGGERS, seconds=MINUTES * 60)
    record_property("until all were deferred, s", round(time.monotonic() - began))
    executed = {name: cluster.workloads_of(name) for name in cluster.workers}
    ended = time.monotonic()
    for run in scenario.runs:
        workspace.end(run)
    scenario.dag_run.until_over(MINUTES * 60)
    record_property("until all had ended, s", round(time.monotonic() - ended))
    assert scenario.dag_run.state() == "success", scenario.dag_run.states()
    assert scenario.dag_run.states() == {"success": TRIGGERS}
    resumed = [cluster.workloads_of(name) - executed[name] for name in cluster.workers]
    record_property("resumed by each worker", resumed)
    assert all(resumed)
    assert {run.launches for run in scenario.runs} == {1}
    scenario.saw(runs=TRIGGERS, cancels=0)
