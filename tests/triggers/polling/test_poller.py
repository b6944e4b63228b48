"""The poller over real HTTP: how many requests many waits cost, and what each waiter gets."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from airflow_jobs_provider.api import retry
from airflow_jobs_provider.api.endpoints import get_run, get_run_output, list_runs
from airflow_jobs_provider.api.errors import (
    AuthenticationError,
    JobsAPIError,
    NotFoundError,
    UnexpectedResponseError,
)
from airflow_jobs_provider.api.retry import Backoff
from airflow_jobs_provider.api.workflows.base import Wait
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger
from airflow_jobs_provider.triggers.polling import (
    list_pages,
    outages,
    rate_limiter,
    reader,
    run_changes,
    run_lists,
)
from airflow_jobs_provider.triggers.polling import poller as poller_module
from airflow_jobs_provider.triggers.polling.poller import RunPoller
from airflow_jobs_provider.triggers.polling.registry import get_poller
from tests.fakes.many_runs import ManyRuns

PERIOD = 0.2


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ManyRuns]:
    """A service with many runs, in this event loop, and the connection to it."""
    many = ManyRuns()
    runner = web.AppRunner(many.app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    for name, version in (("DEFAULT", "2.0"), ("OTHER", "2.0"), ("LATER", "2.1")):
        monkeypatch.setenv(
            f"AIRFLOW_CONN_DATABRICKS_{name}",
            json.dumps(
                {"conn_type": "databricks_jobs", "host": f"http://{host}:{port}", "password": name}
                | {"extra": {"api_version": version}}
            ),
        )
    # The pace is for a service that others use, too.
    monkeypatch.setattr(rate_limiter, "REQUESTS_PER_SECOND", 1000.0)
    # In so short a period no list can be read.
    monkeypatch.setattr(run_changes, "SLOW_FRACTION", 1e9)
    yield many
    for task in [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]:
        if "RunPoller" in repr(task):
            task.cancel()
    await runner.cleanup()


def poller(**arguments: Any) -> RunPoller:
    """Return the poller of the default connection, with short waits between retries."""
    arguments.setdefault("retry_delay", 0.01)
    return get_poller(DatabricksJobsHook(**arguments))


def poller_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the log lines of the poller about runs that cannot be read."""
    return [r.getMessage() for r in caplog.records if r.name == outages.__name__]


async def wait_for_end(one: RunPoller, run_id: int, period: float = PERIOD) -> Any:
    """Wait until a run is not RUNNING."""
    known: dict[str, Any] = {"state": {"life_cycle_state": "RUNNING"}}
    return await one.wait_for_change(run_id, period=period, known=known)


def start_waits(
    one: RunPoller, run_ids: list[int], period: float = PERIOD
) -> list[asyncio.Task[Any]]:
    """Wait for all of these runs."""
    return [asyncio.create_task(wait_for_end(one, run_id, period)) for run_id in run_ids]


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds in the service, which runs in this event loop."""
    while not condition():  # noqa: ASYNC110 - it has no event for everything
        await asyncio.sleep(0.01)


async def result_states(tasks: list[asyncio.Task[Any]]) -> list[str]:
    """Return how the runs ended."""
    return [run["state"]["result_state"] for run in await asyncio.gather(*tasks)]


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


async def test_an_outage_is_logged_at_its_start_and_end(
    service: ManyRuns, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage over several polls with two hundred waiters is two lines in the log."""
    caplog.set_level("INFO")
    run_ids = service.add(200)
    tasks = start_waits(poller(), run_ids)
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


async def test_errors_are_typed(service: ManyRuns) -> None:
    """An error that is not retried is raised in every wait."""
    service.trouble.extend([404] * 50)
    tasks = start_waits(poller(), service.add(3))
    for task in tasks:
        with pytest.raises(JobsAPIError):
            await task


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


@pytest.mark.parametrize("ends_at_each_page", [8, 24])
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


async def test_a_failed_poller_fails_later_waits(service: ManyRuns) -> None:
    """They raise its error at once, as the waits did that it had then."""
    one = poller(databricks_conn_id="not_there")
    async with asyncio.timeout(10):
        for _ in range(2):
            with pytest.raises(Exception, match="not_there"):
                await wait_for_end(one, 7)


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


async def test_a_429_pauses_all_requests(service: ManyRuns) -> None:
    """Whoever got the 429, no request is sent until the wait is over."""
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
    async with asyncio.timeout(10):
        await wait_until(lambda: service.asked["runs/get"] >= 60)
        for run_id in run_ids:
            service.end(run_id)
        assert set(await result_states(tasks)) == {"SUCCESS"}
    assert service.asked["runs/list active_only"] < 20


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
