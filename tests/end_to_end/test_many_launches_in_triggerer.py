"""Thirty launches at once without workers, while triggerers die.

A whole Airflow 3.3, with thirty tasks, and with thirty instances of a mapped task.
docs/guarantees.md has the figures.
"""

from __future__ import annotations

import pytest

from tests.end_to_end.airflow_cluster import AirflowCluster
from tests.end_to_end.airflow_versions import RENDERS_IN_TRIGGERER
from tests.end_to_end.eventually import eventually
from tests.end_to_end.mapped_scenarios import all_succeeded, end_all
from tests.end_to_end.request_hooks import at_request, happened
from tests.end_to_end.scenarios import Begin, Scenario

pytestmark = [
    pytest.mark.standalone,
    pytest.mark.thorough,
    pytest.mark.skipif(not RENDERS_IN_TRIGGERER, reason="a worker launches every run"),
]

TASKS = 30
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
