"""The requests of watches of ended runs, which share their reads with each other and with waits."""

from __future__ import annotations

import asyncio
from typing import Any

from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.triggers.polling.registry import get_poller
from tests.helpers.timeless_workspace import RunScenario, Workspace
from tests.helpers.watch_observer import PERIOD, Observer

RUNNING: Any = {"state": {"life_cycle_state": "RUNNING"}}


def test_two_hundred_watches_cost_as_much_as_one(run_scenario: RunScenario) -> None:
    """Two requests in each period: one list of active runs, and one of ended ones."""
    seconds = 10 * PERIOD

    async def scenario(workspace: Workspace, watches: int) -> None:
        for job in range(1, 201):
            workspace.start(job, job=job, ago=job * 60, lasting=1e6)
        observers = [Observer(workspace, job_id=n + 1) for n in range(watches)]
        await asyncio.sleep(15)
        for job in (1, 2, 50, 150, 200):
            await asyncio.sleep(PERIOD)
            workspace.end(job)
        await asyncio.sleep(seconds - 5 * PERIOD)
        told = [one.told for one in observers]
        assert told == [[n] if n in (1, 2, 50, 150, 200) else [] for n in range(1, watches + 1)]

    one, many = run_scenario(scenario, 1), run_scenario(scenario, 200)
    assert many.asked == one.asked
    reads = 1 + seconds // PERIOD
    # The first read does not know yet how large a run is, and takes smaller pages.
    assert reads <= one.asked["runs/list active_only"] <= reads + 1
    assert one.asked["runs/list completed_only"] == reads
    assert one.requests <= 2 * reads + 6


def test_watches_that_join_one_after_the_other_share_their_reads(run_scenario: RunScenario) -> None:
    """As Airflow starts them: some each second. All get what ended meanwhile."""

    async def scenario(workspace: Workspace) -> None:
        observers = []
        for n in range(40):
            observers.append(Observer(workspace, all_runs=True))
            if n % 2:
                workspace.start(n, lasting=10)
            await asyncio.sleep(0.5)
        await asyncio.sleep(60)
        assert all(one.told[-10:] == list(range(21, 41, 2)) for one in observers)

    assert run_scenario(scenario).requests == 6


def test_a_watch_with_a_shorter_period_need_not_wait_for_the_others(
    run_scenario: RunScenario,
) -> None:
    """It is read within its own period after it was added."""

    async def scenario(workspace: Workspace) -> None:
        Observer(workspace, period=3600)
        await asyncio.sleep(100)
        workspace.start(1, lasting=10)
        quick = Observer(workspace, period=5)
        await asyncio.sleep(17)
        assert quick.told == [1]

    run_scenario(scenario)


def test_waits_take_their_runs_from_the_pages_of_the_watches(run_scenario: RunScenario) -> None:
    """A hundred deferred tasks need no request of their own, and get their ends as early."""

    async def scenario(workspace: Workspace) -> None:
        for run_id in range(1, 101):
            workspace.start(run_id, lasting=200 + run_id)
        observer = Observer(workspace)
        await asyncio.sleep(10)
        poller = get_poller(DatabricksJobsHook())
        waits = [poller.wait_for_change(r, period=PERIOD, known=RUNNING) for r in range(1, 101)]
        runs = await asyncio.gather(*waits)
        assert {one["state"]["result_state"] for one in runs} == {"SUCCESS"}
        assert "cluster_spec" in runs[0]
        await asyncio.sleep(PERIOD)
        assert sorted(observer.told) == list(range(1, 101))
        assert "cluster_spec" not in observer.runs[0].run

    workspace = run_scenario(scenario)
    assert set(workspace.asked) == {"runs/list active_only", "runs/list completed_only"}
    # Until 330 s, every 24 s while there are waits. A page of ended runs may be followed by two.
    assert workspace.requests <= 3 * 15


def test_runs_of_submit_cost_no_reads_of_jobs(run_scenario: RunScenario) -> None:
    """Each has a job id of its own, of a job that does not exist."""

    async def scenario(workspace: Workspace) -> None:
        observer = Observer(workspace, tags=["team"])
        for run_id in range(1, 11):
            workspace.start(run_id, job=0, lasting=run_id)
        await asyncio.sleep(PERIOD * 2)
        assert observer.told == []

    assert run_scenario(scenario).asked["get"] == 0


def test_reads_of_many_jobs_delay_no_waits(run_scenario: RunScenario) -> None:
    """The poller's requests come in between."""

    async def scenario(workspace: Workspace) -> None:
        for run_id in range(1, 201):
            workspace.start(run_id, job=run_id, lasting=40)
        Observer(workspace, tags=["team"])
        await asyncio.sleep(PERIOD * 1.9)
        waited_for = workspace.start(1000, lasting=8)
        poller = get_poller(DatabricksJobsHook())
        await poller.wait_for_change(1000, period=3, known=RUNNING)
        assert 0 < workspace.asked["get"] < 200
        assert workspace.now() - waited_for.end <= 3.5

    run_scenario(scenario)
