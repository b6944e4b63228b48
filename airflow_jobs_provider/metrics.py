"""The metrics of this package. They go where Airflow's own go: StatsD, DataDog or OpenTelemetry.

:data:`METRICS` is the table of all metrics; docs/metrics.md is tested against it. Nothing imports
this module unless Airflow sends metrics.
"""

from __future__ import annotations

import logging
import re
import socket
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.airflow_compat.telemetry import get_stats, values_are_in_names
from airflow_jobs_provider.api.calls import JOBS_SERVICE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_jobs_provider.api.calls import Call

__all__ = ["METRICS", "ConnectionMetrics", "Kind", "Metric", "PollerMetrics", "connection_metrics"]

log = logging.getLogger(__name__)

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_CANCELS = ("runs/cancel", "runs/cancel-all")


class Kind(StrEnum):
    """The kinds of metrics that Airflow has."""

    COUNTER = "counter"
    GAUGE = "gauge"
    TIMER = "timer"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    :ivar name: its name, below Airflow's own prefix.
    :ivar kind: its kind.
    :ivar unit: what its value counts.
    :ivar tags: names of its tags, in the order in which plain StatsD has their values in the name.
    :ivar meaning: what it says.
    """

    name: str
    kind: Kind
    unit: str
    tags: tuple[str, ...]
    meaning: str


_CONN = ("conn_id",)
_ENDPOINT = ("conn_id", "endpoint")

REQUESTS = Metric(
    "databricks_jobs.requests",
    Kind.COUNTER,
    "requests",
    (*_ENDPOINT, "status"),
    "Requests that were sent, each attempt by itself. `status` is the HTTP status. Where no "
    "response came, or where it cannot be used, it is the name of the exception, such as "
    "`ConnectError`, `ResponseLostError` or `UnexpectedResponseError`.",
)
REQUEST_DURATION = Metric(
    "databricks_jobs.request_duration",
    Kind.TIMER,
    "ms",
    _ENDPOINT,
    "Time from a request to the end of its response.",
)
RETRIES = Metric(
    "databricks_jobs.retries",
    Kind.COUNTER,
    "retries",
    _ENDPOINT,
    "Calls that were sent again after a failed attempt. The next poll of the triggerer after a "
    "failed one counts as a retry with the endpoint `poll`.",
)
OUTAGE_DURATION = Metric(
    "databricks_jobs.outage_duration",
    Kind.TIMER,
    "ms",
    _CONN,
    "Time from the first failed attempt to the response, or to the end of the retries. In the "
    "triggerer an outage counts once for all runs of the connection, and once for its asset "
    "watchers.",
)
RATE_LIMIT_WAIT = Metric(
    "databricks_jobs.rate_limit_wait",
    Kind.TIMER,
    "ms",
    (*_CONN, "limit"),
    "Time that a request of the triggerer waited for its turn. `limit` is `requests` or "
    "`launches`. Requests that did not wait are not counted.",
)
LAUNCHES = Metric(
    "databricks_jobs.launches",
    Kind.COUNTER,
    "runs",
    _CONN,
    "Runs that tasks launched.",
)
ADOPTIONS = Metric(
    "databricks_jobs.adoptions",
    Kind.COUNTER,
    "runs",
    _CONN,
    "Runs that a task found and followed, instead of launching another one: of an earlier try, or "
    "of another launch with the same `idempotency_token`.",
)
CANCELS = Metric(
    "databricks_jobs.cancels",
    Kind.COUNTER,
    "requests",
    _CONN,
    "Cancels that the service accepted.",
)
EVENT_DELAY = Metric(
    "databricks_jobs.event_delay",
    Kind.TIMER,
    "ms",
    _CONN,
    "Time from the run's end, by the service's clock, to the event of its trigger. With "
    "`end_from_trigger` it includes reading the output. Where the run may have ended before its "
    "trigger started, the time begins with that start.",
)
POLLER_WAITS = Metric(
    "databricks_jobs.poller_waits",
    Kind.GAUGE,
    "waits",
    (*_CONN, "hostname"),
    "Waits for runs, and for tasks of runs, in a triggerer.",
)
POLLER_OUTAGE_SECONDS = Metric(
    "databricks_jobs.poller_outage_seconds",
    Kind.GAUGE,
    "s",
    (*_CONN, "hostname"),
    "How long the service has not answered a triggerer: the longest of the outages that go on; 0 "
    "when there is none.",
)
POLL_DURATION = Metric(
    "databricks_jobs.poll_duration",
    Kind.TIMER,
    "ms",
    _CONN,
    "Time of a poll that reads all runs that are due, without the waits in an outage.",
)

#: All metrics.
METRICS = (
    REQUESTS,
    REQUEST_DURATION,
    RETRIES,
    OUTAGE_DURATION,
    RATE_LIMIT_WAIT,
    LAUNCHES,
    ADOPTIONS,
    CANCELS,
    EVENT_DELAY,
    POLLER_WAITS,
    POLLER_OUTAGE_SECONDS,
    POLL_DURATION,
)


class ConnectionMetrics:
    """Sends the metrics of one connection. It is a :class:`~.api.attempts.ClientObserver`.

    A process has one for each connection, see :func:`connection_metrics`. Making one may block, see
    :func:`~.airflow_compat.telemetry.get_stats`; its methods do not. An error of Airflow's metrics
    is logged once, and never raised.

    :param conn_id: the connection.

    :ivar pollers: the pollers of the connection, for the gauges.
    """

    def __init__(self, conn_id: str) -> None:
        self.pollers: list[PollerMetrics] = []
        self._conn_id = conn_id
        self._stats = get_stats()
        self._values_are_in_names = values_are_in_names()
        self._has_failed = False
        # DataDog's client resolves the name of its host when it sends first: here, where it may
        # block.
        self._send(CANCELS, 0)

    def request_ended(self, call: Call[Any], status: str, seconds: float) -> None:
        """Count a request, and a cancel that was accepted."""
        endpoint = _endpoint(call)
        self._send(REQUESTS, 1, endpoint=endpoint, status=status)
        self._send(REQUEST_DURATION, seconds * 1000, endpoint=endpoint)
        if call.path in _CANCELS and status == "200":
            self._send(CANCELS, 1)

    def call_retried(self, call: Call[Any]) -> None:
        """Count a retry."""
        self._send(RETRIES, 1, endpoint=_endpoint(call))

    def outage_ended(self, seconds: float) -> None:
        """Record how long an outage lasted."""
        self._send(OUTAGE_DURATION, seconds * 1000)

    def launched(self, *, is_new: bool) -> None:
        """Count a run that a task launched, or that it found.

        :param is_new: whether the try itself has launched it.
        """
        self._send(LAUNCHES if is_new else ADOPTIONS, 1)

    def event_fired(self, delay_seconds: float) -> None:
        """Record the time from a run's end to its event."""
        self._send(EVENT_DELAY, delay_seconds * 1000)

    def rate_limited(self, limit: str, seconds: float) -> None:
        """Record for how long a request waited.

        :param limit: ``requests`` or ``launches``.
        :param seconds: how long.
        """
        self._send(RATE_LIMIT_WAIT, seconds * 1000, limit=limit)

    def of_poller(self) -> PollerMetrics:
        """Return what a poller of the connection sends its metrics through, until it closes it."""
        return PollerMetrics(self)

    def polled(self, seconds: float) -> None:
        """Record how long a poll of all runs that were due took."""
        self._send(POLL_DURATION, seconds * 1000)

    def poll_failed(self) -> None:
        """Record that a poll failed and is tried again."""
        self._send(RETRIES, 1, endpoint="poll")

    def send_gauges(self, *gauges: Metric) -> None:
        """Send gauges of all pollers of the connection.

        :param gauges: :data:`POLLER_WAITS`, :data:`POLLER_OUTAGE_SECONDS`.
        """
        for gauge in gauges:
            if gauge is POLLER_WAITS:
                value: float = sum(poller.waits for poller in self.pollers)
            else:
                value = max((poller.outage_seconds for poller in self.pollers), default=0)
            self._send(gauge, value, hostname=self._hostname)

    @cached_property
    def _hostname(self) -> str:
        # Not the fully qualified name, for which a name server may be asked.
        return socket.gethostname()

    def _send(self, metric: Metric, value: float, **tags: str) -> None:
        try:
            name, sent_tags = self._name_and_tags(metric, {"conn_id": self._conn_id, **tags})
            if metric.kind is Kind.COUNTER:
                self._stats.incr(name, int(value), tags=sent_tags)
            elif metric.kind is Kind.GAUGE:
                self._stats.gauge(name, value, tags=sent_tags)
            else:
                self._stats.timing(name, value, tags=sent_tags)
        except Exception as error:  # noqa: BLE001 - whatever a client of StatsD does
            if not self._has_failed:
                self._has_failed = True
                log.warning("The metric %s cannot be sent: %s", metric.name, error)

    def _name_and_tags(
        self, metric: Metric, values: Mapping[str, str]
    ) -> tuple[str, dict[str, str] | None]:
        tags = {name: _UNSAFE.sub("_", values[name]) for name in metric.tags}
        if self._values_are_in_names:
            return ".".join((metric.name, *tags.values())), None
        return metric.name, tags


class PollerMetrics:
    """Sends the metrics of one poller.

    Tasks of one connection with different retry arguments have different pollers. The gauges count
    them together.

    :param connection: the metrics of the poller's connection.

    :ivar connection: the same.
    :ivar waits: the poller's waits.
    """

    def __init__(self, connection: ConnectionMetrics) -> None:
        self.connection = connection
        self.waits = 0
        self._outages: dict[object, float] = {}
        connection.pollers.append(self)

    @property
    def outage_seconds(self) -> float:
        """How long the service has not answered: the longest of the outages that go on."""
        return max(self._outages.values(), default=0.0)

    def waits_changed(self, waits: int) -> None:
        """Record how many waits there are.

        :param waits: the waits.
        """
        self.waits = waits
        self.connection.send_gauges(POLLER_WAITS)

    def poll_failed(self, source: object, outage_seconds: float) -> None:
        """Record that a poll failed and is tried again.

        :param source: who polls. The runs and the watchers have outages of their own.
        :param outage_seconds: how long it has got no answer.
        """
        self.connection.poll_failed()
        self.call_failed(source, outage_seconds)

    def call_failed(self, source: object, outage_seconds: float) -> None:
        """Record an outage that goes on.

        :param source: who gets no answer.
        :param outage_seconds: how long it has got none.
        """
        self._outages[source] = outage_seconds
        self.connection.send_gauges(POLLER_OUTAGE_SECONDS)

    def outage_ended(self, source: object, seconds: float) -> None:
        """Record that polls are answered again.

        :param source: who polls.
        :param seconds: how long the outage lasted.
        """
        self.forget_outage(source)
        self.connection.outage_ended(seconds)

    def forget_outage(self, source: object) -> None:
        """Record that an outage, if there is one, has ended, or concerns nobody any more.

        :param source: who got no answer.
        """
        self._outages.pop(source, None)
        self.connection.send_gauges(POLLER_OUTAGE_SECONDS)

    def close(self) -> None:
        """Record that the poller has ended."""
        self.connection.pollers.remove(self)
        self.connection.send_gauges(POLLER_WAITS, POLLER_OUTAGE_SECONDS)


_of_connections: dict[str, ConnectionMetrics | None] = {}


def connection_metrics(conn_id: str) -> ConnectionMetrics | None:
    """Return what this process sends the metrics of a connection through.

    The first call for a connection may block.

    :param conn_id: the connection.
    :returns: None if Airflow's metrics cannot be set up. The log says so once.
    """
    if conn_id not in _of_connections:
        made: ConnectionMetrics | None = None
        try:
            made = ConnectionMetrics(conn_id)
        except Exception as error:  # noqa: BLE001 - such as a StatsD client of the user's own
            log.warning("No metrics of the Databricks Jobs provider are sent: %s", error)
        # Another thread may have been faster.
        _of_connections.setdefault(conn_id, made)
    return _of_connections[conn_id]


def _endpoint(call: Call[Any]) -> str:
    """Return the endpoint without ids: only the first part of another service's path."""
    return _UNSAFE.sub("_", call.path if call.service == JOBS_SERVICE else call.service)
