"""The blocking and the asyncio client behind one interface."""

from __future__ import annotations

import asyncio
from typing import Any

from airflow_jobs_provider.api.auth import Token
from airflow_jobs_provider.api.calls import Call, Page
from airflow_jobs_provider.api.client import AsyncJobsClient, JobsClient
from airflow_jobs_provider.api.retry import RetryPolicy
from airflow_jobs_provider.api.workflows.base import Workflow
from tests.fakes.scripted_server import TOKEN

__all__ = ["Face"]


class Face:
    """One of the two clients, used the same way; waits are noted, not waited."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.waits: list[float] = []
        self._runner = asyncio.Runner() if kind == "asyncio" else None
        self._client: Any = None

    def connect(self, url: str, credentials: Any = None, **options: Any) -> Any:
        """Make the client; the policy's jitter is off."""
        self.disconnect()
        options.setdefault("retries", RetryPolicy(random=lambda: 0.0))
        credentials = credentials or Token(TOKEN)
        if self._runner is None:
            self._client = JobsClient(url, credentials, sleep=self.waits.append, **options)
        else:
            self._client = AsyncJobsClient(url, credentials, sleep=self._note, **options)
        return self._client

    async def _note(self, seconds: float) -> None:
        self.waits.append(seconds)

    def send(self, call: Call[Any], **options: Any) -> Any:
        """Send a call and return its result."""
        if self._runner is None:
            return self._client.send(call, **options)
        return self._runner.run(self._client.send(call, **options))

    def run(self, steps: Workflow[Any]) -> Any:
        """Execute a workflow and return its result."""
        if self._runner is None:
            return self._client.run(steps)
        return self._runner.run(self._client.run(steps))

    def take(self, call: Call[Page[Any]], count: int) -> list[Any]:
        """Return the first items of a list."""
        if self._runner is None:
            items = self._client.iterate(call)
            return [item for _, item in zip(range(count), items, strict=False)]

        async def collect() -> list[Any]:
            taken: list[Any] = []
            iterator = self._client.iterate(call)
            async for item in iterator:
                taken.append(item)
                if len(taken) == count:
                    break
            await iterator.aclose()
            return taken

        return self._runner.run(collect())

    def disconnect(self) -> None:
        """Close the client."""
        if self._client is None:
            return
        if self._runner is None:
            self._client.close()
        else:
            self._runner.run(self._client.close())

    def close(self) -> None:
        """Close client and loop."""
        self.disconnect()
        if self._runner is not None:
            self._runner.close()
