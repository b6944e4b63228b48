"""What becomes of a run when a user clears or marks its task, or a triggerer dies: a real Airflow.

The workspace counts what it is asked, so each test knows how many runs were launched and how many
cancels were seen. docs/guarantees.md has these figures for each version of Airflow.
"""

from __future__ import annotations

import os
import signal
import time

import pytest

from airflow_jobs_provider.api import endpoints
from airflow_jobs_provider.api.auth import Token
from airflow_jobs_provider.api.client import JobsClient
from airflow_jobs_provider.local.workspace import LocalWorkspace
from tests.end_to_end.airflow_cluster import AirflowCluster
from tests.end_to_end.airflow_versions import AIRFLOW_2, AIRFLOW_3_0, RENDERS_IN_TRIGGERER
from tests.end_to_end.eventually import eventually
from tests.end_to_end.scenarios import Begin, Scenario, of, unrecorded, workerless
from tests.fakes.fake_service import FakeService

pytestmark = pytest.mark.standalone

# The package does not look at which of the two a task is marked.
BOTH_MARKS = ["failed", pytest.param("success", marks=pytest.mark.thorough)]
# On Airflow 3.3 test_distributed.py has the same in the whole check, with two triggerers.
like_distributed = pytest.mark.thorough if RENDERS_IN_TRIGGERER else pytest.mark.standalone


@pytest.fixture(scope="module")
def limited(cluster: AirflowCluster, workspace: FakeService) -> Scenario:
    """A DAG run with a time-out of a minute; begun by the first test that uses it.

    Among all the others of this module, its task might not be deferred within the time-out.
    """
    return Scenario(cluster.trigger("deferred_limited"), workspace, unrecorded)


@pytest.fixture
def two_triggerers(cluster: AirflowCluster) -> None:
    """Two triggerers are at work."""
    while len(cluster.triggerers) < 2:
        cluster.start_triggerer()


# The task of a test that begins its scenario itself.
in_the_triggerer = pytest.mark.parametrize("dag_id", ["deferred", workerless("workerless")])


# The task waits in the triggerer.


@of("deferred", workerless("workerless"))
def test_deferred_then_cleared(scenario: Scenario) -> None:
    """The run of the cleared task is canceled, and the next try launches one of its own."""
    first = scenario.deferred()
    scenario.cleared()
    scenario.deferred(2)
    eventually(lambda: not first.is_active, "the first run has ended")
    scenario.succeed()
    scenario.saw(runs=2, cancels=1)


@of("deferred", workerless("workerless"))
@pytest.mark.parametrize("state", BOTH_MARKS)
def test_deferred_then_marked(scenario: Scenario, state: str) -> None:
    """The run is canceled, and the task stays as it was marked."""
    scenario.deferred()
    scenario.dag_run.mark(state)
    scenario.all_stopped()
    scenario.dag_run.until(state)
    scenario.saw(runs=1, cancels=1)


@of("deferred_timed")
def test_deferred_beyond_execution_timeout(scenario: Scenario) -> None:
    """The run is canceled and the task fails; the trigger names the limit."""
    scenario.dag_run.until("failed")
    scenario.all_stopped()
    scenario.saw(runs=1, cancels=1)
    assert "it took longer than execution_timeout allows" in scenario.dag_run.logs()


# Begun with all others, its task might not have launched its run within the time-out.
@pytest.mark.parametrize("dag_id", [workerless("workerless_timed")])
def test_workerless_beyond_execution_timeout(begin: Begin, dag_id: str) -> None:
    """The same, without a worker until the task fails."""
    scenario = begin(dag_id)
    scenario.dag_run.until("failed")
    scenario.all_stopped()
    scenario.saw(runs=1, cancels=1)


@of("deferred_kept", workerless("workerless_kept"))
def test_deferred_then_marked_but_not_to_be_canceled(
    scenario: Scenario, cluster: AirflowCluster, triggerer: str
) -> None:
    """With cancel_on_kill=False the run goes on."""
    run = scenario.deferred()
    scenario.dag_run.mark("failed")
    scenario.dag_run.until("failed")
    cluster.until_beaten(triggerer, since=time.time())
    assert run.is_active
    scenario.saw(runs=1, cancels=0)


@of("deferred", workerless("workerless"))
@pytest.mark.usefixtures("limited")
def test_dag_run_marked_failed(scenario: Scenario) -> None:
    """Marking the whole DAG run cancels the run of its deferred task."""
    scenario.deferred()
    scenario.dag_run.mark_all("failed")
    scenario.all_stopped()
    scenario.saw(runs=1, cancels=1)


@of("mapped", workerless("workerless_mapped"))
def test_one_of_the_mapped_tasks_marked_then_cleared(scenario: Scenario) -> None:
    """Only its own run is canceled and launched anew; the other two go on."""
    scenario.running(3)
    if not scenario.is_workerless:
        scenario.dag_run.until_settled(times=3)
    scenario.dag_run.until_watched(times=3)
    first = scenario.runs
    scenario.dag_run.mark("failed", map_index=1)
    eventually(lambda: any(run.cancels for run in first), "a run is canceled")
    assert ["[1]" in run.name for run in first] == [bool(run.cancels) for run in first]
    scenario.dag_run.clear(only_failed=True)
    scenario.running(4)
    if scenario.is_workerless:
        scenario.dag_run.until_watched(times=4)
    else:
        scenario.dag_run.until_settled(times=4)
    for run in scenario.runs:
        scenario.workspace.end(run)
    for map_index in range(3):
        scenario.dag_run.until("success", map_index=map_index)
    scenario.saw(runs=4, cancels=1)


def check_dagrun_timeout(scenario: Scenario) -> None:
    """Wait until the DAG run has taken too long, and the run of its deferred task is canceled."""
    scenario.dag_run.until_watched()
    scenario.dag_run.until("skipped")
    scenario.all_stopped()
    scenario.saw(runs=1, cancels=1)


def test_dag_run_beyond_dagrun_timeout(limited: Scenario) -> None:
    """A DAG run that takes too long takes the run of its deferred task along."""
    check_dagrun_timeout(limited)


@pytest.mark.parametrize("dag_id", [workerless("workerless_limited")])
def test_workerless_dag_run_beyond_dagrun_timeout(begin: Begin, dag_id: str) -> None:
    """The same, without a worker."""
    check_dagrun_timeout(begin(dag_id))


# On a worker or in the triggerer.


# test_starts.py has a deferred task whose run fails twice.
@of(
    "blocking_retried",
    pytest.param("deferred_retried", marks=pytest.mark.thorough),
    workerless("workerless_retried"),
)
def test_run_fails_at_every_try(scenario: Scenario) -> None:
    """Each of Airflow's retries launches one new run."""
    for launched in (1, 2, 3):
        run = scenario.running(launched)
        if not scenario.dag_run.dag_id.startswith("blocking"):
            scenario.deferred(launched)
        scenario.workspace.end(run, "FAILED")
    scenario.dag_run.until("failed")
    scenario.saw(runs=3, cancels=0)


@of("blocking", "deferred", workerless("workerless"))
def test_run_fails_and_the_task_is_cleared(scenario: Scenario) -> None:
    """A failed task that is cleared starts afresh, with a run of its own."""
    is_deferred = scenario.dag_run.dag_id != "blocking"
    run = scenario.deferred() if is_deferred else scenario.running()
    scenario.workspace.end(run, "FAILED")
    scenario.dag_run.until("failed")
    scenario.dag_run.until_over()
    scenario.dag_run.clear()
    _ = scenario.deferred(2) if is_deferred else scenario.running(2)
    scenario.succeed()
    scenario.saw(runs=2, cancels=0)


# The task waits on the worker.


@of("blocking")
def test_blocking_then_cleared(scenario: Scenario) -> None:
    """The kill cancels the run, and the next try launches one of its own."""
    first = scenario.running()
    scenario.dag_run.clear()
    eventually(lambda: not first.is_active, "the first run has ended")
    if AIRFLOW_3_0:
        # It leaves the task in its state "restarting"; there is no next try.
        scenario.saw(runs=1, cancels=1)
        return
    scenario.running(2)
    scenario.succeed()
    scenario.saw(runs=2, cancels=1)


@of("blocking")
@pytest.mark.skipif(AIRFLOW_2, reason="its command is slower than the kill")
def test_blocking_then_cleared_twice(scenario: Scenario) -> None:
    """What the second time leaves no trace of in the task's state is known all the same."""
    first = scenario.running()
    scenario.dag_run.clear()
    scenario.dag_run.clear()
    scenario.running(2)
    eventually(lambda: not first.is_active, "the first run has ended")
    scenario.succeed()
    scenario.saw(runs=2, cancels=1)


@of("blocking")
@pytest.mark.parametrize("state", BOTH_MARKS)
def test_blocking_then_marked(scenario: Scenario, state: str) -> None:
    """The kill cancels the run, and the task stays as it was marked."""
    scenario.running()
    scenario.dag_run.mark(state)
    scenario.all_stopped()
    scenario.dag_run.until(state)
    scenario.saw(runs=1, cancels=1)


@of("blocking_timed")
def test_blocking_beyond_execution_timeout(scenario: Scenario) -> None:
    """The run is canceled and the task fails."""
    scenario.dag_run.until("failed")
    scenario.all_stopped()
    scenario.saw(runs=1, cancels=1)


@of("blocking_retried")
@pytest.mark.parametrize(
    "sign", [signal.SIGTERM, signal.SIGKILL], ids=lambda sign: str(sign.name).lower()
)
def test_blocking_task_gets(scenario: Scenario, sign: signal.Signals) -> None:
    """No user has sent the signal: the run goes on, and Airflow's retry follows it."""
    run = scenario.running()
    os.kill(scenario.dag_run.pid(), sign)
    if AIRFLOW_3_0 and sign == signal.SIGKILL:
        # It fails the task although a retry is left, and runs no callback: a known limit.
        scenario.dag_run.until("failed")
        assert run.is_active
        scenario.saw(runs=1, cancels=0)
        return
    scenario.followed()
    scenario.succeed()
    scenario.saw(runs=1, cancels=0)


@of("blocking")
def test_blocking_task_gets_sigterm_with_no_retry_left(scenario: Scenario) -> None:
    """The task fails, and its run is canceled."""
    scenario.running()
    os.kill(scenario.dag_run.pid(), signal.SIGTERM)
    scenario.dag_run.until("failed")
    scenario.all_stopped()
    scenario.saw(runs=1, cancels=1)


@of("blocking")
def test_blocking_task_gets_sigkill_with_no_retry_left(scenario: Scenario) -> None:
    """As from the system that runs out of memory: Airflow 3 runs no callback, a known limit."""
    run = scenario.running()
    assert scenario.dag_run.xcom("run_id") == str(run.run_id)
    os.kill(scenario.dag_run.pid(), signal.SIGKILL)
    scenario.dag_run.until("failed")
    if AIRFLOW_2:
        scenario.all_stopped()
        scenario.saw(runs=1, cancels=1)
        return
    scenario.dag_run.until_over()
    assert run.is_active
    scenario.saw(runs=1, cancels=0)


@of("blocking")
def test_blocking_task_gets_sigquit(scenario: Scenario) -> None:
    """With the LocalExecutor, the process writes where it is, and goes on."""
    run = scenario.running()
    os.kill(scenario.dag_run.pid(), signal.SIGQUIT)
    looks = run.looks
    eventually(lambda: run.looks > looks + 1, "the task looks at the run")
    scenario.succeed()
    scenario.saw(runs=1, cancels=0)


@pytest.mark.parametrize("dag_id", ["blocking_raised"])
def test_run_is_canceled_at_the_retry_after_retries_were_raised(
    begin: Begin, cluster: AirflowCluster, dag_id: str
) -> None:
    """In the DAG file, after the first try has begun: Airflow makes no further retries of that.

    A user cancels the run in the workspace, so the try fails, and launches no other one.
    """
    scenario = begin(dag_id)
    first = scenario.running()
    (cluster.home / "retries_are_raised").touch()
    scenario.workspace.end(first, "FAILED")
    scenario.workspace.end(scenario.running(2), "CANCELED")
    scenario.dag_run.until("failed")
    scenario.saw(runs=2, cancels=0)


# A workspace that really runs notebooks.


@of("really_running")
def test_a_notebook_at_work_is_stopped(scenario: Scenario, local_workspace: LocalWorkspace) -> None:
    """Marking the task failed stops the notebook that runs for it."""
    run_id = int(scenario.dag_run.xcom("run_id"))
    scenario.dag_run.until_watched()
    scenario.dag_run.mark("failed")
    client = JobsClient(local_workspace.url, Token(local_workspace.token))
    try:

        def result() -> str | None:
            return client.send(endpoints.get_run(run_id))["state"].get("result_state")

        assert eventually(result, "the run has ended") == "CANCELED"
        launched = list(client.iterate(endpoints.list_runs()))
    finally:
        client.close()
    assert [run["run_id"] for run in launched] == [run_id]


# Triggerers come and go. These tests begin their scenarios themselves. test_many_triggers.py has
# hundreds of triggers that another triggerer takes over.


@like_distributed
@in_the_triggerer
def test_triggerer_killed(
    begin: Begin, cluster: AirflowCluster, triggerer: str, dag_id: str
) -> None:
    """A triggerer that is killed with SIGKILL cancels nothing; the next one goes on."""
    scenario = begin(dag_id)
    scenario.deferred()
    cluster.kill(triggerer)
    cluster.start_triggerer()
    scenario.deferred(watched=2)
    scenario.succeed()
    scenario.saw(runs=1, cancels=0)


@pytest.mark.thorough
@in_the_triggerer
def test_another_triggerer_takes_over(
    begin: Begin, cluster: AirflowCluster, triggerer: str, dag_id: str
) -> None:
    """Of two triggerers one is killed: the other one goes on with the run, nothing is canceled."""
    scenario = begin(dag_id)
    scenario.deferred()
    cluster.start_triggerer()
    cluster.kill(triggerer)
    scenario.deferred(watched=2)
    scenario.succeed()
    scenario.saw(runs=1, cancels=0)


@in_the_triggerer
def test_frozen_triggerer_wakes_up(
    begin: Begin, cluster: AirflowCluster, triggerer: str, dag_id: str
) -> None:
    """Another triggerer has taken over meanwhile: the one that wakes up cancels nothing."""
    scenario = begin(dag_id)
    scenario.deferred()
    cluster.start_triggerer()
    cluster.freeze(triggerer)
    try:
        scenario.deferred(watched=2)
    finally:
        awake = time.time()
        cluster.thaw(triggerer)
    cluster.until_beaten(triggerer, since=awake)
    scenario.succeed()
    scenario.saw(runs=1, cancels=0)


@like_distributed
@in_the_triggerer
@pytest.mark.usefixtures("two_triggerers")
def test_marked_while_two_triggerers_are_at_work(begin: Begin, dag_id: str) -> None:
    """One of them cancels, once."""
    scenario = begin(dag_id)
    scenario.deferred()
    scenario.dag_run.mark("failed")
    scenario.all_stopped()
    scenario.dag_run.until("failed")
    scenario.saw(runs=1, cancels=1)


@like_distributed
@in_the_triggerer
@pytest.mark.usefixtures("two_triggerers")
def test_cleared_while_two_triggerers_are_at_work(begin: Begin, dag_id: str) -> None:
    """One of them cancels, once; the next try launches a run of its own."""
    scenario = begin(dag_id)
    first = scenario.deferred()
    scenario.cleared()
    scenario.deferred(2)
    eventually(lambda: not first.is_active, "the first run has ended")
    scenario.succeed()
    scenario.saw(runs=2, cancels=1)


@pytest.fixture(scope="module", params=["deferred", workerless("workerless")])
def restarted(
    cluster: AirflowCluster, workspace: FakeService, request: pytest.FixtureRequest
) -> dict[str, Scenario]:
    """Deferred tasks whose triggerer was told to stop; the next one was started later.

    By their names: nothing was done to them, or a user marked or cleared the task in between.
    """
    scenarios = {
        name: Scenario(cluster.trigger(request.param), workspace, unrecorded)
        for name in ("untouched", "marked", "cleared")
    }
    triggerer = cluster.only_triggerer()
    for scenario in scenarios.values():
        scenario.deferred()
    cluster.terminate(triggerer)
    scenarios["marked"].dag_run.mark("failed")
    scenarios["cleared"].dag_run.clear()
    if not scenarios["cleared"].is_workerless:
        scenarios["cleared"].running(2)
    scenarios["cleared"].dag_run.until("deferred", try_number=2)
    cluster.start_triggerer()
    return scenarios


def test_triggerer_restarted(restarted: dict[str, Scenario]) -> None:
    """A triggerer that is told to stop cancels nothing; the next one goes on."""
    scenario = restarted["untouched"]
    scenario.deferred(watched=2)
    scenario.succeed()
    scenario.saw(runs=1, cancels=0)


def test_marked_while_no_triggerer_is_at_work(
    restarted: dict[str, Scenario], cluster: AirflowCluster, triggerer: str
) -> None:
    """The next triggerer cancels the run; that of Airflow 2 never looks at it, a known limit."""
    scenario = restarted["marked"]
    if AIRFLOW_2:
        cluster.until_beaten(triggerer, since=time.time())
        scenario.saw(runs=1, cancels=0)
        return
    scenario.all_stopped()
    scenario.dag_run.until("failed")
    scenario.saw(runs=1, cancels=1)


def test_cleared_while_no_triggerer_is_at_work(
    restarted: dict[str, Scenario], cluster: AirflowCluster, triggerer: str
) -> None:
    """A known limit: once the next try has deferred, nobody is told of the first run.

    Without workers the next try itself cancels that run before it launches its own.
    """
    scenario = restarted["cleared"]
    scenario.deferred(2)
    first = scenario.runs[0]
    if scenario.is_workerless:
        eventually(lambda: not first.is_active, "the first run has ended")
        scenario.succeed()
        scenario.saw(runs=2, cancels=1)
        return
    cluster.until_beaten(triggerer, since=time.time())
    scenario.succeed()
    assert first.is_active
    scenario.saw(runs=2, cancels=0)


# Last: the scheduler of Airflow 2.11 ends where a DAG run is deleted that it is updating.
@of("deferred", workerless("workerless"))
def test_dag_run_deleted(scenario: Scenario) -> None:
    """Deleting the whole DAG run cancels the run of its deferred task."""
    scenario.deferred()
    try:
        scenario.dag_run.delete()
    except AssertionError as refused:
        if "cannot be deleted in running state" not in str(refused):
            raise
        scenario.succeed()
        pytest.skip("this version of Airflow deletes no DAG run that is running")
    scenario.all_stopped()
    scenario.saw(runs=1, cancels=1)
