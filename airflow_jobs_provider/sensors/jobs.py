"""DatabricksJobRunSensor: wait for a run that something else launched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_jobs_provider.waiting import WaitsForRun

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobs_provider.api.progress import RunProgress

__all__ = ["DatabricksJobRunSensor"]


class DatabricksJobRunSensor(WaitsForRun, BaseSensorOperator):
    """Wait until a run has ended, and return what its notebook gave back.

    ::

        DatabricksJobRunSensor(task_id="wait", run_id=launch.output["run_id"], deferrable=True)

    The run is watched, not owned: a sensor that is killed or times out cancels nothing.

    :param run_id: the run to wait for; templated, takes an XComArg.
    :param databricks_conn_id: Airflow connection; default ``databricks_default``; templated.
    :param databricks_retry_limit: tries of a request at the most; by default time decides.
    :param databricks_retry_delay: seconds before the second try; by default it depends on what went
        wrong.
    :param databricks_retry_args: arguments for tenacity in place of the policy's own.
    :param deferrable: wait in the triggerer, without a worker; default False, or Airflow's
        ``[operators] default_deferrable``. ``poke_interval`` and ``timeout`` (both in seconds)
        count there, too; ``mode`` is for the worker: ``poke`` or ``reschedule``.
    :raises DatabricksRunFailedError: the run failed, timed out, was canceled or skipped; with
        ``soft_fail`` the task is skipped instead.
    """

    template_fields: Sequence[str] = ("run_id", "databricks_conn_id")
    ui_color = "#1cb1c2"
    ui_fgcolor = "#fff"

    def __init__(
        self,
        *,
        run_id: int | str,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id

    @cached_property
    def _progress(self) -> RunProgress:
        from airflow_jobs_provider.api.progress import RunProgress

        return RunProgress(int(self.run_id), self.log)

    def execute(self, context: Context) -> Any:
        """Wait in the way that was chosen; return the run's output."""
        if not self.deferrable:
            return super().execute(context)
        from airflow_jobs_provider.api.states import RunState

        run = self._look_at(int(self.run_id))
        if RunState.of(run).is_terminal:
            return self._conclude(context, run)
        self._defer_until_ended(
            run,
            polling_period_seconds=self.poke_interval,
            timeout=timedelta(seconds=self.timeout),
        )
        return None

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Look at the run once; done with its output as the sensor's XCom when it ended well."""
        run = self._look_at(int(self.run_id))
        if not self._progress.observe(run).is_terminal:
            return False
        return PokeReturnValue(is_done=True, xcom_value=self._conclude(context, run))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Resume after the trigger's event: return the run's output, or raise why it failed."""
        return self._conclude(context, self._run_of(event))

    def _conclude(self, context: Context, run: Mapping[str, Any]) -> Any:
        from airflow_jobs_provider.exceptions import DatabricksRunFailedError

        try:
            outcome = self._outcome_of(run)
        except DatabricksRunFailedError as error:
            if self.soft_fail:
                raise AirflowSkipException(str(error)) from error
            raise
        if outcome.truncated and self.do_xcom_push:
            context["ti"].xcom_push(key="output_truncated", value=True)
        return outcome.value
