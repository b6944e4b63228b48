"""Runs without a worker, whose triggerer dies or stands still: in a whole Airflow 3.3.

The triggerer is killed with SIGKILL, or stopped with SIGSTOP, at a request of the trigger: as the
request comes in, or once the service has handled it. What users do, and what happens to the
triggerer while the task waits, is in test_user_actions.py, and the rest of Airflow in
test_whole_processes.py. Many launches at once are in test_many_launches_in_triggerer.py.
docs/guarantees.md has the figures.
"""

from __future__ import annotations

import time

import pytest

from tests.end_to_end.airflow_cluster import AirflowCluster
from tests.end_to_end.airflow_versions import RENDERS_IN_TRIGGERER
from tests.end_to_end.eventually import eventually
from tests.end_to_end.request_hooks import at_request, happened
from tests.end_to_end.scenarios import Begin, Scenario

pytestmark = [
    pytest.mark.standalone,
    pytest.mark.thorough,
    pytest.mark.skipif(not RENDERS_IN_TRIGGERER, reason="a worker launches every run"),
]


def succeeded(scenario: Scenario, *, runs: int, cancels: int) -> None:
    """Wait until the task has succeeded with its last run, and check the counts."""
    scenario.dag_run.until("success")
    run_id = scenario.runs[-1].run_id
    assert scenario.dag_run.xcom("return_value") == f"output of {run_id}"
    assert scenario.dag_run.xcom("run_id") == str(run_id)
    scenario.saw(runs=runs, cancels=cancels)


@pytest.mark.parametrize("moment", ["received", "handled"])
@pytest.mark.parametrize(
    "endpoint",
    ["runs/submit", "runs/get", "runs/get-output"],
    ids=["launch", "first read", "output"],
)
def test_triggerer_killed_at(
    begin: Begin, cluster: AirflowCluster, triggerer: str, endpoint: str, moment: str
) -> None:
    """Before, during and after the launch, and as it reads the output; the next one goes on."""
    scenario = begin("workerless")
    killed = at_request(scenario, endpoint, moment, lambda: cluster.kill_whole(triggerer))
    if endpoint == "runs/get-output":
        scenario.workspace.end(scenario.deferred())
    happened(killed, scenario)
    cluster.start_triggerer()
    if endpoint != "runs/get-output":
        scenario.workspace.end(scenario.deferred())
    succeeded(scenario, runs=1, cancels=0)


def test_another_triggerer_takes_over_the_launch(
    begin: Begin, cluster: AirflowCluster, triggerer: str
) -> None:
    """It was running before; it launches the same run."""
    scenario = begin("workerless")

    def kill() -> None:
        cluster.start_triggerer()
        cluster.kill_whole(triggerer)

    happened(at_request(scenario, "runs/submit", "handled", kill), scenario)
    scenario.workspace.end(scenario.deferred())
    succeeded(scenario, runs=1, cancels=0)


@pytest.mark.parametrize("is_answered", [True, False], ids=["answered", "answer_lost"])
def test_triggerer_frozen_during_the_launch(
    begin: Begin, cluster: AirflowCluster, triggerer: str, is_answered: bool
) -> None:
    """Another one has taken over when it wakes up; both have one run, which nobody cancels."""
    scenario = begin("workerless")
    frozen = at_request(
        scenario,
        "runs/submit",
        "received",
        lambda: cluster.freeze(triggerer),
        is_answered=is_answered,
    )
    happened(frozen, scenario)
    try:
        cluster.start_triggerer()
        run = scenario.deferred()
    finally:
        awake = time.time()
        cluster.thaw(triggerer)
    cluster.until_beaten(triggerer, since=awake)
    scenario.workspace.end(run)
    succeeded(scenario, runs=1, cancels=0)


@pytest.mark.parametrize("endpoint", ["runs/submit", "runs/get"], ids=["launch", "first read"])
def test_cleared_while_its_triggerer_is_frozen(
    begin: Begin, cluster: AirflowCluster, triggerer: str, endpoint: str
) -> None:
    """During the launch or after it; the first run is canceled, and the task has the second one."""
    scenario = begin("workerless")
    frozen = at_request(
        scenario, endpoint, "handled", lambda: cluster.freeze(triggerer), is_answered=True
    )
    happened(frozen, scenario)
    (first,) = scenario.runs
    try:
        cluster.start_triggerer()
        scenario.dag_run.clear()
        second = scenario.deferred(2, watched=1)
    finally:
        cluster.thaw(triggerer)
    eventually(lambda: not first.is_active, "the first run has ended")
    scenario.workspace.end(second)
    succeeded(scenario, runs=2, cancels=1)


def test_cleared_after_its_triggerer_was_killed_during_the_launch(
    begin: Begin, cluster: AirflowCluster, triggerer: str
) -> None:
    """A known limit: nobody knows of the first run, which continues to its end."""
    scenario = begin("workerless")
    killed = at_request(scenario, "runs/submit", "handled", lambda: cluster.kill_whole(triggerer))
    happened(killed, scenario)
    (first,) = scenario.runs
    scenario.dag_run.clear()
    cluster.start_triggerer()
    scenario.workspace.end(scenario.deferred(2, watched=1))
    succeeded(scenario, runs=2, cancels=0)
    assert first.is_active
