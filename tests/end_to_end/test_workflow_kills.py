"""What becomes of a workflow group when a worker or the triggerer dies, in a whole Airflow.

docs/guarantees.md has the figures.
"""

from __future__ import annotations

import pytest

from tests.end_to_end.airflow_cluster import AirflowCluster
from tests.end_to_end.eventually import eventually
from tests.end_to_end.group_scenarios import (
    BeginGroup,
    GroupScenario,
    both_succeed,
    both_waiting,
    in_whole_check_on_newest,
    killed_at,
)
from tests.end_to_end.scenarios import workerless

pytestmark = pytest.mark.standalone


@pytest.fixture(scope="module")
def settings(short_silence: dict[str, str]) -> dict[str, str]:
    """Settings of the Airflow of this module."""
    return short_silence


@pytest.mark.thorough
def test_blocking_member_killed(begin_group: BeginGroup) -> None:
    """The worker of one of the tasks dies; the next try follows the same task run."""
    group = begin_group("group_blocking_retried")
    # The first read is that of the launching task, the next ones are those of both tasks.
    group.kill_worker_at("runs/get", "received", number=8)
    group.until_killed()
    group.followed_on_workers("a", "b")
    eventually(
        lambda: (
            sorted(group.task(name).state_and_try() for name in "ab")
            == [("running", 1), ("running", 2)]
        ),
        "the next try of one of the tasks runs",
    )
    both_succeed(group)
    group.saw(runs=1, repairs=0, cancels=0)


@killed_at("run-now", "received", "handled")
@in_whole_check_on_newest
def test_launching_worker_killed(group: GroupScenario) -> None:
    """Before and after the launch: the next try launches the run, or finds it."""
    group.until_killed()
    group.task("launch").until("success")
    both_waiting(group)
    both_succeed(group)
    assert group.task("launch").task()["try_number"] > 1
    group.saw(runs=1, repairs=0, cancels=0)


# The first read is that of the launching task, which does not serve a single first task.
@killed_at("runs/get", "received", dag_id="chain_retried", number=2)
def test_member_killed_while_deferring(group: GroupScenario) -> None:
    """The worker dies at the task's first look at the run; the next try follows the same run."""
    group.until_killed()
    group.deferred("a")
    assert group.task("a").task()["try_number"] == 2
    group.end("a", "b")
    group.until("success", "a", "b")
    group.saw(runs=1, repairs=0, cancels=0)


@killed_at("runs/get", "received")
def test_launching_worker_killed_after_the_launch(group: GroupScenario) -> None:
    """The worker dies as it reads its run; the next try finds the run."""
    group.until_killed()
    both_waiting(group)
    both_succeed(group)
    assert group.task("launch").task()["try_number"] == 2
    group.saw(runs=1, repairs=0, cancels=0)


@killed_at("runs/get-output", "received")
def test_member_killed_while_resuming(group: GroupScenario) -> None:
    """The worker dies while it reads the output; the next try reports the same task run."""
    both_waiting(group)
    group.end("a", "b")
    group.until_killed()
    group.until("success", "a", "b")
    for name in ("a", "b"):
        assert group.task(name).xcom("return_value") == f"output of {name}"
    group.saw(runs=1, repairs=0, cancels=0)


@killed_at("runs/repair", "received", "handled")
def test_worker_killed_at_the_repair_of_a_retry(group: GroupScenario) -> None:
    """Before and after the repair: both tasks run again, once."""
    both_waiting(group)
    group.end("a", "b", result="FAILED")
    group.until_killed()
    group.run_again("a", "b", attempts=2)
    group.deferred("a", "b")
    both_succeed(group)
    group.saw(runs=1, repairs=1, cancels=0)


@pytest.mark.thorough
@pytest.mark.parametrize("dag_id", ["pair", workerless("workerless_pair")])
@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_triggerer_ends(
    begin_group: BeginGroup, cluster: AirflowCluster, triggerer: str, dag_id: str, end: str
) -> None:
    """A triggerer that is stopped or killed cancels nothing; the next one goes on."""
    group = begin_group(dag_id)
    both_waiting(group)
    getattr(cluster, end)(triggerer)
    cluster.start_triggerer()
    group.waiting("a", "b", triggerers=2)
    both_succeed(group)
    group.saw(runs=1, repairs=0, cancels=0)
    if group.is_workerless:
        assert group.worker_processes() == 0
