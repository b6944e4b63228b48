"""Hundreds of deferred tasks at once, in a real Airflow: whose runs are canceled, and when.

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

from tests.end_to_end.airflow_cluster import AirflowCluster
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
    started,
)
from tests.end_to_end.scenarios import Scenario
from tests.fakes.fake_service import UNTIL_ENDED, FakeService

# They need an Airflow of their own. The whole check has one trigger that another triggerer takes
# over: test_user_actions.py.
pytestmark = [pytest.mark.standalone, pytest.mark.thorough]

HERE = Path(__file__).parent
# What the runs of a cleared task may overlap.
OVERLAP_SECONDS = 5
SILENCE_SECONDS = 10
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


def test_cleared_beside_a_hundred(
    cluster: AirflowCluster, workspace: FakeService, record_property: Record
) -> None:
    """The triggerer is silent for one build at the most; then it is quick to cancel."""
    (triggerer,) = cluster.triggerers
    with silences(cluster, triggerer) as at_first:
        begin(cluster, 0, triggerer)
    record_property("longest silence at first, s", round(max(at_first), 1))
    scenario = Scenario(cluster.trigger("one"), workspace, record_property)
    first = scenario.deferred()
    with silences(cluster, triggerer) as later:
        scenario.dag_run.clear()
        second = scenario.deferred(2)
        eventually(lambda: not first.is_active, "the first run has ended")
    assert first.canceled_at is not None
    overlap = first.canceled_at - second.launched_at
    record_property("overlap, s", round(overlap, 1))
    record_property("longest silence later, s", round(max(later), 1))
    assert overlap < OVERLAP_SECONDS
    assert max(later) < SILENCE_SECONDS
    scenario.succeed()
    scenario.saw(runs=2, cancels=1)
    assert cancels(workspace) == [0] * DAGS


@pytest.fixture(scope="module")
def taken_over(cluster: AirflowCluster) -> tuple[str, str]:
    """Two triggerers; the first is frozen until the second has taken its triggers over."""
    (frozen,) = cluster.triggerers
    for number in range(1, DAGS):
        begin(cluster, number, frozen)
    other = cluster.start_triggerer()
    cluster.freeze(frozen)
    try:
        eventually(lambda: started(cluster, other) == TRIGGERS, "it took them over")
    finally:
        cluster.thaw(frozen)
    return frozen, other


def test_hundreds_are_taken_over(
    taken_over: tuple[str, str],
    cluster: AirflowCluster,
    workspace: FakeService,
    record_property: Record,
) -> None:
    """The triggerer that wakes up without its triggers cancels no run, and knows why."""
    thawed = time.monotonic()
    frozen, _ = taken_over
    eventually(lambda: left_alone(cluster, frozen) == TRIGGERS, "none is canceled")
    record_property("until all were known, s", round(time.monotonic() - thawed, 1))
    assert cancels(workspace) == [0] * DAGS


def test_one_dag_run_of_several_is_marked(
    taken_over: tuple[str, str],
    cluster: AirflowCluster,
    workspace: FakeService,
    record_property: Record,
) -> None:
    """The runs of its hundred tasks are canceled within a minute, and no others."""
    marked = time.monotonic()
    mark_failed(cluster, 0)
    mine = runs_of(workspace, 0)
    eventually(lambda: all(run.cancels for run in mine), "all its runs are canceled", 60)
    record_property("until all were canceled, s", round(time.monotonic() - marked, 1))
    for triggerer in taken_over:
        cluster.until_beaten(triggerer, since=time.time())
    assert cancels(workspace) == [TASKS, *[0] * (DAGS - 1)]
