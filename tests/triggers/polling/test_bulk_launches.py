"""Hundreds of launches, and the ends of other runs meanwhile, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_jobs_provider.api.endpoints import get_run, get_run_output, submit_run
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.triggers.polling.poller import RunPoller
from airflow_jobs_provider.triggers.polling.registry import get_poller
from tests.helpers.polling import wait_for_end
from tests.helpers.timeless_workspace import Workspace, play

LAUNCHES, OTHERS = 400, 50
PERIOD = 10.0
REQUEST: dict[str, Any] = {"existing_cluster_id": "c", "notebook_task": {"notebook_path": "/etl"}}


def the_poller() -> RunPoller:
    """Return the poller of the default connection."""
    return get_poller(DatabricksJobsHook())


async def late_output(workspace: Workspace, run_id: int) -> float:
    """Wait for a run and read its output; return how long after its end that was done."""
    await wait_for_end(the_poller(), run_id, PERIOD)
    await the_poller().send(get_run_output(run_id), without_deadline=False)
    return workspace.now() - workspace.runs[run_id].end


@pytest.mark.parametrize("api_version", ["2.0", "2.2"])
def test_outputs_are_read_in_time_beside_hundreds_of_launches(
    monkeypatch: pytest.MonkeyPatch, api_version: str
) -> None:
    """The launched runs are short: at any time as many end as are launched."""

    async def launch(workspace: Workspace) -> float:
        poller = the_poller()
        run_id = await poller.send(submit_run(REQUEST), without_deadline=False, dag_id="many")
        await poller.read_launched_run(get_run(run_id))
        return await late_output(workspace, run_id)

    async def scenario(workspace: Workspace) -> None:
        workspace.lasting = 20
        for number in range(OTHERS):
            workspace.start(number + 1, lasting=5 + number, ago=1)
        others = [late_output(workspace, number + 1) for number in range(OTHERS)]
        launched = [launch(workspace) for _ in range(LAUNCHES)]
        began = workspace.loop.time()
        late = await asyncio.gather(*others, *launched)
        assert max(late) <= 2 * PERIOD
        # 8.75 launches a second.
        assert workspace.loop.time() - began < LAUNCHES / 8.75 + 40

    workspace = play(monkeypatch, scenario, api_version=api_version)
    assert workspace.asked["runs/submit"] == LAUNCHES
    # Of each second's launches one at most is read by its id.
    assert workspace.asked["runs/get"] < LAUNCHES / 4
