"""A task, the fake service that it talks to, and what both recorded."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.operators.jobs import (
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger
from airflow_jobs_provider.triggers.polling import rate_limiter
from tests.fakes.fake_service import FAULTS, FakeService

FOREVER = 10_000
# One of each kind: no answer before and after handling, an error, a refusal, no JSON, a part.
FEW_FAULTS = (
    "lost answer",
    "reset before handling",
    "503",
    "403",
    "429",
    "200 not JSON",
    "half a body",
)


def faults(*without: str) -> list[Any]:
    """Return the faults as parameters of a test; all but a few are exhaustive."""
    return [
        pytest.param(name, marks=() if name in FEW_FAULTS else pytest.mark.exhaustive)
        for name in FAULTS
        if name not in without
    ]


class KilledError(BaseException):
    """What Airflow's signal handler ends a killed task with."""


class Submit(DatabricksSubmitRunOperator):
    """The operator, with a log that can be read here on every Airflow."""

    log = logging.getLogger("task")  # type: ignore[assignment]


class RunNow(DatabricksRunNowOperator):
    """Likewise."""

    log = logging.getLogger("task")  # type: ignore[assignment]


@dataclass
class Bench:
    """What a test needs: the service, the task's context, the waits noted, the lines logged."""

    service: FakeService
    waits: list[float]
    caplog: pytest.LogCaptureFixture
    xcoms: dict[str, Any]
    context: Any

    def lines(self, level: int = logging.WARNING) -> list[str]:
        """Return what this package logged at a level, or above."""
        return [
            record.getMessage()
            for record in self.caplog.records
            if record.levelno >= level
            and record.name.startswith(("airflow_jobs_provider", "task"))
            # Airflow's own, since there is no task runner here.
            and "cannot be called outside" not in record.getMessage()
        ]

    def run(self, endpoint: str, mode: str, **arguments: Any) -> Any:
        """Run a task to its end, as worker and triggerer do; return its output."""
        arguments |= {"deferrable": mode == "deferrable", "polling_period_seconds": 0.01}
        operator: Submit | RunNow
        if endpoint == "run-now":
            operator = RunNow(task_id="work", job_id=11, **arguments)
        else:
            request = {
                "existing_cluster_id": "cluster",
                "notebook_task": {"notebook_path": "/work"},
            }
            operator = Submit(task_id="work", **{**request, **arguments})
        with killed_by_signal(operator):
            step = partial(operator.execute, self.context)
            while True:
                try:
                    return step()
                except TaskDeferred as deferral:
                    event = task_event(deferral.trigger)
                    resume = getattr(operator, deferral.method_name)
                    step = partial(resume, self.context, event, **(deferral.kwargs or {}))


@contextmanager
def killed_by_signal(operator: Any) -> Iterator[None]:
    """Kill the task at SIGUSR1 in the way in which Airflow does at SIGTERM."""

    def kill(*_: object) -> None:
        operator.on_kill()
        raise KilledError

    before = signal.signal(signal.SIGUSR1, kill)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def task_event(trigger: Any) -> Any:
    """Run a trigger, made again from its stored form, and return its one event."""
    _, arguments = trigger.serialize()
    again = DatabricksJobRunTrigger(**json.loads(json.dumps(arguments)))
    again._log = logging.getLogger("task")  # type: ignore[assignment, unused-ignore]

    async def first() -> Any:
        return [event.payload async for event in again.run()]

    (event,) = asyncio.run(first())
    return json.loads(json.dumps(event))


@contextmanager
def running_bench(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> Iterator[Bench]:
    """Run a service, and make a connection to it and the context of a task's only try.

    :param fault: the fault that the test is about; "" if none.
    """
    caplog.set_level("INFO")
    # Short where a test waits for it; else a busy machine would be taken for a second fault.
    timeout_seconds = 0.25 if "time-out" in fault else 10
    # The pace is for a service that others use, too.
    monkeypatch.setattr(rate_limiter, "REQUESTS_PER_SECOND", 1000.0)
    xcoms: dict[str, Any] = {}

    def xcom_push(key: str, value: Any) -> None:
        xcoms[key] = value

    ti = SimpleNamespace(
        dag_id="sales",
        task_id="work",
        run_id="scheduled__2026-01-01",
        map_index=-1,
        try_number=1,
        max_tries=0,
        start_date=datetime.now(UTC),
        xcom_push=xcom_push,
    )
    context = {"ti": ti, "dag_run": None, "task": SimpleNamespace(retries=0)}
    with FakeService() as service, no_waiting() as waits:
        connection = {
            "conn_type": "databricks_jobs",
            "host": service.url,
            "password": "a-token",
            "extra": json.dumps({"timeout_seconds": timeout_seconds}),
        }
        monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))
        yield Bench(service, waits, caplog, xcoms, context)
