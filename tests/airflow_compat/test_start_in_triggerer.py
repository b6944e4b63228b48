"""When a sensor's wait began, as Airflow tells it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobs_provider.airflow_compat.start_in_triggerer import wait_start

FIRST = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
TASK_INSTANCE_ID = "0199a1f0-0000-7000-8000-000000000001"


@pytest.fixture
def task_runner() -> Any:
    """The module of Airflow 3 through which a task asks its supervisor."""
    return pytest.importorskip(
        "airflow.sdk.execution_time.task_runner", reason="Airflow 2 asks its database"
    )


@pytest.mark.parametrize("first", [FIRST, None])
def test_a_rescheduled_sensor_asks_for_its_first_poke(
    first: datetime | None, task_runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its wait began then; in the first poke, which Airflow has not rescheduled yet, it is now."""
    asked: list[Any] = []

    def send(message: Any) -> Any:
        asked.append(message)
        return SimpleNamespace(start_date=first)

    supervisor = SimpleNamespace(send=send)
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    context: Any = {"ti": SimpleNamespace(id=TASK_INSTANCE_ID)}
    before = time.time()
    began = wait_start(context, is_rescheduled=True)
    if first is None:
        assert before <= began <= time.time()
    else:
        assert began == first.timestamp()
    (message,) = asked
    assert type(message).__name__ == "GetTaskRescheduleStartDate"
    assert (str(message.ti_id), message.try_number) == (TASK_INSTANCE_ID, 1)


def test_a_sensor_in_one_process_asks_nothing() -> None:
    """It began when this process first looked."""
    before = time.time()
    assert before <= wait_start({}, is_rescheduled=False) <= time.time()
