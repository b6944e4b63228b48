"""How long a poller lives: when it closes, and what an error or a cancel makes of it."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

import pytest

from airflow_jobs_provider.api.endpoints import get_run, get_run_output, list_runs
from airflow_jobs_provider.api.workflows.base import Wait
from airflow_jobs_provider.triggers.event_arguments import RunEventTriggerArguments
from airflow_jobs_provider.triggers.polling import (
    ended_runs,
)
from airflow_jobs_provider.triggers.polling import poller as poller_module
from airflow_jobs_provider.triggers.polling.ended_runs import Watch, WatchBatch
from airflow_jobs_provider.triggers.polling.watch_position import WatchPosition
from airflow_jobs_provider.triggers.run_selection import RunSelection
from tests.fakes.many_runs import ManyRuns
from tests.helpers.poller_bench import PollerBench, RunBench
from tests.helpers.polling import (
    poller,
    wait_for_end,
    wait_until,
)


def test_an_unused_poller_closes(run_bench: RunBench) -> None:
    """Half a minute after the last wait; before it, a new wait keeps it open."""
    assert poller_module.LINGER_SECONDS == 30

    async def scenario(bench: PollerBench) -> None:
        poller = bench.poller()
        bench.ends[7] = 0
        for _ in range(2):
            await bench.wait(poller, 7, 10)
            await asyncio.sleep(29)
        assert bench.now() == 74
        assert bench.events == []
        await asyncio.sleep(29)

    bench = run_bench(scenario)
    assert bench.asked == [(8, 7), (45, 7)]
    # For the registry, before the client is closed: a new wait gets another poller.
    assert bench.events == [("on_close", 75), ("client closed", 75), ("on_close", 75)]


def test_a_wait_after_the_last_one_has_ended_is_read_when_it_is_due(run_bench: RunBench) -> None:
    """The poller does not sleep on until it would close."""

    async def scenario(bench: PollerBench) -> None:
        poller = bench.poller()
        bench.ends[7] = 0
        assert await bench.wait(poller, 7, 10) == 8
        await asyncio.sleep(1)
        assert await bench.wait(poller, 7, 10) == pytest.approx(17, abs=0.06)

    run_bench(scenario)


def test_a_wait_that_comes_as_the_poller_would_close_keeps_it_open(run_bench: RunBench) -> None:
    """In the same moment."""

    async def scenario(bench: PollerBench) -> None:
        poller = bench.poller()
        bench.ends[7] = 0
        await asyncio.sleep(30)
        assert await bench.wait(poller, 7, 10) == 38

    run_bench(scenario)


def test_waits_that_are_canceled_as_they_are_added_leave_nothing_to_do(run_bench: RunBench) -> None:
    """The poller closes as if they had not been there."""

    async def scenario(bench: PollerBench) -> None:
        poller = bench.poller()
        waits = []
        for run_id, period in ((7, 100), (8, 10), (9, 1)):
            waits.append(asyncio.create_task(bench.wait(poller, run_id, period)))
            await asyncio.sleep(0.02)
        for wait in waits:
            wait.cancel()
        await asyncio.sleep(31)

    bench = run_bench(scenario)
    assert bench.asked == []
    assert bench.events[0][0] == "on_close"


def test_a_poller_without_any_wait_closes(run_bench: RunBench) -> None:
    """Nothing is read."""

    async def scenario(bench: PollerBench) -> None:
        bench.poller()
        await asyncio.sleep(31)

    bench = run_bench(scenario)
    assert (bench.asked, bench.events[0]) == ([], ("on_close", 30))


def test_a_poller_in_use_stays_open(run_bench: RunBench) -> None:
    """A workflow between two reads, and a call; it closes half a minute after them, or later."""

    async def scenario(bench: PollerBench) -> None:
        poller = bench.poller()
        bench.ends[7] = 0

        def steps() -> Any:
            yield get_run(7)
            yield Wait(100)
            yield get_run_output(7)

        await poller.run_workflow(steps(), period=10)
        assert bench.now() == 108
        assert bench.events == []
        await asyncio.sleep(60)
        assert [name for name, _ in bench.events] == ["on_close", "client closed", "on_close"]

    assert run_bench(scenario).asked == [(8, 7), (108, "runs/get-output")]


def test_an_error_at_the_start_is_raised_in_each_wait_and_call(run_bench: RunBench) -> None:
    """Those that wait then and those that come later; the registry is told."""

    async def scenario(bench: PollerBench) -> None:
        bench.error = ValueError("no such connection")
        poller = bench.poller()
        waits = bench.wait(poller, 7, 10), bench.wait(poller, 8, 10)
        call = poller.send(get_run(7))
        results: list[Any] = [*await asyncio.gather(*waits, call, return_exceptions=True)]
        assert results == [bench.error] * 3
        assert bench.now() == 0
        assert bench.events[0][0] == "on_close"
        with pytest.raises(ValueError, match="no such connection"):
            await bench.wait(poller, 7, 10)
        with pytest.raises(ValueError, match="no such connection"):
            await poller.send(get_run(7))

    assert run_bench(scenario).asked == []


def test_a_wait_that_gets_an_error_can_take_another_poller(run_bench: RunBench) -> None:
    """The registry has been told by then."""
    told: list[int] = []

    async def scenario(bench: PollerBench) -> None:
        bench.error = ValueError("no such connection")
        try:
            await bench.wait(bench.poller(), 7, 10)
        except ValueError:
            told.append(len(bench.events))

    run_bench(scenario)
    assert told == [1]


def test_an_error_that_no_call_asks_for_is_no_error_of_the_loop(run_bench: RunBench) -> None:
    """The waits have raised it."""
    problems: list[Any] = []

    async def scenario(bench: PollerBench) -> None:
        bench.loop.set_exception_handler(lambda _loop, problem: problems.append(problem))
        bench.error = ValueError("no such connection")
        with pytest.raises(ValueError, match="no such"):
            await bench.wait(bench.poller(), 7, 10)
        await asyncio.sleep(1)
        bench.error = None

    run_bench(scenario)
    gc.collect()
    assert problems == []


def test_a_poller_that_ends_cancels_its_reads(run_bench: RunBench) -> None:
    """Those that take long go on while others are polled."""

    async def scenario(bench: PollerBench) -> None:
        poller = bench.poller()
        bench.hanging, bench.errors = {7}, {8: ValueError("a fault")}
        waits = [bench.wait(poller, 7, 5), bench.wait(poller, 8, 20)]
        await asyncio.gather(*waits, return_exceptions=True)
        assert bench.now() == pytest.approx(16, abs=5)
        await asyncio.sleep(0.1)
        assert [name for name, _ in bench.events].count("read canceled") == 1

    run_bench(scenario)


def test_a_poller_that_is_canceled_is_closed(run_bench: RunBench) -> None:
    """As a triggerer does when it ends."""

    async def scenario(bench: PollerBench) -> None:
        bench.poller()
        await asyncio.sleep(1)
        (task,) = [task for task in asyncio.all_tasks() if "RunPoller" in repr(task)]
        task.cancel()
        await asyncio.sleep(1)
        assert bench.events == [("client closed", 1), ("on_close", 1)]

    run_bench(scenario)


def test_an_error_in_a_poll_is_raised_in_all_waits(run_bench: RunBench) -> None:
    """The client is closed; a later wait raises the error, too."""

    async def scenario(bench: PollerBench) -> None:
        poller = bench.poller()
        wait = asyncio.create_task(bench.wait(poller, 7, 10))
        await asyncio.sleep(1)
        bench.errors = {7: ValueError("a fault")}
        with pytest.raises(ValueError, match="a fault"):
            await wait
        assert [name for name, _ in bench.events][:2] == ["client closed", "on_close"]
        with pytest.raises(ValueError, match="a fault"):
            await bench.wait(poller, 8, 10)

    run_bench(scenario)


async def test_a_poller_stays_open_while_a_workflow_runs(
    service: ManyRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two reads, as before a job's next attempt, it has no waiter and is still needed."""
    monkeypatch.setattr(poller_module, "LINGER_SECONDS", 0.02)
    (run_id,) = service.add(1)

    def steps() -> Any:
        yield get_run(run_id)
        yield Wait(0.2)
        yield list_runs(limit=1)
        service.end(run_id)
        return (yield get_run(run_id))

    async with asyncio.timeout(10):
        run = await poller().run_workflow(steps(), period=0.01)
    assert run["run_id"] == run_id


async def test_a_call_that_begins_as_the_poller_closes(
    service: ManyRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task was created before the poller closed, and runs after that."""
    monkeypatch.setattr(poller_module, "LINGER_SECONDS", 0.01)
    (run_id,) = service.add(1)
    one, calls = poller(), list[asyncio.Task[Any]]()
    remove = one._on_close

    def begin_a_call() -> None:
        remove()
        if not calls:
            calls.append(asyncio.create_task(one.send(get_run(run_id))))

    one._on_close = begin_a_call
    async with asyncio.timeout(10):
        await wait_until(lambda: bool(calls))
        assert (await calls[0])["run_id"] == run_id
        await wait_until(one._task.done)
    assert one._task.exception() is None


async def test_a_watch_that_begins_as_the_poller_closes(
    service: ManyRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first step comes in the turn of the event loop in which the poller closes."""
    monkeypatch.setattr(poller_module, "LINGER_SECONDS", 0.01)
    monkeypatch.setattr(ended_runs, "COLLECT_SECONDS", 0.01)
    (run_id,) = service.add(1)
    service.end(run_id)
    selection = RunSelection.from_arguments(RunEventTriggerArguments(all_runs=True))
    watch = Watch(selection, 0.01, WatchPosition.at_first_start(time.time(), 3600))
    one, waits = poller(), list[asyncio.Future[Any]]()
    following, remove = one.ended_runs.follow(watch), one._on_close

    def begin_a_watch() -> None:
        if not waits:
            waits.append(following.__anext__().send(None))
        remove()

    one._on_close = begin_a_watch
    async with asyncio.timeout(10):
        await wait_until(lambda: any(wait.done() for wait in waits))
    batch = watch.queue.get_nowait()
    assert isinstance(batch, WatchBatch)
    assert [ended.run["run_id"] for ended in batch.runs] == [run_id]
    task = one.ended_runs._task
    assert task is not None
    task.cancel()
    async with asyncio.timeout(10):
        await wait_until(one._task.done)
    assert one._task.exception() is None


async def test_a_failed_poller_fails_later_waits(service: ManyRuns) -> None:
    """They raise its error at once, as the waits did that it had then."""
    one = poller(databricks_conn_id="not_there")
    async with asyncio.timeout(10):
        for _ in range(2):
            with pytest.raises(Exception, match="not_there"):
                await wait_for_end(one, 7)
