"""When the poller reads a run, in virtual time; over HTTP: test_poller.py."""

from __future__ import annotations

import asyncio
import logging
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobs_provider.api.errors import RateLimitError, ServerError
from airflow_jobs_provider.api.workflows.follow import follow_run
from airflow_jobs_provider.api.workflows.progress import RunProgress
from airflow_jobs_provider.triggers.polling import poller as poller_module
from airflow_jobs_provider.triggers.polling import rate_limiter
from tests.helpers.poller_bench import ENDED, RUNNING, PollerBench, RunBench


def test_a_run_is_read_once_in_each_period(run_bench: RunBench) -> None:
    """The first read comes up to a fifth of the period early, so that runs are spread."""

    async def scenario(bench: PollerBench) -> None:
        bench.ends[7] = 25
        assert await bench.wait(bench.poller(), 7, 10) == 28

    assert run_bench(scenario).asked == [(8, 7), (18, 7), (28, 7)]


def test_the_first_read_is_at_a_random_time(
    run_bench: RunBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 80 % to 100 % of the period."""
    asked = []

    def longest(least: float, most: float) -> float:
        asked.append((least, most))
        return most

    async def scenario(bench: PollerBench) -> None:
        monkeypatch.setattr(poller_module, "random", SimpleNamespace(uniform=longest))
        assert await bench.wait(bench.poller(), 7, 10, known=None) == 10

    run_bench(scenario)
    assert asked == [(0.8, 1.0)]


def test_a_further_wait_of_a_caller_takes_the_whole_period(run_bench: RunBench) -> None:
    """It has read the run before."""

    async def scenario(bench: PollerBench) -> None:
        assert await bench.wait(bench.poller(), 7, 10, known=None, first=False) == 10

    run_bench(scenario)


def test_a_report_comes_with_the_first_read_after_its_time(run_bench: RunBench) -> None:
    """Also where the run has not changed; without one nothing comes."""

    async def scenario(bench: PollerBench) -> None:
        poller = bench.poller()
        assert await bench.wait(poller, 7, 10, report_after=15) == 18
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(500):
                await bench.wait(poller, 7, 10)

    run_bench(scenario)


def test_the_tasks_of_a_long_run_are_read_for_the_log(
    run_bench: RunBench, caplog: pytest.LogCaptureFixture
) -> None:
    """One request more in ten minutes: what the poller reads for all runs lists no tasks."""
    caplog.set_level("INFO")
    optional: list[float] = []

    async def scenario(bench: PollerBench) -> None:
        bench.ends[7] = 1_900
        send = bench.send

        async def answer(call: Any, **options: Any) -> Any:
            run = await send(call, **options)
            if not call.is_optional:
                return {**run, "format": "MULTI_TASK", "tasks": None}
            optional.append(bench.now())
            states = {"a": ENDED, "b": RUNNING}
            tasks = [{"task_key": key, "state": state} for key, state in states.items()]
            return {**run, "tasks": tasks}

        bench.send = answer  # type: ignore[method-assign]
        progress = RunProgress(7, logging.getLogger("task"), clock=bench.loop.time)
        steps = follow_run(7, polling_period=lambda: 10.0, progress=progress, follow_attempts=False)
        ended = await bench.poller().run_workflow(steps, period=10)
        assert ended.run["state"] == ENDED

    run_bench(scenario)
    assert len(optional) == 3
    assert all(600 <= later - earlier < 625 for earlier, later in pairwise([0, *optional]))
    assert caplog.messages.count("Run 7: 1 of 2 tasks ended (50 %): succeeded: a; running: b") == 1


def test_a_new_wait_that_is_due_earlier_is_read_in_time(run_bench: RunBench) -> None:
    """The poller sleeps until another run is due, and is woken."""

    async def scenario(bench: PollerBench) -> None:
        poller = bench.poller()
        slow = asyncio.create_task(bench.wait(poller, 7, 100))
        await asyncio.sleep(1)
        bench.ends[8] = 0
        assert await bench.wait(poller, 8, 10) == 9
        bench.ends[7] = 80
        assert await slow == 80

    assert run_bench(scenario).asked == [(9, 8), (80, 7)]


def test_a_poller_does_nothing_until_the_next_run_is_due(run_bench: RunBench) -> None:
    """Also after a new wait has woken it."""

    async def scenario(bench: PollerBench) -> None:
        poller = bench.poller()
        slow = asyncio.create_task(bench.wait(poller, 7, 1000, report_after=0))
        await asyncio.sleep(1)
        bench.ends[8] = 0
        assert await bench.wait(poller, 8, 100) == 81
        assert await slow == 800

    bench = run_bench(scenario)
    assert bench.asked == [(81, 8), (800, 7)]
    assert bench.loop.rounds < 100


def test_a_new_wait_delays_no_run_that_is_due(run_bench: RunBench) -> None:
    """Many may be added at once, so the poller waits a moment for further ones, but no longer."""

    async def scenario(bench: PollerBench) -> None:
        poller = bench.poller()
        bench.ends = {7: 0, 8: 0}
        waits = [asyncio.create_task(bench.wait(poller, 7, 100))]
        await asyncio.sleep(79.99)
        waits.append(asyncio.create_task(bench.wait(poller, 8, 0.02)))
        assert await waits[0] == pytest.approx(80, abs=0.005)
        assert await waits[1] == pytest.approx(80.006, abs=0.005)

    run_bench(scenario)


def test_waits_that_are_added_later_are_read_when_they_are_due(run_bench: RunBench) -> None:
    """Each by its own period."""

    async def scenario(bench: PollerBench) -> None:
        poller = bench.poller()
        bench.ends = {7: 0, 8: 0, 9: 0}
        times = []
        for run_id, period in ((7, 10), (8, 1), (9, 0.1)):
            times.append(asyncio.create_task(bench.wait(poller, run_id, period)))
            await asyncio.sleep(0.2)
        assert await asyncio.gather(*times) == pytest.approx([8, 1, 0.48], abs=0.06)

    run_bench(scenario)


def test_a_canceled_wait_is_not_read_for(run_bench: RunBench) -> None:
    """Neither by the poller nor as a run that cannot be read."""

    async def scenario(bench: PollerBench) -> None:
        wait = asyncio.create_task(bench.wait(bench.poller(), 7, 10))
        await asyncio.sleep(9)
        wait.cancel()
        await asyncio.sleep(100)

    assert run_bench(scenario).asked == [(8, 7)]


def test_a_run_that_could_not_be_read_is_read_at_once_for_a_later_wait(run_bench: RunBench) -> None:
    """The pause before its next try ends with its last wait."""

    async def scenario(bench: PollerBench) -> None:
        poller = bench.poller()
        bench.errors = {7: ServerError(status=503)}
        other = asyncio.create_task(bench.wait(poller, 8, 10))
        wait = asyncio.create_task(bench.wait(poller, 7, 5))
        await asyncio.sleep(6)
        wait.cancel()
        await asyncio.sleep(0)
        bench.errors = {}
        assert await bench.wait(poller, 7, 5, known=None) == pytest.approx(10, abs=0.06)
        other.cancel()

    assert run_bench(scenario).asked[:2] == [(4, 7), (4, 8)]


@pytest.mark.parametrize(
    ("retry_after", "spacing", "lists"),
    [(300, 0.8, 1), pytest.param(12, 2.7, 68, marks=pytest.mark.exhaustive)],
)
def test_how_late_events_are_while_lists_are_paused(
    run_bench: RunBench,
    monkeypatch: pytest.MonkeyPatch,
    retry_after: float,
    spacing: float,
    lists: int,
) -> None:
    """At most ten seconds beyond the period, and a tenth of a second for each run.

    However often the lists are refused: they do not slow down the reads of runs each time.
    """
    late: list[float] = []

    async def scenario(bench: PollerBench) -> None:
        monkeypatch.setattr(rate_limiter, "REQUESTS_PER_SECOND", 20.0)
        # The list of runs; a run's read has the run's id here.
        bench.errors[0] = RateLimitError(status=429, retry_after=retry_after)
        run_ids = list(range(1, 301))
        bench.ends = {run_id: run_id * spacing for run_id in run_ids}
        poller = bench.poller()

        async def wait(run_id: int) -> None:
            late.append(await bench.wait(poller, run_id, 10) - bench.ends[run_id])

        await asyncio.gather(*(wait(run_id) for run_id in run_ids))

    bench = run_bench(scenario)
    assert max(late) <= 10 + 10 + 30
    assert 1 <= len([what for _, what in bench.asked if what == "runs/list"]) <= lists
    assert len(bench.asked) <= 20 * max(second for second, _ in bench.asked)


def test_a_new_wait_that_is_due_earlier_while_lists_are_paused(run_bench: RunBench) -> None:
    """It does not wait until another run is due."""

    async def scenario(bench: PollerBench) -> None:
        # The list of runs; a run's read has the run's id here.
        bench.errors[0] = RateLimitError(status=429, retry_after=300)
        poller = bench.poller()
        slow = [asyncio.create_task(bench.wait(poller, n, 1000)) for n in range(1, 21)]
        await asyncio.sleep(815)
        assert len([what for _, what in bench.asked if what == "runs/list"]) == 1
        bench.ends[99] = 0
        assert await bench.wait(poller, 99, 10) <= 815 + 10
        for task in slow:
            task.cancel()

    run_bench(scenario)
