"""A thousand instances of a mapped task in one event loop, and a second DAG in the middle."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

if not hasattr(BaseTrigger, "render_template_fields"):
    pytest.skip("a worker launches every run", allow_module_level=True)

from tests.fakes.fake_service import FakeService, Plan
from tests.helpers.launch_trigger import mapped_dag, succeeded, triggerer_of
from tests.helpers.triggerer import Attempt, Triggerer, values_of

pytestmark = pytest.mark.slow

INSTANCES, OTHERS = 1_000, 10
MIDDLE = 400
# Below the 35 runs/submit a second that the service allows.
LAUNCHES_PER_SECOND = 20


def test_a_thousand_launches_and_a_second_dag(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One run for each instance, within the rate; the second DAG's launches come in turn."""
    monkeypatch.setenv("AIRFLOW__DATABRICKS_JOBS__LAUNCHES_PER_SECOND", str(LAUNCHES_PER_SECOND))
    caplog.set_level(logging.INFO, "airflow_jobs_provider")
    service.plan = Plan(seconds=2, looks=0)
    other = Triggerer(mapped_dag(OTHERS, "other", "other"), service, "other")
    triggerer = triggerer_of(mapped_dag(INSTANCES), service, monkeypatch)
    triggerer.stores_xcoms = False

    async def start_all(first: Any) -> list[Any]:
        is_middle, loop = asyncio.Event(), asyncio.get_running_loop()
        service.at("runs/submit", MIDDLE, lambda: loop.call_soon_threadsafe(is_middle.set))

        async def start_others() -> list[Any]:
            await is_middle.wait()
            triggers = [other.trigger(Attempt(map_index=index)) for index in range(OTHERS)]
            return await asyncio.gather(*map(triggerer.first_event, triggers))

        others = asyncio.ensure_future(start_others())
        tasks = [asyncio.ensure_future(triggerer.first_event(first))]
        for index in range(1, INSTANCES):
            trigger = triggerer.trigger(Attempt(map_index=index))
            tasks.append(asyncio.ensure_future(triggerer.first_event(trigger)))
            await asyncio.sleep(0)
        return [*await asyncio.gather(*tasks), *await others]

    events = triggerer.run(start_all, Attempt(map_index=0))
    assert len(events) == INSTANCES + OTHERS
    assert all(map(succeeded, events))
    assert len(service.runs) == INSTANCES + OTHERS
    assert {(run.launches, run.cancels) for run in service.runs.values()} == {(1, 0)}
    for run in service.runs.values():
        _, dag_id, index = run.request["notebook_task"]["notebook_path"].split("/")
        task_id = "other" if dag_id == "other" else "etl"
        assert values_of(triggerer, f"{task_id}[{index}]") == {
            "run_id": run.run_id,
            "job_id": run.job_id,
            "run_page_url": f"http://workspace.invalid/#job/{run.job_id}/run/{run.run_id}",
            "return_value": f"output of {run.run_id}",
        }
    times = sorted(run.launched_at for run in service.runs.values())
    # A request may be on its way for longer than the next one.
    most = max(bisect_left(times, began + 2) - at for at, began in enumerate(times)) / 2
    assert most <= LAUNCHES_PER_SECOND * 1.1
    places = [
        place
        for place, run in enumerate(sorted(service.runs.values(), key=lambda run: run.launched_at))
        if run.request["notebook_task"]["notebook_path"].startswith("/other/")
    ]
    assert places[-1] - places[0] <= 2 * OTHERS + 2
    assert places[-1] < MIDDLE + 100
    held_back = [one for one in caplog.messages if one.startswith("Launches are held back")]
    assert len(held_back) == 1
