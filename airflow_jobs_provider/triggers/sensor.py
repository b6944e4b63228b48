"""DatabricksJobRunSensorTrigger: find a run and wait for it, or for one of its tasks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.airflow_compat.completion_event import delete_output
from airflow_jobs_provider.airflow_compat.threads import in_thread
from airflow_jobs_provider.airflow_compat.trigger_timeout import trigger_deadline
from airflow_jobs_provider.airflow_compat.triggerer_values import MARKERS
from airflow_jobs_provider.api.workflows.find import Target, follow_task, wait_for_run
from airflow_jobs_provider.triggers.events import run_payload
from airflow_jobs_provider.triggers.polling.registry import run_workflow_unpolled
from airflow_jobs_provider.triggers.sensor_arguments import SensorTriggerArguments
from airflow_jobs_provider.triggers.wait import WaitForRunTrigger
from airflow_jobs_provider.xcom import run_xcoms

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["DatabricksJobRunSensorTrigger"]


class DatabricksJobRunSensorTrigger(SensorTriggerArguments, WaitForRunTrigger):
    """Fire one event when the run or task that a sensor waits for has ended.

    The event is that of :class:`~airflow_jobs_provider.triggers.jobs.DatabricksJobRunTrigger`. The
    arguments and their defaults are those of
    :class:`~airflow_jobs_provider.triggers.sensor_arguments.SensorTriggerArguments`.

    A sensor may start with this trigger, with no worker before; then Airflow renders templates
    among the arguments in the triggerer.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._is_rendered = False
        self._starts_task = self.began is None

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """Render the templates among the arguments."""
        self._is_rendered = True
        super().render_template_fields(context, jinja_env)

    async def _wait(self) -> dict[str, Any]:
        if self._starts_task:
            if not self._is_rendered and self._has_templates():
                # The task was changed, so that it does not start in the triggerer any more.
                # Airflow then makes no context for its trigger.
                reason = "a task that does not start in the triggerer any more"
                self.log.info("A worker will start the task: %s", reason)
                return {"start_on_worker": reason}
            for name, reason in (self.without_effect or {}).items():
                self.log.info("%s has no effect: %s.", name, reason)
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
            steps = wait_for_run(target, polling_period=self._polling_period, log=self.log)
            run_id = int((await run_workflow_unpolled(self._hook, steps))["run_id"])
            self.follow_attempts = True
        if target.task_key is None:
            return await self._wait_for_run(run_id)
        self._run_id = self._active_run_id = run_id
        task = await run_workflow_unpolled(
            self._hook,
            follow_task(run_id, target.task_key, polling_period=self._polling_period, log=self.log),
        )
        return run_payload(task)

    def _wait_began(self) -> float:
        """Return when the wait began; it is the same in a triggerer that takes the trigger over.

        Airflow 3 does not tell a trigger when its task started, but when it will time out.
        """
        if self.began is not None:
            return self.began
        end = trigger_deadline(self)
        if end is None or self.timeout_seconds is None:
            return time.time()
        return end - self.timeout_seconds

    def _has_templates(self) -> bool:
        rendered = (
            self.run_id,
            self.job_id,
            self.job_name,
            self.started_since,
            self.task_key,
            self.databricks_conn_id,
        )
        return any(marker in str(value) for value in rendered for marker in MARKERS)

    async def _delete_earlier_output(self) -> None:
        task_instance = self.task_instance
        if self._starts_task and task_instance is not None:
            await in_thread(delete_output, task_instance, multiple_outputs=self.multiple_outputs)

    def _run_xcoms(self, run: Mapping[str, Any]) -> dict[str, Any]:
        return run_xcoms(run) if self.do_xcom_push else {}
