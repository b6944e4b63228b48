"""The extra links that Airflow's server computes from the XComs of a task's run.

:mod:`airflow_jobs_provider.plugin` registers them. Airflow pushes an XCom for each link that an
operator itself has, at the end of each task process. For a link of a plugin it does not: the server
calls ``get_link`` when a user opens the task. So these links cost a task nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperatorLink

from airflow_jobs_provider.airflow_compat.stored_xcoms import stored_xcoms
from airflow_jobs_provider.api.text import safe_url
from airflow_jobs_provider.ui.job_page import job_page_url
from airflow_jobs_provider.xcom import JOB_ID_KEY, RUN_PAGE_URL_KEY

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey

__all__ = ["UI_LINKS", "DatabricksJobLink", "DatabricksWorkflowRunLink", "OperatorName"]


class OperatorName:
    """An operator class by its name, which is all that Airflow compares.

    Airflow asks for the links in each process that reads a DAG from its database. There the
    operators themselves are not imported.
    """

    def __init__(self, module: str, name: str) -> None:
        self.__module__ = f"airflow_jobs_provider.{module}"
        self.__name__ = name


_LAUNCH = OperatorName("operators.workflow_launch", "DatabricksWorkflowLaunchOperator")
# The tasks of a workflow group. Alone, they submit a one-time run, which has no job's page.
_MEMBERS = (
    OperatorName("operators.notebook", "DatabricksNotebookOperator"),
    OperatorName("operators.task", "DatabricksTaskOperator"),
)
_OF_A_JOB = (
    OperatorName("operators.run_now", "DatabricksRunNowOperator"),
    OperatorName("sensors.jobs", "DatabricksJobRunSensor"),
    _LAUNCH,
)


class DatabricksJobLink(BaseOperatorLink):
    """Link to the page of the job whose run the task launched or waited for.

    A one-time run has no such page, so tasks that submit one have no link.
    """

    name = "See Databricks Job"
    operators: ClassVar[list[Any]] = [*_OF_A_JOB, *_MEMBERS]

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL; empty if it is not known."""
        if operator.task_type in _names(_MEMBERS) and _launch_task_id(operator) is None:
            return ""
        xcoms = stored_xcoms(ti_key, (JOB_ID_KEY, RUN_PAGE_URL_KEY))
        return job_page_url(xcoms.get(RUN_PAGE_URL_KEY), xcoms.get(JOB_ID_KEY)) or ""


class DatabricksWorkflowRunLink(BaseOperatorLink):
    """Link from a task of a workflow group to the page of the group's run.

    The link "See Databricks Job Run" of such a task leads to the task's own run.
    """

    name = "See Databricks Workflow Run"
    operators: ClassVar[list[Any]] = [*_MEMBERS]

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL; empty if the task is in no group or the run is not launched yet."""
        launch = _launch_task_id(operator)
        if launch is None:
            return ""
        url = stored_xcoms(ti_key, (RUN_PAGE_URL_KEY,), task_id=launch).get(RUN_PAGE_URL_KEY)
        return (isinstance(url, str) and safe_url(url)) or ""


UI_LINKS = (DatabricksJobLink(), DatabricksWorkflowRunLink())


def _names(operators: Sequence[OperatorName]) -> set[str]:
    return {operator.__name__ for operator in operators}


def _launch_task_id(operator: Any) -> str | None:
    """Return the launching task of the workflow group that a task is in; None without one."""
    tasks = operator.dag.task_dict
    group = operator.task_group
    while group is not None:
        for task_id in group.children:
            if task_id in tasks and tasks[task_id].task_type == _LAUNCH.__name__:
                return str(task_id)
        group = group.task_group
    return None
