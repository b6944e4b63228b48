"""Airflow's memory of a sensor's reschedules, at the place where a task process asks for it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest


class Reschedules:
    """Answers when a task instance was rescheduled first, as the running version of Airflow does.

    :param monkeypatch: replaces what Airflow asks.
    :param ti: the task instance.

    :ivar first: what Airflow has stored; None before the first reschedule.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ti: Any) -> None:
        self.first: datetime | None = None
        self._ti = ti
        try:
            from airflow.sdk.execution_time import task_runner
        except ImportError:
            self._stores_start = True
            monkeypatch.setattr(
                "airflow.sensors.base._orig_start_date", lambda *_, **__: self.first
            )
        else:
            self._stores_start = False
            ti.id = uuid.uuid4()
            monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", self, raising=False)

    def start_poke(self) -> None:
        """Start a process for a poke."""
        self._ti.start_date = datetime.now(UTC)

    def end_poke(self) -> None:
        """Reschedule. Airflow 2 stores when the first poke began, Airflow 3 when it ended."""
        if self.first is None:
            self.first = self._ti.start_date if self._stores_start else datetime.now(UTC)

    def send(self, question: Any) -> Any:
        """Answer as Airflow 3's supervisor does."""
        from airflow.sdk.execution_time.comms import (
            GetTaskRescheduleStartDate,
            TaskRescheduleStartDate,
        )

        if question.type == "MaskSecret":
            return None
        # Each attempt has an id of its own, so its reschedules are those of its first try.
        assert question == GetTaskRescheduleStartDate(ti_id=self._ti.id, try_number=1)
        return TaskRescheduleStartDate(start_date=self.first)
