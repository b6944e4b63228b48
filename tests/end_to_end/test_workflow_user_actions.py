"""What becomes of a workflow group when users act and processes die, in a whole Airflow.

The workspace counts what it is asked, so each test knows how many runs were launched, how many
repairs were made and how many cancels were seen. docs/guarantees.md has these figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.end_to_end.airflow_cluster import AirflowCluster
from tests.end_to_end.airflow_versions import AIRFLOW_2, AIRFLOW_3_0
from tests.end_to_end.eventually import eventually
from tests.end_to_end.group_scenarios import GroupScenario
from tests.fakes.fake_service import FakeService

pytestmark = pytest.mark.standalone

TEN = [f"n{number}" for number in range(10)]
FAILED, OTHERS = TEN[:2], TEN[2:]


@pytest.fixture(scope="module")
def settings(short_silence: dict[str, str]) -> dict[str, str]:
    """Settings of the Airflow of this module."""
    return short_silence


@pytest.fixture(scope="module")
def begun(
    cluster: AirflowCluster, workspace: FakeService, request: pytest.FixtureRequest
) -> dict[str, GroupScenario]:
    """The DAG runs of all tests that name theirs, begun at once: Airflow takes its time."""
    scenarios = {}
    for item in request.session.items:
        if item.path != request.path or not isinstance(item, pytest.Function):
            continue
        planned = item.callspec.params.get("group") if hasattr(item, "callspec") else None
        if isinstance(planned, Planned):
            scenarios[item.name] = GroupScenario(cluster.trigger(planned.dag_id), workspace)
            if planned.kill_at:
                scenarios[item.name].kill_worker_at(*planned.kill_at)
    return scenarios


@pytest.fixture
def group(
    begun: dict[str, GroupScenario],
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> GroupScenario:
    """The DAG run of a test that names its DAG."""
    begun[request.node.name].record = record_property
    return begun[request.node.name]


@pytest.fixture
def begin(
    cluster: AirflowCluster,
    workspace: FakeService,
    record_property: Callable[[str, object], None],
) -> Callable[[str], GroupScenario]:
    """Begin a DAG run."""
    return lambda dag_id: GroupScenario(cluster.trigger(dag_id), workspace, record_property)


@dataclass(frozen=True)
class Planned:
    """A DAG run that begins before the first test.

    :ivar dag_id: the DAG.
    :ivar kill_at: the request at which a worker is killed: endpoint, moment, and number among
        those of workers.
    """

    dag_id: str
    kill_at: tuple[str, str, int] | None = None

    def __str__(self) -> str:
        return self.kill_at[1] if self.kill_at else self.dag_id


def of(dag_id: str) -> pytest.MarkDecorator:
    """Name the DAG that a test is about; its run begins before the first test."""
    return pytest.mark.parametrize("group", [Planned(dag_id)], indirect=True, ids=str)


def killed_at(
    endpoint: str, *moments: str, dag_id: str = "pair_retried", number: int = 1
) -> pytest.MarkDecorator:
    """Name the request at which a worker of the test's DAG run is killed; retries are left.

    :param endpoint: the endpoint.
    :param moments: ``handled``, or ``received`` for before that, which is thorough.
    :param dag_id: the DAG.
    :param number: of the request among those of workers to the endpoint.
    """
    planned = [
        pytest.param(
            Planned(dag_id, (endpoint, moment, number)),
            marks=[pytest.mark.thorough] if moment == "received" else [],
        )
        for moment in moments
    ]
    return pytest.mark.parametrize("group", planned, indirect=True, ids=str)


# To keep the whole check short, these are thorough on the older lines of Airflow.
in_whole_check_on_newest = (
    pytest.mark.thorough if AIRFLOW_2 or AIRFLOW_3_0 else pytest.mark.standalone
)
in_whole_check_on_airflow_3 = pytest.mark.thorough if AIRFLOW_2 else pytest.mark.standalone


def both_waiting(group: GroupScenario) -> None:
    """Wait until both tasks of a pair wait in the triggerer."""
    group.launched()
    group.deferred("a", "b")


def both_succeed(group: GroupScenario) -> None:
    """Let both tasks of a pair end well."""
    group.end("a", "b")
    group.until("success", "a", "b")


# A user acts.


@of("pair")
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


@of("pair")
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


@of("pair")
@in_whole_check_on_newest
def test_all_tasks_cleared_with_the_launching_one(group: GroupScenario) -> None:
    """The task runs are canceled, and a new run is launched."""
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
    group.saw(runs=2, repairs=0, cancels=2)


@of("pair")
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


@of("pair")
@in_whole_check_on_airflow_3
def test_dag_run_marked_failed(group: GroupScenario) -> None:
    """The runs of the deferred tasks are canceled."""
    both_waiting(group)
    group.dag_run.mark_all("failed")
    group.until_canceled("a", "b")
    group.saw(runs=1, repairs=0, cancels=2)


@of("pair_timed")
@in_whole_check_on_newest
def test_member_beyond_execution_timeout(group: GroupScenario) -> None:
    """Its own task run is canceled; the other task goes on."""
    group.launched()
    group.until("failed", "a")
    group.until_canceled("a")
    group.deferred("b")
    group.end("b")
    group.until("success", "b")
    group.saw(runs=1, repairs=0, cancels=1)


# A user acts, and the tasks wait on workers. Their DAG runs would hold the workers of the others.


def both_on_workers(group: GroupScenario) -> None:
    """Wait until both tasks of a pair follow their runs on workers."""
    group.launched()
    group.followed_on_workers("a", "b")


@pytest.mark.thorough
def test_blocking_member_cleared(begin: Callable[[str], GroupScenario]) -> None:
    """Its own task run is canceled; it runs again by a repair, once the other one has ended."""
    group = begin("group_blocking")
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
def test_blocking_member_marked(begin: Callable[[str], GroupScenario]) -> None:
    """Its own task run is canceled; the other task goes on."""
    group = begin("group_blocking")
    both_on_workers(group)
    group.task("a").mark("failed")
    group.until_canceled("a")
    group.end("b")
    group.until("failed", "a")
    group.until("success", "b")
    group.saw(runs=1, repairs=0, cancels=1)


# Processes die.


@pytest.mark.thorough
def test_blocking_member_killed(begin: Callable[[str], GroupScenario]) -> None:
    """The worker of one of the tasks dies; the next try follows the same task run."""
    group = begin("group_blocking_retried")
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
@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_triggerer_ends(
    begin: Callable[[str], GroupScenario], cluster: AirflowCluster, triggerer: str, end: str
) -> None:
    """A triggerer that is stopped or killed cancels nothing; the next one goes on."""
    group = begin("pair")
    both_waiting(group)
    getattr(cluster, end)(triggerer)
    cluster.start_triggerer()
    group.deferred("a", "b", watched=2)
    both_succeed(group)
    group.saw(runs=1, repairs=0, cancels=0)


# Several DAG runs at once.


@pytest.mark.parametrize(
    "group", [Planned("own_definition")] * 2, indirect=True, ids=["first", "second"]
)
@in_whole_check_on_newest
def test_dag_runs_with_different_definitions(
    group: GroupScenario, begun: dict[str, GroupScenario]
) -> None:
    """Both begin at once, and each of their runs has the definition of its own DAG run."""
    same_dag = [one for one in begun.values() if one.dag_run.dag_id == group.dag_run.dag_id]
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


# A clear that repairs.


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


def restart_triggerers(cluster: AirflowCluster) -> None:
    """Stop all triggerers, and start one."""
    for name in cluster.triggerers:
        cluster.terminate(name)
    cluster.start_triggerer()


@of("ten")
@pytest.mark.thorough
@pytest.mark.parametrize("restarted", ["not", "before_the_repair", "after_the_repair"])
def test_two_of_ten_are_cleared(
    group: GroupScenario, cluster: AirflowCluster, restarted: str
) -> None:
    """One request repairs both; eight tasks are untouched, and the DAG run ends well.

    The triggerer is restarted while both wait for the end of the run, or after the repair.
    """
    group.launched()
    group.deferred(*TEN)
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


def test_dag_runs_that_begin_at_once_use_one_job(begun: dict[str, GroupScenario]) -> None:
    """Several of them may find no job and create one; the same definition ends in one job."""
    runs = [run for one in begun.values() if one.dag_run.dag_id == "pair" for run in one.runs]
    if len(runs) < 2:
        pytest.skip("the DAG runs of the other tests are needed")
    assert len({run.job_id for run in runs}) == 1
