"""The pollers of this process: one for each connection and event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_jobs_provider.api.workflows.base import Workflow, run_workflow_async
from airflow_jobs_provider.triggers.polling.poller import RunPoller

if TYPE_CHECKING:
    from airflow_jobs_provider.api.endpoints import Call
    from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
    from airflow_jobs_provider.triggers.polling.rate_limiter import RateLimiter

__all__ = ["poller_of", "run_unbatched"]

T = TypeVar("T")

# By event loop, so that a loop of another thread, or a test's, has its own.
_pollers: dict[tuple[asyncio.AbstractEventLoop, str], RunPoller] = {}
_paces: dict[asyncio.AbstractEventLoop, dict[str, RateLimiter]] = {}


def poller_of(hook: DatabricksJobsHook) -> RunPoller:
    """Return the poller of the hook's connection in the running event loop.

    Hooks of one connection share a poller unless they were given other retry arguments.
    """
    loop = asyncio.get_running_loop()
    _forget_closed_loops()
    arguments = (hook.databricks_conn_id, hook.retry_limit, hook.retry_delay, hook.retry_args)
    key = (loop, repr(arguments))
    if key in _pollers:
        return _pollers[key]

    def forget() -> None:
        if _pollers.get(key) is poller:
            del _pollers[key]

    poller = _pollers[key] = RunPoller(hook, _paces.setdefault(loop, {}), on_idle=forget)
    return poller


def _forget_closed_loops() -> None:
    for key in [key for key in _pollers if key[0].is_closed()]:
        del _pollers[key]
    for loop in [loop for loop in _paces if loop.is_closed()]:
        del _paces[loop]


async def run_unbatched(
    hook: DatabricksJobsHook, steps: Workflow[T], *, without_deadline: bool = True
) -> T:
    """Execute a workflow whose reads cannot be taken from lists of runs, at the poller's rate.

    The poller reads lists for the states of runs. They do not have tasks, outputs, or runs that are
    still to start.

    :param hook: hook of the connection.
    :param steps: the workflow.
    :param without_deadline: wait out any outage; default True.
    """

    def send(call: Call[Any]) -> Awaitable[Any]:
        # A poller ends where nobody waits for a run by its id: there may be another one.
        return poller_of(hook).send(call, without_deadline=without_deadline)

    return await run_workflow_async(steps, send=send, wait=asyncio.sleep)
