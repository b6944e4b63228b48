"""Workflow groups whose definitions differ or change, in a whole Airflow.

docs/guarantees.md has the figures.
"""

from __future__ import annotations

import pytest

from tests.end_to_end.eventually import eventually
from tests.end_to_end.group_scenarios import (
    GroupScenario,
    Planned,
    both_succeed,
    both_waiting,
    in_whole_check_on_newest,
    of,
)
from tests.fakes.fake_service import FakeService

pytestmark = pytest.mark.standalone


@pytest.fixture(scope="module")
def settings(short_silence: dict[str, str]) -> dict[str, str]:
    """Settings of the Airflow of this module."""
    return short_silence


@pytest.mark.parametrize(
    "group", [Planned("own_definition")] * 2, indirect=True, ids=["first", "second"]
)
@in_whole_check_on_newest
def test_dag_runs_with_different_definitions(
    group: GroupScenario, begun_groups: dict[str, GroupScenario]
) -> None:
    """Both begin at once, and each of their runs has the definition of its own DAG run."""
    same_dag = [one for one in begun_groups.values() if one.dag_run.dag_id == group.dag_run.dag_id]
    runs = [one.launched() for one in same_dag]
    assert len({run.job_id for run in runs}) == len(runs)
    both_waiting(group)
    both_succeed(group)
    tasks = group.runs[0].definition["tasks"]
    assert {task["existing_cluster_id"] for task in tasks} == {f"c-{group.dag_run.run_id}"}
    group.saw(runs=1, repairs=0, cancels=0)


@of("group_mapped")
@in_whole_check_on_newest
def test_map_indexes_with_different_definitions(group: GroupScenario) -> None:
    """Both run at once, each with its own definition, and a clear repairs each of their runs."""
    dag_run = group.dag_run
    group.launched(2)
    runs = group.runs
    found = {
        run.job_id: {task["existing_cluster_id"] for task in run.definition["tasks"]}
        for run in runs
    }
    assert sorted(found.values(), key=sorted) == [{"one"}, {"two"}]
    dag_run.until_over_with({"success": 2, "deferred": 4})
    for name in ("a", "b"):
        dag_run.of_task(f"each.g.{name}").until_settled(times=2)
    for run in runs:
        group.workspace.end_task(run, "a", "FAILED")
        group.workspace.end_task(run, "b")
    dag_run.until_over_with({"success": 4, "failed": 2})
    dag_run.until_over()
    dag_run.clear(["each.g.a"])
    eventually(lambda: all(run.attempts("a") == 2 for run in runs), "both have run a again")
    dag_run.until_over_with({"success": 4, "deferred": 2})
    dag_run.of_task("each.g.a").until_settled(times=4)
    for run in runs:
        group.workspace.end_task(run, "a")
    dag_run.until_over_with({"success": 6})
    group.saw(runs=2, repairs=2, cancels=0)


@of("changed")
@in_whole_check_on_newest
def test_member_cleared_after_the_job_was_changed(
    group: GroupScenario, workspace: FakeService
) -> None:
    """The task is submitted alone, and its log says why."""
    run = group.launched()
    group.deferred("a", "b")
    group.end("a", result="FAILED")
    group.end("b")
    group.until("failed", "a")
    group.until("success", "b")
    group.dag_run.until_over()
    workspace.jobs[run.job_id]["tasks"][0]["existing_cluster_id"] = "another"
    group.clear("a")
    (alone,) = eventually(lambda: group.runs_alone, "the task is submitted")
    group.task("a").until("deferred", try_number=2)
    group.task("a").until_left_worker()
    workspace.end(alone)
    group.until("success", "a")
    reason = f"job {run.job_id} was changed since the run was launched"
    assert f"Run {run.run_id} is not repaired: {reason}" in group.dag_run.logs()
    assert group.repair_requests == []
    group.saw(runs=1, repairs=0, cancels=0)
    group.untouched("b")
