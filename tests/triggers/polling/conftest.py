"""The service of the tests of the whole poller."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from airflow_jobs_provider.triggers.polling import rate_limiter, run_changes
from tests.fakes.many_runs import ManyRuns


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
