"""Runs that were just launched are read together, and each launch gets its own run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from airflow_jobs_provider.api.endpoints import get_run
from airflow_jobs_provider.api.errors import NotFoundError
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.triggers.polling.registry import get_poller
from tests.helpers.timeless_workspace import LATENCY, RunScenario, Workspace

RUNS = range(1, 9)
LIST = "runs/list active_only"


async def first_read(workspace: Workspace, run_id: int, after: float = 0.0) -> tuple[Any, float]:
    """Launch a run after so many seconds and read it; return it and how long the read took."""
    await asyncio.sleep(after)
    workspace.start(run_id)
    began = workspace.now()
    run = await get_poller(DatabricksJobsHook()).read_launched_run(get_run(run_id))
    return run, round(workspace.now() - began, 3)


async def launch(workspace: Workspace, *, wait: float = 0.0) -> list[float]:
    """Launch eight runs, a tenth of a second apart; return how long the read of each took."""
    await asyncio.sleep(wait)
    reads = (first_read(workspace, run_id, run_id / 10) for run_id in RUNS)
    seen = await asyncio.gather(*reads)
    assert [run["run_id"] for run, _ in seen] == list(RUNS)
    assert all(run["run_page_url"] and run["job_id"] == 7 for run, _ in seen)
    return [seconds for _, seconds in seen]


@pytest.mark.parametrize("api_version", ["2.0", "2.2"])
def test_one_list_has_what_was_launched_within_a_second(
    run_scenario: RunScenario, api_version: str
) -> None:
    """The first run is read at once, the others within a second after it."""

    async def scenario(workspace: Workspace) -> None:
        first, *others = await launch(workspace)
        assert first == LATENCY
        assert max(others) <= 1 + LATENCY

    workspace = run_scenario(scenario, api_version=api_version)
    assert workspace.asked == {"runs/get": 1, LIST: 1}


def test_launches_that_are_seconds_apart_are_read_at_once(run_scenario: RunScenario) -> None:
    """Each by its id."""

    async def scenario(workspace: Workspace) -> None:
        for run_id in RUNS:
            _, seconds = await first_read(workspace, run_id, 1.1)
            assert seconds == LATENCY

    assert run_scenario(scenario).asked == {"runs/get": len(RUNS)}


def test_two_runs_are_read_by_their_ids(run_scenario: RunScenario) -> None:
    """A list may lack one of them."""

    async def scenario(workspace: Workspace) -> None:
        await asyncio.gather(*(first_read(workspace, run_id, run_id / 10) for run_id in (1, 2, 3)))

    assert run_scenario(scenario).asked == {"runs/get": 3}


def test_a_run_that_has_ended_is_read_by_its_id(run_scenario: RunScenario) -> None:
    """Only that read has the whole run."""

    async def scenario(workspace: Workspace) -> None:
        reading = asyncio.ensure_future(launch(workspace))
        await asyncio.sleep(0.9)
        workspace.end(5)
        await reading

    assert run_scenario(scenario).asked == {"runs/get": 2, LIST: 1}


@pytest.mark.parametrize("fault", ["other runs", "refused", "no page", "not a run", "hung"])
def test_a_list_that_is_of_no_use(run_scenario: RunScenario, fault: str) -> None:
    """Each run is read by its id, and for a minute no list."""

    async def scenario(workspace: Workspace) -> None:
        answer: Any = None
        if fault == "other runs":
            for run_id in range(100, 130):
                workspace.start(run_id, ago=-2)
        elif fault == "refused":
            workspace.lists_refused = True
        elif fault == "hung":
            workspace.hung.add("runs/list")
        else:
            left_out = "run_page_url" if fault == "no page" else "state"
            shown = [workspace.start(run_id).as_json(workspace.now()) for run_id in RUNS]
            answer = {"runs": [{**run, left_out: None} for run in shown]}

            async def answer_list(_request: web.Request) -> web.Response:
                return web.json_response(answer)

            workspace.list_runs = answer_list
        seconds = await launch(workspace)
        assert max(seconds) <= (5 if fault == "hung" else 0) + 1.2
        assert workspace.asked == {"runs/get": len(RUNS), LIST: 1}
        # A poller that is not used for half a minute is closed.
        with get_poller(DatabricksJobsHook()).kept_open():
            await launch(workspace, wait=50)
            assert workspace.asked == {"runs/get": 2 * len(RUNS), LIST: 1}
            await launch(workspace, wait=10)
            assert workspace.asked[LIST] == 2

    run_scenario(scenario)


def test_a_run_that_does_not_exist(run_scenario: RunScenario) -> None:
    """The service says so when it is read by its id; the other reads go on."""

    async def scenario(workspace: Workspace) -> None:
        workspace.deleted = {4}
        reads = (first_read(workspace, run_id, run_id / 10) for run_id in RUNS)
        seen = await asyncio.gather(*reads, return_exceptions=True)
        assert [isinstance(one, NotFoundError) for one in seen] == [run == 4 for run in RUNS]

    assert run_scenario(scenario).asked == {"runs/get": 2, LIST: 1}


def test_a_read_that_is_canceled_stops_no_other(run_scenario: RunScenario) -> None:
    """Neither the one that has begun the list, nor one that waits for it."""

    async def scenario(workspace: Workspace) -> None:
        reads = [
            asyncio.ensure_future(first_read(workspace, run_id, run_id / 10)) for run_id in RUNS
        ]
        await asyncio.sleep(0.9)
        reads[1].cancel()
        reads[5].cancel()
        seen = await asyncio.gather(*reads, return_exceptions=True)
        read = [one[0]["run_id"] for one in seen if isinstance(one, tuple)]
        assert read == [1, 3, 4, 5, 7, 8]

    assert run_scenario(scenario).asked == {"runs/get": 1, LIST: 1}
