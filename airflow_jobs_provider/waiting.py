"""What a task that waits for a run shares, be it an operator or the sensor.

The look at the run, the wait in the triggerer, and the way from the trigger's event back to the
run.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException, conf

from airflow_jobs_provider.connected import ConnectedOperator

__all__ = ["WaitsForRun"]


class WaitsForRun(ConnectedOperator):
    """Base of the tasks that wait for a run; see :class:`.connected.ConnectedOperator` for more.

    :param deferrable: wait in the triggerer; default False, or Airflow's
        ``[operators] default_deferrable``.
    """

    def __init__(self, *, deferrable: bool | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable

    def _look_at(self, run_id: int) -> dict[str, Any]:
        """Read a run that is known to be there; an outage is waited out, however long."""
        from airflow_jobs_provider.api.steps import whole_run

        return self.hook.client.carry_out(whole_run(run_id))

    def _defer_until_ended(
        self,
        run: Mapping[str, Any],
        *,
        polling_period_seconds: float,
        timeout: timedelta | None = None,
        kwargs: dict[str, Any] | None = None,
        **trigger_arguments: Any,
    ) -> None:
        from airflow_jobs_provider.api.states import RunState
        from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger

        run_id, state = int(run["run_id"]), RunState.of(run)
        self.log.info("Deferring: the triggerer waits for run %s, which is %s.", run_id, state)
        self.defer(
            trigger=DatabricksJobRunTrigger(
                run_id=run_id,
                databricks_conn_id=self.databricks_conn_id,
                polling_period_seconds=polling_period_seconds,
                life_cycle_state=state.life_cycle_state or None,
                **self._hook_arguments,
                **trigger_arguments,
            ),
            method_name="execute_complete",
            timeout=timeout,
            kwargs=kwargs,
        )

    @staticmethod
    def _run_of(event: Mapping[str, Any]) -> dict[str, Any]:
        """Return the run that a trigger's event brings; raise where it brings none."""
        from airflow_jobs_provider.exceptions import DatabricksRunTimeoutError

        if event.get("error"):
            raise AirflowException(
                f"Run {event.get('run_id')} cannot be followed: {event['error']}"
            )
        run = dict(event["run"])
        if event.get("timed_out"):
            raise DatabricksRunTimeoutError(
                run["run_id"], event["timed_out"], run.get("run_page_url") or ""
            )
        return run
