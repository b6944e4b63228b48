"""The switch that turns waits off in tests."""

from __future__ import annotations

import asyncio
import time

import pytest

from airflow_jobs_provider.api import endpoints
from airflow_jobs_provider.api.auth import Token
from airflow_jobs_provider.api.client import AsyncJobsClient, JobsClient
from airflow_jobs_provider.api.errors import ServerError
from airflow_jobs_provider.api.retry import (
    RetryPolicy,
    async_sleep,
    blocking_sleep,
    no_waiting,
)
from tests.fakes.scripted_server import ScriptedServer, answer

POLICY = RetryPolicy(random=lambda: 0.0)


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_no_client_waits(kind: str, server: ScriptedServer) -> None:
    """Both clients skip their waits, and the skipped waits count for the policy's deadline."""
    server.will(*(answer({}, 503) for _ in range(20)))

    def send() -> None:
        with JobsClient(server.url, Token("t"), retries=POLICY) as client:
            client.send(endpoints.get_run(7))

    async def a_send() -> None:
        async with AsyncJobsClient(server.url, Token("t"), retries=POLICY) as client:
            await client.send(endpoints.get_run(7))

    run = send if kind == "blocking" else lambda: asyncio.run(a_send())
    started = time.monotonic()
    with no_waiting() as waits, pytest.raises(ServerError):
        run()
    assert waits == [30, *[60] * 9]
    assert len(server.requests) == 11
    assert time.monotonic() - started < 30


def test_the_switch_restores_what_was_before() -> None:
    """Blocks may be nested, and an exception leaves nothing switched off."""
    skipped: list[list[float]] = []

    def fail() -> None:
        with no_waiting() as inner:
            skipped.append(inner)
            asyncio.run(async_sleep(2))
            raise ZeroDivisionError

    with no_waiting() as outer:
        blocking_sleep(1)
        with pytest.raises(ZeroDivisionError):
            fail()
        blocking_sleep(3)
    assert (outer, skipped) == ([1, 3], [[2]])
    started = time.monotonic()
    blocking_sleep(0.05)
    asyncio.run(async_sleep(0.05))
    assert time.monotonic() - started >= 0.1
    assert (outer, skipped) == ([1, 3], [[2]])
