"""DatabricksNotebookOperator: runs a notebook, alone or as a task of a workflow group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from airflow_jobs_provider.operators.payload import GivenFields
from airflow_jobs_provider.operators.task_base import DatabricksTaskBaseOperator, without_empty

if TYPE_CHECKING:
    from airflow_jobs_provider.api.schema.types import Library
    from airflow_jobs_provider.operators.arguments import (
        ListOf,
        StructureOf,
        TaskArguments,
        Text,
    )

__all__ = ["DatabricksNotebookOperator"]


class DatabricksNotebookOperator(DatabricksTaskBaseOperator):
    """Run a notebook, wait for its run, and return its output.

    ::

        DatabricksNotebookOperator(
            task_id="etl",
            notebook_path="/Shared/etl",
            source="WORKSPACE",
            existing_cluster_id="1201-my-cluster",
            notebook_params={"day": "{{ ds }}"},
        )

    Alone it submits a one-time run, as
    :class:`~airflow_jobs_provider.operators.submit_run.DatabricksSubmitRunOperator` does, with the
    same XComs. In a :class:`~airflow_jobs_provider.operators.workflow.DatabricksWorkflowTaskGroup`
    the notebook is a task of the group's job.

    All arguments that define the task are templated and take XComArgs. Reference: "NotebookTask".

    :param notebook_path: path of the notebook.
    :param source: where the notebook is: ``WORKSPACE`` or ``GIT``; default ``GIT`` if the job has a
        ``git_source``, else ``WORKSPACE``.
    :param notebook_params: parameters of the notebook; default none. Numbers and booleans are sent
        as text.
    :param notebook_packages: libraries to install on the cluster (reference: "Library"); default
        none.
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
    definition_fields: ClassVar[tuple[str, ...]] = (
        "notebook_path",
        "source",
        "notebook_params",
        "notebook_packages",
    )
    template_fields: Any = GivenFields(
        *DatabricksTaskBaseOperator.template_fields, *definition_fields
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DatabricksTaskBaseOperator.template_fields_renderers,
        "notebook_params": "json",
    }

    def __init__(
        self,
        *,
        notebook_path: Text,
        source: Text | None = None,
        notebook_params: StructureOf[Mapping[str, Any]] | None = None,
        notebook_packages: ListOf[Library] | None = None,
        **kwargs: Unpack[TaskArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.notebook_path = notebook_path
        self.source = source
        self.notebook_params = notebook_params
        self.notebook_packages = notebook_packages
        self._check_when_parsed()

    def task_definition(self) -> dict[str, Any]:
        """Return the task: the notebook with its parameters, and its libraries."""
        notebook = {
            "notebook_path": self.notebook_path,
            "source": self.source,
            "base_parameters": self.notebook_params,
        }
        return {
            "notebook_task": without_empty(notebook),
            "libraries": self.notebook_packages,
            "timeout_seconds": self.timeout_seconds(),
        }
