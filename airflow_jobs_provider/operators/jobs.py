"""All operators and their extra link, to be imported from here.

Nothing in them touches the network or a connection when a DAG is parsed, and nothing heavy is
imported then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from airflow_jobs_provider.links import DatabricksJobRunLink
from airflow_jobs_provider.official_names import missing_name
from airflow_jobs_provider.operators.cancel_runs import DatabricksCancelRunsOperator
from airflow_jobs_provider.operators.create_job import DatabricksCreateJobsOperator
from airflow_jobs_provider.operators.delete_run import DatabricksDeleteRunOperator
from airflow_jobs_provider.operators.export_run import DatabricksExportRunOperator
from airflow_jobs_provider.operators.notebook import DatabricksNotebookOperator
from airflow_jobs_provider.operators.run_now import DatabricksRunNowOperator
from airflow_jobs_provider.operators.submit_run import DatabricksSubmitRunOperator
from airflow_jobs_provider.operators.task import DatabricksTaskOperator
from airflow_jobs_provider.operators.workflow import DatabricksWorkflowTaskGroup
from airflow_jobs_provider.xcom import JOB_ID_KEY, RUN_ID_KEY, RUN_PAGE_URL_KEY

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

if not TYPE_CHECKING:

    def __getattr__(name: str) -> NoReturn:
        raise missing_name(__name__, name)
