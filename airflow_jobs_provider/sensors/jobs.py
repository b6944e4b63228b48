"""DatabricksJobRunSensor: wait for a run that something else launched."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn, Unpack

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_jobs_provider.airflow_compat.start_trigger import (
    StartTriggerArguments,
    as_template,
    check_start_in_triggerer,
    wait_start,
)
from airflow_jobs_provider.airflow_compat.trigger_timeout import is_timed_out
from airflow_jobs_provider.api.ids import require_exactly_one
from airflow_jobs_provider.links import DatabricksJobRunLink
from airflow_jobs_provider.operators.argument_checks import (
    check_flags,
    check_id,
    check_storable,
    check_text,
)
from airflow_jobs_provider.operators.templates import has_unrendered
from airflow_jobs_provider.operators.wait import WaitForRunOperator
from airflow_jobs_provider.xcom import RUN_ID_KEY, RUN_PAGE_URL_KEY

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import StartTriggerArgs

    from airflow_jobs_provider.api.endpoints import Call
    from airflow_jobs_provider.api.schema.types import Run
    from airflow_jobs_provider.api.workflows.base import WorkflowExecution
    from airflow_jobs_provider.api.workflows.events import Event
    from airflow_jobs_provider.api.workflows.find import Target
    from airflow_jobs_provider.operators.arguments import SensorArguments

__all__ = ["DatabricksJobRunSensor"]

# A DAG run that was triggered by hand or by an asset may have no data interval in Airflow 3.
INTERVAL_BEGAN = "{{ dag_run.data_interval_start or dag_run.run_after or dag_run.start_date }}"


class DatabricksJobRunSensor(WaitForRunOperator, BaseSensorOperator):
    """Wait until a run, or a task of it, has ended, and return what its notebook gave back.

    ::

        DatabricksJobRunSensor(task_id="wait", run_id=launch.output["run_id"], deferrable=True)
        DatabricksJobRunSensor(task_id="wait", job_name="Nightly load", deferrable=True)

    The run is given by its id, or as one of a job: the newest that started at ``started_since`` or
    later when the sensor began to wait, or else the first that starts after that. A newer one that
    starts meanwhile does not count, or the wait might never come to an end; a retry of the sensor
    looks afresh. Runs that the service skipped do not count either. Where the job has
    ``max_retries``, the last attempt of its run decides; with ``run_id`` or ``task_key`` only the
    one run counts.

    XComs: ``return_value`` is the text given to ``dbutils.notebook.exit()`` (a dict by task key for
    a run of several tasks, None where there is none); ``run_id`` and ``run_page_url`` are those of
    the run, or of the task's own run, that was waited for. The run is watched, not owned: a sensor
    that is killed or times out cancels nothing.

    :param run_id: the run to wait for. Give exactly one of this and the next two; all are
        templated and take XComArgs.
    :param job_id: the job of the run.
    :param job_name: the exact name of that job, in place of its id.
    :param started_since: when a run of the job must have started at the earliest: a datetime, or
        text in ISO 8601 (UTC where it names no zone); templated. Default the start of the DAG run's
        data interval, or the DAG run's own time where it has none.
    :param task_key: wait for this task of the run only, at its latest attempt; templated.
    :param start_from_trigger: begin in the triggerer, so that no worker process starts before the
        run has ended; implies ``deferrable``; default False. Templates and other tasks' outputs are
        then rendered in the triggerer, which Airflow can from 3.3 on, but for ``xcom_pull``; before
        that they are refused, so a job's sensor needs a fixed ``started_since``. Airflow begins
        mapped tasks on a worker all the same. Together with ``end_from_trigger`` no worker process
        starts for a good run.
    :param kwargs: the shared arguments; see
        :class:`~airflow_jobs_provider.operators.arguments.SensorArguments`.
    :raises DatabricksRunFailedError: the run failed, timed out, was canceled or skipped; with
        ``soft_fail`` or ``never_fail`` the task is skipped instead. In all ways to wait
        ``soft_fail`` is for failures and timeouts, ``never_fail`` also for errors, such as a task
        that the run does not have.
    :raises ValueError: when the DAG is parsed: the arguments do not fit together.
    """

    template_fields: Sequence[str] = (
        "run_id",
        "job_id",
        "job_name",
        "started_since",
        "task_key",
        "databricks_conn_id",
    )
    operator_extra_links = (DatabricksJobRunLink(),)
    ui_color = "#1cb1c2"
    ui_fgcolor = "#fff"
    # Not of the class, for mapped tasks do not begin there.
    start_trigger_args = StartTriggerArguments()

    def __init__(
        self,
        *,
        run_id: int | str | None = None,
        job_id: int | str | None = None,
        job_name: str | None = None,
        started_since: datetime | str | None = None,
        task_key: str | None = None,
        start_from_trigger: bool = False,
        **kwargs: Unpack[SensorArguments],
    ) -> None:
        super().__init__(**kwargs)
        require_exactly_one(run_id=run_id, job_id=job_id, job_name=job_name)
        if started_since is not None and run_id is not None:
            raise ValueError("started_since is for job_id and job_name; a run_id names the run")
        if started_since is None and run_id is None:
            started_since = INTERVAL_BEGAN
        check_flags(start_from_trigger=start_from_trigger)
        if job_name is not None:
            check_text("job_name", job_name)
        if task_key is not None:
            check_text("task_key", task_key)
        check_id("run_id", run_id)
        check_id("job_id", job_id)
        self.run_id = run_id
        self.job_id = job_id
        self.job_name = job_name
        self.started_since = started_since
        self.task_key = task_key
        self.deferrable = self.deferrable or start_from_trigger
        if self.deferrable:
            check_storable(self.databricks_retry_args)
        self._target: Target | None = None
        # The wait under way; it stops where time has to pass, until the next poke.
        self._execution: WorkflowExecution[Run] | None = None
        # The run of a job, once it was found.
        self._found_run_id: int | None = None
        # When this try began, where Airflow tells it wrongly.
        self._began: datetime | None = None
        if start_from_trigger:
            unrendered = [n for n in self.template_fields if has_unrendered(getattr(self, n))]
            check_start_in_triggerer(self, unrendered)
        self.start_from_trigger = start_from_trigger

    def execute(self, context: Context) -> Any:
        """Wait in the way that was chosen; return the run's output."""
        if not self._may_defer(context):
            try:
                return super().execute(context)
            except AirflowSensorTimeout as error:  # Airflow has forgotten never_fail here
                if self.never_fail:
                    raise AirflowSkipException(str(error)) from error
                raise
        with self._failing_softly():
            began = time.time()
            run = self._look(began)
            return (
                self._defer(context, began) if run is None else self._result_or_raise(context, run)
            )

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Look once; done with the run's output as the sensor's XCom when it ended well."""
        run = self._look(wait_start(context, is_rescheduled=self.reschedule))
        if run is None:
            return False
        return PokeReturnValue(is_done=True, xcom_value=self._result_or_raise(context, run))

    def execute_complete(
        self, context: Context, event: dict[str, Any], try_number: int | None = None
    ) -> Any:
        """Resume after the trigger's event: return the run's output, or raise why it failed.

        :param event: what the trigger fired.
        :param try_number: the try that deferred; None where no worker did.
        """
        if try_number not in (None, context["ti"].try_number):
            # Airflow 3.0 begins a retry with the event that ended the try before, and its start.
            self._began = datetime.now(UTC)
            return self.execute(context)
        return self._result_or_raise(context, self._run_of(event))

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Resume after the wait in the triggerer; what is skipped is what a worker skips.

        For BaseSensorOperator any error is soft here, and never_fail is nothing before Airflow 3.3.
        """
        if self.start_from_trigger:
            from airflow_jobs_provider.airflow_compat.completion_event import delete_output

            delete_output(context["ti"], multiple_outputs=self.multiple_outputs)
        with self._failing_softly():
            if is_timed_out(next_method, next_kwargs):
                raise self._timeout_error()
            return super(BaseSensorOperator, self).resume_execution(
                next_method, next_kwargs, context
            )

    @contextmanager
    def _failing_softly(self) -> Iterator[None]:
        """Skip the task as Airflow does around a poke: soft_fail is for failures, not for errors.

        What is not there or cannot be read is an error, which only never_fail keeps quiet.
        """
        from airflow_jobs_provider.exceptions import DatabricksRunFailedError

        try:
            yield
        except AirflowSkipException:
            raise
        except (
            DatabricksRunFailedError,
            AirflowFailException,
            AirflowSensorTimeout,
            AirflowTaskTimeout,
        ) as failure:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(str(failure)) from failure
            raise
        except Exception as error:
            if self.never_fail:
                raise AirflowSkipException(str(error)) from error
            raise

    def _timeout_error(self) -> BaseException:
        """Return what a worker raises: only after ``execution_timeout`` there are retries."""
        if self.execution_timeout and self.execution_timeout < timedelta(seconds=self.timeout):
            return AirflowTaskTimeout(f"no end within execution_timeout, {self.execution_timeout}")
        return AirflowSensorTimeout(f"no end within the timeout of {self.timeout} s")

    def trigger_arguments(self) -> dict[str, Any]:
        """Return what the trigger is made with, but for when the wait began."""
        since = self.started_since
        return {
            "run_id": self.run_id,
            "job_id": self.job_id,
            "job_name": self.job_name,
            "started_since": since.isoformat() if isinstance(since, datetime) else since,
            "task_key": self.task_key,
            "databricks_conn_id": self.databricks_conn_id,
            "polling_period_seconds": self.poke_interval,
            **self._completion_arguments(),
            **self._hook_arguments(),
        }

    def _defer(self, context: Context, began: float) -> NoReturn:
        from airflow_jobs_provider.triggers.sensor import DatabricksJobRunSensorTrigger

        arguments = self.trigger_arguments()
        if self._found_run_id is not None:
            arguments["run_id"] = self._found_run_id
            arguments["job_id"] = arguments["job_name"] = None
            arguments["follow_attempts"] = True
        self.log.info("Deferring: the triggerer goes on waiting.")
        self._defer_to(
            DatabricksJobRunSensorTrigger(
                **arguments, began=began, reached_by=self.hook.client.reached_by
            ),
            {"try_number": context["ti"].try_number},
            self._longest_wait(context),
        )

    def _longest_wait(self, context: Context) -> timedelta:
        """Return for how long the triggerer may wait; Airflow 3 sees to ``timeout`` only."""
        timeout = timedelta(seconds=self.timeout)
        if self.execution_timeout is None:
            return timeout
        began = self._began or getattr(context["ti"], "start_date", None) or datetime.now(UTC)
        left = began + self.execution_timeout - datetime.now(UTC)
        return max(timedelta(0), min(timeout, left))

    def _look(self, began: float) -> Run | None:
        """Look at what is waited for; return it once it has ended."""
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
                    remembers=not self.reschedule,
                )
                self._execution = WorkflowExecution(steps, on_event=self._record)
            has_to_wait = self._execution.advance(self._send) is not None
            return None if has_to_wait else self._execution.result
        except Exception as error:
            # It cannot go on; with silent_fail the sensor looks again, for the same run.
            self._execution = None
            if isinstance(error, JobsAPIError):
                with airflow_exceptions():
                    raise
            if isinstance(error, ValueError):  # what the arguments name is not there
                raise AirflowException(str(error)) from error
            raise

    def _send(self, call: Call[Any]) -> Any:
        # Any outage is waited out, until the sensor's timeout.
        return self.hook.send(call, retries=self.hook.retry_policy().without_deadline())

    def _record(self, event: Event) -> None:
        from airflow_jobs_provider.api.workflows.events import RunIdentified

        if isinstance(event, RunIdentified):
            self._found_run_id = event.run_id

    def _result_or_raise(self, context: Context, run: Mapping[str, Any]) -> Any:
        self._push(
            context,
            {RUN_ID_KEY: run.get("run_id"), RUN_PAGE_URL_KEY: run.get("run_page_url")},
        )
        with self._failing_softly():
            return super()._result_or_raise(context, run)

    def make_start_trigger_args(self) -> StartTriggerArgs:
        """Return the arguments with which Airflow starts the task in the triggerer."""
        from airflow.triggers.base import StartTriggerArgs

        # Airflow heeds execution_timeout here by itself, and lets the trigger know the earlier end.
        timeout = timedelta(seconds=self.timeout)
        earlier = min(timeout, self.execution_timeout or timeout)
        return StartTriggerArgs(
            trigger_cls="airflow_jobs_provider.triggers.sensor.DatabricksJobRunSensorTrigger",
            trigger_kwargs={
                "timeout_seconds": earlier.total_seconds(),
                **{
                    name: as_template(name, value) if name in self.template_fields else value
                    for name, value in self.trigger_arguments().items()
                },
            },
            next_method="execute_complete",
            timeout=timeout,
        )
