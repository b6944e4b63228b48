"""What a task of a group learns of later attempts of another one (Airflow 3).

What Airflow 2 tells is in tests/airflow_compat/test_run_successor_airflow_2.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from airflow_jobs_provider.airflow_compat.lines import airflow_line, airflow_version
from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt
from airflow_jobs_provider.airflow_compat.workflow_records import (
    LaterAttempt,
    TaskRecord,
    WorkflowRecords,
)

if airflow_version() < (3, 0):
    pytest.skip("Airflow 2 asks its database", allow_module_level=True)

ATTEMPT = TaskAttempt(
    dag_id="sales",
    run_id="a_run",
    dag_run_start="",
    task_id="etl.a",
    map_index=-1,
    try_number=2,
    max_tries=1,
    attempt_index=0,
    operator_task_id="etl.a",
    clear_number=1,
)


@pytest.fixture
def xcoms(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], Any]:
    """XComs of the DAG run, by task id and key."""
    stored: dict[tuple[str, str], Any] = {}
    line = airflow_line()
    monkeypatch.setattr(line, "read_xcom", lambda _attempt, task, key: stored.get((task, key)))
    monkeypatch.setattr(
        line,
        "write_xcom",
        lambda _attempt, task, key, value: stored.update({(task, key): value}),
    )
    return stored


@pytest.mark.parametrize(
    ("xcom", "pushes_xcoms", "has_begun"),
    [
        (7, True, False),
        # A later attempt has deleted it, or has followed another run.
        (None, True, True),
        (8, True, True),
        # There never was one.
        (None, False, False),
    ],
)
def test_a_later_attempt_has_begun(
    xcom: int | None, pushes_xcoms: bool, has_begun: bool, xcoms: dict[tuple[str, str], Any]
) -> None:
    """Airflow deletes the XComs of a task as an attempt begins."""
    xcoms["etl.b", "run_id"] = xcom
    records = WorkflowRecords(ATTEMPT, "etl.launch")
    later = records.later_attempt("etl.b", TaskRecord(reported=7), pushes_xcoms=pushes_xcoms)
    assert later == LaterAttempt(has_begun=has_begun, was_cleared=False)


@pytest.mark.parametrize(("before", "was_cleared"), [(0, True), (1, False), (None, False)])
def test_a_task_was_cleared_since(
    before: int | None, was_cleared: bool, xcoms: dict[tuple[str, str], Any]
) -> None:
    """As the number of clears in the DAG run tells, which is in the record."""
    xcoms["etl.b", "run_id"] = 7
    recording = ATTEMPT._replace(task_id="etl.b", clear_number=before)
    WorkflowRecords(recording, "etl.launch").write("etl.b", TaskRecord(reported=7))
    records = WorkflowRecords(ATTEMPT, "etl.launch")
    record = records.read("etl.b")
    later = records.later_attempt("etl.b", record, pushes_xcoms=True)
    assert later == LaterAttempt(has_begun=False, was_cleared=was_cleared)
