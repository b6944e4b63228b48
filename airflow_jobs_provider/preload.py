"""Imports what a task process needs, in the process that an executor forks task processes from.

These are modules of this package, ``requests``, and what Airflow imports in each task process.

:mod:`airflow_jobs_provider.plugin` calls it in the scheduler of a LocalExecutor,
:func:`airflow_jobs_provider.get_provider_info` in a Celery worker. Nothing is read or connected.
"""

from __future__ import annotations

import logging
from importlib import import_module

from airflow_jobs_provider.airflow_compat.executor_parent import import_for_task_processes

__all__ = ["PRELOADED", "preload"]

log = logging.getLogger(__name__)

# What an operator or sensor imports only when it is executed, too. Not aiohttp, which the triggerer
# alone needs, and not databricks-sdk, which most connections do not need. A test fails where a task
# process imports another module of the package.
PRELOADED = (
    "requests",
    "airflow_jobs_provider.api.blocking_client",
    "airflow_jobs_provider.api.http_adapter",
    "airflow_jobs_provider.api.schema.payload_text",
    "airflow_jobs_provider.api.workflows.launch",
    "airflow_jobs_provider.hooks.connection",
    "airflow_jobs_provider.hooks.jobs",
    "airflow_jobs_provider.operators.cancel_runs",
    "airflow_jobs_provider.operators.create_job",
    "airflow_jobs_provider.operators.delete_run",
    "airflow_jobs_provider.operators.export_run",
    "airflow_jobs_provider.operators.jobs",
    "airflow_jobs_provider.operators.notebook",
    "airflow_jobs_provider.operators.run_name",
    "airflow_jobs_provider.operators.run_now",
    "airflow_jobs_provider.operators.submit_run",
    "airflow_jobs_provider.operators.task",
    "airflow_jobs_provider.operators.workflow",
    "airflow_jobs_provider.sensors.jobs",
    "airflow_jobs_provider.triggers.jobs",
    "airflow_jobs_provider.triggers.sensor",
    "airflow_jobs_provider.triggers.workflow",
)


def preload() -> None:
    """Import the modules and build the validators. An error is logged, not raised."""
    try:
        for name in PRELOADED:
            import_module(name)
        import_for_task_processes()
        from airflow_jobs_provider.api.schema.validation import build_validators

        build_validators()
    except Exception:
        # The tasks then fail, or import what they need, by themselves.
        log.warning("The modules of the Databricks Jobs provider were not preloaded", exc_info=True)
