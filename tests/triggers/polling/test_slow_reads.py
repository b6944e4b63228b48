"""A read that takes long delays no other run's wait."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.triggers.polling import list_pages, outages, run_lists, slow_reads
from airflow_jobs_provider.triggers.polling.poller import RunPoller
from airflow_jobs_provider.triggers.polling.registry import get_poller
from tests.fakes.many_runs import ManyRuns

SLOW = 1
RUNNING = {"life_cycle_state": "RUNNING"}
ENDED = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}


class SlowResponses:
    """Answers for some runs byte by byte, until it is told to go on."""

    def __init__(self) -> None:
        self.slow = {SLOW}
        self.go_on = asyncio.Event()
        self.dripping = asyncio.Event()
        self.asked_often = asyncio.Event()
        self.asked: Counter[int] = Counter()
        self.slow_lists = False
        self.asked_lists = 0
        self.state: dict[str, str] = RUNNING

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Answer ``runs/get``."""
        run_id = int(request.query["run_id"])
        self.asked[run_id] += 1
        if self.asked[2] >= 5:
            self.asked_often.set()
        response = web.StreamResponse()
        await response.prepare(request)
        while run_id in self.slow and not self.go_on.is_set():
            self.dripping.set()
            await response.write(b" ")
            await asyncio.sleep(0.02)
        await response.write(json.dumps({"run_id": run_id, "state": self.state}).encode())
        return response

    async def list(self, request: web.Request) -> web.StreamResponse:
        """Answer ``runs/list``: byte by byte where lists are slow, else they may not be read."""
        self.asked_lists += 1
        if not self.slow_lists:
            return web.json_response({"error_code": "PERMISSION_DENIED"}, status=403)
        response = web.StreamResponse()
        await response.prepare(request)
        while not self.go_on.is_set():
            await response.write(b" ")
            await asyncio.sleep(0.02)
        return response


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SlowResponses]:
    """The service and the connection to it; a read is slow after a fifth of a second."""
    monkeypatch.setattr(slow_reads, "SLOW_AFTER_SECONDS", 0.2)
    monkeypatch.setattr(slow_reads, "CHECK_AGAIN_AFTER_SECONDS", 0.1)
    one = SlowResponses()
    app = ManyRuns(get_run=one.get, list_runs=one.list).app()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    connection = {"conn_type": "databricks_jobs", "host": f"http://{host}:{port}", "password": "t"}
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))
    yield one
    one.go_on.set()
    for task in [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]:
        if "RunPoller" in repr(task):
            task.cancel()
    await runner.cleanup()


def wait_for(poller: RunPoller, run_id: int) -> asyncio.Task[Any]:
    """Wait until a run is not RUNNING."""
    known = {"state": RUNNING}
    return asyncio.create_task(poller.wait_for_change(run_id, period=0.1, known=known))


async def test_one_slow_read_delays_no_other(service: SlowResponses) -> None:
    """The others are polled meanwhile; the slow run is read once, and its waiter gets it."""
    poller = get_poller(DatabricksJobsHook(retry_delay=0.05))
    slow, *others = (wait_for(poller, run_id) for run_id in (SLOW, 2, 3))
    async with asyncio.timeout(20):
        await service.dripping.wait()
        await service.asked_often.wait()
        assert service.asked[SLOW] == 1
        service.state = ENDED
        assert [(await other)["run_id"] for other in others] == [2, 3]
        assert not slow.done()
        service.go_on.set()
        assert (await slow)["run_id"] == SLOW
    assert service.asked[SLOW] <= 2


async def test_all_reads_are_slow(service: SlowResponses) -> None:
    """Each waiter gets its run when the response is complete; no request is repeated meanwhile."""
    service.slow = {1, 2, 3}
    service.state = ENDED
    poller = get_poller(DatabricksJobsHook(retry_delay=0.05))
    waits = [wait_for(poller, run_id) for run_id in (1, 2, 3)]
    async with asyncio.timeout(20):
        while sum(service.asked.values()) < 3:  # noqa: ASYNC110 - the service has no event for it
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.0)
        assert sum(service.asked.values()) == 3
        service.go_on.set()
        assert [(await wait)["run_id"] for wait in waits] == [1, 2, 3]


async def test_a_slow_list_times_out(
    service: SlowResponses, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After the time limit of a page, which is short, the runs are read by their ids."""
    caplog.set_level("INFO")
    monkeypatch.setattr(list_pages, "PAGE_SECONDS", 0.3)
    service.slow, service.slow_lists = set(), True
    poller = get_poller(DatabricksJobsHook())
    run_ids = list(range(1, 41))
    waits = [wait_for(poller, run_id) for run_id in run_ids]
    async with asyncio.timeout(30):
        await service.asked_often.wait()
        assert service.asked_lists == 1
        service.state = ENDED
        assert [(await wait)["run_id"] for wait in waits] == run_ids
    assert service.asked_lists == 1
    (line,) = [r.getMessage() for r in caplog.records if r.name == run_lists.__name__]
    assert line.endswith("a page did not come within 0.3 s")
    assert not [r for r in caplog.records if r.name == outages.__name__]
