"""Reads of one run that the triggers of its tasks share.

A hundred tasks of a run are a hundred triggers. What they wait for is in one response, so a read
that one of them begins serves all. A trigger whose last read served others waits as long as they
do, so that all of them come for the next one together.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_jobs_provider.airflow_compat.event_loops import PerEventLoop
from airflow_jobs_provider.api.retry import seconds_to_wait
from airflow_jobs_provider.api.workflows.base import OnEvent, Workflow, run_workflow_async
from airflow_jobs_provider.triggers.polling.registry import get_poller, poller_key

if TYPE_CHECKING:
    from airflow_jobs_provider.api.calls import Call
    from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook

__all__ = ["SharedReads", "shared_reads"]

T = TypeVar("T")


@dataclass(slots=True)
class _Read:
    """The latest read of a call: when it began, and its response once there is one."""

    began: float
    task: asyncio.Task[Any]


@dataclass(slots=True)
class _ReadsOfRun:
    """The reads of one run, by the parameters of the call."""

    users: int = 0
    reads: dict[str, _Read] = field(default_factory=dict)

    def read(self, hook: DatabricksJobsHook, call: Call[Any], not_before: float) -> _Read:
        """Return a read that began at this time or later; begin one if there is none."""
        key = repr(sorted(call.parameters.items()))
        known = self.reads.get(key)
        if known is not None and (known.began >= not_before or not known.task.done()):
            return known
        task = asyncio.get_running_loop().create_task(
            # A context of its own: the trigger that begins the read may end before it.
            get_poller(hook).send(call),
            context=contextvars.Context(),
        )
        # An error is raised in each trigger that waits for it; there may be none any more.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.reads[key] = _Read(time.monotonic(), task)
        return self.reads[key]


# Those of an event loop, by the poller's key and the run.
_shared: PerEventLoop[dict[tuple[str, int], _ReadsOfRun]] = PerEventLoop(dict)


@contextmanager
def _reads_of(hook: DatabricksJobsHook, run_id: int) -> Iterator[_ReadsOfRun]:
    all_reads, key = _shared.get(), (poller_key(hook), run_id)
    shared = all_reads.setdefault(key, _ReadsOfRun())
    shared.users += 1
    try:
        with get_poller(hook).shared_wait():
            yield shared
    finally:
        shared.users -= 1
        if not shared.users:
            del all_reads[key]


class SharedReads:
    """One trigger's share in the reads of a run."""

    def __init__(
        self, hook: DatabricksJobsHook, run_id: int, reads: _ReadsOfRun, max_age: float
    ) -> None:
        self._hook = hook
        self._run_id = run_id
        self._reads = reads
        self._not_before = self._latest = time.monotonic() - max_age

    async def run_workflow(
        self, steps: Workflow[T], *, on_event: OnEvent = lambda _event: None
    ) -> T:
        """Execute a workflow that reads the run again and again, together with other triggers.

        :param steps: the workflow. Its first wait counts from the latest read, also from one of an
            earlier workflow.
        :param on_event: called with each event of the workflow.
        """
        return await run_workflow_async(steps, send=self._send, wait=self._wait, on_event=on_event)

    async def _send(self, call: Call[Any]) -> Any:
        if call.path != "runs/get" or call.parameters.get("run_id") != self._run_id:
            return await get_poller(self._hook).send(call)
        read = self._reads.read(self._hook, call, self._not_before)
        response = await asyncio.shield(read.task)
        if "page_token" not in call.parameters:
            self._latest = read.began
        return response

    async def _wait(self, seconds: float) -> None:
        due = self._latest + seconds_to_wait(seconds)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        self._not_before = due


@contextmanager
def shared_reads(
    hook: DatabricksJobsHook, run_id: int, *, period: float, max_age: float | None = None
) -> Iterator[SharedReads]:
    """Read one run again and again, together with the other triggers that do so.

    :param hook: hook of the connection.
    :param run_id: the run.
    :param period: seconds between two reads.
    :param max_age: seconds since the begin of a read by another trigger whose response is taken as
        the first one; default ``period``.
    """
    with _reads_of(hook, run_id) as reads:
        yield SharedReads(hook, run_id, reads, period if max_age is None else max_age)
