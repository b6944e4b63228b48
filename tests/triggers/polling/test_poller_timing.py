"""When the poller reads a run, in a time that the tests let pass; over HTTP: test_poller.py."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobs_provider.api.endpoints import get_run, get_run_output, run_now
from airflow_jobs_provider.api.errors import ConnectError, RateLimitError, ServerError
from airflow_jobs_provider.api.retry import RetryPolicy
from airflow_jobs_provider.api.workflows.base import Wait
from airflow_jobs_provider.api.workflows.events import RunIdentified
from airflow_jobs_provider.api.workflows.follow import follow_run
from airflow_jobs_provider.api.workflows.progress import RunProgress
from airflow_jobs_provider.triggers.polling import (
    launch_limiter,
    list_pages,
    outages,
    publisher,
    rate_limiter,
    reader,
)
from airflow_jobs_provider.triggers.polling import poller as poller_module
from airflow_jobs_provider.triggers.polling.poller import RunPoller
from tests.helpers.virtual_time import VirtualTimeLoop, run_in_virtual_time

RUNNING: Any = {"life_cycle_state": "RUNNING"}
ENDED: Any = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}


class Bench:
    """A poller with a service in memory.

    :ivar ends: the second in which each run ends; 1000 if it is not here.
    :ivar errors: are raised in the reads of these runs; the reads of ``hanging`` ones do not end.
    :ivar asked: the second of each request, with the run's id or the path.
    :ivar events: the second in which the client and the poller were closed, and reads canceled.
    """

    host = "w"
    last_response_bytes = 1_000
    metrics = None

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self.loop, self.began = loop, loop.time()
        self.ends: dict[int, float] = {}
        self.errors: dict[int, Exception] = {}
        self.hanging: set[int] = set()
        self.asked: list[tuple[float, Any]] = []
        self.retries: list[RetryPolicy | None] = []
        self.events: list[tuple[str, float]] = []
        self.error: Exception | None = None
        self.limiters: dict[str, Any] = {}

    def now(self) -> float:
        """Return the seconds since the test began."""
        return round(self.loop.time() - self.began, 6)

    def poller(self) -> RunPoller:
        """Start the poller; the event loop must run."""
        hook: Any = self
        return RunPoller(hook, self.limiters, lambda: self.events.append(("on_close", self.now())))

    @asynccontextmanager
    async def async_client(self) -> AsyncIterator[Any]:
        """Open the client, as the hook does."""
        if self.error is not None:
            raise self.error
        try:
            yield self
        finally:
            self.events.append(("client closed", self.now()))

    def retry_policy(self) -> RetryPolicy:
        """Return the hook's policy."""
        return RetryPolicy(random=lambda: 0.0, clock=self.loop.time)

    def version_of(self, _call: Any) -> str:
        """Return the version of the API, as a client does."""
        return "2.0"

    async def send(self, call: Any, *, retries: Any, rate_limit: Any, **_others: Any) -> Any:
        """Answer a call within the rate limit, as a client does."""
        self.retries.append(retries)
        async with rate_limit():
            run_id = call.parameters.get("run_id", 0)
            is_plain = call.path == "runs/get" and len(call.parameters) == 1
            self.asked.append((self.now(), run_id if is_plain else call.path))
            if run_id in self.hanging:
                try:
                    await asyncio.Event().wait()
                finally:
                    self.events.append(("read canceled", self.now()))
            if run_id in self.errors:
                raise self.errors[run_id]
            return self.run(run_id)

    def run(self, run_id: int) -> Any:
        """Return a run as it is now."""
        ended = self.now() >= self.ends.get(run_id, 1000)
        return {"run_id": run_id, "state": ENDED if ended else RUNNING, "tasks": [run_id]}

    async def wait(self, poller: RunPoller, run_id: int, period: float, **options: Any) -> float:
        """Wait for a change of a run that is RUNNING; return when it came."""
        options = {"known": {"state": RUNNING}, **options}
        run = await poller.wait_for_change(run_id, period=period, **options)
        assert run["run_id"] == run_id
        return self.now()


Scenario = Callable[[Bench], Coroutine[Any, Any, None]]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scenario], Bench]:
    """Plays a scenario in a time of its own; a first wait is the shortest."""

    def start(scenario: Scenario) -> Bench:
        loop = VirtualTimeLoop()
        timed = (
            launch_limiter,
            list_pages,
            outages,
            poller_module,
            publisher,
            rate_limiter,
            reader,
        )
        for module in timed:
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=loop.time))
        shortest = SimpleNamespace(uniform=lambda least, _most: least)
        monkeypatch.setattr(poller_module, "random", shortest)
        monkeypatch.setattr(rate_limiter, "REQUESTS_PER_SECOND", 1e9)
        bench = Bench(loop)
        run_in_virtual_time(scenario(bench), loop)
        return bench

    return start


Play = Callable[[Scenario], Bench]


def test_a_run_is_read_once_in_each_period(play: Play) -> None:
    """The first read comes up to a fifth of the period early, so that runs are spread."""

    async def scenario(bench: Bench) -> None:
        bench.ends[7] = 25
        assert await bench.wait(bench.poller(), 7, 10) == 28

    assert play(scenario).asked == [(8, 7), (18, 7), (28, 7)]


def test_the_first_read_is_at_a_random_time(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """From 80 % to 100 % of the period."""
    asked = []

    def longest(least: float, most: float) -> float:
        asked.append((least, most))
        return most

    async def scenario(bench: Bench) -> None:
        monkeypatch.setattr(poller_module, "random", SimpleNamespace(uniform=longest))
        assert await bench.wait(bench.poller(), 7, 10, known=None) == 10

    play(scenario)
    assert asked == [(0.8, 1.0)]


def test_a_further_wait_of_a_caller_takes_the_whole_period(play: Play) -> None:
    """It has read the run before."""

    async def scenario(bench: Bench) -> None:
        assert await bench.wait(bench.poller(), 7, 10, known=None, first=False) == 10

    play(scenario)


def test_a_report_comes_with_the_first_read_after_its_time(play: Play) -> None:
    """Also where the run has not changed; without one nothing comes."""

    async def scenario(bench: Bench) -> None:
        poller = bench.poller()
        assert await bench.wait(poller, 7, 10, report_after=15) == 18
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(500):
                await bench.wait(poller, 7, 10)

    play(scenario)


def test_the_tasks_of_a_long_run_are_read_for_the_log(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    """One request more in ten minutes: what the poller reads for all runs lists no tasks."""
    caplog.set_level("INFO")
    optional: list[float] = []

    async def scenario(bench: Bench) -> None:
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

    play(scenario)
    assert len(optional) == 3
    assert all(600 <= later - earlier < 625 for earlier, later in pairwise([0, *optional]))
    assert caplog.messages.count("Run 7: 1 of 2 tasks ended (50 %): succeeded: a; running: b") == 1


def test_a_new_wait_that_is_due_earlier_is_read_in_time(play: Play) -> None:
    """The poller sleeps until another run is due, and is woken."""

    async def scenario(bench: Bench) -> None:
        poller = bench.poller()
        slow = asyncio.create_task(bench.wait(poller, 7, 100))
        await asyncio.sleep(1)
        bench.ends[8] = 0
        assert await bench.wait(poller, 8, 10) == 9
        bench.ends[7] = 80
        assert await slow == 80

    assert play(scenario).asked == [(9, 8), (80, 7)]


def test_a_poller_does_nothing_until_the_next_run_is_due(play: Play) -> None:
    """Also after a new wait has woken it."""

    async def scenario(bench: Bench) -> None:
        poller = bench.poller()
        slow = asyncio.create_task(bench.wait(poller, 7, 1000, report_after=0))
        await asyncio.sleep(1)
        bench.ends[8] = 0
        assert await bench.wait(poller, 8, 100) == 81
        assert await slow == 800

    bench = play(scenario)
    assert bench.asked == [(81, 8), (800, 7)]
    assert bench.loop.rounds < 100


def test_a_new_wait_delays_no_run_that_is_due(play: Play) -> None:
    """Many may be added at once, so the poller waits a moment for further ones, but no longer."""

    async def scenario(bench: Bench) -> None:
        poller = bench.poller()
        bench.ends = {7: 0, 8: 0}
        waits = [asyncio.create_task(bench.wait(poller, 7, 100))]
        await asyncio.sleep(79.99)
        waits.append(asyncio.create_task(bench.wait(poller, 8, 0.02)))
        assert await waits[0] == pytest.approx(80, abs=0.005)
        assert await waits[1] == pytest.approx(80.006, abs=0.005)

    play(scenario)


def test_waits_that_are_added_later_are_read_when_they_are_due(play: Play) -> None:
    """Each by its own period."""

    async def scenario(bench: Bench) -> None:
        poller = bench.poller()
        bench.ends = {7: 0, 8: 0, 9: 0}
        times = []
        for run_id, period in ((7, 10), (8, 1), (9, 0.1)):
            times.append(asyncio.create_task(bench.wait(poller, run_id, period)))
            await asyncio.sleep(0.2)
        assert await asyncio.gather(*times) == pytest.approx([8, 1, 0.48], abs=0.06)

    play(scenario)


def test_a_canceled_wait_is_not_read_for(play: Play) -> None:
    """Neither by the poller nor as a run that cannot be read."""

    async def scenario(bench: Bench) -> None:
        wait = asyncio.create_task(bench.wait(bench.poller(), 7, 10))
        await asyncio.sleep(9)
        wait.cancel()
        await asyncio.sleep(100)

    assert play(scenario).asked == [(8, 7)]


def test_a_run_that_could_not_be_read_is_read_at_once_for_a_later_wait(play: Play) -> None:
    """The pause before its next try ends with its last wait."""

    async def scenario(bench: Bench) -> None:
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

    assert play(scenario).asked[:2] == [(4, 7), (4, 8)]


def test_an_unused_poller_closes(play: Play) -> None:
    """Half a minute after the last wait; before it, a new wait keeps it open."""
    assert poller_module.LINGER_SECONDS == 30

    async def scenario(bench: Bench) -> None:
        poller = bench.poller()
        bench.ends[7] = 0
        for _ in range(2):
            await bench.wait(poller, 7, 10)
            await asyncio.sleep(29)
        assert bench.now() == 74
        assert bench.events == []
        await asyncio.sleep(29)

    bench = play(scenario)
    assert bench.asked == [(8, 7), (45, 7)]
    # For the registry, before the client is closed: a new wait gets another poller.
    assert bench.events == [("on_close", 75), ("client closed", 75), ("on_close", 75)]


def test_a_wait_after_the_last_one_has_ended_is_read_when_it_is_due(play: Play) -> None:
    """The poller does not sleep on until it would close."""

    async def scenario(bench: Bench) -> None:
        poller = bench.poller()
        bench.ends[7] = 0
        assert await bench.wait(poller, 7, 10) == 8
        await asyncio.sleep(1)
        assert await bench.wait(poller, 7, 10) == pytest.approx(17, abs=0.06)

    play(scenario)


def test_a_wait_that_comes_as_the_poller_would_close_keeps_it_open(play: Play) -> None:
    """In the same moment."""

    async def scenario(bench: Bench) -> None:
        poller = bench.poller()
        bench.ends[7] = 0
        await asyncio.sleep(30)
        assert await bench.wait(poller, 7, 10) == 38

    play(scenario)


def test_waits_that_are_canceled_as_they_are_added_leave_nothing_to_do(play: Play) -> None:
    """The poller closes as if they had not been there."""

    async def scenario(bench: Bench) -> None:
        poller = bench.poller()
        waits = []
        for run_id, period in ((7, 100), (8, 10), (9, 1)):
            waits.append(asyncio.create_task(bench.wait(poller, run_id, period)))
            await asyncio.sleep(0.02)
        for wait in waits:
            wait.cancel()
        await asyncio.sleep(31)

    bench = play(scenario)
    assert bench.asked == []
    assert bench.events[0][0] == "on_close"


def test_a_poller_without_any_wait_closes(play: Play) -> None:
    """Nothing is read."""

    async def scenario(bench: Bench) -> None:
        bench.poller()
        await asyncio.sleep(31)

    bench = play(scenario)
    assert (bench.asked, bench.events[0]) == ([], ("on_close", 30))


def test_a_poller_in_use_stays_open(play: Play) -> None:
    """A workflow between two reads, and a call; it closes half a minute after them, or later."""

    async def scenario(bench: Bench) -> None:
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

    assert play(scenario).asked == [(8, 7), (108, "runs/get-output")]


def test_an_error_at_the_start_is_raised_in_each_wait_and_call(play: Play) -> None:
    """Those that wait then and those that come later; the registry is told."""

    async def scenario(bench: Bench) -> None:
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

    assert play(scenario).asked == []


def test_a_wait_that_gets_an_error_can_take_another_poller(play: Play) -> None:
    """The registry has been told by then."""
    told: list[int] = []

    async def scenario(bench: Bench) -> None:
        bench.error = ValueError("no such connection")
        try:
            await bench.wait(bench.poller(), 7, 10)
        except ValueError:
            told.append(len(bench.events))

    play(scenario)
    assert told == [1]


def test_an_error_that_no_call_asks_for_is_no_error_of_the_loop(play: Play) -> None:
    """The waits have raised it."""
    problems: list[Any] = []

    async def scenario(bench: Bench) -> None:
        bench.loop.set_exception_handler(lambda _loop, problem: problems.append(problem))
        bench.error = ValueError("no such connection")
        with pytest.raises(ValueError, match="no such"):
            await bench.wait(bench.poller(), 7, 10)
        await asyncio.sleep(1)
        bench.error = None

    play(scenario)
    gc.collect()
    assert problems == []


def test_a_poller_that_ends_cancels_its_reads(play: Play) -> None:
    """Those that take long go on while others are polled."""

    async def scenario(bench: Bench) -> None:
        poller = bench.poller()
        bench.hanging, bench.errors = {7}, {8: ValueError("a fault")}
        waits = [bench.wait(poller, 7, 5), bench.wait(poller, 8, 20)]
        await asyncio.gather(*waits, return_exceptions=True)
        assert bench.now() == pytest.approx(16, abs=5)
        await asyncio.sleep(0.1)
        assert [name for name, _ in bench.events].count("read canceled") == 1

    play(scenario)


def test_a_poller_that_is_canceled_is_closed(play: Play) -> None:
    """As a triggerer does when it ends."""

    async def scenario(bench: Bench) -> None:
        bench.poller()
        await asyncio.sleep(1)
        (task,) = [task for task in asyncio.all_tasks() if "RunPoller" in repr(task)]
        task.cancel()
        await asyncio.sleep(1)
        assert bench.events == [("client closed", 1), ("on_close", 1)]

    play(scenario)


def test_an_error_in_a_poll_is_raised_in_all_waits(play: Play) -> None:
    """The client is closed; a later wait raises the error, too."""

    async def scenario(bench: Bench) -> None:
        poller = bench.poller()
        wait = asyncio.create_task(bench.wait(poller, 7, 10))
        await asyncio.sleep(1)
        bench.errors = {7: ValueError("a fault")}
        with pytest.raises(ValueError, match="a fault"):
            await wait
        assert [name for name, _ in bench.events][:2] == ["client closed", "on_close"]
        with pytest.raises(ValueError, match="a fault"):
            await bench.wait(poller, 8, 10)

    play(scenario)


def test_pollers_of_one_host_share_its_limits(play: Play) -> None:
    """Whichever comes first makes them."""

    async def scenario(bench: Bench) -> None:
        bench.poller()
        await asyncio.sleep(1)
        (limiters,) = bench.limiters.values()
        bench.poller()
        await asyncio.sleep(1)
        assert bench.limiters == {"w": limiters}

    play(scenario)


def test_launches_of_several_dags_take_turns(play: Play) -> None:
    """At five a second by default; other requests do not wait for them."""

    async def scenario(bench: Bench) -> None:
        poller = bench.poller()
        launches = [
            poller.send(run_now({"job_id": job_id}), dag_id=dag_id)
            for job_id, dag_id in [(1, "many")] * 9 + [(2, "few")]
        ]
        answers = asyncio.gather(*launches)
        await asyncio.sleep(0.5)
        await poller.send(get_run(7))
        await answers

    asked = play(scenario).asked
    assert [second for second, what in asked if what != 7] == [n / 5 for n in range(10)]
    assert (0.5, 7) in asked


def test_a_call_is_sent_at_once_with_the_wanted_retries(play: Play) -> None:
    """Without a deadline by default; else with the client's own policy, or a given one."""

    async def scenario(bench: Bench) -> None:
        poller, own = bench.poller(), RetryPolicy(max_attempts=3)
        call: Any = get_run_output(7)
        assert (await poller.send(call))["run_id"] == 7
        await poller.send(call, without_deadline=False)
        await poller.send(call, retries=own)
        await poller.send(call, retries=own, without_deadline=False)
        first, *others = bench.retries
        assert first is not None
        assert first.no_deadline
        assert others == [None, own, own]
        assert bench.now() == 0

    play(scenario)


def follow(*pauses: float) -> Any:
    """Read run 7 with these pauses between the reads; return the reads."""
    runs = [(yield get_run(7))]
    for pause in pauses:
        yield Wait(pause)
        runs.append((yield get_run(7)))
    return runs


def test_a_workflow_gets_a_run_when_it_has_changed(play: Play) -> None:
    """The first read is its own; a wait of the workflow is the period until the next change."""

    async def scenario(bench: Bench) -> None:
        bench.ends[7] = 25
        first, second = await bench.poller().run_workflow(follow(5), period=10)
        # The tasks are for the log.
        assert first == {"run_id": 7, "state": RUNNING, "tasks": [7]}
        assert second == {"run_id": 7, "state": ENDED, "tasks": [7]}
        assert bench.now() == 28

    assert [at for at, _ in play(scenario).asked] == [8, 13, 18, 23, 28]


def test_a_workflow_may_know_the_state_of_its_run(play: Play) -> None:
    """Then its first read returns with the first change."""

    async def scenario(bench: Bench) -> None:
        bench.ends[7] = 25
        steps = follow()
        runs = await bench.poller().run_workflow(steps, period=10, life_cycle_state="RUNNING")
        assert [run["state"] for run in runs] == [ENDED]
        assert bench.now() == 28

    play(scenario)


def test_a_workflow_can_get_every_read(play: Play) -> None:
    """Such as one that has a limit of its own for a queued run."""

    async def scenario(bench: Bench) -> None:
        runs = await bench.poller().run_workflow(follow(10, 10), period=10, every_read=True)
        assert [run["state"] for run in runs] == [RUNNING] * 3
        assert bench.now() == 28

    play(scenario)


def test_a_read_without_a_wait_before_it_is_a_first_one(play: Play) -> None:
    """Its period is that of the poller's caller, as at the beginning."""

    def steps() -> Any:
        yield get_run(7)
        yield get_run(7)

    async def scenario(bench: Bench) -> None:
        await bench.poller().run_workflow(steps(), period=10, every_read=True)

    assert play(scenario).asked == [(8, 7), (16, 7)]


def test_a_workflow_gets_its_run_every_ten_minutes(play: Play) -> None:
    """So that it can log that the run goes on."""

    async def scenario(bench: Bench) -> None:
        runs = await bench.poller().run_workflow(follow(10), period=10)
        assert [run["state"] for run in runs] == [RUNNING, RUNNING]
        assert bench.now() == 608

    play(scenario)


def test_a_workflow_that_goes_on_with_another_run(play: Play) -> None:
    """What is known of the first one says nothing about it."""

    def steps() -> Any:
        yield get_run(7)
        yield RunIdentified(8)
        yield Wait(10)
        return (yield get_run(8))

    async def scenario(bench: Bench) -> None:
        events: list[Any] = []
        run = await bench.poller().run_workflow(steps(), period=10, on_event=events.append)
        assert run["run_id"] == 8
        assert events == [RunIdentified(8)]
        assert bench.now() == 18

    assert play(scenario).asked == [(8, 7), (18, 8)]


def test_other_calls_of_a_workflow_are_sent_by_themselves(play: Play) -> None:
    """After its wait; a read with more than the run's id is one of them. Its events may be lost."""

    def steps() -> Any:
        yield RunIdentified(7)
        yield get_run_output(7)
        yield Wait(5)
        yield get_run(7, include_history=True)
        yield get_run_output(7)

    async def scenario(bench: Bench) -> None:
        await bench.poller().run_workflow(steps(), period=10)
        assert bench.now() == 5

    assert play(scenario).asked == [(0, "runs/get-output"), (5, "runs/get"), (5, "runs/get-output")]


def test_a_wait_counts_once_also_where_the_call_fails(play: Play) -> None:
    """The next call is sent without it."""

    def steps() -> Any:
        yield Wait(5)
        try:
            yield get_run_output(7)
        except ConnectError:
            return (yield get_run_output(8))

    async def scenario(bench: Bench) -> None:
        poller, send = bench.poller(), bench.send

        async def fail_once(call: Any, **how: Any) -> Any:
            bench.send = send  # type: ignore[method-assign]
            raise ConnectError("refused")

        bench.send = fail_once  # type: ignore[method-assign]
        run = await poller.run_workflow(steps(), period=10)
        assert (run["run_id"], bench.now()) == (8, 5)

    play(scenario)


@pytest.mark.parametrize(
    ("retry_after", "spacing", "lists"),
    [(300, 0.8, 1), pytest.param(12, 2.7, 68, marks=pytest.mark.exhaustive)],
)
def test_how_late_events_are_while_lists_are_paused(
    play: Play, monkeypatch: pytest.MonkeyPatch, retry_after: float, spacing: float, lists: int
) -> None:
    """At most ten seconds beyond the period, and a tenth of a second for each run.

    However often the lists are refused: they do not slow down the reads of runs each time.
    """
    late: list[float] = []

    async def scenario(bench: Bench) -> None:
        monkeypatch.setattr(rate_limiter, "REQUESTS_PER_SECOND", 20.0)
        # The list of runs; a run's read has the run's id here.
        bench.errors[0] = RateLimitError(status=429, retry_after=retry_after)
        run_ids = list(range(1, 301))
        bench.ends = {run_id: run_id * spacing for run_id in run_ids}
        poller = bench.poller()

        async def wait(run_id: int) -> None:
            late.append(await bench.wait(poller, run_id, 10) - bench.ends[run_id])

        await asyncio.gather(*(wait(run_id) for run_id in run_ids))

    bench = play(scenario)
    assert max(late) <= 10 + 10 + 30
    assert 1 <= len([what for _, what in bench.asked if what == "runs/list"]) <= lists
    assert len(bench.asked) <= 20 * max(second for second, _ in bench.asked)


def test_a_new_wait_that_is_due_earlier_while_lists_are_paused(play: Play) -> None:
    """It does not wait until another run is due."""

    async def scenario(bench: Bench) -> None:
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

    play(scenario)
