"""DatabricksJobRunTrigger: wait for a run in the triggerer, without a worker."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_jobs_provider.api import calls
from airflow_jobs_provider.api.errors import JobsApiError
from airflow_jobs_provider.api.progress import RunProgress
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook

__all__ = ["DatabricksJobRunTrigger"]

# What an event keeps of a run: enough to conclude it. A run may list its whole cluster definition,
# and events are stored in Airflow's database.
_RUN_FIELDS = ("run_id", "job_id", "run_page_url", "state", "start_time", "end_time")
_TASK_FIELDS = ("run_id", "task_key", "attempt_number", "state")


class DatabricksJobRunTrigger(BaseTrigger):
    """Fire one event when a run has ended.

    The event's payload is ``{"run": {...}}`` with the ended run's ids, state, page and tasks, or
    ``{"run_id": ..., "error": "..."}`` where the run cannot be followed.

    :param run_id: the run to wait for.
    :param databricks_conn_id: connection to its workspace.
    :param polling_period_seconds: seconds between two looks; default 30.
    :param retry_limit: see :class:`~airflow_jobs_provider.hooks.jobs.DatabricksJobsHook`.
    :param retry_delay: likewise.
    :param retry_args: likewise.
    :param caller: likewise.
    """

    def __init__(
        self,
        run_id: int,
        databricks_conn_id: str = DatabricksJobsHook.default_conn_name,
        polling_period_seconds: float = 30,
        retry_limit: int | None = None,
        retry_delay: float | None = None,
        retry_args: dict[str, Any] | None = None,
        caller: str = "DatabricksJobRunTrigger",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.run_id = run_id
        self.databricks_conn_id = databricks_conn_id
        self.polling_period_seconds = polling_period_seconds
        self.retry_limit = retry_limit
        self.retry_delay = retry_delay
        self.retry_args = retry_args
        self.caller = caller

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger again."""
        return (
            "airflow_jobs_provider.triggers.jobs.DatabricksJobRunTrigger",
            {
                "run_id": self.run_id,
                "databricks_conn_id": self.databricks_conn_id,
                "polling_period_seconds": self.polling_period_seconds,
                "retry_limit": self.retry_limit,
                "retry_delay": self.retry_delay,
                "retry_args": self.retry_args,
                "caller": self.caller,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the run has ended, then yield the one event."""
        hook = DatabricksJobsHook(
            self.databricks_conn_id,
            retry_limit=self.retry_limit,
            retry_delay=self.retry_delay,
            retry_args=self.retry_args,
            caller=self.caller,
        )
        progress = RunProgress(self.run_id, self.log)
        # The run is known to be there, so an outage is waited out however long.
        retries = hook.retry_policy().patient()
        try:
            async with hook.async_client() as client:
                while True:
                    run = await client.send(calls.get_run(self.run_id), retries=retries)
                    if progress.observe(run).is_terminal:
                        break
                    # Jitter, or all runs deferred in one second would be polled in one second.
                    await asyncio.sleep(self.polling_period_seconds * random.uniform(0.8, 1.0))  # noqa: S311
        except (JobsApiError, ValueError) as error:
            yield TriggerEvent({"run_id": self.run_id, "error": str(error)})
            return
        yield TriggerEvent({"run": _excerpt(run)})


def _excerpt(run: Mapping[str, Any]) -> dict[str, Any]:
    excerpt = {name: run[name] for name in _RUN_FIELDS if name in run}
    if run.get("tasks"):
        excerpt["tasks"] = [
            {name: task[name] for name in _TASK_FIELDS if name in task} for task in run["tasks"]
        ]
    return excerpt
