"""The state of a task, as Airflow 3 tells it (Airflow 2: ``test_run_successor_airflow_2.py``)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt
from airflow_jobs_provider.airflow_compat.task_state import DELETED, task_state

task_runner: Any = pytest.importorskip(
    "airflow.sdk.execution_time.task_runner", reason="Airflow 2 asks its database"
)

ATTEMPT = TaskAttempt(
    dag_id="sales",
    run_id="a_run",
    dag_run_start="",
    task_id="etl",
    map_index=3,
    try_number=1,
    max_tries=2,
    attempt_index=0,
    operator_task_id="etl",
)


@pytest.mark.parametrize(
    ("answered", "expected"),
    [
        ({"a_run": {"etl_3": "running"}}, "running"),
        ({"a_run": {"etl_3": None}}, None),
        ({"a_run": {}}, DELETED),
        ({}, DELETED),
    ],
)
def test_the_state_is_the_answer_for_the_one_task(
    answered: dict[str, Any], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is a state, too: of a task that is to be scheduled."""
    asked: list[Any] = []

    def send(message: Any) -> Any:
        asked.append(message)
        return SimpleNamespace(task_states=answered)

    supervisor = SimpleNamespace(send=send)
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    assert task_state(ATTEMPT) == expected
    (message,) = asked
    assert (message.dag_id, message.run_ids, message.task_ids, message.map_index) == (
        "sales",
        ["a_run"],
        ["etl"],
        3,
    )
