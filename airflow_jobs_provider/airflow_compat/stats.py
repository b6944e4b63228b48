"""Airflow's metrics: whether they are on, and what they are sent through.

All processes send through the class ``Stats``. From 3.2 on Airflow has two copies of it: that of
the Task SDK, which is used here, and that of its core, which alone the triggerer initializes.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from airflow.providers.common.compat.sdk import conf

from airflow_jobs_provider.airflow_compat.lines import airflow_line

__all__ = ["get_stats", "stats_are_on", "values_are_in_names"]


def _is_on(option: str) -> bool:
    return conf.getboolean("metrics", option, fallback=False)


@cache
def stats_are_on() -> bool:
    """Return whether Airflow sends metrics anywhere: to StatsD, DataDog or OpenTelemetry."""
    return any(map(_is_on, ("statsd_on", "statsd_datadog_enabled", "otel_on")))


@cache
def values_are_in_names() -> bool:
    """Return whether metrics have no tags, as in plain StatsD: then their names have the values."""
    is_plain_statsd = _is_on("statsd_on") and not _is_on("statsd_datadog_enabled")
    return is_plain_statsd and not _is_on("statsd_influxdb_enabled")


def get_stats() -> Any:
    """Return Airflow's ``Stats``, initialized.

    The first call may block: Airflow resolves the host name of StatsD and imports OpenTelemetry.
    """
    from airflow.providers.common.compat.sdk import Stats

    airflow_line().initialize_stats()
    # It makes the client, without which the first metric would. It sends nothing.
    Stats.timer("databricks_jobs.requests")
    return Stats
