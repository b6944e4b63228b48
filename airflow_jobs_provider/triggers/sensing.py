"""DatabricksJobRunSensorTrigger: wait for a run that is still to be found, or for one of its tasks.

A sensor can also begin with it, with no worker before; then its arguments may be text that Airflow
has rendered in the triggerer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Mapping
from typing import Any, TypeVar

from airflow_jobs_provider.api.errors import JobsApiError
from airflow_jobs_provider.api.finding import Target, follow_task, wait_for_run
from airflow_jobs_provider.api.steps import Exchange, Step, Wait
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger, excerpt
from airflow_jobs_provider.triggers.poller import poller_of

__all__ = ["DatabricksJobRunSensorTrigger"]

T = TypeVar("T")


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
            run_id = int((await self._one_by_one(steps))["run_id"])
            self.follow_attempts = True
        self.run_id = self._active_run_id = run_id
        if target.task_key is None:
            return await super()._wait()
        task = await self._one_by_one(
            follow_task(run_id, target.task_key, polling_period=self._period, log=self.log)
        )
        return {"run": excerpt(task)}

    def _more_xcoms(self, run: Mapping[str, Any]) -> dict[str, Any]:
        if not self.do_xcom_push:
            return {}
        values = {name: run.get(name) for name in ("run_id", "run_page_url")}
        return {name: value for name, value in values.items() if value is not None}

    def _period(self) -> float:
        return self.polling_period_seconds

    async def _one_by_one(self, steps: Generator[Step, Any, T]) -> T:
        """Carry out an exchange that no other run's list can tell of.

        Lists of all runs are read for their states; they do not tell tasks, nor what is to start.
        """
        exchange = Exchange(steps)
        while (step := exchange.step) is not None:
            if isinstance(step, Wait):
                await asyncio.sleep(step.seconds)
                exchange.answer(None)
                continue
            try:
                # A poller ends where nobody waits for a run by its id: there may be another one.
                answer = await poller_of(self._hook).send(step)
            except JobsApiError as error:
                exchange.fail(error)
            else:
                exchange.answer(answer)
        return exchange.result
