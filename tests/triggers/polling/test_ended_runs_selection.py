"""Watches that select ended runs by the names and tags of their jobs, or by states."""

from __future__ import annotations

import asyncio

import pytest

from tests.helpers.timeless_workspace import RunScenario, Workspace
from tests.helpers.watch_observer import PERIOD, Observer


def test_runs_are_chosen_by_their_jobs_names_and_tags(run_scenario: RunScenario) -> None:
    """Each job of a run that has ended is read once for all watches, in ten minutes."""

    async def scenario(workspace: Workspace) -> None:
        workspace.jobs = {
            7: {"name": "sales", "tags": {"team": "emea", "nightly": ""}},
            8: {"name": "stock", "tags": {"team": "emea"}},
            9: {"name": "sales"},
        }
        by_name = Observer(workspace, job_name="sales")
        by_tag = Observer(workspace, tags={"team": "emea"})
        by_label = Observer(workspace, tags=["nightly", "team"])
        await asyncio.sleep(40)
        for n, job in enumerate([7, 8, 9, 10, 7]):
            workspace.start(n + 1, job=job, lasting=10 + 60 * n)
        await asyncio.sleep(400)
        assert by_name.told == [1, 3, 5]
        assert by_tag.told == [1, 2, 5]
        assert by_label.told == [1, 5]
        assert by_name.runs[0].job.tags == {"team": "emea", "nightly": ""}
        workspace.jobs[8]["name"] = "sales"
        await asyncio.sleep(601)
        workspace.start(6, job=8, lasting=1)
        await asyncio.sleep(PERIOD + 1)
        assert by_name.told == [1, 3, 5, 6]

    assert run_scenario(scenario).asked["get"] == 5


@pytest.mark.parametrize("seconds", [PERIOD * 3, PERIOD * 12])
def test_a_job_that_cannot_be_read_delays_its_watch_only(
    run_scenario: RunScenario, caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    """Its run is told once the job can be read. After ten reads it counts as without tags."""
    caplog.set_level("INFO")

    async def scenario(workspace: Workspace) -> None:
        workspace.jobs = {7: {"tags": {"team": "emea"}}, 8: {"tags": {"team": "emea"}}}
        by_tag = Observer(workspace, tags=["team"])
        everything = Observer(workspace)
        await asyncio.sleep(10)
        workspace.broken_jobs.add(8)
        workspace.start(1, job=8, lasting=1)
        workspace.start(2, job=7, lasting=1)
        await asyncio.sleep(PERIOD * 2)
        assert sorted(everything.told) == [1, 2]
        assert by_tag.told == []
        await asyncio.sleep(seconds - PERIOD * 2)
        workspace.broken_jobs.clear()
        await asyncio.sleep(PERIOD * 10)
        assert sorted(by_tag.told) == ([1, 2] if seconds < PERIOD * 10 else [2])
        assert sorted(everything.told) == [1, 2]

    run_scenario(scenario)
    assert caplog.text.count("Job 8 cannot be read for now") == 1
    assert caplog.text.count("Job 8 counts as one without name and tags") == (seconds > PERIOD * 10)
    assert "cannot be followed" not in caplog.text


def test_an_old_run_is_not_lost_while_a_job_cannot_be_read(run_scenario: RunScenario) -> None:
    """It has started before a first start looks for, and ends before the watch has a position."""

    async def scenario(workspace: Workspace) -> None:
        workspace.jobs = {7: {"tags": {"team": "emea"}}}
        workspace.start(1, job=7, ago=9 * 86_400, lasting=9 * 86_400 + PERIOD)
        for run_id in range(10, 40):
            workspace.start(run_id, job=0, ago=2 * 86_400 + run_id, lasting=10)
        workspace.broken_jobs.add(8)
        observer = Observer(workspace, tags=["team"])
        workspace.start(2, job=8, lasting=1)
        await asyncio.sleep(PERIOD * 3)
        workspace.broken_jobs.clear()
        await asyncio.sleep(PERIOD * 2)
        assert observer.told == [1]

    run_scenario(scenario)


def test_runs_are_chosen_by_their_states(run_scenario: RunScenario) -> None:
    """A result state, or the life cycle state."""

    async def scenario(workspace: Workspace) -> None:
        bad = Observer(workspace, all_runs=True, states=["FAILED", "CANCELED"])
        ended = Observer(workspace, all_runs=True, states=["TERMINATED"])
        await asyncio.sleep(10)
        for n, result in enumerate(["SUCCESS", "FAILED", "TIMEDOUT", "CANCELED"]):
            workspace.start(n + 1, lasting=n + 1).result = result
        await asyncio.sleep(60)
        assert bad.told == [2, 4]
        assert ended.told == [1, 2, 3, 4]

    run_scenario(scenario)
