"""The poller over real HTTP: errors, outages, and responses that do not fit."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from aiohttp import web

from airflow_jobs_provider.api import retry
from airflow_jobs_provider.api.endpoints import cancel_run, get_run, get_run_output
from airflow_jobs_provider.api.errors import (
    AuthenticationError,
    JobsAPIError,
    UnexpectedResponseError,
)
from airflow_jobs_provider.api.retry import Backoff
from airflow_jobs_provider.triggers.polling import (
    list_pages,
    rate_limiter,
    reader,
    run_lists,
    slow_reads,
)
from tests.fakes.many_runs import ManyRuns
from tests.helpers.polling import (
    PERIOD,
    poller,
    poller_lines,
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


async def test_errors_are_typed(service: ManyRuns) -> None:
    """An error that is not retried is raised in every wait."""
    service.trouble.extend([404] * 50)
    tasks = start_waits(poller(), service.add(3))
    for task in tasks:
        with pytest.raises(JobsAPIError):
            await task


async def test_an_error_between_pages(service: ManyRuns) -> None:
    """A page that fails is read again; the pages before it are not."""
    service.max_page = 25
    run_ids = service.add(250)
    list_runs, asked = service._list, []

    async def every_third_fails(request: web.Request) -> web.Response:
        asked.append(request.query.get("offset", "0"))
        if len(asked) % 3 == 0:
            return web.json_response({}, status=429, headers={"Retry-After": "0"})
        return await list_runs(request)

    service.list_runs = every_third_fails
    tasks = start_waits(poller(), run_ids)
    async with asyncio.timeout(20):
        await wait_until(lambda: len(set(asked)) >= 8)
    service.list_runs = None

    assert asked == sorted(asked, key=int)
    for run_id in run_ids:
        service.end(run_id)
    assert set(await result_states(tasks)) == {"SUCCESS"}


async def test_an_outage_of_later_versions_concerns_no_list_of_2_0(
    service: ManyRuns, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are asked for what lies beyond the largest offset of 2.0. It is read by ids instead."""
    monkeypatch.setattr(run_lists, "MAX_OFFSET", 50)
    service.max_page = 25
    run_ids = service.add(100)
    failed, listed = 0, 0

    async def fail_later_versions(request: web.Request) -> web.StreamResponse:
        nonlocal failed, listed
        if "/api/2.0/" not in request.path:
            failed += 1
            return web.json_response({}, status=503)
        listed += failed
        return await service._list(request)

    service.list_runs = fail_later_versions
    tasks = start_waits(poller(databricks_conn_id="databricks_any"), run_ids)
    async with asyncio.timeout(30):
        await wait_until(lambda: listed >= 6)
        for run_id in run_ids:
            service.end(run_id)
        assert set(await result_states(tasks)) == {"SUCCESS"}
    assert failed == 1
    assert "cannot be followed" not in caplog.text


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


async def refuse(_request: web.Request) -> web.Response:
    """Answer 429 with a Retry-After of two minutes."""
    return web.json_response({}, status=429, headers={"Retry-After": "120"})


async def test_a_list_that_is_paused_for_long_does_not_delay_events(
    service: ManyRuns, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The due runs are read by their ids meanwhile, within the rate limit, by each poller."""
    caplog.set_level("INFO")
    monkeypatch.setattr(reader, "SLOW_PAGE_SECONDS", 0.3)
    monkeypatch.setattr(rate_limiter, "REQUESTS_PER_SECOND", 60.0)
    service.list_runs = refuse
    run_ids = service.add(40)
    began = time.monotonic()
    tasks = start_waits(poller(), run_ids[:20])
    async with asyncio.timeout(20):
        await wait_until(lambda: bool(service.asked["runs/list active_only"]))
        tasks += start_waits(poller(databricks_conn_id="databricks_other"), run_ids[20:])
        await wait_until(lambda: service.asked["runs/get"] >= 80)
        for run_id in run_ids:
            service.end(run_id)
        assert set(await result_states(tasks)) == {"SUCCESS"}
    assert service.asked["runs/list active_only"] == 1
    assert service.asked["runs/get"] <= 60 * (time.monotonic() - began)
    lines = [r.getMessage() for r in caplog.records if r.name == reader.__name__]
    assert lines == ["20 runs are read one by one until a list of them is answered."] * 2


async def test_a_long_pause_of_single_reads_does_not_delay_what_lists_show(
    service: ManyRuns,
) -> None:
    """One run is on no list, and its read is answered with 429 and a long Retry-After."""
    service.get_run = refuse
    run_ids = service.add(40)
    service.hidden = {run_ids[0]}
    tasks = start_waits(poller(), run_ids)
    async with asyncio.timeout(20):
        await wait_until(lambda: bool(service.asked["runs/get"]))
        for run_id in run_ids:
            service.end(run_id)
        assert set(await result_states(tasks[1:])) == {"SUCCESS"}
        assert not tasks[0].done()
        assert service.asked["runs/get"] == 1
    tasks[0].cancel()


async def test_a_short_pause_of_a_list_is_waited_out(service: ManyRuns) -> None:
    """One page tells of all runs, so that none is read by its id."""
    service.trouble.append(429)
    run_ids = service.add(40)
    tasks = start_waits(poller(retry_delay=1), run_ids)
    async with asyncio.timeout(20):
        await wait_until(lambda: service.asked["runs/list active_only"] >= 3)
        for run_id in run_ids:
            service.end(run_id)
        assert set(await result_states(tasks)) == {"SUCCESS"}
    assert service.asked["runs/get"] <= 5


@pytest.mark.parametrize("why", ["429", "503", "no response"])
async def test_lists_are_read_again_as_soon_as_they_are_answered(
    service: ManyRuns, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Until then the runs are read by their ids; the page that was awaited is read first."""
    monkeypatch.setattr(reader, "SLOW_PAGE_SECONDS", 0.2)
    go_on = asyncio.Event()

    async def fail(request: web.Request) -> web.StreamResponse:
        if go_on.is_set():
            return await service._list(request)
        if why == "no response":
            await go_on.wait()
            return await service._list(request)
        return web.json_response({}, status=int(why), headers={"Retry-After": "1"})

    service.list_runs = fail
    run_ids = service.add(40)
    tasks = start_waits(poller(retry_delay=1), run_ids)
    async with asyncio.timeout(20):
        await wait_until(lambda: service.asked["runs/get"] >= 60)
        go_on.set()
        listed = service.asked["runs/list active_only"]
        await wait_until(lambda: service.asked["runs/list active_only"] >= listed + 2)
        read = service.asked["runs/get"]
        await wait_until(lambda: service.asked["runs/list active_only"] >= listed + 5)
        assert service.asked["runs/get"] == read
        for run_id in run_ids:
            service.end(run_id)
        assert set(await result_states(tasks)) == {"SUCCESS"}


async def test_an_outage_while_a_list_is_awaited(
    service: ManyRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that cannot be read either are read again after a wait of their own, and none fails."""
    monkeypatch.setattr(reader, "SLOW_PAGE_SECONDS", 0.1)
    service.list_runs = refuse
    run_ids = service.add(20)
    tasks = start_waits(poller(retry_delay=0.3), run_ids)
    async with asyncio.timeout(20):
        await wait_until(lambda: service.asked["runs/get"] >= 1)
        service.trouble.extend([503] * 1000)
        await asyncio.sleep(1.5)
        # Those that were read just then, and two for each wait.
        assert 1000 - len(service.trouble) < 20
        service.trouble.clear()
        for run_id in run_ids:
            service.end(run_id)
        assert set(await result_states(tasks)) == {"SUCCESS"}


async def test_a_service_that_answers_nothing_while_a_list_is_awaited(
    service: ManyRuns, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No read of a run has an answer: the log does not say that runs are read by their ids."""
    caplog.set_level("INFO")
    monkeypatch.setattr(reader, "SLOW_PAGE_SECONDS", 0.1)
    monkeypatch.setattr(slow_reads, "SLOW_AFTER_SECONDS", 0.4)
    service.hung = {"runs/list", "runs/get"}
    run_ids = service.add(40)
    tasks = start_waits(poller(), run_ids)
    async with asyncio.timeout(20):
        await wait_until(lambda: service.asked["runs/get"] >= 2)
        # One more at a time.
        await asyncio.sleep(0.2)
        assert service.asked["runs/get"] == 2
        assert not [r for r in caplog.records if r.name == reader.__name__]
        service.hung.clear()
        for run_id in run_ids:
            service.end(run_id)
        assert set(await result_states(tasks)) == {"SUCCESS"}


async def test_a_late_page_is_older_than_what_was_read_meanwhile(
    service: ManyRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows the runs as they were when it was asked for: nobody gets those states."""
    monkeypatch.setattr(reader, "SLOW_PAGE_SECONDS", 0.1)
    monkeypatch.setattr(rate_limiter, "REQUESTS_PER_SECOND", 200.0)
    go_on = asyncio.Event()

    async def answer_late(request: web.Request) -> web.StreamResponse:
        page = await service._list(request)
        if not go_on.is_set():
            assert page.text is not None
            page.text = page.text.replace("RUNNING", "PENDING")
            await go_on.wait()
        return page

    service.list_runs = answer_late
    run_ids = service.add(40)
    tasks = start_waits(poller(), run_ids)
    async with asyncio.timeout(20):
        await wait_until(lambda: set(service.latest) == set(run_ids))
        go_on.set()
        await wait_until(lambda: service.asked["runs/list active_only"] >= 3)
        assert not any(task.done() for task in tasks)
        for run_id in run_ids:
            service.end(run_id)
        assert set(await result_states(tasks)) == {"SUCCESS"}


async def test_a_slow_read_is_older_than_a_page_that_was_asked_for_later(
    service: ManyRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows the run as it was when it was asked for: nobody gets that state any more."""
    monkeypatch.setattr(slow_reads, "SLOW_AFTER_SECONDS", 0.1)
    go_on, asked = asyncio.Event(), list[int]()
    (run_id,) = service.add(1)

    async def answer_late(request: web.Request) -> web.StreamResponse:
        response = await service._get(request)
        asked.append(run_id)
        if len(asked) == 1:
            assert response.text is not None
            response.text = response.text.replace("RUNNING", "PENDING")
            await go_on.wait()
        return response

    service.get_run = answer_late
    one = poller()
    pending: dict[str, Any] = {"state": {"life_cycle_state": "PENDING"}}
    first = asyncio.create_task(one.wait_for_change(run_id, period=PERIOD, known=pending))
    async with asyncio.timeout(20):
        await wait_until(lambda: bool(asked))
        others = start_waits(one, service.add(40))
        assert (await first)["state"]["life_cycle_state"] == "RUNNING"
        (again,) = start_waits(one, [run_id])
        go_on.set()
        listed = service.asked["runs/list active_only"]
        await wait_until(lambda: service.asked["runs/list active_only"] >= listed + 2)
        assert not again.done()
        service.end(run_id)
        assert await result_states([again]) == ["SUCCESS"]
    for task in others:
        task.cancel()


@pytest.mark.parametrize("others_period", [PERIOD, 30.0])
async def test_a_forbidden_run_fails_its_waiter_only(
    service: ManyRuns,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    others_period: float,
) -> None:
    """It fails after its retries; all others keep their period, be it short or long."""
    caplog.set_level("INFO")
    monkeypatch.setattr(retry, "_REFUSED_CREDENTIALS", Backoff(0.5, 0.5, 1.0, always_limited=True))
    service.lists_refused = True
    forbidden, *run_ids = service.add(3)
    service.refused = {forbidden}
    one = poller(retry_delay=None)
    tasks = start_waits(one, run_ids, others_period)
    (alone,) = start_waits(one, [forbidden])
    began = time.monotonic()
    async with asyncio.timeout(10):
        with pytest.raises(AuthenticationError):
            await alone
    assert time.monotonic() - began >= 1.0
    assert not any(task.done() for task in tasks)
    if others_period == PERIOD:
        # Each of the two was read more often than the one that is refused.
        assert service.found_active > 2 * (service.asked["runs/get"] - service.found_active)
        for run_id in run_ids:
            service.end(run_id)
        assert set(await result_states(tasks)) == {"SUCCESS"}
    (line,) = poller_lines(caplog)
    assert line.startswith(f"Run {forbidden} cannot be read for now, while others can: ")
    for task in tasks:
        task.cancel()


async def test_a_run_that_can_be_read_again(
    service: ManyRuns, caplog: pytest.LogCaptureFixture
) -> None:
    """Its waiter gets the run, and the log says so."""
    caplog.set_level("INFO")
    service.lists_refused = True
    run_ids = service.add(3)
    service.refused = set(run_ids[:1])
    tasks = start_waits(poller(retry_delay=0.1), run_ids)
    async with asyncio.timeout(10):
        await wait_until(lambda: bool(poller_lines(caplog)))
        service.refused = set()
        for run_id in run_ids:
            service.end(run_id)
        assert set(await result_states(tasks)) == {"SUCCESS"}
    assert poller_lines(caplog)[1:] == [f"Run {run_ids[0]} can be read again, after 0 s."]


@pytest.mark.parametrize("status", [302, 404, 403, 500])
async def test_a_list_that_cannot_be_read(
    service: ManyRuns, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """While the runs themselves can be read, no wait fails."""
    monkeypatch.setattr(list_pages, "SECOND_TRY_SECONDS", 0.01)
    monkeypatch.setattr(list_pages, "SHORT_OUTAGE_SECONDS", 0.1)

    async def broken(_request: web.Request) -> web.Response:
        return web.Response(status=status, text="<html><title>Oh</title></html>")

    service.list_runs = broken
    run_ids = service.add(30)
    tasks = start_waits(poller(), run_ids)
    async with asyncio.timeout(60):
        await wait_until(lambda: service.asked["runs/get"] >= 60)
        for run_id in run_ids:
            service.end(run_id)
        assert set(await result_states(tasks)) == {"SUCCESS"}
    assert service.asked["runs/list active_only"] < 20


@pytest.mark.parametrize("status", [pytest.param(302, marks=pytest.mark.exhaustive), 503])
async def test_lists_that_could_not_be_read_are_tried_again_soon(
    service: ManyRuns,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    """However many runs are due: few are read by their ids until then, and none of them twice."""
    caplog.set_level("INFO")
    monkeypatch.setattr(list_pages, "SECOND_TRY_SECONDS", 0.01)
    monkeypatch.setattr(list_pages, "SHORT_OUTAGE_SECONDS", 0.0)
    monkeypatch.setattr(reader, "SHORTEST_SECONDS", 0.3)
    monkeypatch.setattr(run_lists, "SUSPEND_SECONDS", 0.2)
    monkeypatch.setattr(run_lists, "LONGEST_SUSPEND_SECONDS", 0.4)
    monkeypatch.setattr(rate_limiter, "REQUESTS_PER_SECOND", 200.0)
    failures = 6

    async def fail_at_first(request: web.Request) -> web.StreamResponse:
        if service.asked["runs/list active_only"] <= failures:
            return web.Response(status=status)
        return await service._list(request)

    service.list_runs = fail_at_first
    run_ids = service.add(2000)
    tasks = start_waits(poller(), run_ids)
    async with asyncio.timeout(30):
        await wait_until(lambda: service.asked["runs/list active_only"] > failures)
        read = service.asked["runs/get"]
        assert 0 < read < 1000
        assert len(set(service.latest)) == len(service.latest)
        await wait_until(lambda: service.asked["runs/list active_only"] > failures + 5)
        # A portion may have been in flight.
        assert service.asked["runs/get"] <= read + 2 * rate_limiter.REQUESTS_AT_ONCE
        for run_id in run_ids:
            service.end(run_id)
        assert set(await result_states(tasks)) == {"SUCCESS"}
    lines = [r.getMessage() for r in caplog.records if r.name == run_lists.__name__]
    assert lines[0].startswith("Runs are read one by one for now, since listing them does not work")
    assert lines[1:] == ["The lists of runs can be read again."]


@pytest.mark.parametrize("status", [302, 404, 403])
async def test_one_unexpected_response_for_a_list(
    service: ManyRuns, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """The list is read again; five hundred runs are not read by their ids instead."""
    monkeypatch.setattr(list_pages, "SECOND_TRY_SECONDS", 0.01)
    run_ids = service.add(500)
    tasks = start_waits(poller(), run_ids)
    service.trouble.append(status)
    async with asyncio.timeout(10):
        await wait_until(lambda: service.asked["runs/list active_only"] >= 4)
        for run_id in run_ids:
            service.end(run_id)
        assert set(await result_states(tasks)) == {"SUCCESS"}
    assert service.asked["runs/get"] <= 5


@pytest.mark.parametrize("passes", [True, False])
async def test_unexpected_responses_for_all_requests(
    service: ManyRuns, monkeypatch: pytest.MonkeyPatch, passes: bool
) -> None:
    """After runs were read it is an outage, not a wrong address, with a limit of its own."""
    monkeypatch.setattr(list_pages, "SECOND_TRY_SECONDS", 0.01)
    monkeypatch.setattr(
        retry, "_UNEXPECTED_WHILE_POLLING", Backoff(0.1, 0.1, 1.0, always_limited=True)
    )
    run_ids = service.add(5)
    tasks = start_waits(poller(retry_delay=None), run_ids)
    async with asyncio.timeout(10):
        await wait_until(lambda: sum(service.asked.values()) >= 2)
        service.trouble.extend([404] * (10 if passes else 10_000))
        for run_id in run_ids:
            service.end(run_id)
        if passes:
            assert set(await result_states(tasks)) == {"SUCCESS"}
        else:
            for task in tasks:
                with pytest.raises(UnexpectedResponseError):
                    await task


DEEP = b'{"run_id": 1, "state": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


# The odd run is run 1, of these bytes, a status and headers.
ODD_ANSWERS: dict[str, tuple[bytes, int, dict[str, str]]] = {
    "a state that is text": (b'{"run_id": 1, "state": "RUNNING"}', 200, {}),
    "an id that is a list": (b'{"run_id": [1]}', 200, {}),
    "an empty object": (b"{}", 200, {}),
    "nothing": (b"", 200, {}),
    "null": (b"null", 200, {}),
    "another run": (b'{"run_id": 4, "state": {"life_cycle_state": "RUNNING"}}', 200, {}),
    "nested deeply": (DEEP, 200, {}),
}


@pytest.mark.parametrize("name", ODD_ANSWERS)
async def test_an_invalid_response_fails_its_waiter_only(
    service: ManyRuns, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Its run is read again within limits; then its wait raises the response, and no other does."""
    monkeypatch.setattr(
        retry, "_INVALID_BODY", Backoff(0.01, 0.05, max_attempts=5, always_limited=True)
    )
    body, status, headers = ODD_ANSWERS[name]
    odd, *run_ids = service.add(5)
    service.lists_refused = True
    service.odd[odd] = lambda: web.Response(body=body, status=status, headers=headers)
    one = poller(retry_delay=None)
    (alone,), tasks = start_waits(one, [odd]), start_waits(one, run_ids)
    async with asyncio.timeout(10):
        with pytest.raises(UnexpectedResponseError, match="does not fit") as caught:
            await alone
        if body.startswith(b"{"):
            assert body[:400].decode() in str(caught.value)
        assert not any(task.done() for task in tasks)
        for run_id in run_ids:
            service.end(run_id)
        assert set(await result_states(tasks)) == {"SUCCESS"}
    lines = poller_lines(caplog)
    assert [line.split(",")[0] for line in lines] == ["Run 1 cannot be read for now"]


async def test_a_run_id_given_as_text(service: ManyRuns) -> None:
    """The waiter gets the run, and it is read no more often than its period says."""
    (run_id,) = service.add(1)

    def as_text() -> web.Response:
        return web.json_response(
            {**service.runs[run_id].as_json(time.time()), "run_id": str(run_id)}
        )

    service.odd[run_id] = as_text
    tasks = start_waits(poller(), [run_id])
    began = time.monotonic()
    async with asyncio.timeout(10):
        await wait_until(lambda: service.asked["runs/get"] >= 3)
        service.end(run_id)
        (run,) = await asyncio.gather(*tasks)
    assert run["run_id"] == run_id
    assert service.asked["runs/get"] <= 2 + (time.monotonic() - began) / (0.8 * PERIOD)


async def test_invalid_items_in_a_list(service: ManyRuns) -> None:
    """The other runs of the page are published; the invalid ones are read by their ids."""
    run_ids = service.add(100)
    odd = dict(zip(run_ids, (7, {"run_id": 2, "state": "RUNNING"}, {"run_id": None}), strict=False))

    async def with_odd_items(request: web.Request) -> web.Response:
        answer = json.loads((await service._list(request)).text or "")
        answer["runs"] = [odd.get(run["run_id"], run) for run in answer["runs"]]
        return web.json_response(answer)

    service.list_runs = with_odd_items
    tasks = start_waits(poller(), run_ids)
    async with asyncio.timeout(10):
        await wait_until(lambda: service.asked["runs/list active_only"] >= 3)
        for run_id in run_ids:
            service.end(run_id)
        assert set(await result_states(tasks)) == {"SUCCESS"}
    assert set(service.latest) == set(odd)
