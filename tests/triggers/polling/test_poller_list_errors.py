"""The poller over real HTTP: lists of runs that fail, are paused, or come late."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from aiohttp import web

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
    result_states,
    start_waits,
    wait_until,
)


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
