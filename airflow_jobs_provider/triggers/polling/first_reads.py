"""First reads of runs that were just launched: several of them take one request.

A triggerer reads a run once after its launch, for the run's page, job and state. The first one is
read by its id, at once. Those that are launched within a second after it are read together, from
the list of active runs, which has the latest start first. So the first reads of a thousand launches
take about a tenth of the requests, and delay the other reads less.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, TypeVar

from airflow_jobs_provider.api.endpoints import RUNS_PER_PAGE_IN_EVERY_VERSION, list_runs
from airflow_jobs_provider.api.responses import InvalidResponseError, parse_run
from airflow_jobs_provider.api.retry import async_sleep
from airflow_jobs_provider.api.states import RunState

if TYPE_CHECKING:
    from airflow_jobs_provider.api.calls import Call
    from airflow_jobs_provider.api.schema.types import Run

__all__ = ["FirstReads"]

T = TypeVar("T")

# From one first read, or list, to the next.
_SECONDS_BETWEEN = 1.0
# A list may lack a run that waits for it. For fewer runs it may take more requests than it saves.
_MIN_RUNS = 3
# How long no list is read after one that had fewer of them: others launch many runs, or no list can
# be read.
_NO_LIST_SECONDS = 60.0
# How long the runs wait for the list before they are read by their ids.
_LIST_SECONDS = 5.0

_LATEST_RUNS = list_runs(
    active_only=True,
    limit=RUNS_PER_PAGE_IN_EVERY_VERSION,
    # Those that are used are checked like the response of runs/get.
    check_items=False,
)._replace(is_optional=True)


class _Send(Protocol):
    def __call__(self, call: Call[T], *, is_urgent: bool = False) -> Awaitable[T]: ...


class FirstReads:
    """The first reads of a poller.

    :param send: sends a call, see :meth:`.RunPoller.send`.
    """

    def __init__(self, send: _Send) -> None:
        self._send = send
        self._next_at = self._no_list_until = time.monotonic()
        # The next list that will be read, and the runs that wait for it.
        self._list: asyncio.Task[Mapping[int, Run]] | None = None
        self._waiting: set[int] = set()

    async def read(self, call: Call[Run]) -> Run:
        """Read a run: at once, or within a second together with others.

        A run that the list lacks, or shows as ended, is read by its id.

        :param call: ``runs/get`` of the run.
        :raises JobsAPIError: the run cannot be read.
        """
        if self._is_read_at_once():
            return await self._send(call)
        run = await self._listed(call.parameters["run_id"])
        return await self._send(call) if run is None else run

    def _is_read_at_once(self) -> bool:
        now = time.monotonic()
        if self._list is None and now >= self._next_at:
            self._next_at = now + _SECONDS_BETWEEN
            return True
        return now < self._no_list_until

    async def _listed(self, run_id: int) -> Run | None:
        """Wait for the next list; return the run if the list has it."""
        if self._list is None:
            seconds = self._next_at - time.monotonic()
            self._list = asyncio.get_running_loop().create_task(
                # A context of its own: the trigger that begins the read may end before it.
                self._read_list(seconds),
                context=contextvars.Context(),
            )
        self._waiting.add(run_id)
        return (await asyncio.shield(self._list)).get(run_id)

    async def _read_list(self, seconds: float) -> Mapping[int, Run]:
        """Read the list after a wait; return those of the waiting runs that it has."""
        await async_sleep(seconds)
        waiting, self._waiting, self._list = self._waiting, set(), None
        self._next_at = time.monotonic() + _SECONDS_BETWEEN
        if len(waiting) < _MIN_RUNS:
            return {}
        found: dict[int, Run] = {}
        # Whatever is the matter, the read of each run by its id says so.
        with suppress(Exception):
            # Urgent: each run that it lacks takes a request of its own.
            async with asyncio.timeout(_LIST_SECONDS):
                page = await self._send(_LATEST_RUNS, is_urgent=True)
            listed = {run["run_id"]: run for run in page.items if run["run_id"] in waiting}
            found = {run_id: run for run_id, run in listed.items() if _is_usable(run)}
        if len(found) < _MIN_RUNS:
            self._no_list_until = time.monotonic() + _NO_LIST_SECONDS
        return found


def _is_usable(run: Run) -> bool:
    """Whether a listed run tells what the first read is for.

    Of a run that has ended, more is needed: a list may leave out its tasks.
    """
    try:
        parse_run(run)
    except InvalidResponseError:
        return False
    state = RunState.from_run(run)
    return bool(run.get("run_page_url") and state.life_cycle_state) and not state.is_terminal
