"""DatabricksJobRunSensorTrigger: wait for a run that is still to be found, or for one of its tasks.

A sensor can also begin with it, with no worker before; then its arguments may be text that Airflow
has rendered in the triggerer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC
from typing import Any

from airflow_jobs_provider.api.workflows.find import Target, follow_task, wait_for_run
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger, excerpt
from airflow_jobs_provider.triggers.polling.registry import run_unbatched

__all__ = ["DatabricksJobRunSensorTrigger"]


class DatabricksJobRunSensorTrigger(DatabricksJobRunTrigger):
    """Fire one event when what a sensor waits for has ended.

    :param run_id: the run; else the job tells.
    :param job_id: the job; else its name tells.
    :param job_name: the job's name.
    :param started_since: when a run of the job must have started at the earliest; ISO 8601.
    :param began: when the sensor began to wait, in seconds since the epoch; None where it begins
        with the trigger.
    :param task_key: a task of the run, in place of the whole run.
    :param timeout_seconds: how long Airflow lets a task wait that begins with the trigger.
    :param more: see :class:`~airflow_jobs_provider.triggers.jobs.DatabricksJobRunTrigger`.
    """

    def __init__(
        self,
        run_id: int | str | None = None,
        *,
        job_id: int | str | None = None,
        job_name: str | None = None,
        started_since: str | None = None,
        began: float | None = None,
        task_key: str | None = None,
        timeout_seconds: float | None = None,
        **more: Any,
    ) -> None:
        super().__init__(run_id, **more)  # type: ignore[arg-type]
        self.job_id = job_id
        self.job_name = job_name
        self.started_since = started_since
        self.began = began
        self.task_key = task_key
        self.timeout_seconds = timeout_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger again."""
        _, arguments = super().serialize()
        return (
            "airflow_jobs_provider.triggers.sensor.DatabricksJobRunSensorTrigger",
            {
                **arguments,
                "job_id": self.job_id,
                "job_name": self.job_name,
                "started_since": self.started_since,
                "began": self.began,
                "task_key": self.task_key,
                "timeout_seconds": self.timeout_seconds,
            },
        )

    async def _wait(self) -> dict[str, Any]:
        target = Target.from_arguments(
            run_id=self.run_id,
            job_id=self.job_id,
            job_name=self.job_name,
            started_since=self.started_since,
            began=self._wait_began(),
            task_key=self.task_key,
        )
        run_id = target.run_id
        if run_id is None:
            steps = wait_for_run(target, polling_period=self._period, log=self.log)
            run_id = int((await run_unbatched(self._hook, steps))["run_id"])
            self.follow_attempts = True
        self.run_id = self._active_run_id = run_id
        if target.task_key is None:
            return await super()._wait()
        task = await run_unbatched(
            self._hook,
            follow_task(run_id, target.task_key, polling_period=self._period, log=self.log),
        )
        return {"run": excerpt(task)}

    def _wait_began(self) -> float:
        """Return when the wait began; a triggerer that takes it over goes by the same time.

        Airflow 3 does not tell a trigger when its task started, but when it is to time out.
        """
        if self.began is not None:
            return self.began
        end: Any = getattr(self, "timeout_after", None) or getattr(
            self.task_instance, "trigger_timeout", None
        )
        if end is None or self.timeout_seconds is None:
            return time.time()
        if end.tzinfo is None:
            end = end.replace(tzinfo=UTC)
        return float(end.timestamp()) - self.timeout_seconds

    @property
    def _begins_task(self) -> bool:
        return self.began is None

    def _more_xcoms(self, run: Mapping[str, Any]) -> dict[str, Any]:
        if not self.do_xcom_push:
            return {}
        values = {name: run.get(name) for name in ("run_id", "run_page_url")}
        return {name: value for name, value in values.items() if value is not None}

    def _period(self) -> float:
        return self.polling_period_seconds
