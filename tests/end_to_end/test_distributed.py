"""CeleryExecutor with two workers, two triggerers, PostgreSQL and Redis, in which everything dies.

The workspace counts what it is asked, so each test knows how many runs were launched and how many
cancels were seen. ``make test-distributed`` runs them all; the ones marked ``thorough`` are not
among those of the whole check.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from scripts.services import PostgresServer, RedisServer
from tests.end_to_end.deployment import Deployment, WorkerOfTask
from tests.end_to_end.eventually import eventually
from tests.end_to_end.processes import has_pending, is_alive, stopped
from tests.end_to_end.scenarios import Begin, Scenario, concluded, failed_and_canceled
from tests.fakes.fake_service import FakeService, Run

pytestmark = pytest.mark.distributed

HERE = Path(__file__).parent
OUTAGE_SECONDS = 20
# Of tasks with many retries: one waits on a worker, one in the triggerer, and one needs no worker.
STEADY = ("blocking_steady", "deferred_steady", "workerless_steady")


@pytest.fixture(scope="module")
def cluster(deployment: Deployment) -> Deployment:
    """The Airflow of all tests of this module."""
    return deployment


@pytest.fixture(autouse=True)
def whole(cluster: Deployment) -> Iterator[None]:
    """After each test, whatever has died is started again."""
    yield
    cluster.restart_what_ended()


def executed(scenario: Scenario, cluster: Deployment) -> tuple[Run, WorkerOfTask]:
    """Wait until a blocking task waits for its run; return the run and what executes the task."""
    run = scenario.running()
    scenario.dag_run.xcom("run_page_url")
    return run, cluster.worker_of(scenario.dag_run.pid())


def all_wait(scenarios: Sequence[Scenario], cluster: Deployment) -> None:
    """Wait until the tasks of the DAGs in STEADY wait, each in its way."""
    blocking, *others = scenarios
    executed(blocking, cluster)
    for scenario in others:
        scenario.deferred()


def succeeded(scenario: Scenario, cluster: Deployment) -> bool:
    """Start what has ended, as a service manager does; return whether the task has succeeded."""
    cluster.restart_what_ended()
    return bool(scenario.dag_run.state_and_try()[0] == "success")


# A blocking task's worker dies.


def test_pool_process_killed(begin: Begin, cluster: Deployment) -> None:
    """SIGKILL to the pool process: the next try follows the run."""
    scenario = begin("blocking_steady")
    _, worker = executed(scenario, cluster)
    worker.pool.kill()
    scenario.followed()
    concluded(scenario)


def test_pool_process_killed_with_no_retry_left(begin: Begin, cluster: Deployment) -> None:
    """SIGKILL to the pool process of the last try: the run is canceled."""
    scenario = begin("blocking")
    _, worker = executed(scenario, cluster)
    worker.pool.kill()
    failed_and_canceled(scenario)


@pytest.mark.parametrize("whole_tree", [False, True], ids=["main process", "all its processes"])
def test_worker_killed(begin: Begin, cluster: Deployment, whole_tree: bool) -> None:
    """SIGKILL to the worker, alone or with all that it started: the next try follows the run."""
    scenario = begin("blocking_steady")
    _, worker = executed(scenario, cluster)
    (cluster.kill_whole if whole_tree else cluster.kill_alone)(worker.name)
    scenario.followed()
    concluded(scenario)


def test_worker_killed_with_no_retry_left(begin: Begin, cluster: Deployment) -> None:
    """SIGKILL to the whole worker at the last try: the run is canceled."""
    scenario = begin("blocking")
    _, worker = executed(scenario, cluster)
    cluster.kill_whole(worker.name)
    failed_and_canceled(scenario)


KILLS_WHILE_RESUMING = [
    "pool and task process",
    pytest.param("main process", marks=pytest.mark.thorough),
    pytest.param("all processes of the worker", marks=pytest.mark.thorough),
]


def kill_while_resuming(
    scenario: Scenario, cluster: Deployment, workspace: FakeService, victim: str
) -> None:
    """Let the run of a deferred task end, and send SIGKILL while a worker reads the output."""
    run = scenario.deferred()
    first = scenario.dag_run.pid()
    before = workspace.count("runs/get-output")
    with workspace.holding("runs/get-output"):
        workspace.end(run)
        # The triggerer, which has no response for some seconds, leaves the output to a worker.
        eventually(
            lambda: workspace.count("runs/get-output") == before + 2, "a worker reads the output"
        )
        assert scenario.dag_run.pid() != first
        worker = cluster.worker_of(scenario.dag_run.pid())
        if victim == "pool and task process":
            worker.pool.kill()
            worker.task.kill()
        elif victim == "main process":
            cluster.kill_alone(worker.name)
            eventually(lambda: not is_alive(worker.pool), "the pool process ends with it")
        else:
            cluster.kill_whole(worker.name)


@pytest.mark.parametrize("victim", KILLS_WHILE_RESUMING)
def test_killed_while_resuming(
    begin: Begin, cluster: Deployment, workspace: FakeService, victim: str
) -> None:
    """SIGKILL to the worker that reads the output after a deferral: the next try reads it."""
    scenario = begin("deferred_steady")
    kill_while_resuming(scenario, cluster, workspace, victim)
    scenario.dag_run.until("success")
    assert scenario.dag_run.xcom("return_value") == f"output of {scenario.runs[0].run_id}"
    scenario.saw(runs=1, cancels=0)


@pytest.mark.thorough
@pytest.mark.parametrize("victim", KILLS_WHILE_RESUMING)
def test_killed_while_resuming_with_no_retry_left(
    begin: Begin, cluster: Deployment, workspace: FakeService, victim: str
) -> None:
    """The same at the last try: the task fails, although its run has ended well.

    Airflow may have the run canceled, once it is over: that changes nothing.
    """
    scenario = begin("deferred")
    kill_while_resuming(scenario, cluster, workspace, victim)
    scenario.dag_run.until("failed")
    scenario.seen()
    (run,) = scenario.runs
    assert (run.result, run.canceled_at) == ("SUCCESS", None)


# A worker is asked to stop.


def test_warm_shutdown(begin: Begin, cluster: Deployment) -> None:
    """SIGTERM to the worker's main process: it ends when its task has."""
    scenario = begin("blocking")
    _, worker = executed(scenario, cluster)
    before = cluster.log_of(worker.name).count("Warm shutdown")
    cluster.signal(worker.name, signal.SIGTERM)
    eventually(
        lambda: cluster.log_of(worker.name).count("Warm shutdown") > before,
        f"{worker.name} is shutting down",
    )
    concluded(scenario)
    cluster.await_end(worker.name)


def test_sigterm_to_process_group(begin: Begin, cluster: Deployment) -> None:
    """A rolling deployment signals the worker's whole process group: the next try follows."""
    scenario = begin("blocking_steady")
    _, worker = executed(scenario, cluster)
    cluster.signal(worker.name, signal.SIGTERM, group=True)
    eventually(lambda: not is_alive(worker.task), "the task's process has ended")
    cluster.kill_whole(worker.name)
    scenario.followed()
    concluded(scenario)


@pytest.mark.parametrize(
    "first", ["pool process first", pytest.param("main process first", marks=pytest.mark.thorough)]
)
def test_sigquit_to_process_group(begin: Begin, cluster: Deployment, first: str) -> None:
    """SIGQUIT to the worker's whole process group: the next try follows the run.

    The pool process ends at once, without a word to the task's process, which goes on. If the main
    process is quicker, it sends SIGTERM to the pool process, which passes it on. Left alone it is a
    matter of chance; so one of them is stopped until the other one has acted.
    """
    scenario = begin("blocking_steady")
    _, worker = executed(scenario, cluster)
    main = cluster.main_process(worker.name)
    if first == "pool process first":
        with stopped(main):
            cluster.signal(worker.name, signal.SIGQUIT, group=True)
            eventually(lambda: not is_alive(worker.pool), "the pool process has ended")
        assert is_alive(worker.task)
    else:
        with stopped(worker.pool):
            cluster.signal(worker.name, signal.SIGQUIT, group=True)
            eventually(lambda: has_pending(worker.pool, signal.SIGTERM), "it gets SIGTERM, too")
        eventually(lambda: not is_alive(worker.task), "the task's process has ended")
    cluster.await_end(worker.name)
    scenario.followed()
    concluded(scenario)
    eventually(lambda: not is_alive(worker.task), "the task's process has ended")


def test_sigterm_to_process_group_with_no_retry_left(begin: Begin, cluster: Deployment) -> None:
    """The same at the last try: the run is canceled."""
    scenario = begin("blocking")
    _, worker = executed(scenario, cluster)
    cluster.signal(worker.name, signal.SIGTERM, group=True)
    failed_and_canceled(scenario)
    cluster.kill_whole(worker.name)


@pytest.mark.thorough
def test_sigterm_to_pool_process(begin: Begin, cluster: Deployment) -> None:
    """SIGTERM to the pool process alone: the next try follows the run."""
    scenario = begin("blocking_steady")
    _, worker = executed(scenario, cluster)
    worker.pool.terminate()
    scenario.followed()
    concluded(scenario)


@pytest.mark.thorough
def test_cold_shutdown(begin: Begin, cluster: Deployment) -> None:
    """SIGQUIT to the worker's main process ends its pool: the next try follows the run."""
    scenario = begin("blocking_steady")
    _, worker = executed(scenario, cluster)
    cluster.signal(worker.name, signal.SIGQUIT)
    cluster.await_end(worker.name)
    scenario.followed()
    concluded(scenario)


# What workers depend on goes away.


def test_scheduler_killed(begin: Begin, cluster: Deployment) -> None:
    """The next scheduler adopts the tasks: nobody notices."""
    scenarios = [begin(dag_id) for dag_id in STEADY]
    all_wait(scenarios, cluster)
    cluster.kill_whole("scheduler")
    cluster.restart("scheduler")
    concluded(*scenarios)


def test_redis_killed_and_back_empty(begin: Begin, cluster: Deployment, redis: RedisServer) -> None:
    """The broker loses all messages: tasks at work go on, queued ones are queued anew."""
    scenarios = [begin(dag_id) for dag_id in STEADY]
    all_wait(scenarios, cluster)
    redis.kill()
    queued = begin("blocking_steady")
    queued.dag_run.until("queued")
    redis.start()
    queued.running()
    concluded(*scenarios, queued)


def test_postgres_gone_while_runs_end(
    begin: Begin, cluster: Deployment, workspace: FakeService, postgres: PostgresServer
) -> None:
    """The metadata database is gone for 20 s, in which the runs end."""
    scenarios = [begin(dag_id) for dag_id in STEADY]
    all_wait(scenarios, cluster)
    postgres.kill()
    for scenario in scenarios:
        workspace.end(scenario.runs[-1])
    time.sleep(OUTAGE_SECONDS)
    postgres.start()
    for scenario in scenarios:
        # A component may notice late that the database was gone, and end then.
        eventually(partial(succeeded, scenario, cluster), f"{scenario.dag_run.run_id} succeeds")
        scenario.saw(runs=1, cancels=0)


# Triggerers.


def test_triggerer_killed(begin: Begin, cluster: Deployment) -> None:
    """SIGKILL to the triggerer of a task: the other one takes over."""
    scenario = begin("deferred")
    scenario.deferred()
    cluster.kill(cluster.triggerer_of(scenario.dag_run))
    scenario.deferred(watched=2)
    concluded(scenario)


@pytest.mark.thorough
def test_triggerers_restarted_in_turn(begin: Begin, cluster: Deployment) -> None:
    """A rolling deployment of the triggerers: the run goes on."""
    scenario = begin("deferred")
    scenario.deferred()
    for name in cluster.triggerers:
        cluster.terminate(name)
        cluster.start_triggerer()
    concluded(scenario)


def test_both_triggerers_killed(begin: Begin, cluster: Deployment) -> None:
    """SIGKILL to both at once: the next one goes on."""
    scenarios = [begin("deferred"), begin("workerless")]
    for scenario in scenarios:
        scenario.deferred()
    cluster.kill_whole(*cluster.triggerers)
    cluster.start_triggerer()
    for scenario in scenarios:
        scenario.deferred(watched=2)
    concluded(*scenarios)


@pytest.mark.thorough
def test_a_state_message_that_postgres_does_not_store(
    begin: Begin, cluster: Deployment, workspace: FakeService
) -> None:
    """NUL and half a surrogate pair: the triggerers go on, and the task fails with the message."""
    scenario = begin("deferred")
    run = scenario.deferred()
    processes = [cluster.main_process(name) for name in cluster.triggerers]
    run.plan = replace(run.plan, message="a\0b\ud83dc")
    workspace.end(run, "FAILED")
    scenario.dag_run.until("failed")
    assert "TERMINATED/FAILED: a\ufffdb\ufffdc" in scenario.dag_run.logs()
    assert all(map(is_alive, processes))
    scenario.saw(runs=1, cancels=0)


# A user clears or marks the task.


def test_blocking_then_cleared(begin: Begin, cluster: Deployment) -> None:
    """The run of the cleared task is canceled, and the next try launches one of its own."""
    scenario = begin("blocking")
    first, _ = executed(scenario, cluster)
    scenario.dag_run.clear()
    scenario.running(2)
    eventually(lambda: not first.is_active, "the first run has ended")
    scenario.succeed()
    scenario.saw(runs=2, cancels=1)


@pytest.mark.thorough
def test_blocking_then_cleared_twice(begin: Begin, cluster: Deployment) -> None:
    """Each clear cancels the run there is and leads to one new run."""
    scenario = begin("blocking")
    executed(scenario, cluster)
    scenario.dag_run.clear()
    scenario.running(2)
    scenario.dag_run.until("running", try_number=2)
    scenario.dag_run.clear()
    scenario.running(3)
    scenario.succeed()
    scenario.all_stopped()
    scenario.saw(runs=3, cancels=2)


def test_deferred_then_cleared(begin: Begin) -> None:
    """The same for a task that waits in the triggerer."""
    scenario = begin("deferred")
    first = scenario.deferred()
    scenario.dag_run.clear()
    scenario.deferred(2)
    eventually(lambda: not first.is_active, "the first run has ended")
    scenario.succeed()
    scenario.saw(runs=2, cancels=1)


@pytest.mark.thorough
def test_deferred_then_cleared_twice(begin: Begin) -> None:
    """Each clear cancels the run there is and leads to one new run."""
    scenario = begin("deferred")
    scenario.deferred()
    for count in (2, 3):
        scenario.dag_run.clear()
        scenario.deferred(count)
    eventually(lambda: sum(run.is_active for run in scenario.runs) == 1, "two runs have ended")
    scenario.succeed()
    scenario.saw(runs=3, cancels=2)


@pytest.mark.parametrize("dag_id", ["blocking", "deferred"])
def test_marked_failed(begin: Begin, cluster: Deployment, dag_id: str) -> None:
    """The run is canceled, and the task stays as it was marked."""
    scenario = begin(dag_id)
    if dag_id == "blocking":
        executed(scenario, cluster)
    else:
        scenario.deferred()
    scenario.dag_run.mark("failed")
    scenario.all_stopped()
    assert scenario.dag_run.state_and_try()[0] == "failed"
    scenario.saw(runs=1, cancels=1)
