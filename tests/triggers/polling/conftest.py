"""What the tests of the poller run against."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace

import pytest
from aiohttp import web

from airflow_jobs_provider.triggers.polling import rate_limiter, run_changes, run_lists
from tests.fakes.many_runs import ManyRuns
from tests.helpers import poller_bench, timeless_workspace
from tests.helpers.listed_workspace import ListedWorkspace
from tests.helpers.poller_bench import RunBench
from tests.helpers.reader_bench import ReaderBench, reader_bench
from tests.helpers.timeless_workspace import RunScenario


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ManyRuns]:
    """A service with many runs, in this event loop, and the connection to it."""
    many = ManyRuns()
    runner = web.AppRunner(many.app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    versions = {"DEFAULT": "2.0", "OTHER": "2.0", "LATER": "2.1", "ANY": None}
    for name, version in versions.items():
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


@pytest.fixture
def run_scenario(monkeypatch: pytest.MonkeyPatch) -> RunScenario:
    """Run a scenario with a workspace, in virtual time."""
    return lambda scenario, *arguments, **options: timeless_workspace.play(
        monkeypatch, scenario, *arguments, **options
    )


@pytest.fixture
def run_bench(monkeypatch: pytest.MonkeyPatch) -> RunBench:
    """Run a scenario with a poller whose service is in memory, in virtual time."""
    return lambda scenario: poller_bench.run_bench(monkeypatch, scenario)


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> ListedWorkspace:
    """A workspace without runs, and its clock in place of the real one."""
    caplog.set_level("INFO", logger=run_lists.__name__)
    one = ListedWorkspace()
    monkeypatch.setattr(run_lists, "time", SimpleNamespace(monotonic=lambda: one.now))
    return one


@pytest.fixture
def changes_clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock of what reads changes, in place of the real one."""
    one = SimpleNamespace(now=1_000.0)
    monkeypatch.setattr(run_changes, "time", SimpleNamespace(monotonic=lambda: one.now))
    return one


@pytest.fixture
def bench(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[ReaderBench]:
    """A reader of runs and a service in memory, in a time of their own."""
    caplog.set_level("INFO")
    with reader_bench(monkeypatch) as one:
        yield one
