"""The sensor of a run, over real HTTP, response by response."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowSkipException,
    PokeReturnValue,
    TaskDeferred,
)

from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from airflow_jobs_provider.triggers.sensor import DatabricksJobRunSensorTrigger
from tests.fakes.scripted_server import TOKEN, ScriptedServer
from tests.helpers.responses import (
    FAILED,
    FAILED_OUTPUT,
    OUTPUT,
    RUNNING,
    SUCCEEDED,
)
from tests.helpers.tasks import (
    events,
    sensor,
)


@pytest.fixture(autouse=True)
def connection(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection to the scripted server."""
    fields = {"conn_type": "databricks_jobs", "host": server.url, "password": TOKEN}
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(fields))


def test_sensor_poke(context: Any, server: ScriptedServer) -> None:
    """Not yet, not yet, done; the run's output is the sensor's XCom."""
    server.will(RUNNING, SUCCEEDED, OUTPUT)
    one = sensor()
    assert one.poke(context) is False
    outcome = one.poke(context)
    assert isinstance(outcome, PokeReturnValue)
    assert (outcome.is_done, outcome.xcom_value) == (True, "42")


def test_sensor_deferrable(context: Any, server: ScriptedServer) -> None:
    """One look, then the triggerer, within the sensor's own timeout."""
    server.will(RUNNING)
    with pytest.raises(TaskDeferred) as deferred:
        sensor(deferrable=True, timeout=60).execute(context)
    assert deferred.value.timeout == timedelta(seconds=60)
    server.will(SUCCEEDED, OUTPUT)
    trigger = deferred.value.trigger
    assert isinstance(trigger, DatabricksJobRunSensorTrigger)
    assert trigger.polling_period_seconds == 0.01
    (event,) = events(trigger)
    assert sensor().execute_complete(context, event) == "42"


def test_sensor_deferrable_of_a_run_that_has_ended(context: Any, server: ScriptedServer) -> None:
    """Nothing to wait for, nothing deferred."""
    server.will(SUCCEEDED, OUTPUT)
    assert sensor(deferrable=True).execute(context) == "42"


def test_sensor_of_a_failed_run(context: Any, server: ScriptedServer) -> None:
    """The sensor fails with the run's reason, or is skipped with soft_fail."""
    server.will(FAILED, FAILED_OUTPUT)
    with pytest.raises(DatabricksRunFailedError, match="no rows"):
        sensor().poke(context)
    server.will(FAILED, FAILED_OUTPUT)
    with pytest.raises(AirflowSkipException, match="no rows"):
        sensor(soft_fail=True).poke(context)
