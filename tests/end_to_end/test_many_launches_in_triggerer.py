"""Thirty launches at once without workers: triggerers die, the DAG run is marked.

A whole Airflow 3.3, with thirty tasks, and with thirty instances of a mapped task.
docs/guarantees.md has the figures.
"""

from __future__ import annotations

import threading
import time

import pytest

from airflow_jobs_provider.triggers.polling.launch_limiter import LAUNCHES_AT_ONCE
from tests.end_to_end.airflow_cluster import AirflowCluster
from tests.end_to_end.airflow_versions import RENDERS_IN_TRIGGERER
from tests.end_to_end.eventually import PATIENCE_SECONDS, eventually
from tests.end_to_end.mapped_scenarios import all_succeeded, end_all
from tests.end_to_end.request_hooks import at_request, happened
from tests.end_to_end.scenarios import Begin, Scenario
from tests.fakes.fake_service import Seen

pytestmark = [
    pytest.mark.standalone,
    pytest.mark.thorough,
    pytest.mark.skipif(not RENDERS_IN_TRIGGERER, reason="a worker launches every run"),
]

TASKS = 30
# The DAG run is marked at this launch.
MARKED_AT = 10
MAPPED = "workerless_mapped_many"


@pytest.fixture(params=["workerless_many", MAPPED], ids=["tasks", "mapped"])
def scenario(request: pytest.FixtureRequest, begin: Begin, triggerer: str) -> Scenario:
    """A DAG run of thirty tasks, or of one with thirty instances, in the only triggerer."""
    del triggerer
    return begin(request.param)


def test_triggerers_killed_while_they_launch_many(
    scenario: Scenario, cluster: AirflowCluster
) -> None:
    """The triggerer is killed three times during the launches, and once during the outputs.

    Each task has one run.
    """

    def kill() -> None:
        cluster.kill_whole(*cluster.triggerers)

    launches = [
        at_request(scenario, "runs/submit", moment, kill, number=number)
        for moment, number in (("received", 5), ("handled", 14), ("received", 31))
    ]
    for killed in launches:
        happened(killed, scenario)
        cluster.start_triggerer()
    eventually(lambda: len(scenario.runs) == TASKS, "all runs are launched")
    concluding = at_request(scenario, "runs/get-output", "handled", kill, number=TASKS // 2)
    end_all(scenario)
    happened(concluding, scenario)
    cluster.start_triggerer()
    scenario.dag_run.until_over_with({"success": TASKS})
    assert len({run.task for run in scenario.runs}) == TASKS
    if scenario.dag_run.dag_id == MAPPED:
        all_succeeded(scenario, instances=TASKS, runs=TASKS, cancels=0)
    scenario.saw(runs=TASKS, cancels=0)


def test_dag_run_marked_while_its_tasks_launch(scenario: Scenario, begin: Begin) -> None:
    """The runs that were launched by then are canceled, once each, and no other follows."""
    launched, over = threading.Event(), threading.Event()

    def hold(request: Seen, moment: str) -> bool:
        is_launch = (request.endpoint, moment) == ("runs/submit", "handled")
        if is_launch and len(scenario.runs) >= MARKED_AT:
            launched.set()
            over.wait(PATIENCE_SECONDS)
        return False

    # Some wait for their responses, the others for their turns, until Airflow has canceled them.
    scenario.workspace.hooks.append(hold)
    try:
        happened(launched, scenario)
        scenario.dag_run.mark_all("failed")
        scenario.dag_run.until_over_with({"failed": TASKS})
        answered = scenario.runs[: MARKED_AT - 1]
        eventually(lambda: all(run.cancels for run in answered), "the first runs are canceled")
    finally:
        over.set()
    scenario.all_stopped()
    # A launch that was in its turn then would have come by now.
    time.sleep(TASKS / 5)
    scenario.all_stopped()
    runs = scenario.runs
    assert MARKED_AT <= len(runs) < MARKED_AT + LAUNCHES_AT_ONCE
    assert [run.cancels for run in runs] == [1] * len(runs)
    scenario.saw(runs=len(runs), cancels=len(runs))
    # The next DAG run is not held back by what has become of this one.
    scenario = begin("workerless")
    scenario.workspace.end(scenario.deferred())
    scenario.dag_run.until("success")
    scenario.saw(runs=1, cancels=0)
