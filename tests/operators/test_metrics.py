"""What is sent to Airflow's metrics and traces while tasks launch runs and wait for them."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException
from opentelemetry.sdk.trace import Span, TracerProvider

from airflow_jobs_provider.airflow_compat import telemetry
from airflow_jobs_provider.airflow_compat.lines import airflow_line, airflow_version
from airflow_jobs_provider.api import endpoints
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.metrics import METRICS, ConnectionMetrics, Kind, connection_metrics
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger
from airflow_jobs_provider.triggers.polling import sender
from airflow_jobs_provider.triggers.polling.reader import RunReader
from airflow_jobs_provider.triggers.polling.registry import get_poller
from tests.fakes.scripted_server import ScriptedServer, answer, lose
from tests.helpers.responses import LAUNCHED, OUTPUT, RUNNING, SUCCEEDED, run
from tests.helpers.stats import OpenTelemetry, StatsD, sent_through
from tests.helpers.tasks import events, retrying, submit

DOCS = Path(__file__).parents[2] / "docs"
UNAVAILABLE = answer({"error_code": "TEMPORARILY_UNAVAILABLE"}, status=503)


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenTelemetry]:
    """OpenTelemetry is on."""
    telemetry = OpenTelemetry()
    with sent_through(telemetry.logger, monkeypatch, otel_on="True"):
        yield telemetry


def test_a_task_that_waits_on_a_worker(
    context: Any, server: ScriptedServer, metrics: OpenTelemetry
) -> None:
    """Each attempt counts by endpoint and status; an outage is measured once."""
    server.will(LAUNCHED, UNAVAILABLE, lose, RUNNING, SUCCEEDED, OUTPUT)
    with no_waiting() as waits:
        assert submit().execute(context) == "42"
    assert metrics.counts("requests") == {
        ("runs_submit", "200"): 1,
        ("runs_get", "503"): 1,
        ("runs_get", "ResponseLostError"): 1,
        ("runs_get", "200"): 2,
        ("runs_get-output", "200"): 1,
    }
    assert metrics.counts("retries") == {("runs_get",): 2}
    assert metrics.counts("launches") == {(): 1}
    assert metrics.counts("adoptions") == {}
    durations = metrics.milliseconds("request_duration")
    endpoints_asked = {("runs_submit",), ("runs_get",), ("runs_get-output",)}
    # OpenTelemetry gets a timer for the first tags only from Airflow 2.11.
    assert durations.keys() == (
        endpoints_asked if airflow_version() >= (3, 0) else {("runs_submit",)}
    )
    assert all(0 < milliseconds < 5000 for milliseconds in durations.values())
    # The waits of the retries count, although the test skips them.
    outage = metrics.milliseconds("outage_duration")[()]
    assert outage >= 30_000
    assert outage <= sum(waits) * 1000 + 5000


def test_a_retry_that_finds_the_run(
    context: Any, server: ScriptedServer, metrics: OpenTelemetry
) -> None:
    """It is an adoption, not a launch."""
    retrying(context)
    server.will(LAUNCHED, RUNNING, SUCCEEDED, OUTPUT)
    submit().execute(context)
    assert metrics.counts("adoptions") == {(): 1}
    assert metrics.counts("launches") == {}


@pytest.mark.parametrize(("seconds_ago", "is_launch"), [(0, True), (60, False)])
def test_a_retry_whose_earlier_try_launched_nothing(
    seconds_ago: float,
    is_launch: bool,
    context: Any,
    server: ScriptedServer,
    metrics: OpenTelemetry,
    logged: Callable[[], str],
) -> None:
    """It launches with the token of that try. The start of the run tells, also for the log."""
    retrying(context)
    start_time = int((time.time() - seconds_ago) * 1000)
    server.will(LAUNCHED, answer(run("RUNNING", start_time=start_time)), SUCCEEDED, OUTPUT)
    submit().execute(context)
    assert metrics.counts("launches") == ({(): 1} if is_launch else {})
    assert metrics.counts("adoptions") == ({} if is_launch else {(): 1})
    log = logged()
    assert ("Launched run 7, " in log, "Following run 7, " in log) == (is_launch, not is_launch)


@pytest.mark.parametrize(("seconds_ago", "is_launch"), [(0, True), (60, False)])
def test_a_run_of_the_users_own_token(
    seconds_ago: float,
    is_launch: bool,
    context: Any,
    server: ScriptedServer,
    metrics: OpenTelemetry,
    logged: Callable[[], str],
) -> None:
    """Any task may have launched it, also at the first try."""
    start_time = int((time.time() - seconds_ago) * 1000)
    server.will(LAUNCHED, answer(run("RUNNING", start_time=start_time)), SUCCEEDED, OUTPUT)
    submit(idempotency_token="mine").execute(context)
    assert metrics.counts("launches") == ({(): 1} if is_launch else {})
    assert metrics.counts("adoptions") == ({} if is_launch else {(): 1})
    assert ("Launched run 7, " in logged()) is is_launch


def test_a_refused_launch(context: Any, server: ScriptedServer, metrics: OpenTelemetry) -> None:
    """It is a request, and no launch."""
    server.will(answer({"error_code": "PERMISSION_DENIED"}, status=403))
    with pytest.raises(AirflowException):
        submit().execute(context)
    assert metrics.counts("requests") == {("runs_submit", "403"): 1}
    assert metrics.counts("launches") == {}
    assert metrics.counts("retries") == {}


@pytest.mark.usefixtures("context")
def test_cancels_that_were_accepted(server: ScriptedServer, metrics: OpenTelemetry) -> None:
    """A refused one is a request only."""
    server.will(answer({}), answer({"error_code": "INVALID_STATE"}, status=403))
    hook = DatabricksJobsHook(retry_limit=1)
    hook.send(endpoints.cancel_run(7))
    with pytest.raises(AirflowException):
        hook.send(endpoints.cancel_run(7))
    assert metrics.counts("cancels") == {(): 1}


@pytest.mark.usefixtures("context")
def test_an_endpoint_of_another_service_has_no_ids(
    server: ScriptedServer, metrics: OpenTelemetry
) -> None:
    """There may be thousands of jobs, and each value of a tag is a time series."""
    server.will(answer({}))
    DatabricksJobsHook().send(endpoints.update_job_permission(7, {"access_control_list": []}))
    assert metrics.counts("requests") == {("permissions", "200"): 1}


@pytest.mark.usefixtures("context")
def test_a_task_that_waits_in_the_triggerer(
    server: ScriptedServer, metrics: OpenTelemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Polls, waits, the outage once, and the time from the run's end to the event."""
    monkeypatch.setattr(airflow_line(), "fails_tasks_resumed_early", False)
    ended = run("TERMINATED", "SUCCESS", end_time=int(time.time() * 1000) - 3000)
    server.will(RUNNING, UNAVAILABLE, UNAVAILABLE)
    server.will_always(answer(ended))
    with no_waiting():
        trigger = DatabricksJobRunTrigger(
            7, polling_period_seconds=0.01, life_cycle_state="PENDING"
        )
        (event,) = events(trigger)
    assert event["run"]["run_id"] == 7
    assert metrics.counts("requests")["runs_get", "503"] >= 1
    assert metrics.counts("retries")[("poll",)] >= 1
    hostname = socket.gethostname()
    assert metrics.counts("poller_waits") == {(hostname,): 0}
    assert metrics.counts("poller_outage_seconds") == {(hostname,): 0}
    assert metrics.milliseconds("outage_duration")[()] > 0
    assert metrics.milliseconds("poll_duration")[()] > 0
    assert 3000 <= metrics.milliseconds("event_delay")[()] < 10_000


@pytest.mark.usefixtures("context")
def test_a_run_that_ended_long_before_its_trigger_started(
    server: ScriptedServer, metrics: OpenTelemetry
) -> None:
    """The event is not late: nobody waited."""
    server.will(answer(run("TERMINATED", "SUCCESS", end_time=1_000_000)))
    events(DatabricksJobRunTrigger(7, polling_period_seconds=0.01))
    assert 0 < metrics.milliseconds("event_delay")[()] < 10_000


async def test_the_gauges_count_all_pollers_of_a_connection(metrics: OpenTelemetry) -> None:
    """Tasks with different retry arguments have different pollers; one may end before another."""
    host = (socket.gethostname(),)
    connection = connection_metrics("databricks_default")
    assert connection is not None
    assert connection is connection_metrics("databricks_default")
    one, other = connection.of_poller(), connection.of_poller()
    one.waits_changed(3)
    other.waits_changed(4)
    other.poll_failed("runs", 90.0)
    one.poll_failed("runs", 30.0)
    assert metrics.counts("poller_waits") == {host: 7}
    assert metrics.counts("poller_outage_seconds") == {host: 90}
    other.close()
    assert metrics.counts("poller_waits") == {host: 3}
    assert metrics.counts("poller_outage_seconds") == {host: 30}
    one.forget_outage("runs")
    one.close()
    assert metrics.counts("poller_waits") == metrics.counts("poller_outage_seconds") == {host: 0}


async def test_the_end_of_one_outage_leaves_the_others(metrics: OpenTelemetry) -> None:
    """The runs, the watchers and each call of a poller have outages of their own."""
    host = (socket.gethostname(),)
    connection = connection_metrics("databricks_default")
    assert connection is not None
    poller = connection.of_poller()
    poller.poll_failed("runs", 40.0)
    poller.poll_failed("watchers", 60.0)
    poller.outage_ended("watchers", 61.0)
    assert metrics.counts("poller_outage_seconds") == {host: 40}
    poller.outage_ended("runs", 41.0)
    assert metrics.counts("poller_outage_seconds") == {host: 0}
    poller.close()


async def test_an_outage_of_tasks_that_share_reads(
    server: ScriptedServer, metrics: OpenTelemetry, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their reads are calls of their own, which the poller does not make."""
    host = (socket.gethostname(),)
    server.will(UNAVAILABLE, UNAVAILABLE, RUNNING)
    poller = get_poller(DatabricksJobsHook())
    await poller.client()
    clock = iter(range(0, 10**6, 50))
    monkeypatch.setattr(sender, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    seconds: list[float] = []

    def on_attempt(_call: Any, _error: Any) -> None:
        seconds.extend(metrics.counts("poller_outage_seconds").values())

    with poller.shared_wait(), no_waiting():
        await poller.send(endpoints.get_run(7), on_attempt=on_attempt)
    assert max(seconds) >= 50
    assert metrics.counts("poller_outage_seconds") == {host: 0}
    assert context


async def test_a_poller_that_fails_leaves_no_gauge(
    server: ScriptedServer, metrics: OpenTelemetry, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its waits have failed, and nobody would set the gauge again."""

    async def fail(_self: Any) -> None:
        assert metrics.counts("poller_waits") == {(socket.gethostname(),): 2}
        raise ValueError("a fault")

    assert context
    assert server
    monkeypatch.setattr(RunReader, "poll", fail)
    poller = get_poller(DatabricksJobsHook())
    # Two waits for one run are two.
    waits = [poller.wait_for_change(7, period=0.01) for _ in range(2)]
    assert all(
        isinstance(error, ValueError)
        for error in await asyncio.gather(*waits, return_exceptions=True)
    )
    assert metrics.counts("poller_waits") == {(socket.gethostname(),): 0}


async def test_tasks_that_share_reads_are_waits(
    server: ScriptedServer, metrics: OpenTelemetry, context: Any
) -> None:
    """Those of a workflow group, which read their run together."""
    host = (socket.gethostname(),)
    assert context
    assert server
    poller = get_poller(DatabricksJobsHook())
    await poller.client()
    with poller.shared_wait():
        assert metrics.counts("poller_waits") == {host: 1}
    assert metrics.counts("poller_waits") == {host: 0}


async def test_the_first_metric_is_sent_outside_the_event_loop(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    """DataDog's client resolves the name of its host for it, which may take seconds."""
    threads: list[int] = []

    class Logger:
        """Takes note of the threads that send."""

        def __getattr__(self, _name: str) -> Any:
            return lambda *_args, **_kwargs: threads.append(threading.get_ident())

        def timer(self, *_args: Any, **_kwargs: Any) -> None:
            """Make a timer, which sends nothing."""

    assert context
    server.will(RUNNING)
    with sent_through(Logger(), monkeypatch, otel_on="True"):
        await get_poller(DatabricksJobsHook()).send(endpoints.get_run(7))
    assert threads[0] != threading.get_ident()
    assert threads[-1] == threading.get_ident()


async def test_a_rate_limit_that_is_waited_for(
    server: ScriptedServer, metrics: OpenTelemetry, context: Any
) -> None:
    """Only the requests that had to wait count."""
    assert context
    server.will(*[RUNNING] * 3)
    poller = get_poller(DatabricksJobsHook())
    # At once: on a busy machine one after the other need not wait.
    await asyncio.gather(*(poller.send(endpoints.get_run(7)) for _ in range(3)))
    (waited,) = metrics.milliseconds("rate_limit_wait").items()
    assert waited[0] == ("requests",)
    assert 0 < waited[1] < 1000


def test_metrics_that_cannot_be_sent_fail_no_task(
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log says so once."""

    class Broken:
        """A logger that fails."""

        def __getattr__(self, name: str) -> Any:
            if name == "timer":
                return lambda *_: None
            raise OSError("no buffer space")

    server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    with sent_through(Broken(), monkeypatch, otel_on="True"):
        assert submit().execute(context) == "42"
    lines = [r.getMessage() for r in caplog.records if r.name == "airflow_jobs_provider.metrics"]
    assert lines == ["The metric databricks_jobs.cancels cannot be sent: no buffer space"]


def test_metrics_that_cannot_be_set_up_fail_no_task(
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Such as a client of StatsD that the user has written. It is tried once."""
    server.will(*[LAUNCHED, SUCCEEDED, OUTPUT] * 2)
    with sent_through(object(), monkeypatch, otel_on="True"):
        assert submit().execute(context) == "42"
        assert submit().execute(context) == "42"
    lines = [r.getMessage() for r in caplog.records if r.name == "airflow_jobs_provider.metrics"]
    assert [line.partition(":")[0] for line in lines] == [
        "No metrics of the Databricks Jobs provider are sent"
    ]


@pytest.mark.usefixtures("context")
def test_nothing_is_measured_where_airflow_sends_no_metrics() -> None:
    """Nor is anything imported for it."""
    assert DatabricksJobsHook().metrics is None


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "airflow.databricks_jobs.retries.warehouse_eu.runs_get:1|c"),
        (
            {"statsd_influxdb_enabled": "True"},
            "airflow.databricks_jobs.retries,conn_id=warehouse_eu,endpoint=runs_get:1|c",
        ),
    ],
)
def test_statsd(monkeypatch: pytest.MonkeyPatch, options: dict[str, str], name: str) -> None:
    """Plain StatsD has no tags, so the names have their values; InfluxDB's form has tags."""
    server = StatsD(has_tags=bool(options))
    try:
        with sent_through(server.logger, monkeypatch, statsd_on="True", **options):
            metrics = ConnectionMetrics("warehouse.eu")
            # Nothing was canceled; the client has been used once.
            (first,) = server.received()
            assert first.startswith("airflow.databricks_jobs.cancels")
            assert first.endswith(":0|c")
            metrics.call_retried(endpoints.get_run(7))
            assert server.received() == [name]
    finally:
        server.close()


# -- documentation ---------------------------------------------------------------------------------


def documented() -> list[list[str]]:
    """Return the rows of the table of docs/metrics.md."""
    rows = re.findall(r"^\| `databricks_jobs\..*$", (DOCS / "metrics.md").read_text(), re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def test_every_metric_is_documented() -> None:
    """With its type, unit, tags and meaning, as the code has them."""
    assert documented() == [
        [
            f"`{metric.name}`",
            str(metric.kind),
            metric.unit,
            ", ".join(f"`{tag}`" for tag in metric.tags),
            metric.meaning,
        ]
        for metric in METRICS
    ]


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    """Each metric is on it, and timers are asked for what statsd_exporter makes of them."""
    dashboard = json.loads((DOCS / "dashboards" / "databricks-jobs.json").read_text())
    queries = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())
    ]
    names = {metric.name.replace(".", "_"): metric for metric in METRICS}
    asked: set[str] = set()
    for query in queries:
        for name in re.findall(r"airflow_(databricks_jobs_\w+)", query):
            base = re.sub(r"_(sum|count)$", "", name)
            metric = names[base]
            assert (base != name) <= (metric.kind is Kind.TIMER), query
            assert set(re.findall(r"by \(([^)]*)\)", query)) <= {"", *_combinations(metric.tags)}
            asked.add(base)
    assert asked == set(names)


def _combinations(tags: tuple[str, ...]) -> set[str]:
    return {*tags, *(f"{one}, {other}" for one in tags for other in tags)}


# -- traces ----------------------------------------------------------------------------------------


@pytest.fixture
def span(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The span of a task, as Airflow makes one."""
    monkeypatch.setenv("AIRFLOW__TRACES__OTEL_ON", "True")
    telemetry.traces_are_on.cache_clear()
    with TracerProvider().get_tracer("airflow").start_as_current_span("worker.etl") as one:
        yield one
    telemetry.traces_are_on.cache_clear()


def test_the_span_of_a_task_names_its_run(context: Any, server: ScriptedServer, span: Any) -> None:
    """So that a trace leads to the run's page."""
    server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    submit().execute(context)
    assert span.attributes == {
        "databricks.run_id": 7,
        "databricks.job_id": 3,
        "databricks.run_page_url": "http://w/7",
    }


@pytest.mark.usefixtures("context")
def test_the_span_of_a_trigger_has_the_state(server: ScriptedServer, span: Any) -> None:
    """It is the state with which the wait has ended."""
    server.will(SUCCEEDED)
    events(DatabricksJobRunTrigger(7, polling_period_seconds=0.01))
    assert span.attributes["databricks.run_id"] == 7
    assert span.attributes["databricks.state"] == "TERMINATED/SUCCESS"


def test_a_trace_that_cannot_be_made_fails_no_task(
    context: Any, server: ScriptedServer, span: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has been launched when it is annotated."""
    assert span
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    assert submit().execute(context) == "42"


def test_without_a_trace_there_is_no_span(context: Any, server: ScriptedServer) -> None:
    """What a user's own instrumentation made is left alone."""
    server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    with TracerProvider().get_tracer("mine").start_as_current_span("mine") as mine:
        submit().execute(context)
        assert isinstance(mine, Span)
        assert not mine.attributes
