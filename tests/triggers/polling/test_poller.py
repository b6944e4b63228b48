"""The poller over real HTTP: how many requests many waits cost, and what each waiter gets."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from typing import Any

import pytest
from aiohttp import web

from airflow_jobs_provider.api.endpoints import get_run
from airflow_jobs_provider.api.errors import (
    NotFoundError,
)
from airflow_jobs_provider.api.workflows.base import Wait
from airflow_jobs_provider.api.workflows.follow import follow_run
from airflow_jobs_provider.api.workflows.progress import RunProgress
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger
from airflow_jobs_provider.triggers.polling import poller as poller_module
from airflow_jobs_provider.triggers.polling import (
    rate_limiter,
    reader,
    run_changes,
    run_lists,
)
from tests.fakes.many_runs import ManyRuns
from tests.helpers.polling import (
    PERIOD,
    poller,
    result_states,
    start_waits,
    wait_for_end,
    wait_until,
)


async def test_one_run_is_read_by_its_id(service: ManyRuns) -> None:
    """One run costs the same requests as without a poller, and no list is read."""
    (run_id,) = service.add(1)
    tasks = start_waits(poller(), [run_id])
    await asyncio.sleep(2.5 * PERIOD)
    service.end(run_id, "FAILED")
    assert await result_states(tasks) == ["FAILED"]
    assert set(service.asked) == {"runs/get"}
    assert service.asked["runs/get"] <= 5


async def test_many_runs_are_read_from_lists(service: ManyRuns) -> None:
    """Five hundred waits over several polls cost a handful of requests, and all get their run."""
    run_ids = service.add(500)
    began = time.monotonic()
    tasks = start_waits(poller(), run_ids)
    for run_id in run_ids:
        await asyncio.sleep(0.002)
        service.end(run_id, "SUCCESS" if run_id % 2 else "FAILED")
    states = await result_states(tasks)
    assert states == ["SUCCESS" if run_id % 2 else "FAILED" for run_id in run_ids]
    polls = 1 + (time.monotonic() - began) / (0.7 * PERIOD)
    assert sum(service.asked.values()) <= 6 * polls
    assert len(service.connections) <= rate_limiter.REQUESTS_AT_ONCE


@pytest.mark.parametrize("connection", ["databricks_later", "databricks_default"])
async def test_only_what_has_changed_is_read_where_all_runs_take_too_long(
    service: ManyRuns, monkeypatch: pytest.MonkeyPatch, connection: str
) -> None:
    """The active runs are read once. After that the pages have runs that have ended or are new."""
    monkeypatch.setattr(run_changes, "SLOW_FRACTION", 0.0)
    one = poller(databricks_conn_id=connection)
    run_ids = service.add(200)
    tasks = start_waits(one, run_ids)
    await wait_until(lambda: service.asked["runs/list active_only"] > 0)
    await asyncio.sleep(2 * PERIOD)
    service.asked.clear()
    for run_id in run_ids[:60]:
        service.end(run_id, "SUCCESS" if run_id % 2 else "FAILED")
    states = await result_states(tasks[:60])
    assert states == ["SUCCESS" if run_id % 2 else "FAILED" for run_id in run_ids[:60]]
    assert set(service.asked) == {"runs/list completed_only"}
    new = service.add(3)
    late = start_waits(one, new)
    await wait_until(lambda: service.asked["runs/list active_only"] > 0)
    service.asked.clear()
    await asyncio.sleep(2 * PERIOD)
    assert service.asked["runs/list active_only"] <= 1
    for run_id in [*new, *run_ids[60:]]:
        service.end(run_id)
    await asyncio.gather(*late, *tasks)
    assert service.asked["runs/get"] <= 3


async def test_a_run_missing_from_a_list_is_read_by_its_id(service: ManyRuns) -> None:
    """Active runs that no list has are read by their ids, and their waits go on."""
    run_ids = service.add(100)
    hidden = run_ids[:3]
    tasks = start_waits(poller(), run_ids)
    full = service.runs
    listed = {k: v for k, v in full.items() if k not in hidden}
    original = service._list

    async def without_hidden(request: web.Request) -> web.Response:
        service.runs = listed
        try:
            return await original(request)
        finally:
            service.runs = full

    # The fake service's own list, cut as a busy service's can be.
    service.list_runs = without_hidden
    async with asyncio.timeout(30):
        await wait_until(lambda: set(hidden) <= set(service.latest))
    await asyncio.sleep(PERIOD)
    assert not any(task.done() for task in tasks)
    for run_id in run_ids:
        service.end(run_id)
    assert set(await result_states(tasks)) == {"SUCCESS"}


async def test_a_deleted_run_fails_its_waiter_only(service: ManyRuns) -> None:
    """The other waits go on."""
    run_ids = service.add(50)
    tasks = start_waits(poller(), run_ids)
    service.deleted.add(run_ids[7])
    with pytest.raises(NotFoundError, match=f"Run {run_ids[7]} "):
        await tasks.pop(7)
    assert not any(task.done() for task in tasks)
    for run_id in run_ids:
        service.end(run_id)
    assert set(await result_states(tasks)) == {"SUCCESS"}


async def test_a_list_that_is_refused(service: ManyRuns) -> None:
    """A user who may not list runs has them read one by one."""
    service.lists_refused = True
    run_ids = service.add(30)
    tasks = start_waits(poller(), run_ids)
    async with asyncio.timeout(30):
        await wait_until(lambda: service.asked["runs/get"] >= 3 * len(run_ids))
    for run_id in run_ids:
        service.end(run_id)
    assert set(await result_states(tasks)) == {"SUCCESS"}
    assert service.asked["runs/list active_only"] == 1


async def test_lists_with_many_runs_of_others_are_not_read(service: ManyRuns) -> None:
    """Three waits in a workspace with thousands of runs: once measured, lists are not read."""
    service.add(3000)
    run_ids = service.add(3)
    tasks = start_waits(poller(), run_ids)
    await asyncio.sleep(4 * PERIOD)
    for run_id in run_ids:
        service.end(run_id)
    assert set(await result_states(tasks)) == {"SUCCESS"}
    assert service.asked["runs/list active_only"] <= 3


async def test_runs_beyond_the_largest_offset(service: ManyRuns) -> None:
    """Runs older than ten thousand others are in no list, and are read by their ids."""
    run_ids = service.add(40)
    service.add(10_500)
    tasks = start_waits(poller(), run_ids)
    await asyncio.sleep(2 * PERIOD)
    for run_id in run_ids:
        service.end(run_id)
    assert set(await result_states(tasks)) == {"SUCCESS"}


async def test_lists_with_pages_of_25_runs(service: ManyRuns) -> None:
    """Page tokens and small pages, as in later API versions: few runs are read by their ids."""
    run_ids = service.add(300)

    async def then_all_end(request: web.Request) -> web.Response:
        answer = await service._list(request)
        if "next_page_token" not in (answer.text or ""):
            for run_id in run_ids:
                service.end(run_id)
        return answer

    service.list_runs = then_all_end
    tasks = start_waits(poller(databricks_conn_id="databricks_later"), run_ids)
    assert set(await result_states(tasks)) == {"SUCCESS"}
    # None, but where the machine is so busy that a list takes longer than the period.
    assert service.asked["runs/get"] < len(run_ids) / 2


async def test_a_poller_for_each_connection(service: ManyRuns) -> None:
    """Two credentials for one host are two pollers; one credential is one."""
    assert poller() is poller()
    other = poller(databricks_conn_id="databricks_other")
    assert other is not poller()
    run_ids = service.add(2)
    tasks = [*start_waits(poller(), run_ids[:1]), *start_waits(other, run_ids[1:])]
    for run_id in run_ids:
        service.end(run_id)
    assert set(await result_states(tasks)) == {"SUCCESS"}


async def test_each_waiters_period_is_kept(service: ManyRuns) -> None:
    """Each run is polled at its own waiter's period."""
    quick, slow = service.add(2)
    tasks = [*start_waits(poller(), [quick], 0.1), *start_waits(poller(), [slow], 60)]
    async with asyncio.timeout(30):
        await wait_until(lambda: service.latest.count(quick) >= 5)
        service.end(quick)
        await tasks[0]
    tasks[1].cancel()
    assert slow not in service.latest


async def test_a_canceled_wait_is_removed(service: ManyRuns) -> None:
    """Nothing is read for it any more."""
    (run_id,) = service.add(1)
    (task,) = start_waits(poller(), [run_id])
    await asyncio.sleep(2 * PERIOD)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(PERIOD)  # what was asked before it left has been answered
    before = service.asked.copy()
    await asyncio.sleep(2 * PERIOD)
    assert service.asked == before


async def test_two_waiters_for_one_run(service: ManyRuns) -> None:
    """Both get the run, and it is read once."""
    (run_id,) = service.add(1)
    tasks = start_waits(poller(), [run_id, run_id])
    service.end(run_id)
    assert await result_states(tasks) == ["SUCCESS", "SUCCESS"]
    assert sum(service.asked.values()) == 1


async def test_report_after(service: ManyRuns) -> None:
    """With report_after the waiter gets the run although it has not changed."""
    (run_id,) = service.add(1)
    known = service.runs[run_id].as_json(time.time())
    run = await poller().wait_for_change(run_id, period=0.05, known=known, report_after=0.1)
    assert run["state"]["life_cycle_state"] == "RUNNING"


async def test_an_unknown_connection(service: ManyRuns) -> None:
    """All waits raise the error, and a later wait gets a new poller."""
    one = poller(databricks_conn_id="no_such_connection")
    with pytest.raises(Exception, match="no_such_connection"):
        await wait_for_end(one, 7)
    await asyncio.sleep(0)
    assert poller(databricks_conn_id="no_such_connection") is not one


async def test_triggers_share_the_poller(service: ManyRuns) -> None:
    """A hundred triggers fire one event each, for a handful of requests."""
    run_ids = service.add(100)
    triggers = [
        DatabricksJobRunTrigger(run_id, polling_period_seconds=PERIOD) for run_id in run_ids
    ]

    async def fire(trigger: DatabricksJobRunTrigger) -> list[Any]:
        return [event.payload async for event in trigger.run()]

    tasks = [asyncio.create_task(fire(trigger)) for trigger in triggers]
    await asyncio.sleep(2 * PERIOD)
    for run_id in run_ids:
        service.end(run_id)
    fired = await asyncio.gather(*tasks)
    assert [[event["run"]["run_id"] for event in events] for events in fired] == [
        [run_id] for run_id in run_ids
    ]
    assert sum(service.asked.values()) <= 15


class EndingRuns:
    """A service's runs that end as its lists are read: a number of them at each page.

    Time plays no part in it, so the lists move under the reader the same way on any machine.
    """

    def __init__(self, service: ManyRuns, run_ids: list[int], ends_at_each_page: int) -> None:
        self._service = service
        self._left = sorted(run_ids, key=lambda run_id: run_id * 7919 % len(run_ids))
        self._ends_at_each_page = ends_at_each_page
        service.list_runs = self._list

    async def _list(self, request: web.Request) -> web.Response:
        answer = await self._service._list(request)
        for _ in range(min(self._ends_at_each_page, len(self._left))):
            self._service.end(self._left.pop())
        return answer


@pytest.mark.parametrize("ends_at_each_page", [pytest.param(8, marks=pytest.mark.exhaustive), 24])
async def test_runs_that_end_between_pages(service: ManyRuns, ends_at_each_page: int) -> None:
    """However far the list moves between two pages, no run is missed."""
    service.max_page = 160
    run_ids = service.add(800)
    EndingRuns(service, run_ids, ends_at_each_page)
    tasks = start_waits(poller(), run_ids)
    async with asyncio.timeout(60):
        assert set(await result_states(tasks)) == {"SUCCESS"}
    assert service.found_active == 0


async def test_a_page_size_that_is_refused(
    service: ManyRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a page size is refused, smaller pages are read, and lists are still used."""
    # All runs are due together, however long the machine takes to start three hundred waits.
    monkeypatch.setattr(reader, "EARLY_FRACTION", 1.0)
    service.max_page = 100
    limits: list[int] = []

    async def note_limit(request: web.Request) -> web.Response:
        limits.append(int(request.query["limit"]))
        return await service._list(request)

    service.list_runs = note_limit
    run_ids = service.add(300)
    tasks = start_waits(poller(), run_ids)
    async with asyncio.timeout(30):
        await wait_until(lambda: service.asked["runs/list active_only"] >= 12)
        for run_id in run_ids:
            service.end(run_id)
        assert set(await result_states(tasks)) == {"SUCCESS"}
    assert service.found_active == 0
    assert len([limit for limit in limits if limit > service.max_page]) == 1


@pytest.mark.parametrize("connection", ["databricks_default", "databricks_later"])
async def test_listed_runs_keep_their_tasks(
    service: ManyRuns, monkeypatch: pytest.MonkeyPatch, connection: str
) -> None:
    """A waiter gets a run with all its tasks, though lists leave out some or all of them."""
    # All runs are due together, so that lists are read however slow the machine is.
    monkeypatch.setattr(reader, "EARLY_FRACTION", 1.0)
    run_ids = service.add(60)
    for run_id in run_ids:
        service.runs[run_id].tasks = 120 if run_id == run_ids[0] else 2
    tasks = start_waits(poller(databricks_conn_id=connection), run_ids)
    await asyncio.sleep(2 * PERIOD)
    for run_id in run_ids:
        service.end(run_id)
    runs = await asyncio.gather(*tasks)
    assert [len(run["tasks"]) for run in runs] == [120] + [2] * 59
    if connection == "databricks_later":
        # Later versions list tasks when asked to, the first hundred of a run.
        assert service.asked["runs/get"] < 10


@pytest.mark.parametrize("queued_timeout_seconds", [None, 100])
async def test_one_run_is_read_once_per_period(
    service: ManyRuns, queued_timeout_seconds: float | None
) -> None:
    """One run costs no more requests than a trigger that polls by itself."""
    (run_id,) = service.add(1)
    began = time.monotonic()
    trigger = DatabricksJobRunTrigger(
        run_id, polling_period_seconds=PERIOD, queued_timeout_seconds=queued_timeout_seconds
    )
    asyncio.get_running_loop().call_later(8 * PERIOD, service.end, run_id)
    assert [event.payload["run"]["run_id"] async for event in trigger.run()] == [run_id]
    looks = 1 + int((time.monotonic() - began) / PERIOD)
    assert service.asked["runs/get"] <= looks


@pytest.mark.slow
async def test_periods_that_cannot_be_kept(
    service: ManyRuns, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the pages are too small for the period, one line says so, and all runs are read."""
    monkeypatch.setattr(rate_limiter, "REQUESTS_PER_SECOND", 25.0)
    run_ids = service.add(800)
    tasks = start_waits(poller(databricks_conn_id="databricks_later"), run_ids)
    async with asyncio.timeout(30):
        await wait_until(lambda: service.asked["runs/list active_only"] >= 70)
    for run_id in run_ids:
        service.end(run_id)
    assert set(await result_states(tasks)) == {"SUCCESS"}
    lines = [
        r.getMessage()
        for r in caplog.records
        if r.name.startswith("airflow_jobs_provider.triggers.")
    ]
    assert len(lines) == 1
    assert "longer than the shortest polling period, 0.2 s" in lines[0]


async def test_an_active_run_is_kept_without_details(service: ManyRuns) -> None:
    """A run that has ended is returned with all its fields."""
    (run_id,) = service.add(1)
    seen: list[dict[str, Any]] = []

    def steps() -> Any:
        seen.append((yield get_run(run_id)))
        service.end(run_id)
        yield Wait(PERIOD)
        seen.append((yield get_run(run_id)))

    await poller().run_workflow(steps(), period=PERIOD)
    active, done = seen
    assert active["run_id"] == run_id
    assert active["state"]["life_cycle_state"] == "RUNNING"
    assert "cluster_spec" not in active
    assert done == service.runs[run_id].as_json(time.time())


async def test_large_runs_make_small_pages(service: ManyRuns) -> None:
    """Parsing a page does not block the event loop for long."""
    pages: list[int] = []

    async def large(request: web.Request) -> web.Response:
        answer = json.loads((await service._list(request)).text or "")
        for run in answer["runs"]:
            run["description"] = 20_000 * "x"
        response = web.json_response(answer)
        pages.append(response.content_length or 0)
        return response

    service.list_runs = large
    run_ids = service.add(1200)
    tasks = start_waits(poller(), run_ids, 1.0)
    async with asyncio.timeout(20):
        await wait_until(lambda: len(pages) >= 3)
    for task in tasks:
        task.cancel()
    first, *others = pages
    assert first <= 0.5 * 1200 * 20_000
    assert max(others) <= 1.01 * run_lists.MAX_PAGE_BYTES


async def test_runs_are_read_in_order_of_their_due_times(
    service: ManyRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that no list has are read by their ids, the longest due first."""
    run_ids = service.add(64)
    parts = iter([1.0 - n / 1000 for n in range(len(run_ids))])
    monkeypatch.setattr(random, "uniform", lambda *_: next(parts, 1.0))

    async def nothing(_request: web.Request) -> web.Response:
        return web.json_response({"runs": []})

    service.list_runs = nothing
    tasks = start_waits(poller(), run_ids, 1.0)
    async with asyncio.timeout(20):
        await wait_until(lambda: len(service.latest) >= len(run_ids))
    for task in tasks:
        task.cancel()
    at_once = rate_limiter.REQUESTS_AT_ONCE
    asked = list(service.latest)[: len(run_ids)]
    portions = [sorted(asked[n : n + at_once]) for n in range(0, len(asked), at_once)]
    assert portions == sorted(portions, reverse=True)


async def test_a_read_for_the_log_delays_no_event(
    service: ManyRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A response that takes long is given up, and the wait for the run goes on."""
    monkeypatch.setattr(poller_module, "LONGEST_OPTIONAL_SECONDS", 0.01)
    one, given_up = poller(), asyncio.Event()
    send = one.send

    async def never_answer(call: Any, **arguments: Any) -> Any:
        if not call.is_optional:
            return await send(call, **arguments)
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()

    monkeypatch.setattr(one, "send", never_answer)
    (run_id,) = service.add(1)
    progress = RunProgress(run_id, logging.getLogger("task"))
    monkeypatch.setattr(progress, "tasks_are_due", lambda _run: not given_up.is_set())
    steps = follow_run(run_id, polling_period=lambda: PERIOD, progress=progress)
    waiting = asyncio.create_task(one.run_workflow(steps, period=PERIOD))
    async with asyncio.timeout(10):
        await given_up.wait()
        service.end(run_id)
        assert (await waiting).run["run_id"] == run_id
