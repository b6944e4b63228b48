"""The fault matrix of a task without a worker: each fault at each endpoint, in the triggerer alone.

That of a task with workers is in test_fault_matrix.py. The waits are recorded, not waited.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

if not hasattr(BaseTrigger, "render_template_fields"):
    pytest.skip("a worker launches every run", allow_module_level=True)

from airflow.providers.common.compat.sdk import DAG

from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.operators.jobs import (
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from airflow_jobs_provider.triggers.polling import rate_limiter
from tests.fakes.fake_service import FAULTS, TOKEN, FakeService
from tests.helpers.fault_bench import FOREVER, faults
from tests.helpers.start_from_trigger import operator
from tests.helpers.triggerer import Attempt, Triggerer, task_runner, values_of

# How often each goes wrong in a row; minutes of 503 are many times.
TIMES = {"503": 6, "403": 2}
MINUTES_OF_503 = 4.5
LAUNCHES = ["runs/submit", "run-now"]
TASKS: dict[str, Any] = {
    "runs/submit": (DatabricksSubmitRunOperator, {}),
    "run-now": (DatabricksRunNowOperator, {"job_id": 11}),
}


@dataclass
class Bench:
    """A service, a triggerer of Airflow's own parts, the waits recorded, and the logs."""

    service: FakeService
    waits: list[float]
    caplog: pytest.LogCaptureFixture
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch
    triggerer: Any = None
    _printed: str = ""

    def run(self, endpoint: str) -> Any:
        """Run a task to its trigger's event."""
        kind, arguments = TASKS[endpoint]
        with DAG("sales", schedule=None, catchup=False) as dag:
            operator(kind, polling_period_seconds=0.01, **arguments)
        self.triggerer = Triggerer(dag, self.service)
        self.monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", self.triggerer, raising=False)
        return self.triggerer.start(Attempt())

    def succeeded(self, event: Any, *, output: str | None = "output of 1001") -> None:
        """Check that the trigger has ended the task with the one run."""
        assert type(event).__name__ == "TaskSuccessEvent"
        assert list(self.service.runs) == [1001]
        values = values_of(self.triggerer)
        assert (values["run_id"], values.get("return_value")) == (1001, output)

    def task_log(self) -> str:
        """Return what the trigger has logged, which Airflow prints here."""
        self._printed += self.capsys.readouterr().out
        return self._printed

    def lines(self, level: int = logging.WARNING) -> list[str]:
        """Return what else this package logged at a level, or above."""
        return [
            record.getMessage()
            for record in self.caplog.records
            if record.levelno >= level and "airflow_jobs_provider" in record.name
        ]


@pytest.fixture
def bench(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> Iterator[Bench]:
    """A service that the triggerer may ask as often as it likes."""
    caplog.set_level("INFO")
    monkeypatch.setattr(rate_limiter, "REQUESTS_PER_SECOND", 1000.0)
    # Short where a test waits for it; else a busy machine would be taken for a second fault.
    seconds = 0.25 if "time-out" in request.node.name else 10
    with FakeService() as service, no_waiting() as waits:
        connection = {**json.loads(service.connection), "extra": {"timeout_seconds": seconds}}
        monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))
        bench = Bench(service, waits, caplog, capsys, monkeypatch)
        yield bench
    assert TOKEN not in caplog.text + bench.task_log()


@pytest.mark.parametrize("endpoint", LAUNCHES)
@pytest.mark.parametrize("fault", faults("403"))
def test_at_launch(bench: Bench, fault: str, endpoint: str) -> None:
    """One run is launched and followed to its end; one line says what the trouble was."""
    times = TIMES.get(fault, 1)
    bench.service.trouble(endpoint, FAULTS[fault], times)
    bench.succeeded(bench.run(endpoint))
    assert bench.service.count(endpoint) == times + 1
    (line,) = bench.lines()
    assert line.startswith(f"{endpoint} failed: ")
    if fault == "503":
        assert sum(bench.waits) >= MINUTES_OF_503 * 60


@pytest.mark.parametrize("endpoint", LAUNCHES)
def test_refused_at_launch(bench: Bench, endpoint: str) -> None:
    """A 403 fails the try: no run, no second request; a worker says why, and retries decide."""
    bench.service.trouble(endpoint, FAULTS["403"], FOREVER)
    payload = bench.run(endpoint).payload
    assert "Invalid access token" in payload["error"]
    assert "is_final" not in payload
    assert (bench.service.runs, bench.service.count(endpoint)) == ({}, 1)


@pytest.mark.parametrize("endpoint", LAUNCHES)
def test_an_outage_without_end_at_launch(bench: Bench, endpoint: str) -> None:
    """After ten minutes a worker fails the task with what the service said."""
    bench.service.trouble(endpoint, FAULTS["503"], FOREVER)
    payload = bench.run(endpoint).payload
    assert re.search(r"503 TEMPORARILY_UNAVAILABLE.*\d+ attempts in", payload["error"])
    assert 600 - 75 <= sum(bench.waits) <= 600
    assert bench.service.runs == {}


@pytest.mark.parametrize("fault", faults())
def test_at_runs_get(bench: Bench, fault: str) -> None:
    """Any outage is waited out, a refusal for a while; the run is followed to its end."""
    bench.service.trouble("runs/get", FAULTS[fault], TIMES.get(fault, 1))
    bench.succeeded(bench.run("runs/submit"))
    assert bench.service.count("runs/submit") == 1


@pytest.mark.parametrize("fault", faults("403"))
def test_at_get_output(bench: Bench, fault: str) -> None:
    """The output is read once the trouble is over."""
    bench.service.trouble("runs/get-output", FAULTS[fault], TIMES.get(fault, 1))
    bench.succeeded(bench.run("runs/submit"))


@pytest.mark.parametrize("fault", ["403", "503"])
def test_no_output(bench: Bench, fault: str) -> None:
    """Output that cannot be read does not fail the task; the log says why there is none."""
    bench.service.trouble("runs/get-output", FAULTS[fault], FOREVER)
    bench.succeeded(bench.run("runs/submit"), output=None)
    assert "The output of run 1001 cannot be read: " in bench.task_log()
