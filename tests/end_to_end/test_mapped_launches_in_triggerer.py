"""Mapped tasks without workers: triggerers die or stand still, users act on one instance of many.

A whole Airflow 3.3. The triggerer is killed with SIGKILL, or stopped with SIGSTOP, at a request of
one instance, as in test_launches_in_triggerer.py. docs/guarantees.md has the figures.
"""

from __future__ import annotations

import time

import pytest

from tests.end_to_end.airflow_cluster import AirflowCluster
from tests.end_to_end.airflow_versions import RENDERS_IN_TRIGGERER
from tests.end_to_end.eventually import eventually
from tests.end_to_end.mapped_scenarios import (
    all_launched,
    all_succeeded,
    end_all,
    index_of,
    runs_by_index,
)
from tests.end_to_end.request_hooks import at_request, happened
from tests.end_to_end.scenarios import Begin, Scenario
from tests.fakes.fake_service import Run

pytestmark = [
    pytest.mark.standalone,
    pytest.mark.skipif(not RENDERS_IN_TRIGGERER, reason="a worker launches every run"),
]

INSTANCES = 5
ENDPOINTS = {"launch": "runs/submit", "first read": "runs/get", "output": "runs/get-output"}
# The whole check has one of them.
KILLS = [
    pytest.param(
        endpoint,
        moment,
        id=f"{name}-{moment}",
        marks=[] if (name, moment) == ("launch", "handled") else [pytest.mark.thorough],
    )
    for name, endpoint in ENDPOINTS.items()
    for moment in ("received", "handled")
]


@pytest.fixture
def scenario(begin: Begin, triggerer: str) -> Scenario:
    """A DAG run of a task with five instances, in the only triggerer."""
    del triggerer
    return begin("workerless_mapped_steady")


def succeeded(scenario: Scenario, *, more_runs: int = 0, cancels: int = 0) -> None:
    """Let all runs end well, and check the counts: one run for each instance, and more."""
    all_launched(scenario, INSTANCES + more_runs)
    end_all(scenario)
    all_succeeded(scenario, instances=INSTANCES, runs=INSTANCES + more_runs, cancels=cancels)


def canceled(run: Run) -> None:
    """Wait until a run is canceled."""
    eventually(lambda: not run.is_active, "the run has ended")
    assert run.result == "CANCELED"


@pytest.mark.parametrize(("endpoint", "moment"), KILLS)
def test_triggerer_killed_at(
    scenario: Scenario, cluster: AirflowCluster, triggerer: str, endpoint: str, moment: str
) -> None:
    """At the launch of the third instance, as that run is read, and at the third output."""
    killed = at_request(scenario, endpoint, moment, lambda: cluster.kill_whole(triggerer), number=3)
    if endpoint == "runs/get-output":
        all_launched(scenario, INSTANCES)
        end_all(scenario)
    happened(killed, scenario)
    cluster.start_triggerer()
    succeeded(scenario)


@pytest.mark.thorough
@pytest.mark.parametrize("moment", ["received", "handled"])
def test_another_triggerer_takes_over_the_launches(
    scenario: Scenario, cluster: AirflowCluster, triggerer: str, moment: str
) -> None:
    """It was running before; it launches the same runs."""

    def kill() -> None:
        cluster.start_triggerer()
        cluster.kill_whole(triggerer)

    happened(at_request(scenario, "runs/submit", moment, kill, number=3), scenario)
    succeeded(scenario)


@pytest.mark.thorough
@pytest.mark.parametrize("is_answered", [True, False], ids=["answered", "answer_lost"])
def test_triggerer_frozen_during_a_launch(
    scenario: Scenario, cluster: AirflowCluster, triggerer: str, is_answered: bool
) -> None:
    """Another one has taken all instances over when it wakes up; nobody cancels anything."""
    frozen = at_request(
        scenario,
        "runs/submit",
        "received",
        lambda: cluster.freeze(triggerer),
        number=3,
        is_answered=is_answered,
    )
    happened(frozen, scenario)
    try:
        cluster.start_triggerer()
        all_launched(scenario, INSTANCES)
    finally:
        awake = time.time()
        cluster.thaw(triggerer)
    cluster.until_beaten(triggerer, since=awake)
    succeeded(scenario)


@pytest.mark.thorough
@pytest.mark.parametrize("endpoint", ["runs/submit", "runs/get"], ids=["launch", "first read"])
def test_one_is_cleared_while_the_triggerer_is_frozen(
    scenario: Scenario, cluster: AirflowCluster, triggerer: str, endpoint: str
) -> None:
    """Its first run is canceled, it has the second one; the others have their first."""
    frozen = at_request(
        scenario, endpoint, "handled", lambda: cluster.freeze(triggerer), number=3, is_answered=True
    )
    happened(frozen, scenario)
    first = scenario.runs[2]
    try:
        cluster.start_triggerer()
        scenario.dag_run.clear(map_index=index_of(first))
        all_launched(scenario, INSTANCES + 1)
    finally:
        awake = time.time()
        cluster.thaw(triggerer)
    canceled(first)
    cluster.until_beaten(triggerer, since=awake)
    succeeded(scenario, more_runs=1, cancels=1)


def test_one_is_cleared_then_cleared_again(scenario: Scenario) -> None:
    """Each clear cancels its run and leads to one new run; the others go on."""
    all_launched(scenario, INSTANCES)
    for count in (1, 2):
        run = runs_by_index(scenario)[2][-1]
        scenario.dag_run.clear(map_index=2)
        all_launched(scenario, INSTANCES + count)
        canceled(run)
    succeeded(scenario, more_runs=2, cancels=2)


@pytest.mark.thorough
def test_all_are_cleared(scenario: Scenario) -> None:
    """Each run is canceled, and each instance launches another one."""
    first = list(all_launched(scenario, INSTANCES))
    scenario.dag_run.clear()
    all_launched(scenario, 2 * INSTANCES)
    for run in first:
        canceled(run)
    succeeded(scenario, more_runs=INSTANCES, cancels=INSTANCES)


@pytest.mark.thorough
@pytest.mark.parametrize("state", ["failed", "success"])
def test_one_is_marked(scenario: Scenario, state: str) -> None:
    """Its run is canceled, once; the others go on."""
    all_launched(scenario, INSTANCES)
    (run,) = runs_by_index(scenario)[2]
    scenario.dag_run.mark(state, map_index=2)
    canceled(run)
    end_all(scenario)
    failed = {"failed": 1} if state == "failed" else {}
    scenario.dag_run.until_over_with({"success": INSTANCES - len(failed)} | failed)
    scenario.saw(runs=INSTANCES, cancels=1)


@pytest.mark.thorough
def test_the_run_of_one_fails(scenario: Scenario) -> None:
    """It is retried, with one run more; the others keep theirs."""
    all_launched(scenario, INSTANCES)
    (run,) = runs_by_index(scenario)[2]
    scenario.workspace.end(run, "FAILED")
    succeeded(scenario, more_runs=1)


# A retry asks for the run of the try before, and then launches its own.
@pytest.mark.thorough
@pytest.mark.parametrize(("number", "moment"), [(1, "handled"), (2, "received"), (2, "handled")])
def test_triggerer_killed_at_the_launch_of_a_retry(
    scenario: Scenario, cluster: AirflowCluster, triggerer: str, number: int, moment: str
) -> None:
    """The next triggerer goes on with the retry, which has one run."""
    all_launched(scenario, INSTANCES)
    killed = at_request(
        scenario, "runs/submit", moment, lambda: cluster.kill_whole(triggerer), number=number
    )
    (run,) = runs_by_index(scenario)[2]
    scenario.workspace.end(run, "FAILED")
    happened(killed, scenario)
    cluster.start_triggerer()
    succeeded(scenario, more_runs=1)


@pytest.mark.thorough
def test_users_act_on_two_while_no_triggerer_is_at_work(
    scenario: Scenario, cluster: AirflowCluster, triggerer: str
) -> None:
    """The next triggerer cancels the run of the marked one and of the cleared one, no other."""
    all_launched(scenario, INSTANCES)
    by_index = runs_by_index(scenario)
    cluster.terminate(triggerer)
    scenario.dag_run.mark("success", map_index=1)
    scenario.dag_run.clear(map_index=2)
    scenario.dag_run.until("deferred", map_index=2, try_number=2)
    cluster.start_triggerer()
    all_launched(scenario, INSTANCES + 1)
    for index in (1, 2):
        canceled(by_index[index][0])
    end_all(scenario)
    scenario.dag_run.until_over_with({"success": INSTANCES})
    counts = {index: len(runs) for index, runs in runs_by_index(scenario).items()}
    assert counts == {0: 1, 1: 1, 2: 2, 3: 1, 4: 1}
    scenario.saw(runs=INSTANCES + 1, cancels=2)


@pytest.mark.thorough
def test_one_is_cleared_after_its_success(scenario: Scenario) -> None:
    """It launches another run; the others keep theirs."""
    succeeded(scenario)
    scenario.dag_run.until_over()
    scenario.dag_run.clear(map_index=2)
    succeeded(scenario, more_runs=1)
    assert len(runs_by_index(scenario)[2]) == 2
