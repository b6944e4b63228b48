"""The modes of the sensor: where and how it waits.

======================  =================================  =====================================
Mode                    Where it waits                     Methods
======================  =================================  =====================================
``poke``                on a worker                        ``poke``
``reschedule``          on a worker, with a new process    ``poke``
                        for each poke
``deferrable``          in the triggerer, after one read   ``_defer``, ``execute_complete``
                        on a worker
``start_from_trigger``  in the triggerer from the start    ``make_start_trigger_args``,
                                                           ``execute_complete``
======================  =================================  =====================================

To add a mode, add its argument to :mod:`.jobs` and its methods here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_jobs_provider.airflow_compat.start_in_triggerer import as_template, wait_start
from airflow_jobs_provider.airflow_compat.trigger_timeout import is_timed_out
from airflow_jobs_provider.operators.wait import WaitForRunOperator
from airflow_jobs_provider.sensors.soft_fail import skip_on_failure
from airflow_jobs_provider.xcom import run_xcoms

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import StartTriggerArgs

    from airflow_jobs_provider.api.calls import Call
    from airflow_jobs_provider.api.schema.types import Run
    from airflow_jobs_provider.api.workflows.base import WorkflowExecution
    from airflow_jobs_provider.api.workflows.events import Event
    from airflow_jobs_provider.api.workflows.find import Target
    from airflow_jobs_provider.triggers.sensor_arguments import SensorTriggerArguments

__all__ = ["RunSensorModes"]


class RunSensorModes(WaitForRunOperator, BaseSensorOperator):
    """Base class of the sensor: its modes. The arguments are those of the subclass."""

    run_id: Any
    job_id: Any
    job_name: str | None
    started_since: datetime | str | None
    task_key: str | None
    start_from_trigger: bool

    _target: Target | None = None
    # The wait on the worker. It stops where time has to pass, until the next poke.
    _execution: WorkflowExecution[Run] | None = None
    # The run of a job, once it was found.
    _found_run_id: int | None = None
    # When this attempt began, where Airflow tells another time.
    _attempt_start: datetime | None = None

    def arguments_without_effect(self) -> dict[str, str]:
        """Return the arguments that were given and have no effect, each with the reason."""
        found = super().arguments_without_effect()
        if self.deferrable:
            given = {
                f"mode={self.mode}": self.mode != "poke",
                "exponential_backoff": self.exponential_backoff,
                "max_wait": self.max_wait is not None,
                "silent_fail": self.silent_fail,
            }
            names = [name for name, is_given in given.items() if is_given]
            found |= dict.fromkeys(names, "the triggerer waits for the run")
        return found

    def execute(self, context: Context) -> Any:
        """Wait in the sensor's mode; return the run's output."""
        # Before the run has ended, Airflow would push an empty URL at the end of each process.
        self._leave_out_run_link()
        self._log_arguments_without_effect()
        if self._may_defer(context):
            return self._read_or_defer(context)
        try:
            return super().execute(context)
        except AirflowSensorTimeout as error:  # Airflow ignores never_fail here
            if self.never_fail:
                raise AirflowSkipException(str(error)) from error
            raise

    # -- modes poke and reschedule -------------------------------------------------------------

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Read once; if the run has succeeded, its output becomes the sensor's XCom."""
        run = self._read(wait_start(context, is_rescheduled=self.reschedule))
        if run is None:
            return False
        return PokeReturnValue(is_done=True, xcom_value=self._result_or_raise(context, run))

    # -- mode deferrable -----------------------------------------------------------------------

    def _read_or_defer(self, context: Context) -> Any:
        """Read once on the worker; defer if the run has not ended."""
        with self._skip_on_failure():
            began = time.time()
            run = self._read(began)
            if run is None:
                self._defer(context, began)
            return self._result_or_raise(context, run)

    def _defer(self, context: Context, began: float) -> NoReturn:
        from airflow_jobs_provider.triggers.sensor import DatabricksJobRunSensorTrigger

        arguments = replace(
            self._trigger_arguments(),
            began=began,
            reached_by=self.hook.client.reached_by,
            output_in_event=self._wants_output_in_event(),
        )
        if self._found_run_id is not None:
            arguments = replace(
                arguments,
                run_id=self._found_run_id,
                job_id=None,
                job_name=None,
                follow_attempts=True,
            )
        self.log.info("Deferring: the triggerer continues the wait.")
        self._defer_to(
            DatabricksJobRunSensorTrigger(**arguments.as_kwargs()),
            {"try_number": context["ti"].try_number},
            self._longest_wait(context),
        )

    def _longest_wait(self, context: Context) -> timedelta:
        """Return for how long the triggerer may wait: Airflow 3 ignores execution_timeout there."""
        timeout = timedelta(seconds=self.timeout)
        if self.execution_timeout is None:
            return timeout
        now = datetime.now(UTC)
        began = self._attempt_start or getattr(context["ti"], "start_date", None) or now
        return max(timedelta(0), min(timeout, began + self.execution_timeout - now))

    def execute_complete(
        self, context: Context, event: dict[str, Any], try_number: int | None = None
    ) -> Any:
        """Resume after the trigger's event: return the run's output, or raise why it failed.

        :param context: the task's context.
        :param event: the payload of the trigger's event.
        :param try_number: the try that deferred; None if the task started in the triggerer.
        """
        if try_number not in (None, context["ti"].try_number):
            # Airflow 3.0 starts a retry with the event and the start time of the try before.
            self._attempt_start = datetime.now(UTC)
            self._delete_earlier_output(context)
            return self.execute(context)
        if event.get("start_on_worker"):
            self.log.info("A worker starts this task: %s", event["start_on_worker"])
            return self.execute(context)
        return self._result_or_raise(context, self._run_from_event(event))

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Resume after the wait in the triggerer, with the same rules for skipping as on a worker.

        :param next_method: the method with which Airflow resumes the task.
        :param next_kwargs: its arguments.
        :param context: the task's context.
        """
        if self.start_from_trigger:
            from airflow_jobs_provider.airflow_compat.completion_event import delete_output

            delete_output(context["ti"], multiple_outputs=self.multiple_outputs)
        with self._skip_on_failure():
            if is_timed_out(next_method, next_kwargs):
                raise self._timeout_error()
            # Past BaseSensorOperator, which takes every error for a failure.
            return super(BaseSensorOperator, self).resume_execution(
                next_method, next_kwargs, context
            )

    # -- mode start_from_trigger ---------------------------------------------------------------

    def find_start(self) -> StartTriggerArgs | None:
        """Return the arguments with which Airflow starts the task; None: a worker starts it."""
        return self.make_start_trigger_args() if self.start_from_trigger else None

    def make_start_trigger_args(self) -> StartTriggerArgs:
        """Return the arguments with which Airflow starts the task in the triggerer."""
        from airflow.triggers.base import StartTriggerArgs

        # Airflow itself ends the wait after execution_timeout here, and tells the trigger when.
        timeout = timedelta(seconds=self.timeout)
        shorter = min(timeout, self.execution_timeout or timeout)
        arguments = replace(
            self._trigger_arguments(),
            timeout_seconds=shorter.total_seconds(),
            without_effect=self.arguments_without_effect() or None,
        )
        return StartTriggerArgs(
            trigger_cls="airflow_jobs_provider.triggers.sensor.DatabricksJobRunSensorTrigger",
            trigger_kwargs={
                name: as_template(name, value) if name in self.template_fields else value
                for name, value in arguments.as_kwargs_without_defaults().items()
            },
            next_method="execute_complete",
            timeout=timeout,
        )

    # -- shared by the modes -------------------------------------------------------------------

    def _trigger_arguments(self) -> SensorTriggerArguments:
        """Return the trigger's arguments, except those about the start of the wait."""
        from airflow_jobs_provider.triggers.sensor_arguments import SensorTriggerArguments

        since = self.started_since
        return SensorTriggerArguments(
            run_id=self.run_id,
            job_id=self.job_id,
            job_name=self.job_name,
            started_since=since.isoformat() if isinstance(since, datetime) else since,
            task_key=self.task_key,
            databricks_conn_id=self.databricks_conn_id,
            polling_period_seconds=self.poke_interval,
            **self._completion_arguments(),
            **self._hook_arguments(),
        )

    def _read(self, began: float) -> Run | None:
        """Go on with the wait until time has to pass; return the run once it has ended.

        :param began: when the wait began, in seconds since the epoch.
        """
        from airflow_jobs_provider.api.errors import JobsAPIError
        from airflow_jobs_provider.api.workflows.base import WorkflowExecution
        from airflow_jobs_provider.api.workflows.find import Target, wait_for_target
        from airflow_jobs_provider.exceptions import airflow_exceptions

        try:
            if self._target is None:
                self._target = Target.from_arguments(
                    run_id=self.run_id,
                    job_id=self.job_id,
                    job_name=self.job_name,
                    started_since=self.started_since,
                    began=began,
                    task_key=self.task_key,
                )
            if self._execution is None:
                steps = wait_for_target(
                    self._target,
                    polling_period=lambda: self.poke_interval,
                    log=self.log,
                    keeps_state=not self.reschedule,
                )
                self._execution = WorkflowExecution(steps, on_event=self._record)
            has_to_wait = self._execution.advance(self._send) is not None
            return None if has_to_wait else self._execution.result
        except Exception as error:
            # This execution is over. With silent_fail the next poke starts another one, for the
            # same target.
            self._execution = None
            if isinstance(error, JobsAPIError):
                with airflow_exceptions():
                    raise
            if isinstance(error, ValueError):  # the job, run or task does not exist
                raise AirflowException(str(error)) from error
            raise

    def _logged_ids(self) -> tuple[int | None, int | None]:
        return self._found_run_id, None

    def _send(self, call: Call[Any]) -> Any:
        # Any outage is waited out, until the sensor's timeout. Not sent by the hook, which would
        # validate the request again at each poke: its ids were checked.
        return self.hook.client.send(call, retries=self.hook.retry_policy().without_deadline())

    def _record(self, event: Event) -> None:
        from airflow_jobs_provider.api.workflows.events import RunIdentified

        if isinstance(event, RunIdentified):
            self._found_run_id = event.run_id

    def _run_of_arguments(self) -> Mapping[str, Any]:
        return {"run_id": self.run_id, "job_id": self.job_id}

    def _known_run(self) -> Mapping[str, Any]:
        if self._last_run is None and self._found_run_id is not None:
            return {**self._run_of_arguments(), "run_id": self._found_run_id}
        return super()._known_run()

    def _result_or_raise(self, context: Context, run: Run) -> Any:
        self._push(context, run_xcoms(run))
        with self._skip_on_failure():
            return super()._result_or_raise(context, run)

    def _skip_on_failure(self) -> AbstractContextManager[None]:
        return skip_on_failure(soft_fail=self.soft_fail, never_fail=self.never_fail)

    def _timeout_error(self) -> BaseException:
        """Return the exception that a worker raises: Airflow retries after execution_timeout."""
        if self.execution_timeout and self.execution_timeout < timedelta(seconds=self.timeout):
            return AirflowTaskTimeout(f"no end within execution_timeout, {self.execution_timeout}")
        return AirflowSensorTimeout(f"no end within the timeout of {self.timeout} s")
