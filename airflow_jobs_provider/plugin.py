"""The Airflow plugin: preloads the provider's modules where an executor forks task processes.

It has no listeners, views or links. In every other process it imports nothing.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin

from airflow_jobs_provider.airflow_compat.executor_parent import forks_task_processes

__all__ = ["DatabricksJobsPlugin"]


class DatabricksJobsPlugin(AirflowPlugin):
    """Preloads the provider's modules in the scheduler of a LocalExecutor."""

    name = "databricks_jobs"

    @classmethod
    def on_load(cls, *_args: Any, **_kwargs: Any) -> None:
        """Preload, if this process forks task processes. Airflow calls it in every process."""
        if forks_task_processes():
            from airflow_jobs_provider.preload import preload

            preload()
