"""The link to a run's page in the Airflow UI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

from airflow_jobs_provider.xcom import RUN_PAGE_URL_KEY

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

__all__ = ["DatabricksJobRunLink"]


class DatabricksJobRunLink(BaseOperatorLink):
    """Link to the page of the run that the task launched or waited for.

    It is shown as soon as the run is launched; for a sensor, when the run has ended.
    """

    name = "See Databricks Job Run"

    @property
    def xcom_key(self) -> str:
        """Return the key of the XCom from which Airflow 3 reads the link."""
        return RUN_PAGE_URL_KEY

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL; empty if the task has pushed none yet."""
        # At the end of a task's process Airflow 3 asks the object that executed the task.
        page_url = getattr(operator, "page_url_at_process_end", None)
        if page_url is not None and (url := page_url()):
            return str(url)
        return XCom.get_value(key=RUN_PAGE_URL_KEY, ti_key=ti_key) or ""
