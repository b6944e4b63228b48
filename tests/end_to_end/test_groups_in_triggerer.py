"""Workflow groups without workers, users who act, and triggerers that die: in a whole Airflow 3.3.

docs/guarantees.md has the figures.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.end_to_end.airflow_cluster import AirflowCluster
from tests.end_to_end.airflow_versions import RENDERS_IN_TRIGGERER
from tests.end_to_end.eventually import eventually
from tests.end_to_end.group_scenarios import GroupScenario, at_request
from tests.fakes.fake_service import FakeService

pytestmark = [
    pytest.mark.standalone,
    pytest.mark.skipif(not RENDERS_IN_TRIGGERER, reason="a worker starts every task of a group"),
]

Begin = Callable[[str], GroupScenario]
TEN = [f"n{number}" for number in range(10)]
FAILED, OTHERS = TEN[:2], TEN[2:]


@pytest.fixture
def begin(
    cluster: AirflowCluster,
    workspace: FakeService,
    record_property: Callable[[str, object], None],
) -> Begin:
    """Begin a DAG run."""
    return lambda dag_id: GroupScenario(cluster.trigger(dag_id), workspace, record_property)


def both_waiting(group: GroupScenario, *, watched: int = 1) -> None:
    """Wait until both tasks of a pair wait in the triggerer."""
    group.launched()
    group.watched("a", "b", times=watched)


def both_succeed(group: GroupScenario) -> None:
    """Let both tasks of a pair end well."""
    group.end("a", "b")
    group.until("success", "a", "b")


@pytest.mark.parametrize("dag_id", ["triggered_pair", "triggered_chain"])
def test_a_group_takes_no_worker(begin: Begin, dag_id: str) -> None:
    """Launch, wait, outputs and ends; then one task is cleared, and a worker repairs the run."""
    group = begin(dag_id)
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


def test_all_tasks_cleared_with_the_launching_one(begin: Begin) -> None:
    """The task runs are canceled, and a worker launches a new run."""
    group = begin("triggered_pair")
    both_waiting(group)
    group.clear("launch", "a", "b")
    group.launched(2)
    first = group.runs[0]
    eventually(
        lambda: {task.result for task in first.task_runs} == {"CANCELED"},
        "the task runs of the first run are canceled",
    )
    for name in "ab":
        group.task(name).until("deferred", try_number=2)
        group.watched(name)
    both_succeed(group)
    assert group.task("a").xcom("return_value") == "output of a"
    group.saw(runs=2, repairs=0, cancels=2)


@pytest.mark.thorough
def test_member_cleared_while_the_run_is_active(begin: Begin) -> None:
    """Its own task run is canceled; it runs again by a repair, once the other one has ended."""
    group = begin("triggered_pair")
    both_waiting(group)
    group.clear("a")
    group.until_canceled("a")
    group.task("a").until("deferred", try_number=2)
    group.task("a").until_left_worker()
    group.end("b")
    group.until("success", "b")
    group.run_again("a", attempts=2)
    group.deferred("a", times=2)
    group.end("a")
    group.until("success", "a")
    group.saw(runs=1, repairs=1, cancels=1)
    group.untouched("b")


@pytest.mark.parametrize("state", ["failed", pytest.param("success", marks=pytest.mark.thorough)])
def test_member_marked(begin: Begin, state: str) -> None:
    """Its own task run is canceled; the other task goes on."""
    group = begin("triggered_pair")
    both_waiting(group)
    group.task("a").mark(state)
    group.until_canceled("a")
    group.end("b")
    group.until(state, "a")
    group.until("success", "b")
    group.saw(runs=1, repairs=0, cancels=1)


@pytest.mark.thorough
def test_launching_task_cleared_alone(begin: Begin) -> None:
    """It launches a new run; the tasks that wait go on with the first one."""
    group = begin("triggered_pair")
    both_waiting(group)
    group.clear("launch")
    second = group.launched(2)
    group.task("launch").until("success", try_number=2)
    for name in ("a", "b"):
        group.workspace.end_task(group.runs[0], name)
    group.until("success", "a", "b")
    assert second.is_active
    group.saw(runs=2, repairs=0, cancels=0)


@pytest.mark.thorough
def test_dag_run_marked_failed(begin: Begin) -> None:
    """The runs of both tasks are canceled."""
    group = begin("triggered_pair")
    both_waiting(group)
    group.dag_run.mark_all("failed")
    group.until_canceled("a", "b")
    group.saw(runs=1, repairs=0, cancels=2)


@pytest.mark.thorough
def test_member_beyond_execution_timeout(begin: Begin) -> None:
    """Its own task run is canceled; the other task goes on."""
    group = begin("triggered_pair_timed")
    group.launched()
    group.until("failed", "a")
    group.until_canceled("a")
    group.end("b")
    group.until("success", "b")
    group.saw(runs=1, repairs=0, cancels=1)


def test_two_of_ten_fail_and_are_cleared(begin: Begin) -> None:
    """Workers tell why they failed, and one request repairs both."""
    group = begin("triggered_ten")
    group.launched()
    group.watched(*TEN)
    group.end(*FAILED, result="FAILED")
    group.until("failed", *FAILED)
    group.end(*OTHERS)
    group.until("success", *OTHERS)
    assert group.worker_processes() == len(FAILED)
    group.dag_run.until_over()
    group.clear(*FAILED)
    group.run_again(*FAILED, attempts=2)
    group.end(*FAILED)
    group.until("success", *FAILED)
    assert group.repair_requests == [sorted(FAILED)]
    group.saw(runs=1, repairs=1, cancels=0)
    group.untouched(OTHERS)


@pytest.mark.thorough
def test_a_failed_task_is_retried(begin: Begin) -> None:
    """Both tasks run again by one repair, on workers; then they succeed."""
    group = begin("triggered_pair_retried")
    both_waiting(group)
    group.end("a", "b", result="FAILED")
    group.run_again("a", "b", attempts=2)
    both_succeed(group)
    group.saw(runs=1, repairs=1, cancels=0)


# -- the triggerer dies ----------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("moment", ["received", "handled"])
@pytest.mark.parametrize(
    "endpoints",
    [("list",), ("create", "reset"), ("run-now",), ("runs/get",)],
    ids=["jobs", "definition", "launch", "first read"],
)
def test_triggerer_killed_at_the_launch(
    begin: Begin, cluster: AirflowCluster, triggerer: str, endpoints: tuple[str, ...], moment: str
) -> None:
    """The next triggerer goes on with the launch: one run, with its own definition."""
    group = begin("triggered_own_definition")
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
    begin: Begin, cluster: AirflowCluster, triggerer: str, moment: str
) -> None:
    """The next triggerer reads it again."""
    group = begin("triggered_pair")
    killed = at_request(group, ("runs/get-output",), moment, lambda: cluster.kill_whole(triggerer))
    both_waiting(group)
    group.end("a", "b")
    eventually(killed.is_set, "the triggerer is killed")
    cluster.start_triggerer()
    group.until("success", "a", "b")
    for name in "ab":
        assert group.task(name).xcom("return_value") == f"output of {name}"
    group.saw(runs=1, repairs=0, cancels=0)


@pytest.mark.thorough
@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_triggerer_ends_while_tasks_wait(
    begin: Begin, cluster: AirflowCluster, triggerer: str, end: str
) -> None:
    """It cancels nothing; the next one goes on."""
    group = begin("triggered_pair")
    both_waiting(group)
    getattr(cluster, end)(triggerer)
    cluster.start_triggerer()
    group.watched("a", "b", times=2)
    both_succeed(group)
    group.saw(runs=1, repairs=0, cancels=0)
    assert group.worker_processes() == 0
