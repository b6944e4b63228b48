"""Tasks without workers on CeleryExecutor and PostgreSQL, with two triggerers: everything dies.

The counts are those of deferred tasks in test_distributed.py. The workers execute nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from scripts.services import PostgresServer, RedisServer
from tests.end_to_end.deployment import Deployment
from tests.end_to_end.eventually import eventually
from tests.end_to_end.mapped_scenarios import all_launched, all_succeeded, end_all, runs_by_index
from tests.end_to_end.processes import is_alive
from tests.end_to_end.request_hooks import at_request, happened
from tests.end_to_end.scenarios import Begin, Scenario
from tests.fakes.fake_service import FakeService

pytestmark = [pytest.mark.distributed, pytest.mark.thorough]

OUTAGE_SECONDS = 20
MANY = 30
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def cluster(deployment: Deployment) -> Deployment:
    """The Airflow of all tests of this module."""
    return deployment


@pytest.fixture(autouse=True)
def whole(cluster: Deployment, record_property: Record) -> Iterator[None]:
    """After each test, no worker has executed a task, and whatever has died is started again."""
    cluster.restart_what_ended()
    before = executed(cluster)
    yield
    on_workers = executed(cluster) - before
    record_property("tasks on workers", on_workers)
    cluster.restart_what_ended()
    assert on_workers == 0


def executed(cluster: Deployment) -> int:
    """Return how many tasks the workers have begun to execute."""
    return sum(cluster.workloads_of(name) for name in cluster.workers)


def succeeded(scenario: Scenario, cluster: Deployment, *, runs: int = 1, cancels: int = 0) -> None:
    """Let the last run end well, wait for the task with its XComs, and check the counts."""
    run = scenario.runs[-1]
    scenario.workspace.end(run)
    what = f"{scenario.dag_run.run_id} succeeds"
    try:
        eventually(partial(has_succeeded, scenario, cluster), what)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{scenario.dag_run.logs()}") from None
    xcoms = scenario.dag_run.xcoms()[-1]
    wanted = {
        "run_id": run.run_id,
        "job_id": run.job_id,
        "run_page_url": f"http://workspace.invalid/#job/{run.job_id}/run/{run.run_id}",
        "return_value": f"output of {run.run_id}",
    }
    assert {key: xcoms.get(key) for key in wanted} == wanted, scenario.dag_run.logs()
    scenario.saw(runs=runs, cancels=cancels)


def has_succeeded(scenario: Scenario, cluster: Deployment) -> bool:
    """Start what has ended, as a service manager does; return whether all tasks have succeeded."""
    cluster.restart_what_ended()
    return set(scenario.dag_run.states()) == {"success"}


def launching(scenario: Scenario, cluster: Deployment) -> str:
    """Return the triggerer that has sent the last launch of the only task that launches a run.

    On a busy machine the trigger may be assigned to the other one by then: the first question of a
    triggerer to Airflow takes longer than a triggerer may be silent.
    """
    launches = [seen for seen in scenario.workspace.seen if seen.endpoint == "runs/submit"]
    return cluster.component_at(launches[-1].client_port)


def killed_and_back(postgres: PostgresServer) -> threading.Thread:
    """Kill the database, and start it again after a while, in a thread."""
    postgres.kill()

    def come_back() -> None:
        time.sleep(OUTAGE_SECONDS)
        postgres.start()

    thread = threading.Thread(target=come_back)
    thread.start()
    return thread


# Triggerers.


@pytest.mark.parametrize("moment", ["received", "handled"])
def test_triggerer_killed_at_the_launch(begin: Begin, cluster: Deployment, moment: str) -> None:
    """SIGKILL to the triggerer of the task: the other one takes over, and has the same run."""
    scenario = begin("workerless")

    def kill() -> None:
        cluster.kill_whole(launching(scenario, cluster))

    happened(at_request(scenario, "runs/submit", moment, kill), scenario)
    # The killed one may not have logged that its trigger has begun.
    scenario.deferred(watched=1)
    succeeded(scenario, cluster)


def test_triggerer_killed(begin: Begin, cluster: Deployment) -> None:
    """The same while the task waits."""
    scenario = begin("workerless")
    scenario.deferred()
    cluster.kill_whole(cluster.triggerer_of(scenario.dag_run))
    scenario.deferred(watched=2)
    succeeded(scenario, cluster)


def test_triggerer_frozen_during_the_launch(begin: Begin, cluster: Deployment) -> None:
    """The other one has taken over when it wakes up; nobody cancels the run."""
    scenario = begin("workerless")
    names: list[str] = []

    def freeze() -> None:
        names.append(launching(scenario, cluster))
        cluster.freeze(names[0])

    frozen = at_request(scenario, "runs/submit", "handled", freeze, is_answered=True)
    happened(frozen, scenario)
    try:
        scenario.deferred(watched=2)
    finally:
        awake = time.time()
        cluster.thaw(names[0])
    cluster.until_beaten(names[0], since=awake)
    succeeded(scenario, cluster)


def test_triggerers_restarted_in_turn(begin: Begin, cluster: Deployment) -> None:
    """A rolling deployment of the triggerers: the run goes on."""
    scenario = begin("workerless")
    scenario.deferred()
    for name in cluster.triggerers:
        cluster.terminate(name)
        cluster.start_triggerer()
    succeeded(scenario, cluster)


@pytest.mark.parametrize("moment", ["received", "handled"])
def test_both_triggerers_killed_at_the_launch(
    begin: Begin, cluster: Deployment, moment: str
) -> None:
    """SIGKILL to both at once: the next one has the same run."""
    scenario = begin("workerless")
    killed = at_request(
        scenario, "runs/submit", moment, lambda: cluster.kill_whole(*cluster.triggerers)
    )
    happened(killed, scenario)
    cluster.start_triggerer()
    # Those that were killed may not have logged that the trigger has begun.
    scenario.deferred(watched=1)
    succeeded(scenario, cluster)


def test_both_triggerers_killed(begin: Begin, cluster: Deployment) -> None:
    """The same while the task waits."""
    scenario = begin("workerless")
    scenario.deferred()
    cluster.kill_whole(*cluster.triggerers)
    cluster.start_triggerer()
    scenario.deferred(watched=2)
    succeeded(scenario, cluster)


def test_both_triggerers_killed_while_they_launch_many(begin: Begin, cluster: Deployment) -> None:
    """Thirty instances of a mapped task: one run for each."""
    scenario = begin("workerless_mapped_many")
    killed = at_request(
        scenario,
        "runs/submit",
        "handled",
        lambda: cluster.kill_whole(*cluster.triggerers),
        number=MANY // 2,
    )
    happened(killed, scenario)
    cluster.restart_what_ended()
    all_launched(scenario, MANY)
    end_all(scenario)
    all_succeeded(scenario, instances=MANY, runs=MANY, cancels=0)


# What triggerers depend on goes away.


def test_scheduler_killed(begin: Begin, cluster: Deployment) -> None:
    """Nobody notices."""
    scenario = begin("workerless_steady")
    scenario.deferred()
    cluster.kill_whole("scheduler")
    cluster.restart("scheduler")
    succeeded(scenario, cluster)


def test_redis_killed_and_back_empty(begin: Begin, cluster: Deployment, redis: RedisServer) -> None:
    """The broker has no message of such a task."""
    scenario = begin("workerless_steady")
    scenario.deferred()
    redis.kill()
    redis.start()
    succeeded(scenario, cluster)


@pytest.mark.parametrize("moment", ["received", "handled"])
def test_postgres_gone_during_the_launch(
    begin: Begin, cluster: Deployment, postgres: PostgresServer, moment: str
) -> None:
    """The metadata database is gone for 20 s, in which the launch is answered."""
    scenario = begin("workerless_steady")
    threads: list[threading.Thread] = []
    gone = at_request(
        scenario,
        "runs/submit",
        moment,
        lambda: threads.append(killed_and_back(postgres)),
        is_answered=True,
    )
    happened(gone, scenario)
    threads[0].join()
    cluster.restart_what_ended()
    scenario.running()
    succeeded(scenario, cluster)


def test_postgres_gone_while_the_run_ends(
    begin: Begin, cluster: Deployment, workspace: FakeService, postgres: PostgresServer
) -> None:
    """The same while the task waits."""
    scenario = begin("workerless_steady")
    run = scenario.deferred()
    thread = killed_and_back(postgres)
    workspace.end(run)
    thread.join()
    succeeded(scenario, cluster)


def test_postgres_gone_while_many_are_launched(
    begin: Begin, cluster: Deployment, postgres: PostgresServer
) -> None:
    """Thirty instances of a mapped task: one run for each."""
    scenario = begin("workerless_mapped_many")
    threads: list[threading.Thread] = []
    gone = at_request(
        scenario,
        "runs/submit",
        "handled",
        lambda: threads.append(killed_and_back(postgres)),
        number=MANY // 2,
        is_answered=True,
    )
    happened(gone, scenario)
    threads[0].join()
    cluster.restart_what_ended()
    eventually(lambda: len(scenario.runs) == MANY, "all runs are launched")
    end_all(scenario)
    eventually(partial(has_succeeded, scenario, cluster), "all instances succeed")
    all_succeeded(scenario, instances=MANY, runs=MANY, cancels=0)


# The text of the service.


def test_text_that_postgres_does_not_store(
    begin: Begin, cluster: Deployment, workspace: FakeService
) -> None:
    """NUL and half a surrogate pair in an exit value: the triggerers go on."""
    scenario = begin("workerless")
    run = scenario.deferred()
    processes = [cluster.main_process(name) for name in cluster.triggerers]
    run.exit_value = "a\0b\ud83dc"
    workspace.end(run)
    scenario.dag_run.until("success")
    assert scenario.dag_run.xcom("return_value") == "a\ufffdb\ufffdc"
    assert all(map(is_alive, processes))
    scenario.saw(runs=1, cancels=0)


# A user clears or marks the task.


def test_cleared(begin: Begin, cluster: Deployment) -> None:
    """The run is canceled, and the next try launches one of its own."""
    scenario = begin("workerless")
    first = scenario.deferred()
    scenario.dag_run.clear()
    scenario.deferred(2)
    eventually(lambda: not first.is_active, "the first run has ended")
    succeeded(scenario, cluster, runs=2, cancels=1)


def test_cleared_twice(begin: Begin, cluster: Deployment) -> None:
    """Each clear cancels the run there is and leads to one new run."""
    scenario = begin("workerless")
    scenario.deferred()
    for count in (2, 3):
        scenario.dag_run.clear()
        scenario.deferred(count)
    eventually(lambda: sum(run.is_active for run in scenario.runs) == 1, "two runs have ended")
    succeeded(scenario, cluster, runs=3, cancels=2)


def test_marked_failed(begin: Begin) -> None:
    """The run is canceled, and the task stays as it was marked."""
    scenario = begin("workerless")
    scenario.deferred()
    scenario.dag_run.mark("failed")
    scenario.all_stopped()
    assert scenario.dag_run.state_and_try()[0] == "failed"
    scenario.saw(runs=1, cancels=1)


def test_one_of_many_is_cleared_and_one_is_marked(begin: Begin) -> None:
    """Their runs are canceled; those of the other instances go on."""
    scenario = begin("workerless_mapped_many")
    all_launched(scenario, MANY)
    by_index = runs_by_index(scenario)
    scenario.dag_run.clear(map_index=3)
    scenario.dag_run.mark("success", map_index=4)
    all_launched(scenario, MANY + 1)
    acted_on = [by_index[index][0] for index in (3, 4)]
    eventually(lambda: not any(run.is_active for run in acted_on), "their runs have ended")
    assert sum(run.is_active for run in scenario.runs) == MANY - 1
    end_all(scenario)
    scenario.dag_run.until_over_with({"success": MANY})
    scenario.saw(runs=MANY + 1, cancels=2)
