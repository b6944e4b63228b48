"""Errors while the runs that are due are read: an outage, or those of one run or list."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

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
from airflow_jobs_provider.triggers.polling import (
    slow_reads,
)
from airflow_jobs_provider.triggers.polling.waiters import Waiter
from tests.helpers.reader_bench import NOW, ReaderBench

DOWN, FORBIDDEN = ServerError(status=503), AuthenticationError(status=403)
GONE = NotFoundError(status=400, api_message="Run 7 does not exist.")
INVALID = UnexpectedResponseError(status=200, excerpt="does not fit: {}")


async def test_an_outage_stops_the_rest(bench: ReaderBench) -> None:
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
async def test_an_error_of_one_run_is_its_own(bench: ReaderBench, error: JobsAPIError) -> None:
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


async def test_a_run_that_cannot_be_read_is_not_read_before_its_time(bench: ReaderBench) -> None:
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


async def test_a_run_that_stays_unreadable_fails_its_waiter(bench: ReaderBench) -> None:
    """After the limit of the policy; the waits of others go on."""
    failing, other = bench.wait(7, 8, period=10.0)
    bench.answers = {7: FORBIDDEN}
    for seconds in range(0, 960, 10):
        bench.passed = seconds
        await bench.poll()
    with pytest.raises(AuthenticationError):
        await failing.future
    assert not other.future.done()


async def test_another_run_tells_an_outage_from_a_run_that_cannot_be_read(
    bench: ReaderBench,
) -> None:
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


async def test_the_latest_run_is_tried_first(bench: ReaderBench) -> None:
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


async def test_a_run_alone_that_cannot_be_read_is_an_outage(bench: ReaderBench) -> None:
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


async def test_an_invalid_answer_shows_that_the_service_is_there(bench: ReaderBench) -> None:
    """A run alone whose answer is not valid is no outage; a page of a gateway is one."""
    bench.wait(7)
    bench.answers = {7: INVALID}
    assert await bench.poll() == [7]
    assert 7 in bench.unreadable
    assert bench.waits == []


async def test_a_page_of_a_gateway_shows_nothing(bench: ReaderBench) -> None:
    """It is an outage of a run alone."""
    bench.wait(7)
    page = UnexpectedResponseError(status=502, excerpt="<html>")
    bench.answers = {7: page}
    bench.sender.record_answer()
    assert await bench.poll() == [7]
    assert 7 not in bench.unreadable
    assert len(bench.waits) == 1


async def test_an_unreadable_run_does_not_show_an_outage_to_another(bench: ReaderBench) -> None:
    """Only a run that could be read before is tried."""
    bench.wait(7, due=NOW)
    bench.answers = {7: INVALID}
    await bench.poll()
    bench.wait(8, due=NOW)
    bench.answers = {7: DOWN, 8: DOWN}
    assert await bench.poll() == [8]
    assert bench.sender.outage.failures == 1


async def test_a_deleted_run_fails_its_waiter(bench: ReaderBench) -> None:
    """At once; it is an answer of the service for others."""
    failing, other = bench.wait(7, 8)
    bench.answers = {7: GONE, 8: DOWN}
    await bench.poll()
    with pytest.raises(NotFoundError):
        await failing.future
    assert not other.future.done()
    assert 8 in bench.unreadable
    assert bench.sender.outage.failures == 0


async def test_an_error_that_waiting_does_not_help_fails_all(bench: ReaderBench) -> None:
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
    bench: ReaderBench, caplog: pytest.LogCaptureFixture
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


async def test_after_a_list_error_no_run_is_read_early(bench: ReaderBench) -> None:
    """A list that fails is no reason to read more runs by their ids."""
    bench.wait(7, 8)
    bench.wait(9, due=NOW + 20)
    bench.list_error = INVALID
    assert sorted((await bench.poll())[2:]) == [7, 8]
    assert bench.waits == [1.0]


async def test_a_list_error_with_no_run_due_suspends_nothing(
    bench: ReaderBench, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether runs can be read is not known then."""
    bench.wait(7, 8, due=NOW + 20)
    bench.list_error = INVALID
    assert await bench.poll() == ["active", "active"]
    assert "one by one" not in caplog.text
    bench.passed, bench.list_error, bench.listed = 20, None, [7, 8]
    assert await bench.poll() == ["active"]


async def test_an_outage_does_not_count_as_a_slow_poll(
    bench: ReaderBench, caplog: pytest.LogCaptureFixture
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


async def test_the_error_of_a_slow_read_is_forgotten_with_its_run(
    bench: ReaderBench, monkeypatch: pytest.MonkeyPatch
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
