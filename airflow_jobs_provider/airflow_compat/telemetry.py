"""Airflow's metrics and traces: whether they are on, and where to send to.

**Metrics.** All processes send through the class ``Stats``. From 3.2 on Airflow has two copies of
it: that of the Task SDK, which is used here, and that of its core, which alone the triggerer
initializes.

**Traces.** From 3.2 on Airflow makes a span for the process of a task and one for its trigger, in
the trace of the DAG run. Earlier lines make the spans of tasks in other processes, so that nothing
can be added.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from airflow.providers.common.compat.sdk import conf

from airflow_jobs_provider.airflow_compat.lines import airflow_line

__all__ = ["annotate_span", "get_stats", "stats_are_on", "traces_are_on", "values_are_in_names"]


def _is_on(option: str, section: str = "metrics") -> bool:
    return bool(conf.getboolean(section, option, fallback=False))


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


@cache
def traces_are_on() -> bool:
    """Return whether Airflow exports traces."""
    return _is_on("otel_on", "traces")


def annotate_span(
    run_id: int, *, job_id: int | None = None, page_url: str | None = None, state: str | None = None
) -> None:
    """Set what is known of a run as attributes of the span of its task or trigger.

    It does nothing if Airflow exports no traces, or has made no span here.

    :param run_id: the run.
    :param job_id: its job; default None: not known.
    :param page_url: its page; default None: not known.
    :param state: its state; default None: not known.
    """
    if not traces_are_on():
        return
    try:
        from opentelemetry import trace
    except ImportError:
        return  # Airflow has no traces without it either. The run has been launched.

    values = {"run_id": run_id, "job_id": job_id, "run_page_url": page_url, "state": state}
    trace.get_current_span().set_attributes(
        {f"databricks.{name}": value for name, value in values.items() if value is not None}
    )
