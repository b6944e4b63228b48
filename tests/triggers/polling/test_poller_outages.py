"""The poller over real HTTP: outages, rate limits, and what they must not hold back."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiohttp import web

from airflow_jobs_provider.api import retry
from airflow_jobs_provider.api.endpoints import cancel_run, get_run, get_run_output
from airflow_jobs_provider.triggers.polling import (
    rate_limiter,
)
from tests.fakes.many_runs import ManyRuns
from tests.helpers.polling import (
    poller,
    result_states,
    start_waits,
    wait_until,
)


async def test_an_outage_is_logged_at_its_start_and_end(
    service: ManyRuns, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage over several polls with two hundred waiters is two lines in the log."""
    caplog.set_level("INFO")
    run_ids = service.add(200)
    # Reads that take longer than the period have a line of their own.
    tasks = start_waits(poller(), run_ids, period=1.0)
    service.trouble.extend([503] * 6)
    async with asyncio.timeout(10):
        await wait_until(lambda: not service.trouble)
    for run_id in run_ids:
        service.end(run_id)
    assert set(await result_states(tasks)) == {"SUCCESS"}
    lines = [
        r.getMessage()
        for r in caplog.records
        if r.name.startswith("airflow_jobs_provider.triggers.")
    ]
    assert [line.split(" cannot")[0].split(", after")[0] for line in lines] == [
        "200 runs",
        "The service answers again",
    ]


@pytest.mark.slow
async def test_a_429_halves_the_rate(service: ManyRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each 429 halves the rate of the requests, so a few of them are enough; all get their run."""
    monkeypatch.setattr(rate_limiter, "REQUESTS_PER_SECOND", 40.0)
    service.requests_per_second = 5
    service.lists_refused = True
    run_ids = service.add(20)
    tasks = start_waits(poller(), run_ids)
    for run_id in run_ids:
        service.end(run_id)
    assert set(await result_states(tasks)) == {"SUCCESS"}
    # 40, 20, 10, 5 requests per second, and perhaps one more that was in flight.
    assert 1 <= service.throttled <= 5


@pytest.mark.parametrize(
    "retry_after", ["0", "-1", "nan", "0.001", "Wed, 21 Oct 2015 07:28:00 GMT"]
)
async def test_an_unusable_retry_after(service: ManyRuns, retry_after: str) -> None:
    """It is ignored: the first wait is the policy's, one second or more."""
    service.requests_per_second = 0
    service.retry_after = retry_after
    with retry.no_waiting() as waits:
        (task,) = start_waits(poller(retry_delay=None), service.add(1), 0.01)
        async with asyncio.timeout(10):
            await wait_until(lambda: len(waits) >= 2)
        task.cancel()
    period, first_wait = waits[:2]
    assert period == 0.01
    assert first_wait >= 1


async def test_waiting_between_retries_blocks_no_other_request(service: ManyRuns) -> None:
    """As many reads of outputs as may be in flight wait for a retry: runs are still polled."""
    one = poller(retry_delay=60)
    (run_id,) = service.add(1)
    service.refused = set(service.add(rate_limiter.REQUESTS_AT_ONCE))
    refused = [asyncio.create_task(one.send(get_run_output(other))) for other in service.refused]
    async with asyncio.timeout(10):
        await wait_until(lambda: service.asked["runs/get-output"] == len(refused))
        tasks = start_waits(one, [run_id])
        service.end(run_id)
        assert await result_states(tasks) == ["SUCCESS"]
    assert not any(task.done() for task in refused)


async def test_a_429_pauses_all_requests_to_its_endpoint(service: ManyRuns) -> None:
    """Whoever got the 429, none is sent until the wait is over."""
    one = poller(retry_delay=0.5)
    run_ids = service.add(2)
    service.trouble.append(429)
    began = time.monotonic()
    first = asyncio.create_task(one.send(get_run(run_ids[0])))
    await wait_until(lambda: not service.trouble)
    await asyncio.sleep(0.1)
    await one.send(get_run(run_ids[1]))
    assert time.monotonic() - began >= 0.5
    assert (await first)["run_id"] == run_ids[0]


async def test_a_list_that_is_refused_does_not_hold_back_a_cancel(service: ManyRuns) -> None:
    """The Retry-After of a list may be longer than Airflow gives a trigger to cancel its run."""
    refused = asyncio.Event()

    async def refuse(_request: web.Request) -> web.Response:
        refused.set()
        return web.json_response({}, status=429, headers={"Retry-After": "60"})

    service.list_runs = refuse
    one, run_ids = poller(), service.add(3)
    tasks = start_waits(one, run_ids)
    async with asyncio.timeout(10):
        await refused.wait()
        await one.send(cancel_run(run_ids[0]))
    assert service.runs[run_ids[0]].result == "CANCELED"
    assert service.asked["runs/list active_only"] == 1
    for task in tasks:
        task.cancel()


async def test_reads_without_a_response_do_not_hold_back_a_cancel(service: ManyRuns) -> None:
    """Nor the read before it, though as many reads as may be in flight wait for responses."""
    run_ids = service.add(rate_limiter.REQUESTS_AT_ONCE)
    service.hung = {"runs/get-output"}
    one = poller()
    stuck = [asyncio.create_task(one.send(get_run_output(run_id))) for run_id in run_ids]
    await wait_until(lambda: service.asked["runs/get-output"] == len(stuck))
    other = asyncio.create_task(one.send(get_run(run_ids[1])))
    async with asyncio.timeout(10):
        assert (await one.send(get_run(run_ids[0]), is_urgent=True))["run_id"] == run_ids[0]
        await one.send(cancel_run(run_ids[0]))
    assert service.runs[run_ids[0]].result == "CANCELED"
    assert not other.done()
    service.hung.clear()
    async with asyncio.timeout(10):
        await asyncio.gather(*stuck, other)


async def test_many_cancels_do_not_hold_back_the_events_of_other_runs(
    service: ManyRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user clears hundreds of tasks: each sends a read and a cancel. One of ten is a poll."""
    monkeypatch.setattr(rate_limiter, "REQUESTS_PER_SECOND", 30.0)
    canceled, (run_id,) = service.add(40), service.add(1)
    one = poller()
    tasks = start_waits(one, [run_id])
    await wait_until(lambda: service.asked["runs/get"] > 0)

    async def read_and_cancel(other: int) -> None:
        await one.send(get_run(other), is_urgent=True)
        await one.send(cancel_run(other))

    cancels = [asyncio.create_task(read_and_cancel(other)) for other in canceled]
    service.end(run_id)
    async with asyncio.timeout(20):
        assert await result_states(tasks) == ["SUCCESS"]
        assert service.asked["runs/cancel"] < 20
        await asyncio.gather(*cancels)
