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

from airflow_jobs_provider.airflow_compat.event_batches import (
    BATCH_SECONDS,
    LONGEST_SECONDS,
    EventBatches,
    event_batches,
)
from airflow_jobs_provider.airflow_compat.lines import airflow_line
from tests.fakes.fake_service import FAULTS, FakeService, Plan, Seen
from tests.helpers.launch_trigger import mapped_dag, start, succeeded, triggerer_of
from tests.helpers.triggerer import Attempt, Triggerer, values_of
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
        (True, 30.0, LONGEST_SECONDS),
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
    assert fired == pytest.approx([1.0, 1.0, 1.0, 2.2, 2.2], abs=0.001)


def test_each_event_of_a_stream_of_ended_tasks_waits_for_a_second_at_most() -> None:
    """Some task is being ended all the time; each event is fired after the end of its own task."""
    loop = VirtualTimeLoop()

    async def scenario() -> list[float]:
        batches = EventBatches()

        async def end(number: int) -> float:
            await asyncio.sleep(0.07 * number)
            with batches.ending_task():
                await asyncio.sleep(number % 7)
            ended = loop.time()
            await batches.wait(ends_task=True)
            return loop.time() - ended

        return await asyncio.gather(*map(end, range(200)))

    late = run_in_virtual_time(scenario(), loop)
    assert max(late) <= LONGEST_SECONDS + 0.001
    assert max(late[:-20]) > LONGEST_SECONDS - BATCH_SECONDS


def test_an_event_does_not_wait_longer_than_the_event_loop_is_blocked() -> None:
    """A second is over meanwhile: the event is fired next."""

    async def scenario() -> float:
        batches = EventBatches()
        with batches.ending_task():
            event = asyncio.create_task(batches.wait(ends_task=True))
            await asyncio.sleep(0)
            time.sleep(LONGEST_SECONDS + 0.2)  # noqa: ASYNC251 - what blocks it
            unblocked = time.monotonic()
            await event
        return time.monotonic() - unblocked

    assert asyncio.run(scenario()) < BATCH_SECONDS + 0.1


def test_the_events_of_another_event_loop_are_not_waited_for() -> None:
    """Its loop runs in another thread."""
    other_is_ending, this_one_is_fired = threading.Event(), threading.Event()

    async def end() -> None:
        with event_batches().ending_task():
            other_is_ending.set()
            await asyncio.to_thread(this_one_is_fired.wait, 30)

    async def fire() -> float:
        began = time.monotonic()
        await event_batches().wait(ends_task=True)
        return time.monotonic() - began

    other = threading.Thread(target=lambda: asyncio.run(end()))
    other.start()
    try:
        assert other_is_ending.wait(30)
        assert asyncio.run(fire()) < LONGEST_SECONDS / 2
    finally:
        this_one_is_fired.set()
        other.join()


def event_that_waits(triggerer: Triggerer, then: Any) -> Any:
    """Let the event of a task wait for that of another one, and do something meanwhile.

    :param then: a coroutine function of the trigger, and the task that awaits its event.
    """

    async def follow(trigger: Any) -> Any:
        with event_batches().ending_task():
            event = asyncio.ensure_future(triggerer.first_event(trigger))
            async with asyncio.timeout(30):
                while "SetXCom return_value handled" not in triggerer.moments:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            assert not event.done()
            return await then(trigger, event)

    return triggerer.run(follow, Attempt())


@pytest.mark.parametrize("calls_on_kill", [True, False])
def test_a_user_ends_a_task_whose_event_waits_for_others(
    calls_on_kill: bool, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has ended. It is not canceled, although the service does not answer any more."""
    monkeypatch.setattr(airflow_line(), "calls_on_kill", calls_on_kill)
    service.plan = Plan(looks=0)
    triggerer = start(service, monkeypatch)
    triggerer.state = "failed"

    async def cancel(trigger: Any, event: Any) -> int:
        service.trouble("runs/get", FAULTS["503"], 9)
        asked = service.requests
        event.cancel()
        await asyncio.wait({event})
        assert event.cancelled()
        if calls_on_kill:
            await trigger.on_kill()
        return service.requests - asked

    assert event_that_waits(triggerer, cancel) == 0


def test_a_triggerer_stops_while_an_event_waits_for_others(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next triggerer finds the same run, and ends the task with the same output."""
    service.plan = Plan(looks=0)
    triggerer = start(service, monkeypatch)

    async def stop(_trigger: Any, event: Any) -> None:
        event.cancel()
        await asyncio.wait({event})

    event_that_waits(triggerer, stop)
    assert succeeded(triggerer.start(Attempt()))
    (run,) = service.runs.values()
    assert (run.launches, run.cancels) == (2, 0)
    assert values_of(triggerer)["return_value"] == f"output of {run.run_id}"
