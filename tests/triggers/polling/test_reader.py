"""Reading the runs that are due: from lists or by their ids, and whose errors are whose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobs_provider.api.calls import Page
from airflow_jobs_provider.api.errors import (
    AuthenticationError,
    ConflictError,
    ConnectError,
    JobsAPIError,
    NotFoundError,
    ResponseLostError,
    ServerError,
    UnexpectedResponseError,
)
from airflow_jobs_provider.api.retry import RetryPolicy, no_waiting
from airflow_jobs_provider.triggers.polling import (
    list_pages,
    outages,
    publisher,
    rate_limiter,
    reader,
    run_lists,
    sender,
    slow_reads,
)
from airflow_jobs_provider.triggers.polling.outages import UnreadableRuns
from airflow_jobs_provider.triggers.polling.rate_limiter import RateLimiter
from airflow_jobs_provider.triggers.polling.reader import RunReader
from airflow_jobs_provider.triggers.polling.sender import Sender
from airflow_jobs_provider.triggers.polling.waiters import Waiter, Waiters

NOW = 1_000.0
RUNNING = {"life_cycle_state": "RUNNING"}
ENDED = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}
DOWN, FORBIDDEN = ServerError(status=503), AuthenticationError(status=403)
GONE = NotFoundError(status=400, api_message="Run 7 does not exist.")
INVALID = UnexpectedResponseError(status=200, excerpt="does not fit: {}")


class Bench:
    """A reader and a service in memory; time passes in waits and in slow requests only.

    :ivar answers: what a run's read is answered with: an error, or the run's state.
    :ivar list_error: is raised instead of a list; ``list_errors``: once each, before it.
    :ivar after_read: called after the read of a run, with its id; it may change all of this.
    :ivar request_seconds: how long each request takes.
    """

    def __init__(self, waits: list[float]) -> None:
        self.waits, self.passed = waits, 0.0
        self.answers: dict[int, Any] = {}
        self.listed: list[int] = []
        self.list_error: Exception | None = None
        self.list_errors: list[Exception] = []
        self.after_read: Callable[[int], None] = lambda _run_id: None
        self.request_seconds = 0.0
        self.asked: list[Any] = []
        self.last_response_bytes = 1_000
        self.waiters, self.unreadable = Waiters(), UnreadableRuns()
        policy = RetryPolicy(no_deadline=True, random=lambda: 0.0, clock=self.now)
        client: Any = self
        self.sender = Sender(client, RateLimiter(), policy, {})
        self.reader = RunReader(self.waiters, self.sender, self.unreadable)

    def now(self) -> float:
        """Return the time."""
        return NOW + self.passed + sum(self.waits)

    def version_of(self, _call: Any) -> str:
        """Return the version of the API, as a client does."""
        return "2.0"

    async def renew_credentials(self, _error: JobsAPIError) -> None:
        """Do nothing."""

    async def send(self, call: Any, *, retries: Any, rate_limit: Any) -> Any:
        """Answer a call within the rate limit, as a client does."""
        assert retries.max_attempts == 1
        async with rate_limit():
            self.passed += self.request_seconds
            if call.path == "runs/list":
                self.asked.append("active" if call.parameters.get("active_only") else "ended")
                if self.list_errors:
                    raise self.list_errors.pop(0)
                if self.list_error is not None:
                    raise self.list_error
                active = self.asked[-1] == "active"
                runs = [self.run(run_id) for run_id in self.listed] if active else []
                return Page(runs)
            run_id = call.parameters["run_id"]
            self.asked.append(run_id)
            answer, run = self.answers.get(run_id), self.run(run_id)
            self.after_read(run_id)
            if isinstance(answer, Exception):
                raise answer
            return run

    def run(self, run_id: int) -> Any:
        """Return a run as the service has it."""
        state = self.answers.get(run_id) or RUNNING
        return {"run_id": run_id, "start_time": run_id, "state": state}

    def wait(self, *run_ids: int, due: float = NOW, period: float = 100.0) -> list[Waiter]:
        """Wait for changes of runs that are RUNNING."""
        made = []
        for run_id in run_ids:
            future = asyncio.get_running_loop().create_future()
            one = Waiter(run_id, period, due, float("inf"), ("RUNNING", None), future)
            self.waiters.add(one)
            made.append(one)
        return made

    async def poll(self) -> list[Any]:
        """Poll once; return what was asked."""
        self.asked = []
        await self.reader.poll()
        return self.asked


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Bench]:
    """A reader in a time of its own, without a limit of its rate."""
    caplog.set_level("INFO")
    monkeypatch.setattr(rate_limiter, "REQUESTS_PER_SECOND", 1e9)
    with no_waiting() as waits:
        one = Bench(waits)
        for module in (list_pages, outages, publisher, reader, run_lists, sender, slow_reads):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=one.now))
        yield one


async def test_nothing_is_read_if_nothing_is_due(bench: Bench) -> None:
    """Neither a list nor a run."""
    bench.wait(7, due=NOW + 26)
    assert await bench.poll() == []


async def test_a_run_that_is_due_is_read_by_its_id(bench: Bench) -> None:
    """Not early: there is no gain in that."""
    (waiter,) = bench.wait(7, due=NOW + 20)
    bench.answers[7] = ENDED
    assert await bench.poll() == []
    bench.passed = 20
    assert await bench.poll() == [7]
    assert waiter.future.result() == {"run_id": 7, "start_time": 7, "state": ENDED}


async def test_a_poll_without_a_request_ends_no_outage(bench: Bench) -> None:
    """No request was sent, so it is not known that the service responds again."""
    bench.wait(7, due=NOW + 20)
    bench.sender.outage.record_failure(DOWN, 1)
    assert await bench.poll() == []
    assert bench.sender.outage.failures == 1


async def test_several_runs_are_read_from_a_list_somewhat_early(bench: Bench) -> None:
    """By a quarter of their period; those that it has not are read by their ids."""
    bench.wait(7, 8, due=NOW + 25)
    (other,) = bench.wait(9, due=NOW + 26)
    bench.listed = [9, 8, 7]
    bench.answers[9] = ENDED
    assert await bench.poll() == ["active"]
    assert other.future.done()
    bench.waiters.remove(other)
    assert await bench.poll() == []
    bench.passed, bench.listed = 90, [8]
    assert await bench.poll() == ["active", 7]


async def test_runs_are_read_in_portions_the_longest_due_first(bench: Bench) -> None:
    """Also after a list that cannot be read."""
    for run_id in range(1, 21):
        bench.wait(run_id, due=NOW - run_id)
    bench.list_error = DOWN
    bench.sender.outage.record_failure(DOWN, 1)
    bench.passed = 60
    assert await bench.poll() == ["active", *range(20, 0, -1)]


async def test_an_outage_stops_the_rest(bench: Bench) -> None:
    """None of the runs is failed, and the next poll begins with the same ones."""
    waiters = [bench.wait(run_id, due=NOW - run_id)[0] for run_id in range(1, 21)]
    bench.list_error = ResponseLostError("lost")
    bench.answers = dict.fromkeys(range(1, 21), ConnectError("refused"))
    bench.sender.outage.record_failure(DOWN, 1)
    bench.passed = 60
    assert await bench.poll() == ["active", *range(20, 12, -1)]
    assert not any(waiter.future.done() for waiter in waiters)
    assert bench.sender.outage.failures == 2


@pytest.mark.parametrize(
    "error", [FORBIDDEN, DOWN, INVALID, ResponseLostError("lost"), ConflictError(status=409)]
)
async def test_an_error_of_one_run_is_its_own(bench: Bench, error: JobsAPIError) -> None:
    """While others can be read: it is read again later, and their waits go on."""
    waiters = bench.wait(7, 8)
    bench.answers = {7: error}
    bench.listed = []
    asked = await bench.poll()
    assert asked[:2] == ["active", "ended"]
    assert sorted(asked[2:]) == [7, 8]
    assert not any(waiter.future.done() for waiter in waiters)
    assert 7 in bench.unreadable
    assert 8 not in bench.unreadable
    assert bench.sender.outage.failures == 0
    assert bench.waits == []


async def test_a_run_that_cannot_be_read_is_not_read_before_its_time(bench: Bench) -> None:
    """The wait is the policy's."""
    bench.wait(7, 8, period=10.0)
    bench.answers = {7: DOWN}
    await bench.poll()
    bench.passed = 10
    assert await bench.poll() == [8]
    bench.passed = 20
    assert await bench.poll() == [8]
    bench.passed = 30
    bench.answers = {}
    bench.listed = [7, 8]
    assert await bench.poll() == ["active"]
    assert 7 not in bench.unreadable


async def test_a_run_that_stays_unreadable_fails_its_waiter(bench: Bench) -> None:
    """After the limit of the policy; the waits of others go on."""
    failing, other = bench.wait(7, 8, period=10.0)
    bench.answers = {7: FORBIDDEN}
    for seconds in range(0, 960, 10):
        bench.passed = seconds
        await bench.poll()
    with pytest.raises(AuthenticationError):
        await failing.future
    assert not other.future.done()


async def test_another_run_tells_an_outage_from_a_run_that_cannot_be_read(bench: Bench) -> None:
    """One that was read lately, though it is not due; else any other one."""
    bench.wait(8, 9, due=NOW + 1000)
    (failing,) = bench.wait(7)
    bench.answers = {7: DOWN}
    assert await bench.poll() == [7, 8]
    assert 7 in bench.unreadable
    assert bench.sender.outage.failures == 0
    assert not failing.future.done()
    bench.wait(6)
    bench.answers = {6: DOWN, 8: DOWN}
    assert await bench.poll() == [6, 8]
    assert 6 not in bench.unreadable
    assert bench.sender.outage.failures == 1
    assert bench.waits == [30]


async def test_the_latest_run_is_tried_first(bench: Bench) -> None:
    """It is the most likely one to be readable; one that is waited for no more is not tried."""
    bench.wait(9, due=NOW - 2, period=1000.0)
    (latest,) = bench.wait(8, due=NOW - 1, period=1000.0)
    assert (await bench.poll())[-2:] == [9, 8]
    bench.wait(7)
    bench.answers = {7: DOWN}
    assert await bench.poll() == [7, 8]
    bench.waiters.remove(latest)
    bench.passed = 200
    assert await bench.poll() == [7, 9]


async def test_a_run_alone_that_cannot_be_read_is_an_outage(bench: Bench) -> None:
    """There is no other one to try."""
    (waiter,) = bench.wait(7)
    bench.answers = {7: DOWN}
    assert await bench.poll() == [7]
    assert 7 not in bench.unreadable
    assert bench.waits == [30]
    assert not waiter.future.done()
    bench.answers = {}
    assert await bench.poll() == [7]
    assert bench.sender.outage.failures == 0


async def test_an_invalid_answer_shows_that_the_service_is_there(bench: Bench) -> None:
    """A run alone whose answer is not valid is no outage; a page of a gateway is one."""
    bench.wait(7)
    bench.answers = {7: INVALID}
    assert await bench.poll() == [7]
    assert 7 in bench.unreadable
    assert bench.waits == []


async def test_a_page_of_a_gateway_shows_nothing(bench: Bench) -> None:
    """It is an outage of a run alone."""
    bench.wait(7)
    page = UnexpectedResponseError(status=502, excerpt="<html>")
    bench.answers = {7: page}
    bench.sender.record_answer()
    assert await bench.poll() == [7]
    assert 7 not in bench.unreadable
    assert len(bench.waits) == 1


async def test_an_unreadable_run_does_not_show_an_outage_to_another(bench: Bench) -> None:
    """Only a run that could be read before is tried."""
    bench.wait(7, due=NOW)
    bench.answers = {7: INVALID}
    await bench.poll()
    bench.wait(8, due=NOW)
    bench.answers = {7: DOWN, 8: DOWN}
    assert await bench.poll() == [8]
    assert bench.sender.outage.failures == 1


async def test_a_run_that_is_waited_for_no_more_is_not_read(bench: Bench) -> None:
    """Nor does it show that the service answers."""
    first, gone = [bench.wait(n, due=NOW - 20 + n)[0] for n in range(1, 11)][7:9]
    assert (first.run_id, gone.run_id) == (8, 9)
    bench.list_error = ConflictError(status=409)
    bench.answers = {10: DOWN}

    def stop(run_id: int) -> None:
        if run_id == 8:
            bench.waiters.remove(gone)
            bench.answers = dict.fromkeys(range(1, 11), DOWN)

    bench.after_read = stop
    bench.sender.outage.record_failure(DOWN, 1)
    bench.passed = 61
    assert await bench.poll() == ["active", *range(1, 9), 10, 8]
    assert 10 not in bench.unreadable
    assert bench.sender.outage.failures == 2


async def test_a_deleted_run_fails_its_waiter(bench: Bench) -> None:
    """At once; it is an answer of the service for others."""
    failing, other = bench.wait(7, 8)
    bench.answers = {7: GONE, 8: DOWN}
    await bench.poll()
    with pytest.raises(NotFoundError):
        await failing.future
    assert not other.future.done()
    assert 8 in bench.unreadable
    assert bench.sender.outage.failures == 0


async def test_an_error_that_waiting_does_not_help_fails_all(bench: Bench) -> None:
    """Such as an address that never was the API's."""
    waiters = bench.wait(7)
    bench.answers = {7: UnexpectedResponseError(status=404)}

    async def wait(one: Waiter) -> None:
        try:
            await one.future
        finally:
            bench.waiters.remove(one)

    tasks = [asyncio.create_task(wait(one)) for one in waiters]
    await asyncio.sleep(0)
    await bench.poll()
    assert all(isinstance(task.exception(), UnexpectedResponseError) for task in tasks)
    assert not bench.waiters


async def test_a_list_that_does_not_work_is_not_read_for_a_while(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """The runs are read by their ids, but only those that are due; it is no outage."""
    bench.wait(7, 8, period=5.0)
    bench.wait(9, due=NOW + 20)
    bench.list_error = ConflictError(status=409)
    bench.sender.outage.record_failure(DOWN, 1)
    bench.passed = 61
    bench.waiters.publish(7, bench.run(7), ("RUNNING", None), bench.now(), lambda _: 0.0)
    caplog.clear()
    asked = await bench.poll()
    assert asked[0] == "active"
    assert set(asked[1:]) == {7, 8, 9}
    assert "Runs are read one by one for now" in caplog.text
    assert bench.sender.outage.failures == 0
    bench.passed += 5
    assert set(await bench.poll()) == {7, 8}
    bench.passed += 5
    assert (await bench.poll())[0] == "active"


async def test_after_a_list_error_no_run_is_read_early(bench: Bench) -> None:
    """A list that fails is no reason to read more runs by their ids."""
    bench.wait(7, 8)
    bench.wait(9, due=NOW + 20)
    bench.list_error = INVALID
    assert sorted((await bench.poll())[2:]) == [7, 8]
    assert bench.waits == [1.0]


async def test_a_list_error_with_no_run_due_suspends_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether runs can be read is not known then."""
    bench.wait(7, 8, due=NOW + 20)
    bench.list_error = INVALID
    assert await bench.poll() == ["active", "active"]
    assert "one by one" not in caplog.text
    bench.passed, bench.list_error, bench.listed = 20, None, [7, 8]
    assert await bench.poll() == ["active"]


async def test_how_long_a_poll_took_makes_the_next_one_earlier(bench: Bench) -> None:
    """Outages do not count: nothing is read earlier for them."""
    waiters = bench.wait(7, 8)
    bench.listed, bench.request_seconds = [7, 8], 20.0
    await bench.poll()
    # A period after the page was asked for.
    assert [one.due for one in waiters] == [NOW + 100, NOW + 100]
    bench.passed = 100
    await bench.poll()
    assert all(69.9 <= one.due - (NOW + 120) <= 77.1 for one in waiters)


async def test_polls_that_take_longer_than_the_period_are_told_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """With the numbers; a poll of up to a second never is."""
    bench.wait(7, period=0.5)
    bench.request_seconds = 1.0
    await bench.poll()
    assert caplog.messages == []
    bench.wait(8, period=5.0)
    bench.request_seconds = 2.0
    await bench.poll()
    (line,) = caplog.messages
    assert line.startswith("Reading the 2 runs that are waited for took ")
    assert "longer than the shortest polling period, 0.5 s" in line
    bench.passed += 100
    await bench.poll()
    assert len(caplog.messages) == 1


async def test_a_poll_within_the_period_is_not_told(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even one that takes just as long, nor one in an outage."""
    bench.wait(7, period=30.0)
    bench.request_seconds = 30.0
    await bench.poll()
    assert caplog.messages == []


async def test_an_outage_does_not_count_as_a_slow_poll(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Of this poll or of an earlier one."""
    bench.wait(7, 8, period=29.0)
    bench.listed, bench.list_errors = [7, 8], [DOWN]
    assert await bench.poll() == ["active", "active"]
    assert bench.waits == [30]
    assert "longer than" not in caplog.text
    bench.passed, bench.request_seconds = 30.0, 40.0
    assert await bench.poll() == ["active"]
    assert "took 40 s" in caplog.text


async def test_a_read_in_progress_does_not_end_an_outage(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only an answer does."""
    monkeypatch.setattr(slow_reads, "SLOW_AFTER_SECONDS", 0.01)

    async def never(_call: Any, **_how: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(bench, "send", never)
    bench.wait(7)
    bench.sender.outage.record_failure(DOWN, 1)
    await bench.poll()
    assert bench.sender.outage.failures == 1
    bench.reader.cancel()


async def test_reads_in_progress_can_be_canceled(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the poller closes."""
    monkeypatch.setattr(slow_reads, "SLOW_AFTER_SECONDS", 0.01)
    ended = asyncio.Event()

    async def never(_call: Any, **_how: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(bench, "send", never)
    bench.wait(7)
    async with asyncio.timeout(10):
        await bench.reader.poll()
        assert not ended.is_set()
        bench.reader.cancel()
        await ended.wait()


async def test_nothing_is_kept_of_runs_that_nobody_waits_for(bench: Bench) -> None:
    """Neither of those that were read by their ids nor of those that were listed."""
    for first, last in ((1, 2), (2, 12), (12, 13)):
        waiters = bench.wait(*range(first, last))
        bench.listed = list(range(last - 1, first - 1, -1))
        await bench.poll()
        for one in waiters:
            bench.waiters.remove(one)
    bench.wait(99)
    await bench.poll()
    changes = bench.reader._lists.changes
    assert changes._starts.keys() | changes._unlisted <= {99}


async def test_a_read_that_fails_after_the_wait_has_ended_is_forgotten(bench: Bench) -> None:
    """Nobody would end the record of its failure."""
    (waiter,) = bench.wait(7)
    bench.answers[7] = INVALID

    def end_wait(_run_id: int) -> None:
        bench.waiters.remove(waiter)

    bench.after_read = end_wait
    assert await bench.poll() == [7]
    assert 7 not in bench.unreadable


async def test_the_error_of_a_slow_read_is_forgotten_with_its_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its wait has ended, so nobody asks for the result."""
    monkeypatch.setattr(slow_reads, "SLOW_AFTER_SECONDS", 0.01)
    (waiter,) = bench.wait(7)
    go_on, send = asyncio.Event(), bench.send

    async def send_slowly(call: Any, **how: Any) -> Any:
        if call.parameters.get("run_id") == 7:
            await go_on.wait()
            raise DOWN
        return await send(call, **how)

    monkeypatch.setattr(bench, "send", send_slowly)
    await bench.poll()
    bench.waiters.remove(waiter)
    go_on.set()
    await asyncio.sleep(0.01)
    bench.wait(8)
    await bench.poll()
    assert not bench.reader._slow_reads._tasks
