"""The positions of watches of ended runs: when they are reported, and restarts with them."""

from __future__ import annotations

import asyncio

import pytest

from airflow_jobs_provider.triggers.polling import all_run_lists, ended_runs
from tests.helpers.timeless_workspace import RunScenario, Workspace
from tests.helpers.watch_observer import PERIOD, Observer


def test_a_restart_with_its_position_loses_nothing_and_repeats_nothing(
    run_scenario: RunScenario,
) -> None:
    """Whatever ended in between: an old run, a new one, many new ones. The look-back is 0."""

    async def scenario(workspace: Workspace) -> None:
        workspace.start(1, ago=40 * 86_400, lasting=40 * 86_400 + 300)
        workspace.start(2, lasting=20)
        workspace.start(3, lasting=300)
        first = Observer(workspace)
        await asyncio.sleep(90)
        assert first.told == [2]
        position = await first.stop()
        for run_id in range(4, 200):
            workspace.start(run_id, lasting=30)
            await asyncio.sleep(10)
        second = Observer(workspace, position=position)
        await asyncio.sleep(90)
        assert sorted(second.told) == [1, *range(3, 200)]

    run_scenario(scenario)


def test_a_restart_finds_runs_beyond_those_whose_ids_are_in_the_position(
    run_scenario: RunScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of so many only; the earliest start says where the others are."""
    monkeypatch.setattr(ended_runs, "MAX_ACTIVE_IDS", 100)

    async def scenario(workspace: Workspace) -> None:
        count = ended_runs.MAX_ACTIVE_IDS + 150
        for run_id in range(1, count + 1):
            workspace.start(run_id, ago=100_000 - run_id, lasting=100_000 + 200 + run_id)
        first = Observer(workspace)
        await asyncio.sleep(60)
        position = await first.stop()
        assert len(position["active"]) == ended_runs.MAX_ACTIVE_IDS
        await asyncio.sleep(3600)
        second = Observer(workspace, position=position)
        await asyncio.sleep(60)
        assert sorted(second.told) == list(range(1, count + 1))

    run_scenario(scenario)


def test_a_run_of_weeks_does_not_make_a_restart_read_weeks_of_runs(
    run_scenario: RunScenario,
) -> None:
    """Its id is in the position, so only what came after the position is read."""

    async def scenario(workspace: Workspace) -> None:
        workspace.start(1, ago=40 * 86_400, lasting=40 * 86_400 + 100)
        for run_id in range(10, 510):
            workspace.start(run_id, ago=40 * 86_400 - 600 * run_id, lasting=60)
        workspace.start(2, ago=10, lasting=5)
        first = Observer(workspace)
        await asyncio.sleep(10)
        position = await first.stop()
        await asyncio.sleep(3600)
        workspace.asked.clear()
        second = Observer(workspace, position=position)
        await asyncio.sleep(PERIOD)
        assert second.told == [1]

    assert run_scenario(scenario, api_version="2.1").asked["runs/list completed_only"] == 1


def test_the_position_of_a_job_has_the_runs_of_the_job(run_scenario: RunScenario) -> None:
    """So the many active runs of other jobs make it neither long nor old."""

    async def scenario(workspace: Workspace) -> None:
        for run_id in range(1, 60):
            workspace.start(run_id, job=run_id % 3, ago=86_400 + run_id, lasting=1e6)
        of_job, of_all = Observer(workspace, job_id=1), Observer(workspace)
        await asyncio.sleep(10)
        assert of_job.position["active"] == list(range(1, 60, 3))
        assert of_all.position["active"] == list(range(1, 60))
        position = await of_job.stop()
        workspace.end(1)
        workspace.end(2)
        await asyncio.sleep(3600)
        again = Observer(workspace, job_id=1, position=position)
        await asyncio.sleep(PERIOD)
        assert again.told == [1]

    run_scenario(scenario)


def test_a_first_start_begins_at_the_look_back(run_scenario: RunScenario) -> None:
    """By the time of the end, not of the start."""

    async def scenario(workspace: Workspace) -> None:
        workspace.start(1, ago=1000, lasting=100)
        workspace.start(2, ago=5000, lasting=4800)
        observer = Observer(workspace, look_back=300)
        none = Observer(workspace, look_back=0)
        await asyncio.sleep(60)
        assert observer.told == [2]
        position = await observer.stop()
        again = Observer(workspace, position=position)
        later = Observer(workspace, position=await none.stop())
        await asyncio.sleep(60)
        assert again.told == none.told == later.told == []

    run_scenario(scenario)


def test_the_first_read_has_a_limit_of_pages(
    run_scenario: RunScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-back costs no more than that in a workspace with very many runs."""
    monkeypatch.setattr(all_run_lists, "MAX_FIRST_PAGES", 4)

    async def scenario(workspace: Workspace) -> None:
        for run_id in range(1, 1000):
            workspace.start(run_id, ago=run_id * 60 + 20, lasting=10)
        observer = Observer(workspace, look_back=86_400)
        await asyncio.sleep(20)
        assert observer.told == list(range(100, 0, -1))
        position = await observer.stop()
        second = Observer(workspace, position=position)
        await asyncio.sleep(20)
        assert second.told == []

    workspace = run_scenario(scenario, api_version="2.1")
    assert workspace.asked["runs/list completed_only"] == 5


def test_a_position_is_told_without_events(run_scenario: RunScenario) -> None:
    """So that a restart after a quiet day has little to read."""

    async def scenario(workspace: Workspace) -> None:
        observer = Observer(workspace, job_id=1, period=300)
        await asyncio.sleep(10)
        first = observer.position
        for run_id in range(2, 10):
            workspace.start(run_id, job=2, lasting=10)
            await asyncio.sleep(ended_runs.POSITION_SECONDS / 3)
        assert observer.position["started_from"] > first["started_from"] + 900_000
        assert observer.told == []

    run_scenario(scenario)


def test_positions_without_events_are_told_at_different_times(run_scenario: RunScenario) -> None:
    """Each is a write to Airflow's database, and there may be hundreds of watches."""

    async def scenario(workspace: Workspace) -> None:
        observers = [Observer(workspace, job_id=n) for n in range(1, 41)]
        await asyncio.sleep(ended_runs.POSITION_SECONDS + 2 * PERIOD)
        first = [one.positions_at[0] for one in observers]
        at = [one.positions_at[1] for one in observers]
        assert max(at) - min(at) > ended_runs.POSITION_SECONDS * ended_runs.POSITION_JITTER / 2
        assert max(at.count(moment) for moment in at) < len(at) / 2
        # Each after three quarters of the time at least.
        assert all(later - one >= 675 for one, later in zip(first, at, strict=True))

    run_scenario(scenario)


def test_after_a_restart_positions_without_events_are_told_at_different_times(
    run_scenario: RunScenario,
) -> None:
    """The stored ones are good enough until then; a watch with events has its own at once."""

    async def scenario(workspace: Workspace) -> None:
        first = [Observer(workspace, job_id=n) for n in range(1, 41)]
        await asyncio.sleep(2 * PERIOD)
        stored = [await one.stop() for one in first]
        workspace.start(1, job=1, lasting=5)
        await asyncio.sleep(10)
        watches = zip(range(1, 41), stored, strict=True)
        second = [Observer(workspace, job_id=n, position=at) for n, at in watches]
        began = workspace.now()
        await asyncio.sleep(2 * PERIOD)
        assert second[0].told == [1]
        assert sum(bool(one.positions_at) for one in second) < len(second) / 2
        await asyncio.sleep(ended_runs.POSITION_SECONDS)
        at = [one.positions_at[0] - began for one in second]
        assert max(at) <= ended_runs.POSITION_SECONDS + PERIOD
        # Some in each third of the time.
        assert {int(one / ended_runs.POSITION_SECONDS * 3) for one in at} >= {0, 1, 2}

    run_scenario(scenario)


def test_a_first_position_is_told_as_soon_as_there_is_one(run_scenario: RunScenario) -> None:
    """Also without events, and after reads that a job has delayed: a restart would look back."""

    async def scenario(workspace: Workspace) -> None:
        workspace.jobs = {8: {"tags": {"another": "x"}}}
        workspace.broken_jobs.add(8)
        workspace.start(1, job=8, ago=20, lasting=10)
        observer = Observer(workspace, tags=["team"], look_back=600)
        await asyncio.sleep(2 * PERIOD)
        assert observer.position == {}
        workspace.broken_jobs.clear()
        await asyncio.sleep(2 * PERIOD)
        assert observer.told == []
        assert observer.position != {}

    run_scenario(scenario)
