"""DatabricksDeleteRunOperator: deletes a run that has ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

from airflow_jobs_provider.exceptions import airflow_exceptions
from airflow_jobs_provider.operators.argument_checks import check_id
from airflow_jobs_provider.operators.base import DatabricksJobsBaseOperator
from airflow_jobs_provider.operators.payload_validation import (
    check_when_parsed,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobs_provider.operators.arguments import Id, OperatorArguments

__all__ = ["DatabricksDeleteRunOperator"]


class DatabricksDeleteRunOperator(DatabricksJobsBaseOperator):
    """Delete a run that has ended. A run that does not exist any more counts as deleted.

    ::

        DatabricksDeleteRunOperator(
            task_id="delete", run_id="{{ ti.xcom_pull('etl', key='run_id') }}"
        )

    The service refuses to delete an active run: the task fails, and Airflow's retries try again.
    Reference: "Runs delete".

    :param run_id: the run; templated.
    :param kwargs: the shared arguments; see
        :class:`~airflow_jobs_provider.operators.arguments.OperatorArguments`.
    :raises InvalidRequestError: when the DAG is parsed: the id is no number.
    :raises AirflowFailException: the same after rendering. Airflow does not retry.
    :raises AirflowException: the service refused the request, such as for an active run. The DAG's
        ``retries`` decide.
    """

    template_fields: Sequence[str] = ("run_id", "databricks_conn_id")
    ui_color = "#1cb1c2"
    ui_fgcolor = "#fff"

    def __init__(self, *, run_id: Id, **kwargs: Unpack[OperatorArguments]) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id
        check_id("run_id", run_id)
        check_when_parsed("runs/delete", None, {"run_id": run_id}, validate=self.validate)

    def execute(self, context: Context) -> None:
        """Delete the run."""
        from airflow_jobs_provider.api.errors import NotFoundError
        from airflow_jobs_provider.api.ids import require_id

        with airflow_exceptions():
            run_id = require_id("run_id", self.run_id)
            try:
                self.hook.delete_run(run_id)
            except NotFoundError:
                self.log.warning("Run %s does not exist any more: nothing to delete.", self.run_id)
            else:
                self.log.info("Deleted run %s.", self.run_id)
