"""Airflow's metrics, switched on for a test: its own OpenTelemetry and StatsD loggers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from airflow_jobs_provider import metrics
from airflow_jobs_provider.airflow_compat import telemetry
from airflow_jobs_provider.airflow_compat.lines import airflow_version

_HAS_SDK = airflow_version() >= (3, 2)
_LOGGERS = "airflow.sdk._shared.observability.metrics" if _HAS_SDK else "airflow.metrics"


class OpenTelemetry:
    """Airflow's logger of OpenTelemetry. What it recorded stays in memory."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        provider = MeterProvider(metric_readers=[self._reader])
        self.logger = import_module(f"{_LOGGERS}.otel_logger").SafeOtelLogger(provider)

    def points(self, name: str) -> dict[tuple[str, ...], Any]:
        """Return the latest points of a metric by the values of its tags, without ``conn_id``.

        :param name: the name below ``airflow.databricks_jobs``.
        """
        data = self._reader.get_metrics_data()
        found: dict[tuple[str, ...], Any] = {}
        for resource in data.resource_metrics if data is not None else ():
            for metric in (one for scope in resource.scope_metrics for one in scope.metrics):
                for point in metric.data.data_points:
                    tags = dict(point.attributes or {})
                    # Airflow's gauge begins with a point of its own.
                    if metric.name == f"airflow.databricks_jobs.{name}" and tags:
                        assert tags.pop("conn_id") == "databricks_default"
                        found[tuple(map(str, tags.values()))] = point
        return found

    def counts(self, name: str) -> dict[tuple[str, ...], int]:
        """Return the counter's or gauge's values, by the values of their tags."""
        return {tags: point.value for tags, point in self.points(name).items()}

    def milliseconds(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the timer's sums, by the values of their tags; before 3.3 its latest values."""
        return {
            tags: float(point.sum if hasattr(point, "sum") else point.value)
            for tags, point in self.points(name).items()
        }


class StatsD:
    """Airflow's logger of StatsD, and a server for it."""

    def __init__(self, *, has_tags: bool) -> None:
        client = pytest.importorskip("statsd", reason="Airflow's extra statsd is not installed")
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(5)
        port = self._socket.getsockname()[1]
        logger = import_module(f"{_LOGGERS}.statsd_logger").SafeStatsdLogger
        self._client = client.StatsClient("127.0.0.1", port, prefix="airflow")
        # Before 3.2 the logger reads the option by which names may have a comma from the
        # configuration.
        options = {"statsd_influxdb_enabled": has_tags} if _HAS_SDK else {}
        self.logger = logger(self._client, influxdb_tags_enabled=has_tags, **options)

    def received(self) -> list[str]:
        """Return what was sent so far, one metric each."""
        # What was sent over loopback has arrived: the last one is ours.
        self.logger.incr("end")
        lines: list[str] = []
        while not lines or lines[-1] != "airflow.end:1|c":
            lines.append(self._socket.recv(65536).decode())
        return lines[:-1]

    def close(self) -> None:
        """Close both ends."""
        self._client.close()
        self._socket.close()


@contextmanager
def sent_through(logger: Any, monkeypatch: pytest.MonkeyPatch, **options: str) -> Iterator[None]:
    """Let Airflow send its metrics through a logger.

    :param logger: the logger.
    :param options: options of Airflow's section ``metrics`` that switch it on.
    """
    for name, value in options.items():
        monkeypatch.setenv(f"AIRFLOW__METRICS__{name.upper()}", value)
    caches = (telemetry.stats_are_on, telemetry.values_are_in_names)
    with monkeypatch.context() as patch:
        if airflow_version() >= (3, 3):
            module = import_module(f"{_LOGGERS}.stats")
            patch.setattr(module, "_factory", lambda: logger)
            patch.setattr(module, "_backend", None)
        elif _HAS_SDK:
            stats = import_module(f"{_LOGGERS}.stats").Stats
            stats.initialize(factory=lambda: logger)
        else:
            stats = import_module("airflow.stats").Stats
            if hasattr(type(stats), "_instance_pid"):
                patch.setattr(stats, "_instance_pid", os.getpid(), raising=False)
            patch.setattr(stats, "instance", logger, raising=False)
        # Those of this logger only.
        patch.setattr(metrics, "_of_connections", {})
        for cached in caches:
            cached.cache_clear()
        try:
            yield
        finally:
            for cached in caches:
                cached.cache_clear()
            if _HAS_SDK and airflow_version() < (3, 3):
                stats.initialize(factory=None)
