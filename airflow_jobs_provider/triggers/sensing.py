"""DatabricksJobRunSensorTrigger: wait for a run that is still to be found, or for one of its tasks.

A sensor can also begin with it, with no worker before; then its arguments may be text that Airflow
has rendered in the triggerer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from airflow_jobs_provider.api.finding import Target, follow_task, wait_for_run
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger, excerpt
from airflow_jobs_provider.triggers.poller import carry_out_one_by_one

__all__ = ["DatabricksJobRunSensorTrigger"]


class DatabricksJobRunSensorTrigger(DatabricksJobRunTrigger):
    """Fire one event when what a sensor waits for has ended.

    :param run_id: the run; else the job tells.
    :param job_id: the job; else its name tells.
    :param job_name: the job's name.
    :param started_since: when a run of the job must have started at the earliest; ISO 8601.
    :param began: when the sensor began to wait, in seconds since the epoch; default when the
        trigger began.
    :param task_key: a task of the run, in place of the whole run.
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
        **more: Any,
    ) -> None:
        super().__init__(run_id, **more)  # type: ignore[arg-type]
        self.job_id = job_id
        self.job_name = job_name
        self.started_since = started_since
        self.began = began
        self.task_key = task_key

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger again."""
        _, arguments = super().serialize()
        return (
            "airflow_jobs_provider.triggers.sensing.DatabricksJobRunSensorTrigger",
            {
                **arguments,
                "job_id": self.job_id,
                "job_name": self.job_name,
                "started_since": self.started_since,
                "began": self.began,
                "task_key": self.task_key,
            },
        )

    async def _wait(self) -> dict[str, Any]:
        if self.began is None:
            self.began = time.time()
        target = Target.of(
            run_id=self.run_id,
            job_id=self.job_id,
            job_name=self.job_name,
            started_since=self.started_since,
            began=self.began,
            task_key=self.task_key,
        )
        run_id = target.run_id
        if run_id is None:
            steps = wait_for_run(target, polling_period=self._period, log=self.log)
            run_id = int((await carry_out_one_by_one(self._hook, steps))["run_id"])
            self.follow_attempts = True
        self.run_id = self._active_run_id = run_id
        if target.task_key is None:
            return await super()._wait()
        task = await carry_out_one_by_one(
            self._hook,
            follow_task(run_id, target.task_key, polling_period=self._period, log=self.log),
        )
        return {"run": excerpt(task)}

    def _more_xcoms(self, run: Mapping[str, Any]) -> dict[str, Any]:
        if not self.do_xcom_push:
            return {}
        values = {name: run.get(name) for name in ("run_id", "run_page_url")}
        return {name: value for name, value in values.items() if value is not None}

    def _period(self) -> float:
        return self.polling_period_seconds
