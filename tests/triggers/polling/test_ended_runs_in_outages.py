"""Ended runs while the service, or a read of a run, fails."""

from __future__ import annotations

import asyncio

import pytest

from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.triggers.polling import all_run_lists, ended_runs
from airflow_jobs_provider.triggers.polling.registry import get_poller
from tests.helpers.timeless_workspace import RunScenario, Workspace
from tests.helpers.watch_observer import PERIOD, Observer


def test_a_run_that_cannot_be_read_is_told_later(
    run_scenario: RunScenario, caplog: pytest.LogCaptureFixture
) -> None:
    """While it is neither on a list nor to be read it counts as active; others go on."""

    async def scenario(workspace: Workspace) -> None:
        workspace.start(1, ago=1000, lasting=1040)
        workspace.start(2, ago=1000, lasting=1040)
        for run_id in range(10, 50):
            workspace.start(run_id, ago=500 - run_id, lasting=10)
        observer = Observer(workspace)
        await asyncio.sleep(10)
        workspace.start(3)
        workspace.refused.add(1)
        await asyncio.sleep(PERIOD * 4)
        assert observer.told == [2]
        workspace.refused.clear()
        await asyncio.sleep(PERIOD)
        assert observer.told == [2, 1]

    run_scenario(scenario)
    assert caplog.text.count("Run 1 cannot be read for now") == 1


def test_a_run_that_cannot_be_read_stops_no_other(
    run_scenario: RunScenario, caplog: pytest.LogCaptureFixture
) -> None:
    """Also if it is the only one that is read by its id: the caller may not see it any more."""
    caplog.set_level("INFO")

    async def scenario(workspace: Workspace) -> None:
        workspace.start(1, ago=1000, lasting=1e6)
        observer = Observer(workspace)
        await asyncio.sleep(10)
        workspace.hidden.add(1)
        workspace.start(2, lasting=10)
        await asyncio.sleep(PERIOD * 5)
        assert observer.told == [2]
        workspace.start(3, lasting=10)
        await asyncio.sleep(PERIOD * 1.5)
        assert observer.told == [2, 3]
        workspace.hidden.clear()
        workspace.end(1)
        await asyncio.sleep(PERIOD * 1.5)
        assert observer.told == [2, 3, 1]

    run_scenario(scenario)
    assert caplog.text.count("Run 1 cannot be read for now") == 1
    assert caplog.text.count("1 watchers cannot be followed for now") == 2
    assert "1 runs cannot be followed for now" not in caplog.text


def test_an_error_loses_no_run_of_a_watch_that_is_behind(
    run_scenario: RunScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is given to it after the error: Airflow may take minutes to store its events."""
    read = all_run_lists.AllRunLists.read

    async def scenario(workspace: Workspace) -> None:
        watches = [Observer(workspace) for _ in range(2)]
        for one in watches:
            one.task.cancel()
        quick, slow = (one.watch for one in watches)
        runs = get_poller(DatabricksJobsHook()).ended_runs
        of_quick, of_slow = runs.follow(quick), runs.follow(slow)
        await asyncio.gather(anext(of_quick), anext(of_slow))
        monkeypatch.setattr(all_run_lists.AllRunLists, "read", None)
        with pytest.raises(TypeError):
            await anext(of_quick)
        monkeypatch.setattr(all_run_lists.AllRunLists, "read", read)
        again = runs.follow(quick)
        await anext(again)
        workspace.start(1, lasting=5)
        assert [one.run["run_id"] for one in (await anext(again)).runs] == [1]
        with pytest.raises(TypeError):
            await anext(of_slow)
        assert [one.run["run_id"] for one in (await anext(runs.follow(slow))).runs] == [1]

    run_scenario(scenario)


def test_an_outage_of_hours_loses_nothing(
    run_scenario: RunScenario, caplog: pytest.LogCaptureFixture
) -> None:
    """All runs that ended meanwhile are told. The log tells of its begin and end once each."""
    caplog.set_level("INFO")

    async def scenario(workspace: Workspace) -> None:
        workspace.start(1, lasting=3600)
        observer = Observer(workspace)
        await asyncio.sleep(100)
        workspace.is_down = True
        for run_id in range(2, 100):
            await asyncio.sleep(90)
            workspace.start(run_id, lasting=30)
        workspace.is_down = False
        await asyncio.sleep(400)
        assert sorted(observer.told) == list(range(1, 100))

    run_scenario(scenario)
    assert caplog.text.count("cannot be followed for now") == 1
    assert caplog.text.count("The service answers again") == 1


def test_a_long_wait_for_the_service_does_not_delay_the_next_read(
    run_scenario: RunScenario,
) -> None:
    """A 429 is waited out within one read, for as long as it takes."""

    async def scenario(workspace: Workspace) -> None:
        observer = Observer(workspace)
        await asyncio.sleep(PERIOD)
        workspace.retry_after, workspace.requests_per_second = "90", 0
        await asyncio.sleep(300)
        workspace.requests_per_second = None
        workspace.start(1, lasting=1)
        await asyncio.sleep(120)
        assert observer.told == [1]
        workspace.start(2, lasting=1)
        await asyncio.sleep(ended_runs.MAX_PAUSE_SECONDS + 1)
        assert observer.told == [1, 2]

    run_scenario(scenario)


def test_a_refused_list_is_tried_again(
    run_scenario: RunScenario, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says what is wrong; what ended meanwhile is told once lists are allowed."""

    async def scenario(workspace: Workspace) -> None:
        observer = Observer(workspace)
        await asyncio.sleep(40)
        workspace.lists_refused = True
        workspace.start(1, lasting=30)
        await asyncio.sleep(600)
        workspace.lists_refused = False
        await asyncio.sleep(700)
        assert observer.told == [1]

    run_scenario(scenario)
    assert "the next try is in 30 s" in caplog.text
    assert "the next try is in 60 s" in caplog.text


def test_a_list_that_ends_too_early_is_read_again_and_then_given_up(
    run_scenario: RunScenario, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A service of 2.0 alone lists no runs beyond an offset; the log says what that may mean."""
    monkeypatch.setattr("airflow_jobs_provider.triggers.polling.run_lists.MAX_OFFSET", 100)
    monkeypatch.setattr("tests.fakes.many_runs.LAST_OFFSET", 100)

    async def scenario(workspace: Workspace) -> None:
        observer = Observer(workspace)
        workspace.start(1, lasting=5)
        await asyncio.sleep(40)
        workspace.is_down = True
        for run_id in range(2, 402):
            workspace.start(run_id, lasting=1)
            await asyncio.sleep(1)
        workspace.is_down = False
        await asyncio.sleep(500)
        assert observer.told[0] == 1
        assert len(observer.told) == len(set(observer.told)) < 401
        assert 401 in observer.told
        workspace.start(2000, lasting=1)
        await asyncio.sleep(60)
        assert observer.told[-1] == 2000

    run_scenario(scenario)
    assert caplog.text.count("does not list the ended runs back to where") == 1


def test_active_runs_beyond_the_reach_of_their_list_are_read_in_turn(
    run_scenario: RunScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.0 alone shows no run beyond an offset. Some are read by their ids each time."""
    monkeypatch.setattr("airflow_jobs_provider.triggers.polling.run_lists.MAX_OFFSET", 60)
    monkeypatch.setattr("tests.fakes.many_runs.LAST_OFFSET", 60)
    monkeypatch.setattr(all_run_lists, "UNLISTED_AT_ONCE", 20)

    async def scenario(workspace: Workspace) -> None:
        workspace.max_page = 30
        for run_id in range(1, 61):
            workspace.start(run_id, ago=2000 - run_id, lasting=1e6)
        observer = Observer(workspace)
        await asyncio.sleep(20)
        for run_id in range(101, 301):
            workspace.start(run_id, ago=1000 - run_id, lasting=1e6)
        await asyncio.sleep(100)
        workspace.asked.clear()
        for run_id in (1, 30, 60):
            workspace.end(run_id)
        await asyncio.sleep(4 * PERIOD)
        assert sorted(observer.told) == [1, 30, 60]
        assert workspace.asked["runs/get"] <= 4 * 20

    run_scenario(scenario)
