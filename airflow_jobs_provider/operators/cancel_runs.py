"""DatabricksCancelRunsOperator: cancels a run, or all runs of a job."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

from airflow_jobs_provider.api.ids import require_exactly_one, require_id
from airflow_jobs_provider.exceptions import airflow_exceptions
from airflow_jobs_provider.operators.argument_checks import check_flags, check_id, to_seconds
from airflow_jobs_provider.operators.base import DatabricksJobsBaseOperator
from airflow_jobs_provider.operators.payload_validation import (
    check_when_parsed,
    has_unrendered,
)

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context

    from airflow_jobs_provider.operators.arguments import Id, OperatorArguments

__all__ = ["DatabricksCancelRunsOperator"]

POLLING_PERIOD_SECONDS = 5


class DatabricksCancelRunsOperator(DatabricksJobsBaseOperator):
    """Cancel a run, or all active runs of a job, and wait until none of them is active.

    ::

        DatabricksCancelRunsOperator(task_id="cancel", job_id=42)

    The service cancels a run some time after the request. A run that has ended is not changed.
    Canceling all runs of a job does not keep new ones from starting: one that starts meanwhile is
    waited for, not canceled. Reference: "Runs cancel", "Runs cancel all".

    :param run_id: the run to cancel; templated.
    :param job_id: the job whose runs to cancel; templated. Exactly one of ``run_id`` and ``job_id``
        is given.
    :param wait_for_termination: wait until no run is active; default True.
    :param polling_period_seconds: seconds, or a timedelta, between two reads; default 5.
    :param kwargs: the shared arguments; see
        :class:`~airflow_jobs_provider.operators.arguments.OperatorArguments`.
    :raises InvalidRequestError: when the DAG is parsed: neither run nor job was given, or both, or
        one is no id.
    :raises AirflowFailException: the same after rendering. Airflow does not retry.
    :raises AirflowException: the service refused the request, such as for a run or job that does
        not exist. The DAG's ``retries`` decide.
    """

    template_fields: Sequence[str] = ("run_id", "job_id", "databricks_conn_id")
    ui_color = "#1cb1c2"
    ui_fgcolor = "#fff"

    def __init__(
        self,
        *,
        run_id: Id | None = None,
        job_id: Id | None = None,
        wait_for_termination: bool = True,
        polling_period_seconds: float | timedelta = POLLING_PERIOD_SECONDS,
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        super().__init__(**kwargs)
        require_exactly_one(run_id=run_id, job_id=job_id)
        check_flags(wait_for_termination=wait_for_termination)
        self.run_id = run_id
        self.job_id = job_id
        self.wait_for_termination = wait_for_termination
        self.polling_period_seconds = to_seconds("polling_period_seconds", polling_period_seconds)
        check_id("run_id", run_id)
        check_id("job_id", job_id)
        if not has_unrendered((run_id, job_id)):
            call_name, request = self._request()
            check_when_parsed(call_name, None, request, validate=self.validate)

    def _request(self) -> tuple[str, dict[str, Any]]:
        require_exactly_one(run_id=self.run_id, job_id=self.job_id)
        if self.job_id not in (None, ""):
            return "runs/cancel-all", {"job_id": self.job_id}
        return "runs/cancel", {"run_id": self.run_id}

    def arguments_without_effect(self) -> dict[str, str]:
        """Return the arguments that were given and have no effect, each with the reason."""
        found = super().arguments_without_effect()
        if not self.wait_for_termination and self.polling_period_seconds != POLLING_PERIOD_SECONDS:
            found["polling_period_seconds"] = "the task does not wait for the end of the runs"
        return found

    def execute(self, context: Context) -> None:
        """Cancel the runs, and wait unless told otherwise."""
        self._log_arguments_without_effect()
        with airflow_exceptions():
            ((name, value),) = self._request()[1].items()
            number = require_id(name, value)
            if name == "job_id":
                self.hook.cancel_all_runs(number)
            else:
                self.hook.cancel_run(number)
            what = f"{name.removesuffix('_id')} {number}"
            self.log.info("Asked to cancel %s.", what)
            while self.wait_for_termination and (active := self._active(name, number)):
                self.log.info("Still active: %s.", ", ".join(map(str, active)))
                time.sleep(self.polling_period_seconds)
        if self.wait_for_termination:
            self.log.info("No run of %s is active.", what)

    def _active(self, name: str, number: int) -> list[int]:
        """Return the active runs; of a job at least one of them. Any outage is waited out."""
        from airflow_jobs_provider.api import endpoints
        from airflow_jobs_provider.api.pagination import read_first_items
        from airflow_jobs_provider.api.states import RunState

        if name == "job_id":
            call = endpoints.list_runs(job_id=number, active_only=True)
            runs = self.hook.client.run(read_first_items(call))
        else:
            without_deadline = self.hook.retry_policy().without_deadline()
            runs = [self.hook.send(endpoints.get_run(number), retries=without_deadline)]
        return [int(run["run_id"]) for run in runs if not RunState.from_run(run).is_terminal]
