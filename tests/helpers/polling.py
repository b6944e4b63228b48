"""Waits on a poller over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.triggers.polling import outages
from airflow_jobs_provider.triggers.polling.poller import RunPoller
from airflow_jobs_provider.triggers.polling.registry import get_poller

__all__ = [
    "PERIOD",
    "poller",
    "poller_lines",
    "result_states",
    "start_waits",
    "wait_for_end",
    "wait_until",
]

PERIOD = 0.2


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
