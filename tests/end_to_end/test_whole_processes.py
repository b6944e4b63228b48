"""Workers, schedulers and all of Airflow die, and the network goes: in a real Airflow.

Each test has a task that waits on a worker and one that waits in the triggerer. Whatever dies, each
ends well with the run that it launched, and nothing goes on in the end.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import pytest

from tests.end_to_end.airflow_cluster import AirflowCluster
from tests.end_to_end.airflow_versions import AIRFLOW_2, AIRFLOW_3_0
from tests.end_to_end.eventually import eventually
from tests.end_to_end.scenarios import Begin, BeginAll, Scenario, concluded, workerless
from tests.end_to_end.statsd_server import StatsDServer
from tests.fakes.fake_service import FakeService

pytestmark = pytest.mark.standalone

OUTAGE_SECONDS = 8


@pytest.fixture(scope="module")
def settings(short_silence: dict[str, str]) -> dict[str, str]:
    """Settings of the Airflow of this module."""
    return short_silence


@pytest.fixture(scope="module", params=["deferred_steady", workerless("workerless_steady")])
def deferred_dag(request: pytest.FixtureRequest) -> str:
    """The DAG whose task waits in the triggerer."""
    return str(request.param)


@pytest.fixture
def blocking(begin: Begin) -> Scenario:
    """A task that waits on a worker."""
    return begin("blocking_steady")


@pytest.fixture
def deferred(begin: Begin, deferred_dag: str) -> Scenario:
    """A task that waits in the triggerer."""
    return begin(deferred_dag)


def noted(scenario: Scenario) -> None:
    """Wait until each task of a scenario has noted its run as an XCom; what it logs comes after."""
    lines = [f"Launched run {run.run_id}, " for run in scenario.runs]
    eventually(lambda: all(line in scenario.dag_run.logs() for line in lines), f"{lines}")


@pytest.mark.parametrize("deferred_dag", ["deferred_steady"], indirect=True)
def test_metrics_and_structured_logs(
    blocking: Scenario, deferred: Scenario, statsd: StatsDServer
) -> None:
    """The worker and the triggerer send metrics, and their logs name the run in each line."""
    pytest.importorskip("statsd", reason="Airflow's extra statsd is not installed")
    runs = (blocking.running(), deferred.deferred())
    concluded(blocking, deferred)
    conn = {"conn_id": "databricks_default"}
    # The try after one that a busy Airflow failed before it began counts as an adoption.
    assert len(statsd.values("launches", **conn) + statsd.values("adoptions", **conn)) == 2
    for endpoint in ("runs_submit", "runs_get", "runs_get-output"):
        assert set(statsd.values("requests", endpoint=endpoint, status="200", **conn)) == {1}
        assert min(statsd.values("request_duration", endpoint=endpoint, **conn)) > 0
    # Only the triggerer has a poller. It polls on where others wait, so these are at least ours.
    (delay,) = statsd.values("event_delay", **conn)
    assert 0 <= delay < 60_000
    assert max(statsd.values("poller_waits", hostname=socket.gethostname(), **conn)) >= 1
    assert min(statsd.values("poll_duration", **conn)) > 0
    for scenario, run in zip((blocking, deferred), runs, strict=True):
        logs = scenario.dag_run.logs()
        launched = next(
            line for line in logs.splitlines() if f"Launched run {run.run_id}, " in line
        )
        ended = next(line for line in logs.splitlines() if f"Run {run.run_id} is TERM" in line)
        if not (AIRFLOW_2 or AIRFLOW_3_0):
            for line in (launched, ended):
                fields = json.loads(line)
                assert fields["databricks_run_id"] == run.run_id
                assert fields["databricks_job_id"] == run.job_id
                assert fields["run_id"] == scenario.dag_run.run_id


@pytest.fixture(scope="module")
def workers_killed(begin_all: BeginAll, cluster: AirflowCluster) -> dict[str, Scenario]:
    """Tasks whose workers were killed at the same time."""
    scenarios = begin_all(
        retried="blocking_steady",
        last_try="blocking",
        mapped="blocking_mapped",
        without_supervisor="blocking_steady",
    )
    for name, scenario in scenarios.items():
        scenario.running(2 if name == "mapped" else 1)
        noted(scenario)
    for name, scenario in scenarios.items():
        pid = scenario.dag_run.pid(map_index=1 if name == "mapped" else -1)
        cluster.kill_worker(pid, supervisor_only=name == "without_supervisor")
    return scenarios


def test_worker_killed(workers_killed: dict[str, Scenario]) -> None:
    """The executor's worker, supervisor and task die together; the next try follows the run."""
    scenario = workers_killed["retried"]
    scenario.followed()
    concluded(scenario)


def test_worker_killed_with_no_retry_left(workers_killed: dict[str, Scenario]) -> None:
    """The task fails, and its run is canceled: nobody will follow it any more."""
    scenario = workers_killed["last_try"]
    scenario.dag_run.until("failed")
    if AIRFLOW_3_0:
        # Its DAG processor cannot tell which run it was, a known limit.
        scenario.saw(runs=1, cancels=0)
        return
    scenario.all_stopped()
    # Airflow 3.3 may call back twice: once for the silence, once for the executor's news.
    assert scenario.seen() in ((1, 1), (1, 2))


def test_worker_killed_with_no_retry_left_for_a_mapped_task(
    workers_killed: dict[str, Scenario],
) -> None:
    """Its run is canceled as well; the other one of the mapped tasks goes on."""
    scenario = workers_killed["mapped"]
    scenario.dag_run.until("failed", map_index=1)
    if AIRFLOW_3_0:
        scenario.saw(runs=2, cancels=0)
        return
    (its_run,) = (run for run in scenario.runs if "wait[1]" in run.task)
    eventually(lambda: not its_run.is_active, "its run has ended")
    (others,) = (run for run in scenario.runs if run is not its_run)
    scenario.workspace.end(others)
    scenario.dag_run.until("success", map_index=0)
    assert others.cancels == 0
    assert scenario.seen() in ((2, 1), (2, 2))


def test_supervisor_killed(workers_killed: dict[str, Scenario]) -> None:
    """The worker and its supervisor die, the task's process lives on; still there is one run."""
    scenario = workers_killed["without_supervisor"]
    scenario.followed()
    concluded(scenario)


def test_scheduler_killed_with_its_workers(
    blocking: Scenario, deferred: Scenario, cluster: AirflowCluster
) -> None:
    """The next scheduler's try follows the run; the deferred one never noticed."""
    blocking.running()
    deferred.deferred()
    cluster.kill_whole("scheduler")
    cluster.restart("scheduler")
    blocking.followed()
    concluded(blocking, deferred)


@dataclass
class Interrupted:
    """Tasks to whose scheduler the same has happened.

    :ivar tasks: ``blocking`` waits on a worker, ``deferred`` in the triggerer; ``last_try`` waits
        on a worker, and has no retry left.
    :ivar process: that of the first try of ``blocking``.
    """

    tasks: dict[str, Scenario]
    process: int


Interrupt = Callable[[Callable[[], None]], Interrupted]


@pytest.fixture(scope="module")
def interrupt(begin_all: BeginAll, deferred_dag: str) -> Interrupt:
    """Let something happen to the scheduler of tasks that wait."""

    def interrupt(act: Callable[[], None]) -> Interrupted:
        tasks = begin_all(blocking="blocking_steady", deferred=deferred_dag, last_try="blocking")
        for name, scenario in tasks.items():
            if name == "deferred":
                scenario.deferred()
            else:
                scenario.running()
                noted(scenario)
        process = tasks["blocking"].dag_run.pid()
        act()
        return Interrupted(tasks, process)

    return interrupt


@pytest.fixture(scope="module")
def scheduler_killed(interrupt: Interrupt, cluster: AirflowCluster) -> Interrupted:
    """Tasks whose scheduler was killed alone; the next one is at work."""

    def kill() -> None:
        cluster.kill_alone("scheduler")
        cluster.restart("scheduler")

    return interrupt(kill)


def test_scheduler_killed_alone(scheduler_killed: Interrupted) -> None:
    """Its executor's workers live on, until Airflow hands their task to the next try.

    It kills the process at work as it does when a user clears the task, but the next try follows
    the run. Airflow 2 may leave the process alone: then both follow it.
    """
    tasks, first = scheduler_killed.tasks, scheduler_killed.process
    concluded(tasks["deferred"])
    tasks["blocking"].followed()
    if not AIRFLOW_2:
        eventually(lambda: not psutil.pid_exists(first), "Airflow kills the first try's process")
    concluded(tasks["blocking"])


def test_scheduler_killed_alone_with_no_retry_left(scheduler_killed: Interrupted) -> None:
    """Airflow 3 begins another try nevertheless, which follows the run."""
    scenario = scheduler_killed.tasks["last_try"]
    if AIRFLOW_2:
        scenario.workspace.end(scenario.runs[-1])
        pytest.skip("it may fail the task, or begin another try")
    scenario.followed()
    concluded(scenario)


@pytest.mark.skipif(AIRFLOW_2, reason="its tasks ask the database")
def test_api_server_killed(blocking: Scenario, deferred: Scenario, cluster: AirflowCluster) -> None:
    """A supervisor that cannot reach it kills its task; the run goes on for the next try.

    That of Airflow 3.0 breaks down, and its task goes on: then both follow the run.
    """
    blocking.running()
    deferred.deferred()
    first = blocking.dag_run.pid()
    cluster.kill_whole("apiserver")
    if AIRFLOW_3_0:
        time.sleep(OUTAGE_SECONDS)
    else:
        eventually(lambda: not psutil.pid_exists(first), "the supervisor kills its task")
    cluster.restart("apiserver")
    blocking.followed()
    concluded(blocking, deferred)


# The others kill each part: a scheduler with its workers, an API server, and a triggerer in
# test_user_actions.py.
@pytest.mark.thorough
def test_everything_killed(blocking: Scenario, deferred: Scenario, cluster: AirflowCluster) -> None:
    """All of Airflow dies at once and is started anew."""
    blocking.running()
    deferred.deferred()
    names = cluster.components
    cluster.kill_whole(*names)
    cluster.restart(*names)
    blocking.followed()
    deferred.deferred(watched=2)
    concluded(blocking, deferred)


@pytest.fixture(scope="module")
def scheduler_stopped(interrupt: Interrupt, cluster: AirflowCluster) -> Interrupted:
    """Tasks whose scheduler was stopped with its workers; the next one is at work."""

    def stop() -> None:
        cluster.terminate_group("scheduler")
        cluster.restart("scheduler")

    return interrupt(stop)


def test_sigterm_to_the_process_group(scheduler_stopped: Interrupted) -> None:
    """A rolling deploy: the scheduler ends with its workers, and the next try follows the run."""
    tasks = scheduler_stopped.tasks
    tasks["blocking"].followed()
    concluded(tasks["blocking"], tasks["deferred"])


def test_sigterm_to_the_process_group_with_no_retry_left(scheduler_stopped: Interrupted) -> None:
    """The task fails, and its run is canceled."""
    scenario = scheduler_stopped.tasks["last_try"]
    scenario.dag_run.until("failed")
    scenario.all_stopped()
    scenario.saw(runs=1, cancels=1)


@pytest.mark.parametrize("fault", [pytest.param("refusing", marks=pytest.mark.thorough), "silent"])
def test_network_gone(
    blocking: Scenario, deferred: Scenario, begin: Begin, workspace: FakeService, fault: str
) -> None:
    """The service cannot be reached for a while: nobody gives up, or launches a second run."""
    blocking.running()
    deferred.deferred()
    with getattr(workspace, fault)():
        launching = begin("blocking_steady")
        time.sleep(OUTAGE_SECONDS)
    launching.running()
    deferred.deferred()
    concluded(blocking, deferred, launching)


def test_sigterm_in_the_middle_of_the_launch(begin: Begin, workspace: FakeService) -> None:
    """The answer is not there yet: the next try finds the run by its token."""
    with workspace.silent():
        scenario = begin("blocking_steady")
        scenario.running()
        os.kill(scenario.dag_run.pid(), signal.SIGTERM)
    scenario.followed()
    concluded(scenario)
