"""Who follows a killed task's run, as Airflow 2 tells by a row of its database.

What Airflow 3 tells is in tests/airflow_compat/test_run_successor.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy
from airflow import models, settings
from airflow.models.taskinstance import TaskInstance
from sqlalchemy.orm import scoped_session, sessionmaker

from airflow_jobs_provider.airflow_compat.lines import airflow_line, airflow_version
from airflow_jobs_provider.airflow_compat.lines.base import LaterAttempt
from airflow_jobs_provider.airflow_compat.run_successor import Successor, find_successor
from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt
from airflow_jobs_provider.airflow_compat.task_state import DELETED, task_state

if airflow_version() >= (3, 0):
    pytest.skip("Airflow 3 asks its API", allow_module_level=True)

RECORDED: dict[str, Any] = {"reported": 7, "clear_number": None, "pushes_xcoms": False}

FIRST = TaskAttempt(
    dag_id="sales",
    run_id="a_run",
    dag_run_start="",
    task_id="etl",
    map_index=-1,
    try_number=1,
    max_tries=2,
    attempt_index=0,
    operator_task_id="etl",
    ti_id=None,
    clear_number=0,
    is_test=False,
)
LAST = FIRST._replace(max_tries=0)

Found = Callable[..., None]


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Found:
    """Put the task's row into a database of its own."""
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/airflow.db")
    models.import_all_models()  # Other tables have the columns that this one refers to.
    table = TaskInstance.__table__
    table.create(engine)
    monkeypatch.setattr(settings, "Session", scoped_session(sessionmaker(bind=engine)))

    def put(state: str | None, try_number: int, max_tries: int = FIRST.max_tries) -> None:
        values = {"dag_id": "sales", "run_id": "a_run", "task_id": "etl", "map_index": -1}
        row = table.insert().values(
            state=state,
            try_number=try_number,
            max_tries=max_tries,
            pool="default_pool",
            pool_slots=1,
            **values,
        )
        with engine.begin() as database:
            database.execute(table.delete())
            database.execute(row)

    return put


@pytest.mark.parametrize(
    ("state", "try_number"),
    [
        (None, 1),
        ("up_for_retry", 1),
        ("scheduled", 2),
        ("queued", 2),
        ("running", 2),
        ("deferred", 1),
        ("deferred", 2),
    ],
)
def test_another_attempt_or_the_trigger_is_the_successor(
    found: Found, state: str | None, try_number: int
) -> None:
    """Airflow has begun it or will, or the trigger waits for the run."""
    found(state, try_number)
    assert find_successor(FIRST) is Successor.EXISTING


@pytest.mark.parametrize(
    ("state", "try_number"),
    [
        ("restarting", 1),
        ("failed", 1),
        ("success", 1),
        ("skipped", 1),
        ("removed", 1),
        ("failed", 2),
        ("scheduled", 1),  # dag.test() never sets the task running.
    ],
)
def test_a_user_has_ended_the_task(found: Found, state: str, try_number: int) -> None:
    """Marked or cleared: there is no other try at work."""
    found(state, try_number)
    assert find_successor(FIRST) is Successor.NONE


@pytest.mark.parametrize(
    ("try_number", "successor"), [(1, Successor.RETRY), (2, Successor.RETRY), (3, Successor.NONE)]
)
def test_a_signal_from_outside(found: Found, try_number: int, successor: Successor) -> None:
    """The try is at work, as Airflow sees it: it will fail, and be retried if a retry is left."""
    found("running", try_number)
    assert find_successor(FIRST._replace(try_number=try_number)) is successor


@pytest.mark.parametrize(
    ("state", "try_number"), [(None, 2), ("queued", 3), ("running", 3), ("up_for_retry", 2)]
)
def test_an_attempt_after_the_last_retry_is_no_successor(
    found: Found, state: str | None, try_number: int
) -> None:
    """Airflow 2 takes the end of the killed process for its failure, and begins none after it."""
    found(state, try_number)
    assert find_successor(FIRST._replace(try_number=2)) is Successor.NONE
    found(state, try_number - 1, max_tries=0)
    assert find_successor(LAST) is Successor.NONE


@pytest.mark.parametrize("state", [None, "scheduled", "running", "deferred"])
def test_a_user_has_cleared_the_task_twice(found: Found, state: str | None) -> None:
    """The second time raises max_tries, so that the next try looks for another run."""
    found(state, 2, max_tries=3)
    assert find_successor(FIRST) is Successor.NONE


@pytest.mark.usefixtures("found")
def test_a_deleted_task_has_no_successor() -> None:
    """Nobody will follow its run."""
    assert find_successor(FIRST) is Successor.NONE


def test_a_test_run_has_no_successor(found: Found) -> None:
    """As in ``airflow tasks test``."""
    found(None, 1)
    assert find_successor(FIRST._replace(is_test=True)) is Successor.NONE


@pytest.mark.parametrize("state", [None, "running"])
def test_the_state_of_a_task(found: Found, state: str | None) -> None:
    """It stands in the row; without a row the task is deleted."""
    assert task_state(FIRST) == DELETED
    found(state, 1)
    assert task_state(FIRST) == state


def test_a_failing_database_leaves_the_run_to_a_retry_that_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow will miss the task and begin the next try, if one is left."""
    nowhere = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/no/such/folder.db")
    monkeypatch.setattr(settings, "Session", scoped_session(sessionmaker(bind=nowhere)))
    assert find_successor(FIRST) is Successor.RETRY
    assert find_successor(LAST) is Successor.NONE


def test_the_attempt_is_read_from_the_context() -> None:
    """Airflow 2 knows neither ids nor clear numbers."""
    ti: Any = SimpleNamespace(
        dag_id="sales", run_id="a_run", task_id="etl", map_index=-1, try_number=1, max_tries=2
    )
    context: Any = {"ti": ti, "dag_run": None}
    told = FIRST._replace(clear_number=None)
    assert TaskAttempt.from_context(context) == told
    context["test_mode"] = True
    assert TaskAttempt.from_context(context) == told._replace(is_test=True)


@pytest.mark.parametrize(
    ("try_number", "max_tries", "expected"),
    [
        (1, 2, LaterAttempt(has_begun=False, was_cleared=False)),
        (2, 2, LaterAttempt(has_begun=True, was_cleared=False)),
        (2, 3, LaterAttempt(has_begun=True, was_cleared=True)),
        (1, 3, LaterAttempt(has_begun=False, was_cleared=True)),
    ],
)
def test_a_later_attempt_of_another_task(
    try_number: int, max_tries: int, expected: LaterAttempt, found: Found
) -> None:
    """The row of the other task has the numbers of its latest attempt."""
    found("running", try_number, max_tries)
    other = FIRST._replace(task_id="another")
    later = airflow_line().later_attempt(other, "etl", try_number=1, max_tries=2, **RECORDED)
    assert later == expected


def test_a_later_attempt_of_a_task_that_is_gone(found: Found) -> None:
    """Nothing is known of it."""
    later = airflow_line().later_attempt(FIRST, "gone", try_number=1, max_tries=2, **RECORDED)
    assert later == LaterAttempt(has_begun=False, was_cleared=False)
