"""The pollers of this process: one for each connection and event loop."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_jobs_provider.airflow_compat.event_loops import PerEventLoop
from airflow_jobs_provider.api.retry import async_sleep
from airflow_jobs_provider.api.workflows.base import OnEvent, Workflow, run_workflow_async

if TYPE_CHECKING:
    from airflow_jobs_provider.api.calls import Call
    from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
    from airflow_jobs_provider.triggers.polling.launch_limiter import HostLimiters
    from airflow_jobs_provider.triggers.polling.poller import RunPoller

__all__ = ["get_poller", "poller_key", "run_workflow_unpolled"]

T = TypeVar("T")

# The pollers of an event loop, by what their hooks have in common.
_pollers: PerEventLoop[dict[str, RunPoller]] = PerEventLoop(dict)
# The rate limiters of an event loop, by host.
_limiters: PerEventLoop[dict[str, HostLimiters]] = PerEventLoop(dict)


def get_poller(hook: DatabricksJobsHook) -> RunPoller:
    """Return the poller of the hook's connection in the running event loop.

    Hooks of one connection share a poller unless they have different retry arguments.

    :param hook: hook of the connection.
    """
    pollers, key = _pollers.get(), poller_key(hook)
    if key in pollers:
        return pollers[key]

    # Not imported by a task's process, which makes a trigger only to defer with it.
    from airflow_jobs_provider.triggers.polling.poller import RunPoller

    def remove() -> None:
        if pollers.get(key) is poller:
            del pollers[key]

    poller = pollers[key] = RunPoller(hook, _limiters.get(), on_close=remove)
    return poller


def poller_key(hook: DatabricksJobsHook) -> str:
    """Return what hooks that share a poller have in common.

    :param hook: hook of the connection.
    """
    arguments = (hook.databricks_conn_id, hook.retry_limit, hook.retry_delay, hook.retry_args)
    return repr(arguments)


async def run_workflow_unpolled(
    hook: DatabricksJobsHook,
    steps: Workflow[T],
    *,
    without_deadline: bool = True,
    dag_id: str = "",
    on_event: OnEvent = lambda _event: None,
) -> T:
    """Execute a workflow that sends each of its requests itself, within the pollers' rate limits.

    For what the poller's lists of runs do not have: launches, tasks, outputs.

    :param hook: hook of the connection.
    :param steps: the workflow.
    :param without_deadline: wait out any outage; default True.
    :param dag_id: the DAG that launches runs, see :mod:`.launch_limiter`. DAGs launch in turn.
        Default: one for all.
    :param on_event: called with each event of the workflow.
    """

    def send(call: Call[Any]) -> Awaitable[Any]:
        # For each call: a poller closes when nobody waits for a run, and there may be another one.
        return get_poller(hook).send(call, without_deadline=without_deadline, dag_id=dag_id)

    return await run_workflow_async(steps, send=send, wait=async_sleep, on_event=on_event)
