"""The events of tasks that end together are fired together, since each may start a process."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

if not hasattr(BaseTrigger, "render_template_fields"):
    pytest.skip("a worker launches every run", allow_module_level=True)

from airflow_jobs_provider.airflow_compat.event_batches import LONGEST_SECONDS, EventBatches
from tests.fakes.fake_service import FakeService, Plan, Seen
from tests.helpers.launch_trigger import mapped_dag, succeeded, triggerer_of
from tests.helpers.triggerer import Attempt
from tests.helpers.virtual_time import VirtualTimeLoop, run_in_virtual_time

INSTANCES = 3


def test_the_event_of_an_ended_task_waits_for_those_that_are_being_ended(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others' outputs are there half a second before the last one."""
    monkeypatch.setenv("AIRFLOW__DATABRICKS_JOBS__LAUNCHES_PER_SECOND", "30")
    service.plan = Plan(seconds=1, looks=0)
    # Not all ends may be found by one poll.
    all_ended = threading.Barrier(INSTANCES)

    def wait_for_all(seen: Seen, moment: str) -> bool:
        if (seen.endpoint, moment) == ("runs/get-output", "received") and all_ended.wait(30) == 0:
            time.sleep(0.5)
        return False

    service.hooks.append(wait_for_all)
    triggerer = triggerer_of(mapped_dag(INSTANCES), service, monkeypatch)

    async def follow(trigger: Any) -> tuple[Any, float]:
        event = await triggerer.first_event(trigger)
        return event, asyncio.get_running_loop().time()

    async def follow_all(first: Any) -> list[tuple[Any, float]]:
        others = [triggerer.trigger(Attempt(map_index=n)) for n in range(1, INSTANCES)]
        return await asyncio.gather(*map(follow, [first, *others]))

    events, moments = zip(*triggerer.run(follow_all, Attempt(map_index=0)), strict=True)
    assert all(map(succeeded, events))
    assert max(moments) - min(moments) < 0.3


@pytest.mark.parametrize(
    ("ends_task", "others_seconds", "fired_at"),
    [
        (True, 0.35, 0.4),
        (True, 30.0, LONGEST_SECONDS + 0.1),
        (True, 0.0, 0.1),
        # A worker ends the task: its process takes no other one's.
        (False, 0.35, 0.1),
    ],
)
def test_it_waits_for_a_second_at_most(
    ends_task: bool, others_seconds: float, fired_at: float
) -> None:
    """And for nothing if no other task is being ended."""
    loop = VirtualTimeLoop()

    async def scenario() -> float:
        batches = EventBatches()

        async def end() -> None:
            with batches.ending_task():
                await asyncio.sleep(others_seconds)

        other = asyncio.create_task(end())
        await asyncio.sleep(0.01)
        await batches.wait(ends_task=ends_task)
        fired = loop.time() - 1000
        other.cancel()
        return fired

    assert run_in_virtual_time(scenario(), loop) == pytest.approx(fired_at, abs=0.001)


def test_all_that_wait_are_fired_together_while_others_are_being_ended() -> None:
    """One is fired a second after the first of them has ended, and with it all others."""
    loop = VirtualTimeLoop()

    async def scenario() -> list[float]:
        batches = EventBatches()

        async def fire(ended_at: float) -> float:
            await asyncio.sleep(ended_at)
            await batches.wait(ends_task=True)
            return loop.time() - 1000

        with batches.ending_task():
            return await asyncio.gather(*map(fire, (0.05, 0.35, 0.65, 1.25, 1.95)))

    fired = run_in_virtual_time(scenario(), loop)
    assert fired == pytest.approx([1.1, 1.1, 1.1, 2.3, 2.3], abs=0.001)
