"""WorkflowMemberStartOperator: the part of a task in a workflow group that starts in the triggerer.

The trigger finds the task's own run and waits for it; see :mod:`.workflow_member_trigger`. The
request is a part of the group's job, which the launching task defines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.airflow_compat.completion_event import delete_run
from airflow_jobs_provider.operators.start_from_trigger import StoredRequest
from airflow_jobs_provider.operators.templates import has_unrendered
from airflow_jobs_provider.operators.workflow_rerun import WorkflowRerunOperator

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import StartTriggerArgs

__all__ = ["WorkflowMemberStartOperator"]

_START_TRIGGER = (
    "airflow_jobs_provider.operators.workflow_member_trigger.DatabricksWorkflowMemberTrigger"
)


class WorkflowMemberStartOperator(WorkflowRerunOperator):
    """Base class of the operators that may be tasks of a workflow group, as far as starts go."""

    def service_retries(self) -> int:
        """Return how often the service itself retries the task, -1 for no limit."""
        raise NotImplementedError

    def known_retries(self) -> int | None:
        """Return the same while the DAG is parsed; None if it is known only when the task runs."""
        raise NotImplementedError

    def _worker_completion_reasons(self) -> list[str]:
        reasons = super()._worker_completion_reasons()
        if self.workflow_group() is not None and self.known_retries() != 0:
            # The trigger does not record which of the task's runs it has reported.
            reasons.append("max_retries")
        return reasons

    def _stored_request(self, more_bytes: int = 0) -> StoredRequest:
        if self.workflow_group() is None:
            return super()._stored_request(more_bytes)
        # The launching task has the request.
        reasons = []
        if self.workflow_run_metadata:
            reasons.append("workflow_run_metadata")
        if self.known_retries() is None:
            reasons.append("max_retries that are known when the task runs")
        return StoredRequest(reasons)

    def _start_arguments(self, request: StoredRequest) -> StartTriggerArgs:
        if self.workflow_group() is None:
            return super()._start_arguments(request)
        from airflow.triggers.base import StartTriggerArgs

        from airflow_jobs_provider.triggers.workflow_arguments import (
            WorkflowMemberTriggerArguments,
        )

        # Otherwise the launching task tells it.
        connection = self.databricks_conn_id
        known: Any = {} if has_unrendered(connection) else {"databricks_conn_id": connection}
        arguments = WorkflowMemberTriggerArguments(
            **known,
            launch_task_id=self._launch_task_id(),
            task_key=self.databricks_task_key,
            task_max_retries=self.known_retries() or 0,
            polling_period_seconds=self.polling_period_seconds,
            cancel_on_kill=self.cancel_on_kill,
            arguments_without_effect=self.arguments_without_effect() or None,
            **self._hook_arguments(),
            **self._completion_arguments(),
        )
        return StartTriggerArgs(
            trigger_cls=_START_TRIGGER,
            trigger_kwargs=arguments.as_kwargs_without_defaults(),
            next_method="execute_complete_in_workflow",
        )

    def _delete_earlier_run(self, context: Context) -> None:
        """Delete the output and the run of an earlier attempt where this one is resumed.

        Airflow has deleted no XComs then. Other tasks of the group see that it has begun.
        """
        self._delete_earlier_output(context)
        if self.do_xcom_push:
            delete_run(context["ti"])
