"""Fixtures of the tests of sensors."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import PokeReturnValue, TaskDeferred

from tests.fakes.fake_service import FakeService
from tests.helpers.reschedules import Reschedules
from tests.helpers.sensors import Sense, sensor
from tests.helpers.tasks import TaskInstance, fired

# More than any test needs.
MOST_POKES = 100


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeService]:
    """The service with the job "nightly", and the connection to it."""
    with FakeService() as running:
        running.jobs[3] = {"name": "nightly"}
        monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", running.connection)
        yield running


@pytest.fixture
def context() -> Any:
    """A task's context."""
    return {"ti": TaskInstance(), "dag_run": None, "task": None}


@pytest.fixture(params=["poke", "reschedule", "deferrable"])
def sense(request: pytest.FixtureRequest, context: Any, monkeypatch: pytest.MonkeyPatch) -> Sense:
    """Wait with a sensor to its end, in one of the three ways, and return what it gives."""
    way = str(request.param)

    def poke(**arguments: Any) -> Any:
        one = sensor(**arguments)
        for _ in range(MOST_POKES):
            outcome = one.poke(context)
            if isinstance(outcome, PokeReturnValue):
                return outcome.xcom_value
            time.sleep(0.01)
        pytest.fail("the sensor found no end")

    def reschedule(**arguments: Any) -> Any:
        # Airflow starts a process for each poke, and stores when it rescheduled first.
        reschedules = Reschedules(monkeypatch, context["ti"])
        for _ in range(MOST_POKES):
            reschedules.start_poke()
            outcome = sensor(mode="reschedule", **arguments).poke(context)
            if isinstance(outcome, PokeReturnValue):
                return outcome.xcom_value
            reschedules.end_poke()
            time.sleep(0.01)
        pytest.fail("the sensor found no end")

    def deferrable(**arguments: Any) -> Any:
        one = sensor(deferrable=True, **arguments)
        try:
            return one.execute(context)
        except TaskDeferred as deferred:
            event = json.loads(json.dumps(fired(deferred.trigger).payload))
            kwargs = deferred.kwargs or {}
            return sensor(deferrable=True, **arguments).execute_complete(context, event, **kwargs)

    return {"poke": poke, "reschedule": reschedule, "deferrable": deferrable}[way]
