"""The extra links that Airflow's server computes from the XComs of a task's run.

:mod:`airflow_jobs_provider.plugin` registers them. Airflow pushes an XCom for each link that an
operator itself has, at the end of each task process. For a link of a plugin it does not: the server
calls ``get_link`` when a user opens the task. So these links cost a task nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

import attrs
from airflow.providers.common.compat.sdk import BaseOperatorLink

from airflow_jobs_provider.airflow_compat.stored_xcoms import stored_xcoms
from airflow_jobs_provider.api.ids import parse_id
from airflow_jobs_provider.api.text import safe_url
from airflow_jobs_provider.ui.job_page import job_page_url, task_run_page_url
from airflow_jobs_provider.xcom import (
    JOB_ID_KEY,
    RUN_ID_KEY,
    RUN_PAGE_URL_KEY,
    TASK_RUN_IDS_KEY,
)

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey

__all__ = [
    "LONGEST_PERIOD_DAYS",
    "PAGE_LINKS",
    "PAGE_PREFIX",
    "UI_LINKS",
    "DatabricksJobLink",
    "DatabricksTaskRunLink",
    "DatabricksTaskRunsLink",
    "DatabricksWorkflowRunLink",
    "OperatorName",
]

# Where Airflow serves the page of the plugin, below its own address.
PAGE_PREFIX = "databricks-jobs"
# The longest period that the page shows. Databricks keeps runs for 60 days.
LONGEST_PERIOD_DAYS = 60


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


class DatabricksTaskRunsLink(BaseOperatorLink):
    """Link to the run on the page "Databricks runs", with the runs of its tasks (Airflow 3.1).

    On Airflow 3 an operator cannot have a link for each task of its run without an XCom for each.
    """

    name = "See Databricks Task Runs"
    operators: ClassVar[list[Any]] = [
        OperatorName("operators.submit_run", "DatabricksSubmitRunOperator"),
        OperatorName("operators.run_now", "DatabricksRunNowOperator"),
        OperatorName("sensors.jobs", "DatabricksJobRunSensor"),
    ]

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return the URL; empty before the run has ended, and for a run of one task."""
        from airflow.providers.common.compat.sdk import conf

        xcoms = stored_xcoms(ti_key, (RUN_ID_KEY, TASK_RUN_IDS_KEY))
        if not xcoms.get(TASK_RUN_IDS_KEY):
            return ""
        query = urlencode({"text": xcoms.get(RUN_ID_KEY), "days": LONGEST_PERIOD_DAYS})
        base_url = str(conf.get("api", "base_url", fallback="")).rstrip("/")
        return f"{base_url}/{PAGE_PREFIX}/?{query}"


@attrs.define(slots=False)
class DatabricksTaskRunLink(BaseOperatorLink):
    """Link to the page of the run of one task of a run of several tasks (Airflow 2).

    The web server computes it. Airflow 2 stores the attribute with the DAG.

    :ivar task_key: the task's key.
    """

    task_key: str

    @property
    def name(self) -> str:
        """The text of the link."""
        return f"See Databricks Task {self.task_key}"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return the URL; empty before the run has ended."""
        xcoms = stored_xcoms(ti_key, (RUN_PAGE_URL_KEY, TASK_RUN_IDS_KEY))
        ids = xcoms.get(TASK_RUN_IDS_KEY)
        task_run_id = parse_id(ids.get(self.task_key)) if isinstance(ids, Mapping) else None
        if task_run_id is None:
            return ""
        return task_run_page_url(xcoms.get(RUN_PAGE_URL_KEY), task_run_id) or ""


# Those of a plugin; the last one needs the page.
UI_LINKS = (DatabricksJobLink(), DatabricksWorkflowRunLink())
PAGE_LINKS = (DatabricksTaskRunsLink(),)


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
