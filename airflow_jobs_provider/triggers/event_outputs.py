"""The outputs of a run that succeeded, in the event of its trigger.

The worker process that the event resumes reads no Airflow connection then, and sends no request.
The triggerer has a client, with a connection to the service; a process of a task has to make one.

What the event lacks is read by the worker: outputs that are long, that cannot be read at once, or
that would be read while many others are. So no event waits for an outage, or for a thousand runs
that ended together.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.airflow_compat.storable_text import replace_unstorable
from airflow_jobs_provider.api.retry import RetryPolicy, async_sleep
from airflow_jobs_provider.api.run_summary import task_kinds
from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.api.workflows.base import run_workflow_async
from airflow_jobs_provider.api.workflows.outputs import TaskOutput, read_outputs
from airflow_jobs_provider.triggers.events import EventOutputs
from airflow_jobs_provider.triggers.polling.registry import get_poller

if TYPE_CHECKING:
    from collections.abc import Hashable

    from airflow_jobs_provider.api.calls import Call
    from airflow_jobs_provider.api.errors import JobsAPIError
    from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook

__all__ = ["OutputReader", "output_reader"]

# The outputs of an event as JSON. Airflow stores it in the row of the task instance.
MAX_BYTES = 8_000
# A run of more tasks is left to the worker: their outputs are read one after the other.
MAX_TASKS = 10
# Runs whose outputs are read at the same time. At the poller's rate that takes a second.
RUNS_AT_ONCE = 20
# For so long an event waits for its outputs.
SECONDS = 5.0
# Tasks whose output was too long for an event are remembered, so that it is not read twice again.
MAX_REMEMBERED = 10_000
_ONE_ATTEMPT = RetryPolicy(max_attempts=1)


class _LeftToWorkerError(Exception):
    """The outputs are not for an event."""


class OutputReader:
    """Reads outputs for events. There is one for all triggers of a process."""

    def __init__(self) -> None:
        self._in_progress = 0
        self._too_long: set[Hashable] = set()

    async def read(
        self,
        hook: DatabricksJobsHook,
        run: Mapping[str, Any],
        *,
        task: Hashable,
        max_output_bytes: int | None,
    ) -> EventOutputs | None:
        """Return the outputs of a run for its event, as far as they can be read soon.

        :param hook: hook of the connection.
        :param run: the run, which has succeeded.
        :param task: what tells the task that waits for the run from others; None for no task.
        :param max_output_bytes: cut off each text after so many bytes of UTF-8; None: no limit.
        """
        is_free = self._in_progress < RUNS_AT_ONCE and task not in self._too_long
        if not is_free or not _is_simple(run):
            return None
        outputs = EventOutputs()
        self._in_progress += 1
        try:
            # The worker reads the others, and tells why it cannot.
            with suppress(Exception):
                async with asyncio.timeout(SECONDS):
                    await _read(hook, run, max_output_bytes, outputs)
        finally:
            self._in_progress -= 1
        if len(json.dumps(outputs)) <= MAX_BYTES:
            return outputs
        if task is not None:
            if len(self._too_long) >= MAX_REMEMBERED:
                self._too_long.clear()
            self._too_long.add(task)
        return None


def _is_simple(run: Mapping[str, Any]) -> bool:
    """Return whether the outputs of a run take few requests, and no others.

    A task whose kind is not listed may be a ``for_each_task``, whose output is refused.
    """
    tasks = run.get("tasks") or ()
    return (
        RunState.from_run(run).is_successful
        and len(tasks) <= MAX_TASKS
        and all(map(task_kinds, tasks))
    )


async def _read(
    hook: DatabricksJobsHook,
    run: Mapping[str, Any],
    max_output_bytes: int | None,
    outputs: EventOutputs,
) -> None:
    """Send the requests that the worker would send, and add their responses to the outputs.

    :raises _LeftToWorkerError: it would send others, too.
    """

    async def send(call: Call[Any]) -> Any:
        if call.path != "runs/get-output":
            raise _LeftToWorkerError
        answer = await get_poller(hook).send(call, retries=_ONE_ATTEMPT)
        run_id = int(call.parameters["run_id"])
        output = TaskOutput.from_answer(None, run_id, answer)
        if replace_unstorable(output.result) is not output.result:
            raise _LeftToWorkerError  # which tells what it replaces
        output = output.cut(max_output_bytes)
        outputs.add(run_id, output.result, is_truncated=output.truncated)
        return answer

    steps = read_outputs(run, on_unreadable=_leave_to_worker)
    await run_workflow_async(steps, send=send, wait=async_sleep)


def _leave_to_worker(_tasks: Mapping[str, int], _error: JobsAPIError) -> None:
    """Do nothing: the worker reads it, and logs why it cannot."""


_reader = OutputReader()


def output_reader() -> OutputReader:
    """Return the reader of this process."""
    return _reader
