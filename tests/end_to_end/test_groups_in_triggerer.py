"""Workflow groups without workers, also where triggerers die: in a whole Airflow 3.3.

What users do to them is in test_workflow_user_actions.py. docs/guarantees.md has the figures.
"""

from __future__ import annotations

import pytest

from tests.end_to_end.airflow_cluster import AirflowCluster
from tests.end_to_end.airflow_versions import RENDERS_IN_TRIGGERER
from tests.end_to_end.eventually import eventually
from tests.end_to_end.group_scenarios import BeginGroup, at_request, both_succeed, both_waiting

pytestmark = [
    pytest.mark.standalone,
    pytest.mark.skipif(not RENDERS_IN_TRIGGERER, reason="a worker starts every task of a group"),
]


@pytest.mark.parametrize("dag_id", ["workerless_pair", "workerless_chain"])
def test_a_group_takes_no_worker(begin_group: BeginGroup, dag_id: str) -> None:
    """Launch, wait, outputs and ends; then one task is cleared, and a worker repairs the run."""
    group = begin_group(dag_id)
    run = group.launched()
    group.until("success", "launch")
    for name in "ab":
        group.watched(name)
        group.end(name)
        group.until("success", name)
        assert group.task(name).xcom("return_value") == f"output of {name}"
        assert group.task(name).xcom("run_id") == str(run.latest[name].run_id)
    assert group.worker_processes() == 0
    group.saw(runs=1, repairs=0, cancels=0)
    group.dag_run.until_over()
    group.clear("b")
    group.run_again("b", attempts=2)
    group.end("b")
    group.until("success", "b")
    group.saw(runs=1, repairs=1, cancels=0)
    group.untouched("a")


@pytest.mark.thorough
@pytest.mark.parametrize("moment", ["received", "handled"])
@pytest.mark.parametrize(
    "endpoints",
    [("list",), ("create", "reset"), ("run-now",), ("runs/get",)],
    ids=["jobs", "definition", "launch", "first read"],
)
def test_triggerer_killed_at_the_launch(
    begin_group: BeginGroup,
    cluster: AirflowCluster,
    triggerer: str,
    endpoints: tuple[str, ...],
    moment: str,
) -> None:
    """The next triggerer goes on with the launch: one run, with its own definition."""
    group = begin_group("workerless_own_definition")
    killed = at_request(group, endpoints, moment, lambda: cluster.kill_whole(triggerer))
    eventually(killed.is_set, f"the triggerer is killed at {endpoints}")
    cluster.start_triggerer()
    both_waiting(group)
    both_succeed(group)
    group.saw(runs=1, repairs=0, cancels=0)
    tasks = group.runs[0].definition["tasks"]
    assert {task["existing_cluster_id"] for task in tasks} == {f"c-{group.dag_run.run_id}"}
    assert group.worker_processes() == 0


@pytest.mark.thorough
@pytest.mark.parametrize("moment", ["received", "handled"])
def test_triggerer_killed_as_it_reads_an_output(
    begin_group: BeginGroup, cluster: AirflowCluster, triggerer: str, moment: str
) -> None:
    """The next triggerer reads it again."""
    group = begin_group("workerless_pair")
    killed = at_request(group, ("runs/get-output",), moment, lambda: cluster.kill_whole(triggerer))
    both_waiting(group)
    group.end("a", "b")
    eventually(killed.is_set, "the triggerer is killed")
    cluster.start_triggerer()
    group.until("success", "a", "b")
    for name in "ab":
        assert group.task(name).xcom("return_value") == f"output of {name}"
    group.saw(runs=1, repairs=0, cancels=0)
