"""Which runs a watch of ended runs reports, and when."""

from __future__ import annotations

import asyncio

import pytest

from tests.helpers.timeless_workspace import RunScenario, Workspace
from tests.helpers.watch_observer import PERIOD, Observer


@pytest.mark.parametrize("api_version", ["2.0", "2.1"])
def test_each_run_that_ends_is_told_once(run_scenario: RunScenario, api_version: str) -> None:
    """One that was active, one that starts and ends between two reads; the active one is not."""

    async def scenario(workspace: Workspace) -> None:
        workspace.start(1, lasting=100)
        workspace.start(2, lasting=1e6)
        observer = Observer(workspace)
        await asyncio.sleep(70)
        workspace.start(3, lasting=5)
        await asyncio.sleep(200)
        assert observer.told == [3, 1]

    run_scenario(scenario, api_version=api_version)


def test_a_run_that_started_long_before_is_told_when_it_ends(run_scenario: RunScenario) -> None:
    """The lists are in order of start, and it is far down on that of the ended ones."""

    async def scenario(workspace: Workspace) -> None:
        workspace.start(1, ago=40 * 86_400, lasting=40 * 86_400 + 60)
        for run_id in range(100, 400):
            workspace.start(run_id, ago=86_400 * 2 - 60 * run_id, lasting=30)
        observer = Observer(workspace)
        await asyncio.sleep(150)
        assert observer.told == [1]

    workspace = run_scenario(scenario)
    assert workspace.asked["runs/get"] == 1


def test_a_run_is_told_within_the_period(run_scenario: RunScenario) -> None:
    """The time from its end to the batch is no longer than the period and a read."""

    async def scenario(workspace: Workspace) -> None:
        observer = Observer(workspace)
        await asyncio.sleep(100)
        for run_id in range(1, 20):
            workspace.start(run_id, lasting=7 * run_id)
        await asyncio.sleep(300)
        late = [at - workspace.runs[run_id].end for run_id, at in observer.ends.items()]
        assert len(late) == 19
        assert max(late) <= PERIOD + 0.5

    run_scenario(scenario)


def test_a_run_that_is_repaired_is_told_at_each_end(run_scenario: RunScenario) -> None:
    """Also if the repair begins and ends between two reads."""

    async def scenario(workspace: Workspace) -> None:
        workspace.start(1, lasting=20)
        observer = Observer(workspace)
        await asyncio.sleep(60)
        assert observer.told == [1]
        workspace.runs[1].end = workspace.now() + 60
        await asyncio.sleep(120)
        assert observer.told == [1, 1]
        workspace.runs[1].end = workspace.now() + 0.01
        await asyncio.sleep(PERIOD + 1)
        assert observer.told == [1, 1, 1]

    run_scenario(scenario)


def test_a_run_that_is_deleted_is_not_told(
    run_scenario: RunScenario, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so, once, and the others are told."""
    caplog.set_level("INFO")

    async def scenario(workspace: Workspace) -> None:
        workspace.start(1)
        workspace.start(2, lasting=70)
        observer = Observer(workspace)
        await asyncio.sleep(40)
        workspace.deleted.add(1)
        await asyncio.sleep(120)
        assert observer.told == [2]

    run_scenario(scenario)
    assert caplog.text.count("Run 1 was active and does not exist any more") == 1


def test_a_run_with_a_time_in_the_future_hides_no_other(run_scenario: RunScenario) -> None:
    """The clock of the service, or of a run, may be wrong."""

    async def scenario(workspace: Workspace) -> None:
        observer = Observer(workspace)
        await asyncio.sleep(10)
        workspace.start(1, ago=-1e6, lasting=-1e6)
        await asyncio.sleep(60)
        position = await observer.stop()
        workspace.start(2, lasting=10)
        await asyncio.sleep(60)
        second = Observer(workspace, position=position)
        await asyncio.sleep(60)
        assert 2 in observer.told + second.told

    run_scenario(scenario)


def test_nothing_is_read_once_the_last_watch_has_ended(run_scenario: RunScenario) -> None:
    """The poller closes as it does without watches."""

    async def scenario(workspace: Workspace) -> None:
        observer = Observer(workspace)
        await asyncio.sleep(100)
        await observer.stop()
        workspace.asked.clear()
        await asyncio.sleep(1000)

    assert run_scenario(scenario).requests == 0


def test_a_run_that_is_listed_late_is_told(run_scenario: RunScenario) -> None:
    """Later runs were on the lists before it, and it has ended when it comes."""

    async def scenario(workspace: Workspace) -> None:
        observer = Observer(workspace)
        await asyncio.sleep(40)
        workspace.start(1, lasting=3)
        workspace.deleted.add(1)
        await asyncio.sleep(5)
        for run_id in range(2, 42):
            workspace.start(run_id, lasting=1)
            await asyncio.sleep(0.1)
        await asyncio.sleep(20)
        assert observer.told == list(range(2, 42))
        workspace.deleted.clear()
        await asyncio.sleep(PERIOD)
        assert observer.told == [*range(2, 42), 1]

    run_scenario(scenario)
