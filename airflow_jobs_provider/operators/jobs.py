"""All operators and their extra link, to be imported from here.

Nothing in them touches the network or a connection when a DAG is parsed, and nothing heavy is
imported then. Each operator's module is imported with its name: a DAG file that only launches runs
does not pay for workflow groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_jobs_provider.api.lazy_names import lazy_names
from airflow_jobs_provider.links import DatabricksJobRunLink
from airflow_jobs_provider.xcom import JOB_ID_KEY, RUN_ID_KEY, RUN_PAGE_URL_KEY

if TYPE_CHECKING:
    from airflow_jobs_provider.operators.cancel_runs import DatabricksCancelRunsOperator
    from airflow_jobs_provider.operators.create_job import DatabricksCreateJobsOperator
    from airflow_jobs_provider.operators.delete_run import DatabricksDeleteRunOperator
    from airflow_jobs_provider.operators.export_run import DatabricksExportRunOperator
    from airflow_jobs_provider.operators.notebook import DatabricksNotebookOperator
    from airflow_jobs_provider.operators.run_now import DatabricksRunNowOperator
    from airflow_jobs_provider.operators.submit_run import DatabricksSubmitRunOperator
    from airflow_jobs_provider.operators.task import DatabricksTaskOperator
    from airflow_jobs_provider.operators.workflow import DatabricksWorkflowTaskGroup

__all__ = [
    "XCOM_JOB_ID_KEY",
    "XCOM_RUN_ID_KEY",
    "XCOM_RUN_PAGE_URL_KEY",
    "DatabricksCancelRunsOperator",
    "DatabricksCreateJobsOperator",
    "DatabricksDeleteRunOperator",
    "DatabricksExportRunOperator",
    "DatabricksJobRunLink",
    "DatabricksNotebookOperator",
    "DatabricksRunNowOperator",
    "DatabricksSubmitRunOperator",
    "DatabricksTaskOperator",
    "DatabricksWorkflowTaskGroup",
]

# The names under which the official provider's module has the keys of XComs.
XCOM_JOB_ID_KEY = JOB_ID_KEY
XCOM_RUN_ID_KEY = RUN_ID_KEY
XCOM_RUN_PAGE_URL_KEY = RUN_PAGE_URL_KEY

_MODULES = {
    "DatabricksCancelRunsOperator": ".cancel_runs",
    "DatabricksCreateJobsOperator": ".create_job",
    "DatabricksDeleteRunOperator": ".delete_run",
    "DatabricksExportRunOperator": ".export_run",
    "DatabricksNotebookOperator": ".notebook",
    "DatabricksRunNowOperator": ".run_now",
    "DatabricksSubmitRunOperator": ".submit_run",
    "DatabricksTaskOperator": ".task",
    "DatabricksWorkflowTaskGroup": ".workflow",
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(globals(), _MODULES)
