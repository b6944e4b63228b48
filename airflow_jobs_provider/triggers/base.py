"""DatabricksJobsBaseTrigger: the run, the connection and the logger of a trigger."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException
from airflow.triggers.base import BaseTrigger

from airflow_jobs_provider.api.errors import CredentialsError, InvalidSettingsError
from airflow_jobs_provider.api.retry import async_sleep
from airflow_jobs_provider.api.workflows.progress import run_log
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.triggers.arguments import TriggerArguments
from airflow_jobs_provider.triggers.polling.registry import get_poller

if TYPE_CHECKING:
    from airflow_jobs_provider.api.workflows.progress import RunProgress

__all__ = ["DatabricksJobsBaseTrigger", "OutdatedError"]

# How long a connection is looked up that was used before, and the longest wait between.
_LOOK_UP_SECONDS, _LONGEST_LOOK_UP_WAIT = 600.0, 30.0


class OutdatedError(Exception):
    """A later attempt of the task has begun, which a paused triggerer has missed."""


class DatabricksJobsBaseTrigger(TriggerArguments, BaseTrigger):
    """Base class of the triggers that wait for a run."""

    def __post_init__(self) -> None:
        BaseTrigger.__init__(self)
        # The run that the task waits for; None until it is known.
        self._run_id: int | None = None
        # The same, or the run by which the service retries it.
        self._active_run_id: int | None = None
        self._progress: RunProgress | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger again."""
        cls = type(self)
        return f"{cls.__module__}.{cls.__qualname__}", self.as_kwargs()

    @property
    def log(self) -> Any:
        """The trigger's logger. In a structured log its lines carry the ids of the task's run."""
        run_id = getattr(self, "_active_run_id", None)
        job_id = None if run_id is None or self._progress is None else self._progress.job_id
        return run_log(self._plain_log, run_id, job_id)

    @property
    def _plain_log(self) -> Any:
        """The trigger's logger, without the ids."""
        return super().log

    @property
    def _hook(self) -> DatabricksJobsHook:
        return DatabricksJobsHook(
            self.databricks_conn_id,
            retry_limit=self.retry_limit,
            retry_delay=self.retry_delay,
            retry_args=self.retry_args,
            caller=self.caller,
        )

    def get_template_env(self, dag: Any = None) -> Any:
        """Return Airflow's environment; an undefined name is an error, as on a worker."""
        from jinja2 import StrictUndefined

        environment = super().get_template_env(dag)
        environment.undefined = StrictUndefined
        return environment

    async def _until_connected(self) -> None:
        """Wait until the connection can be used, if it was used before.

        Airflow takes a failure of a secrets backend for a connection that does not exist. Then it
        may find another one of the same id.
        """
        wait, waited = 1.0, 0.0
        while True:
            try:
                await get_poller(self._hook).client()
                return
            except (AirflowException, CredentialsError, InvalidSettingsError) as error:
                is_over = self.deadline is not None and time.time() >= self.deadline
                if is_over or waited >= _LOOK_UP_SECONDS or not await self._was_connected():
                    return  # What needs the connection raises it.
                if not waited:
                    self.log.warning("The connection is looked up again: %s", error)
            await async_sleep(wait)
            waited, wait = waited + wait, min(2 * wait, _LONGEST_LOOK_UP_WAIT)

    async def _was_connected(self) -> bool:
        """Whether the connection was used before, by the worker that has deferred the task."""
        return self.reached_by is not None
