"""All operators, to be imported from here.

Nothing in them touches the network or a connection when a DAG is parsed, and nothing heavy is
imported then.
"""

from __future__ import annotations

from airflow_jobs_provider.operators.cancel_runs import DatabricksCancelRunsOperator
from airflow_jobs_provider.operators.create_job import DatabricksCreateJobsOperator
from airflow_jobs_provider.operators.delete_run import DatabricksDeleteRunOperator
from airflow_jobs_provider.operators.export_run import DatabricksExportRunOperator
from airflow_jobs_provider.operators.notebook import DatabricksNotebookOperator
from airflow_jobs_provider.operators.run_now import DatabricksRunNowOperator
from airflow_jobs_provider.operators.submit_run import DatabricksSubmitRunOperator
from airflow_jobs_provider.operators.task import DatabricksTaskOperator

__all__ = [
    "DatabricksCancelRunsOperator",
    "DatabricksCreateJobsOperator",
    "DatabricksDeleteRunOperator",
    "DatabricksExportRunOperator",
    "DatabricksNotebookOperator",
    "DatabricksRunNowOperator",
    "DatabricksSubmitRunOperator",
    "DatabricksTaskOperator",
]
