"""A read that takes long delays no other run's wait."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.triggers.polling import list_pages, outages, run_lists, slow_reads
from airflow_jobs_provider.triggers.polling.poller import RunPoller
from airflow_jobs_provider.triggers.polling.registry import get_poller
from airflow_jobs_provider.triggers.polling.slow_reads import SlowReads
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


@pytest.mark.slow
async def test_a_slow_list_times_out(
    service: SlowResponses, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After the time limit of a page, which is short, the runs are read by their ids."""
    caplog.set_level("INFO")
    monkeypatch.setattr(list_pages, "PAGE_SECONDS", 0.3)
    monkeypatch.setattr(run_lists, "SUSPEND_SECONDS", 60.0)
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


class Reads:
    """Reads of runs that end when the test says so.

    :ivar results: the result, or the error, of each run's read.
    """

    def __init__(self, *run_ids: int) -> None:
        loop = asyncio.get_running_loop()
        self.results: dict[int, asyncio.Future[bool]] = {n: loop.create_future() for n in run_ids}
        self.begun: list[int] = []
        self.canceled: list[int] = []

    async def read(self, run_id: int) -> bool:
        """Read a run."""
        self.begun.append(run_id)
        try:
            return await asyncio.shield(self.results[run_id])
        except asyncio.CancelledError:
            self.canceled.append(run_id)
            raise


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read is slow at once."""
    monkeypatch.setattr(slow_reads, "SLOW_AFTER_SECONDS", 0.01)


def finished(slow: SlowReads) -> bool:
    """Return whether any read of the last call has finished."""
    return slow.any_finished


async def settled() -> None:
    """Let the tasks that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_when_a_read_is_slow() -> None:
    """After five seconds; it is looked at again each second."""
    assert (slow_reads.SLOW_AFTER_SECONDS, slow_reads.CHECK_AGAIN_AFTER_SECONDS) == (5, 1)


async def test_results_and_errors_of_finished_reads_are_returned(quick: None) -> None:
    """False is a result, too."""
    reads, slow = Reads(1, 2, 3), SlowReads()
    assert finished(slow) is False
    reads.results[1].set_result(True)
    reads.results[2].set_result(False)
    error = ValueError("gone")
    reads.results[3].set_exception(error)
    assert await slow.read([1, 2, 3], reads.read) == {1: True, 2: False, 3: error}
    assert finished(slow) is True
    assert slow.not_before() == {}


async def test_a_slow_read_is_in_progress_until_it_has_finished(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not begun again; its error is returned at the next call, and once only."""
    monkeypatch.setattr(slow_reads, "time", SimpleNamespace(monotonic=lambda: 100.0))
    reads, slow = Reads(1, 2), SlowReads()
    assert await slow.read([1, 2], reads.read) == {}
    assert finished(slow) is False
    assert slow.not_before() == {1: 101.0, 2: 101.0}
    assert await slow.read([1], reads.read) == {}
    assert reads.begun == [1, 2]
    error = ValueError("gone")
    reads.results[1].set_exception(error)
    await settled()
    assert slow.not_before() == {2: 101.0}
    assert await slow.read([1], reads.read) == {1: error}
    assert finished(slow) is True
    reads.results[1] = asyncio.get_running_loop().create_future()
    reads.results[1].set_result(True)
    assert await slow.read([1], reads.read) == {1: True}
    assert reads.begun == [1, 2, 1]
    slow.cancel()
    await settled()


async def test_a_slow_read_that_succeeded_is_done(quick: None) -> None:
    """The run was published by then, so the next call reads it anew."""
    reads, slow = Reads(1), SlowReads()
    assert await slow.read([1], reads.read) == {}
    reads.results[1].set_result(True)
    await settled()
    assert slow.not_before() == {}
    assert await slow.read([1], reads.read) == {1: True}
    assert reads.begun == [1, 1]


async def test_reads_in_progress_are_canceled(quick: None) -> None:
    """Slow ones by cancel(), all of a call with it; a canceled one is begun anew."""
    reads, slow = Reads(1, 2), SlowReads()
    assert await slow.read([1], reads.read) == {}
    slow.cancel()
    await settled()
    assert reads.canceled == [1]
    call = asyncio.create_task(slow.read([1, 2], reads.read))
    await settled()
    assert reads.begun == [1, 1, 2]
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await settled()
    assert sorted(reads.canceled) == [1, 1, 2]
