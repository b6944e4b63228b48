"""The pollers of this process: one for each connection and event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_jobs_provider.api.errors import JobsAPIError
from airflow_jobs_provider.api.workflows.steps import Exchange, Step, Wait
from airflow_jobs_provider.triggers.polling.poller import RunPoller

if TYPE_CHECKING:
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
    hook: DatabricksJobsHook, steps: Generator[Step, Any, T], *, without_deadline: bool = True
) -> T:
    """Carry out an exchange that lists of all runs cannot tell of, at the pace of all others.

    Such lists are read for runs' states; they do not tell tasks, outputs, nor what is to start.

    :param hook: hook of the connection.
    :param steps: the exchange.
    :param without_deadline: wait out any outage; default True.
    """
    exchange = Exchange(steps)
    while (step := exchange.step) is not None:
        if isinstance(step, Wait):
            await asyncio.sleep(step.seconds)
            exchange.answer(None)
            continue
        try:
            # A poller ends where nobody waits for a run by its id: there may be another one.
            answer = await poller_of(hook).send(step, without_deadline=without_deadline)
        except JobsAPIError as error:
            exchange.fail(error)
        else:
            exchange.answer(answer)
    return exchange.result
