"""Reading the runs that are due: from lists or by their ids, and how long that takes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_jobs_provider.api.errors import (
    AuthenticationError,
    ConflictError,
    NotFoundError,
    ServerError,
    UnexpectedResponseError,
)
from airflow_jobs_provider.triggers.polling import (
    slow_reads,
)
from tests.helpers.reader_bench import ENDED, NOW, ReaderBench

DOWN, FORBIDDEN = ServerError(status=503), AuthenticationError(status=403)
GONE = NotFoundError(status=400, api_message="Run 7 does not exist.")
INVALID = UnexpectedResponseError(status=200, excerpt="does not fit: {}")


async def test_nothing_is_read_if_nothing_is_due(bench: ReaderBench) -> None:
    """Neither a list nor a run."""
    bench.wait(7, due=NOW + 26)
    assert await bench.poll() == []


async def test_a_run_that_is_due_is_read_by_its_id(bench: ReaderBench) -> None:
    """Not early: there is no gain in that."""
    (waiter,) = bench.wait(7, due=NOW + 20)
    bench.answers[7] = ENDED
    assert await bench.poll() == []
    bench.passed = 20
    assert await bench.poll() == [7]
    assert waiter.future.result() == {"run_id": 7, "start_time": 7, "state": ENDED}


async def test_a_poll_without_a_request_ends_no_outage(bench: ReaderBench) -> None:
    """No request was sent, so it is not known that the service responds again."""
    bench.wait(7, due=NOW + 20)
    bench.sender.outage.record_failure(DOWN, 1)
    assert await bench.poll() == []
    assert bench.sender.outage.failures == 1


async def test_several_runs_are_read_from_a_list_somewhat_early(bench: ReaderBench) -> None:
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


async def test_runs_are_read_in_portions_the_longest_due_first(bench: ReaderBench) -> None:
    """Also after a list that cannot be read."""
    for run_id in range(1, 21):
        bench.wait(run_id, due=NOW - run_id)
    bench.list_error = DOWN
    bench.sender.outage.record_failure(DOWN, 1)
    bench.passed = 60
    assert await bench.poll() == ["active", *range(20, 0, -1)]


async def test_a_run_that_is_waited_for_no_more_is_not_read(bench: ReaderBench) -> None:
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


async def test_how_long_a_poll_took_makes_the_next_one_earlier(bench: ReaderBench) -> None:
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
    bench: ReaderBench, caplog: pytest.LogCaptureFixture
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
    bench: ReaderBench, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even one that takes just as long, nor one in an outage."""
    bench.wait(7, period=30.0)
    bench.request_seconds = 30.0
    await bench.poll()
    assert caplog.messages == []


async def test_a_read_in_progress_does_not_end_an_outage(
    bench: ReaderBench, monkeypatch: pytest.MonkeyPatch
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
    bench: ReaderBench, monkeypatch: pytest.MonkeyPatch
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


async def test_nothing_is_kept_of_runs_that_nobody_waits_for(bench: ReaderBench) -> None:
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


async def test_a_read_that_fails_after_the_wait_has_ended_is_forgotten(bench: ReaderBench) -> None:
    """Nobody would end the record of its failure."""
    (waiter,) = bench.wait(7)
    bench.answers[7] = INVALID

    def end_wait(_run_id: int) -> None:
        bench.waiters.remove(waiter)

    bench.after_read = end_wait
    assert await bench.poll() == [7]
    assert 7 not in bench.unreadable
