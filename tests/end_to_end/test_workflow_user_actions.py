"""What becomes of a workflow group when users act or tasks fail, in a whole Airflow.

The tasks are deferrable, need no worker, or wait on workers. The workspace counts what it is asked,
so each test knows how many runs were launched, how many repairs were made and how many cancels were
seen. docs/guarantees.md has these figures.
"""

from __future__ import annotations

import pytest

from tests.end_to_end.airflow_cluster import AirflowCluster
from tests.end_to_end.airflow_versions import AIRFLOW_3_0
from tests.end_to_end.eventually import eventually
from tests.end_to_end.group_scenarios import (
    FAILED,
    OTHERS,
    TEN,
    BeginGroup,
    GroupScenario,
    begins,
    both_succeed,
    both_waiting,
    in_whole_check_on_airflow_3,
    in_whole_check_on_newest,
    of,
)

pytestmark = pytest.mark.standalone


@pytest.fixture(scope="module")
def settings(short_silence: dict[str, str]) -> dict[str, str]:
    """Settings of the Airflow of this module."""
    return short_silence


@of("pair", thorough=["workerless_pair"])
def test_member_cleared_while_the_run_is_active(group: GroupScenario) -> None:
    """Its own task run is canceled; it runs again by a repair, once the other one has ended."""
    both_waiting(group)
    group.clear("a")
    group.until_canceled("a")
    group.task("a").until("deferred", try_number=2)
    # Airflow takes late news of the deferral for the end of what comes after it.
    group.task("a").until_left_worker()
    group.end("b")
    group.until("success", "b")
    group.run_again("a", attempts=2)
    group.deferred("a", times=2)
    group.end("a")
    group.until("success", "a")
    group.saw(runs=1, repairs=1, cancels=1)
    group.untouched("b")


@of("pair", "workerless_pair")
@pytest.mark.parametrize("state", ["failed", pytest.param("success", marks=pytest.mark.thorough)])
@in_whole_check_on_airflow_3
def test_member_marked(group: GroupScenario, state: str) -> None:
    """Its own task run is canceled; the other task goes on."""
    both_waiting(group)
    group.task("a").mark(state)
    group.until_canceled("a")
    group.end("b")
    group.until(state, "a")
    group.until("success", "b")
    group.saw(runs=1, repairs=0, cancels=1)


@of("pair", "workerless_pair")
@in_whole_check_on_newest
def test_all_tasks_cleared_with_the_launching_one(group: GroupScenario) -> None:
    """The task runs are canceled, and workers launch and follow a new run."""
    both_waiting(group)
    group.clear("launch", "a", "b")
    group.launched(2)
    group.deferred("a", "b")
    first = group.runs[0]
    eventually(
        lambda: {task.result for task in first.task_runs} == {"CANCELED"},
        "the task runs of the first run are canceled",
    )
    both_succeed(group)
    assert group.task("a").xcom("return_value") == "output of a"
    group.saw(runs=2, repairs=0, cancels=2)


@of("pair", "workerless_pair")
@pytest.mark.thorough
def test_launching_task_cleared_alone(group: GroupScenario) -> None:
    """It launches a new run; the tasks that wait go on with the first one."""
    both_waiting(group)
    group.clear("launch")
    second = group.launched(2)
    group.task("launch").until("success", try_number=2)
    for name in ("a", "b"):
        group.workspace.end_task(group.runs[0], name)
    group.until("success", "a", "b")
    assert second.is_active
    group.saw(runs=2, repairs=0, cancels=0)


@of("pair", thorough=["workerless_pair"])
@in_whole_check_on_airflow_3
def test_dag_run_marked_failed(group: GroupScenario) -> None:
    """The runs of both tasks are canceled."""
    both_waiting(group)
    group.dag_run.mark_all("failed")
    group.until_canceled("a", "b")
    group.saw(runs=1, repairs=0, cancels=2)


@of("pair_timed", thorough=["workerless_pair_timed"])
@in_whole_check_on_newest
def test_member_beyond_execution_timeout(group: GroupScenario) -> None:
    """Its own task run is canceled; the other task goes on."""
    group.launched()
    group.until("failed", "a")
    group.until_canceled("a")
    group.waiting("b")
    group.end("b")
    group.until("success", "b")
    group.saw(runs=1, repairs=0, cancels=1)


# A user acts, and the tasks wait on workers. Their DAG runs would hold the workers of the others.


def both_on_workers(group: GroupScenario) -> None:
    """Wait until both tasks of a pair follow their runs on workers."""
    group.launched()
    group.followed_on_workers("a", "b")


@pytest.mark.thorough
def test_blocking_member_cleared(begin_group: BeginGroup) -> None:
    """Its own task run is canceled; it runs again by a repair, once the other one has ended."""
    group = begin_group("group_blocking")
    both_on_workers(group)
    group.clear("a")
    group.until_canceled("a")
    if AIRFLOW_3_0:
        group.end("b")
        group.until("success", "b")
        # Airflow leaves the task in the state restarting. Once that has missed its heartbeats, the
        # scheduler of Airflow 3.0 examines no DAG run any more.
        group.task("a").mark("failed")
        group.until("failed", "a")
        group.saw(runs=1, repairs=0, cancels=1)
        return
    group.task("a").until("running", try_number=2)
    group.end("b")
    group.until("success", "b")
    group.run_again("a", attempts=2)
    group.followed_on_workers("a")
    group.end("a")
    group.until("success", "a")
    group.saw(runs=1, repairs=1, cancels=1)
    group.untouched("b")


@pytest.mark.thorough
def test_blocking_member_marked(begin_group: BeginGroup) -> None:
    """Its own task run is canceled; the other task goes on."""
    group = begin_group("group_blocking")
    both_on_workers(group)
    group.task("a").mark("failed")
    group.until_canceled("a")
    group.end("b")
    group.until("failed", "a")
    group.until("success", "b")
    group.saw(runs=1, repairs=0, cancels=1)


@of("workerless_pair_retried")
@pytest.mark.thorough
def test_failed_tasks_are_retried_on_workers(group: GroupScenario) -> None:
    """Both tasks run again by one repair."""
    both_waiting(group)
    group.end("a", "b", result="FAILED")
    group.run_again("a", "b", attempts=2)
    both_succeed(group)
    group.saw(runs=1, repairs=1, cancels=0)


def restart_triggerers(cluster: AirflowCluster) -> None:
    """Stop all triggerers, and start one."""
    for name in cluster.triggerers:
        cluster.terminate(name)
    cluster.start_triggerer()


@pytest.mark.parametrize(
    ("restarted", "group"),
    [
        begins("workerless_ten", "not"),
        begins("ten", "not", thorough=True),
        begins("ten", "before_the_repair", thorough=True),
        begins("ten", "after_the_repair", thorough=True),
    ],
    indirect=["group"],
    ids=str,
)
def test_two_of_ten_are_cleared(
    group: GroupScenario, cluster: AirflowCluster, restarted: str
) -> None:
    """One request repairs both; eight tasks are untouched, and the DAG run ends well.

    The triggerer is restarted while both wait for the end of the run, or after the repair.
    """
    group.launched()
    group.waiting(*TEN)
    group.end(*FAILED, result="FAILED")
    group.until("failed", *FAILED)
    if restarted == "before_the_repair":
        tasks = [group.task(name) for name in FAILED]
        watched = [task.times_watched() for task in tasks]
        group.clear(*FAILED)
        for task, times in zip(tasks, watched, strict=True):
            task.until("deferred", try_number=2)
            task.until_left_worker()
            task.until_watched(times=times + 1)
        restart_triggerers(cluster)
        for task, times in zip(tasks, watched, strict=True):
            task.until_watched(times=times + 2)
        group.end(*OTHERS)
        group.until("success", *OTHERS)
    else:
        group.end(*OTHERS)
        group.until("success", *OTHERS)
        if group.is_workerless:
            # They tell why the tasks have failed.
            assert group.worker_processes() == len(FAILED)
        group.dag_run.until_over()
        group.clear(*FAILED)
    group.run_again(*FAILED, attempts=2)
    group.deferred(*FAILED, times=2 if restarted == "before_the_repair" else 1)
    if restarted == "after_the_repair":
        restart_triggerers(cluster)
        group.deferred(*FAILED, watched=2)
    group.end(*FAILED)
    group.dag_run.until_over_with({"success": len(TEN) + 1})
    group.dag_run.until_over()
    assert group.dag_run.state() == "success"
    assert group.repair_requests == [sorted(FAILED)]
    assert all(group.runs[-1].attempts(name) == 2 for name in FAILED)
    group.saw(runs=1, repairs=1, cancels=0)
    group.untouched(OTHERS)


@of("ten_retried")
@pytest.mark.thorough
def test_two_of_ten_are_retried_and_cleared(group: GroupScenario, cluster: AirflowCluster) -> None:
    """One repair for the retry of both, and one for their clear; eight tasks are untouched.

    A worker is killed between the clear and the repair, with a retry left, and the triggerer is
    restarted after it.
    """
    group.launched()
    group.deferred(*TEN)
    group.end(*OTHERS)
    group.end(*FAILED, result="FAILED")
    group.run_again(*FAILED, attempts=2)
    group.deferred(*FAILED)
    group.end(*FAILED, result="FAILED")
    group.until("success", *OTHERS)
    group.until("failed", *FAILED)
    group.dag_run.until_over()
    group.saw(runs=1, repairs=1, cancels=0)

    group.kill_worker_at("runs/repair", "received")
    group.clear(*FAILED)
    group.until_killed()
    group.run_again(*FAILED, attempts=3)
    group.deferred(*FAILED)
    group.saw(runs=1, repairs=2, cancels=0)

    restart_triggerers(cluster)
    group.deferred(*FAILED, watched=2)
    group.end(*FAILED)
    group.dag_run.until_over_with({"success": len(TEN) + 1})
    group.dag_run.until_over()
    assert group.dag_run.state() == "success"
    assert all(group.runs[-1].attempts(name) == 3 for name in FAILED)
    group.saw(runs=1, repairs=2, cancels=0)
    group.untouched(OTHERS)


# At the end: all DAG runs have begun by now.
def test_dag_runs_that_begin_at_once_use_one_job(begun_groups: dict[str, GroupScenario]) -> None:
    """Several of them may find no job and create one; the same definition ends in one job."""
    runs = [
        run for one in begun_groups.values() if one.dag_run.dag_id == "pair" for run in one.runs
    ]
    if len(runs) < 2:
        pytest.skip("the DAG runs of the other tests are needed")
    assert len({run.job_id for run in runs}) == 1
