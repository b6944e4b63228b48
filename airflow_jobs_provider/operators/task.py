"""DatabricksTaskOperator: runs a task of any kind, alone or as a task of a workflow group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from airflow_jobs_provider.operators.payload import GivenFields
from airflow_jobs_provider.operators.task_base import DatabricksTaskBaseOperator
from airflow_jobs_provider.operators.templates import has_unrendered

if TYPE_CHECKING:
    from airflow_jobs_provider.operators.arguments import StructureOf, TaskArguments

__all__ = ["DatabricksTaskOperator"]


class DatabricksTaskOperator(DatabricksTaskBaseOperator):
    """Run a task of any kind, wait for its run, and return its output.

    ::

        DatabricksTaskOperator(
            task_id="report",
            task_config={"sql_task": {"query": {"query_id": "..."}, "warehouse_id": "..."}},
        )

    Alone it submits a one-time run, as
    :class:`~airflow_jobs_provider.operators.submit_run.DatabricksSubmitRunOperator` does, with the
    same XComs. In a :class:`~airflow_jobs_provider.operators.workflow.DatabricksWorkflowTaskGroup`
    it is a task of the group's job.

    :param task_config: the task, as the API takes it in ``tasks`` of a job: its kind with its
        settings, and any other setting of a task. Templated, takes XComArgs. Other arguments
        take precedence over it.
    :param kwargs: the shared arguments; see
        :class:`~airflow_jobs_provider.operators.arguments.TaskArguments`.
    :raises InvalidRequestError: when the DAG is parsed: the reference forbids the request.
    :raises DatabricksRunFailedError: the run failed, timed out, was canceled or skipped.
    :raises AirflowFailException: the reference forbids the rendered request, or the service says
        that it is wrong. Airflow does not retry.
    :raises AirflowException: the service refused the request for another reason. The DAG's
        ``retries`` decide.
    """

    _starts_in_triggerer: ClassVar[bool] = True
    definition_fields: ClassVar[tuple[str, ...]] = ("task_config",)
    template_fields: Any = GivenFields(
        *DatabricksTaskBaseOperator.template_fields, *definition_fields
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DatabricksTaskBaseOperator.template_fields_renderers,
        "task_config": "json",
    }

    def __init__(
        self,
        *,
        task_config: StructureOf[Mapping[str, Any]],
        **kwargs: Unpack[TaskArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.task_config = task_config
        self._check_when_parsed()

    def _defined_retries(self) -> Any:
        from airflow_jobs_provider.api.schema.payload_text import read_payload

        config: Any = self.task_config
        if not isinstance(config, Mapping) and has_unrendered(config):
            return config
        return read_payload("task_config", config).get("max_retries")

    def task_definition(self) -> dict[str, Any]:
        """Return ``task_config``, with the task's ``execution_timeout`` as its time limit."""
        from airflow_jobs_provider.api.schema.payload_text import read_payload

        config = read_payload("task_config", self.task_config)
        return {"timeout_seconds": self.timeout_seconds(), **config}
