"""soft_fail and never_fail of the sensor, in each of its modes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)

from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor
from tests.fakes.fake_service import FakeService
from tests.helpers.reschedules import Reschedules
from tests.helpers.sensors import sensor, tasks

pytestmark = pytest.mark.usefixtures("triggerer_keeps_dags")


def resumed(one: DatabricksJobRunSensor, context: Any, error: str) -> Any:
    """Resume a sensor whose trigger did not fire."""
    return one.resume_execution("__fail__", {"error": error}, context)


def failed_run(service: FakeService, context: Any, **arguments: Any) -> Any:
    """Look once at a run that has failed."""
    service.start(7)
    service.end(7, "FAILED")
    return sensor(run_id=7, **arguments).execute(context)


def failed_run_resumed(service: FakeService, context: Any, **arguments: Any) -> Any:
    """Hear of a run that has failed, from the trigger."""
    service.start(7)
    service.end(7, "FAILED")
    one = sensor(run_id=7, **arguments)
    return one.resume_execution(
        "execute_complete", {"event": {"run": service.runs[7].as_answer()}}, context
    )


def no_such_task(service: FakeService, context: Any, **arguments: Any) -> Any:
    """Look once for a task that is not there."""
    service.start(7, tasks=tasks(("load", 71, 0, None)))
    return sensor(run_id=7, task_key="laod", **arguments).execute(context)


def no_such_task_resumed(_service: FakeService, context: Any, **arguments: Any) -> Any:
    """Hear of a task that is not there, from the trigger."""
    event = {"run_id": 7, "error": "run 7 has no task 'laod'"}
    one = sensor(run_id=7, task_key="laod", **arguments)
    return one.resume_execution("execute_complete", {"event": event}, context)


def timed_out(service: FakeService, context: Any, **arguments: Any) -> Any:
    """Wait for longer than the timeout, on a worker where it may."""
    service.start(7)
    one = sensor(run_id=7, timeout=0.05, **arguments)
    if not one.deferrable:
        return one.execute(context)
    with pytest.raises(TaskDeferred):
        one.execute(context)
    return resumed(one, context, "Trigger timeout")


def timed_out_in_airflow_2(_service: FakeService, context: Any, **arguments: Any) -> Any:
    """Hear that the wait took too long, in the words of Airflow 2."""
    return resumed(
        sensor(run_id=7, timeout=0.05, **arguments), context, "Trigger/execution timeout"
    )


def took_too_long_in_all(_service: FakeService, context: Any, **arguments: Any) -> Any:
    """Hear that execution_timeout is over, after which Airflow retries."""
    one = sensor(run_id=7, execution_timeout=timedelta(seconds=9), **arguments)
    return resumed(one, context, "Trigger timeout")


def trigger_crashed(_service: FakeService, context: Any, **arguments: Any) -> Any:
    """Hear that the trigger raised something."""
    return resumed(sensor(run_id=7, **arguments), context, "Trigger failure")


@pytest.mark.parametrize("mode", ["poke", "reschedule", "deferrable"])
@pytest.mark.parametrize(
    ("happens", "error", "is_a_failure"),
    [
        (failed_run, DatabricksRunFailedError, True),
        (failed_run_resumed, DatabricksRunFailedError, True),
        (no_such_task, AirflowException, False),
        (no_such_task_resumed, AirflowException, False),
        (timed_out, AirflowSensorTimeout, True),
        (timed_out_in_airflow_2, AirflowSensorTimeout, True),
        (took_too_long_in_all, AirflowTaskTimeout, True),
        (trigger_crashed, AirflowException, False),
    ],
)
def test_soft_fail_and_never_fail_in_all_modes(
    happens: Callable[..., Any],
    error: type[BaseException],
    *,
    is_a_failure: bool,
    mode: str,
    service: FakeService,
    context: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """soft_fail skips for failures, never_fail for everything; else the error itself is raised."""
    arguments: dict[str, Any] = {"deferrable": True} if mode == "deferrable" else {"mode": mode}
    if mode == "reschedule":
        # Airflow remembers when the first poke was.
        long_ago = datetime.now(UTC) - timedelta(minutes=1)
        Reschedules(monkeypatch, context["ti"]).first = long_ago
        monkeypatch.setattr(
            context["ti"], "get_first_reschedule_date", lambda _context: long_ago, raising=False
        )
    with pytest.raises(error) as caught:
        happens(service, context, **arguments)
    assert not isinstance(caught.value, AirflowSkipException)
    with pytest.raises(AirflowSkipException if is_a_failure else error) as soft:
        happens(service, context, soft_fail=True, **arguments)
    assert isinstance(soft.value, AirflowSkipException) is is_a_failure
    with pytest.raises(AirflowSkipException):
        happens(service, context, never_fail=True, **arguments)
