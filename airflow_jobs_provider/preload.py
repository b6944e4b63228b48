"""Imports what forked processes need, in the process that Airflow forks them from.

These are modules of this package, and what Airflow itself imports in each of them. Nothing is read
or connected.

===============================  =================================  ===============================
Processes                        Their parent                       What calls it there
===============================  =================================  ===============================
of tasks, with LocalExecutor     the scheduler                      the plugin
of tasks, with CeleryExecutor    the worker's main process          ``get_provider_info()``
that parse DAG files             the DAG processor's main process   the plugin
===============================  =================================  ===============================
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module

from airflow_jobs_provider.airflow_compat.forking_processes import (
    import_for_parsing_processes,
    import_for_task_processes,
)

__all__ = ["PRELOADED", "PRELOADED_FOR_PARSING", "preload", "preload_for_parsing"]

log = logging.getLogger(__name__)

# What a DAG file imports with its operators and sensors. Not requests, nor what only a decorated
# function needs.
PRELOADED_FOR_PARSING = (
    "airflow_jobs_provider.api.schema.payload_text",
    "airflow_jobs_provider.operators.cancel_runs",
    "airflow_jobs_provider.operators.create_job",
    "airflow_jobs_provider.operators.delete_run",
    "airflow_jobs_provider.operators.export_run",
    "airflow_jobs_provider.operators.jobs",
    "airflow_jobs_provider.operators.notebook",
    "airflow_jobs_provider.operators.run_now",
    "airflow_jobs_provider.operators.submit_run",
    "airflow_jobs_provider.operators.task",
    "airflow_jobs_provider.operators.workflow",
    "airflow_jobs_provider.sensors.jobs",
    "airflow_jobs_provider.triggers.sensor_arguments",
)

# What an operator or sensor imports only when it is executed, too. Not aiohttp, which the triggerer
# alone needs, and not databricks-sdk, which most connections do not need. A test fails where a task
# process imports another module of the package.
PRELOADED = (
    *PRELOADED_FOR_PARSING,
    "requests",
    "airflow_jobs_provider.airflow_compat.xcom_backend",
    "airflow_jobs_provider.api.auth.netrc_file",
    "airflow_jobs_provider.api.auth.shared",
    "airflow_jobs_provider.api.auth.sdk.unified",
    "airflow_jobs_provider.api.blocking_client",
    "airflow_jobs_provider.api.export_stream",
    "airflow_jobs_provider.api.http_adapter",
    "airflow_jobs_provider.api.workflows.find",
    "airflow_jobs_provider.api.workflows.launch",
    "airflow_jobs_provider.api.workflows.outputs",
    "airflow_jobs_provider.api.workflows.repair",
    "airflow_jobs_provider.hooks.connection",
    "airflow_jobs_provider.hooks.jobs",
    "airflow_jobs_provider.hooks.official_methods",
    "airflow_jobs_provider.operators.run_name",
    "airflow_jobs_provider.run_result",
    "airflow_jobs_provider.triggers.jobs",
    "airflow_jobs_provider.triggers.sensor",
    "airflow_jobs_provider.triggers.workflow",
)


def preload() -> None:
    """Import what task processes need. An error is logged, not raised."""
    _preload(PRELOADED, import_for_task_processes)


def preload_for_parsing() -> None:
    """Import what processes that parse DAG files need. An error is logged, not raised."""
    _preload(PRELOADED_FOR_PARSING, import_for_parsing_processes)


def _preload(names: tuple[str, ...], import_of_airflow: Callable[[], None]) -> None:
    """Import modules and build the validators.

    :param names: the modules of this package, and others.
    :param import_of_airflow: imports Airflow's own.
    """
    try:
        for name in names:
            import_module(name)
        import_of_airflow()
        from airflow_jobs_provider.api.schema.validation import build_validators

        build_validators()
    except Exception:
        # The processes then fail, or import what they need, by themselves.
        log.warning("The modules of the Databricks Jobs provider were not preloaded", exc_info=True)
