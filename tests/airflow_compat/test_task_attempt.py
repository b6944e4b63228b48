"""Tokens made from a task's identity."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobs_provider.airflow_compat.task_attempt import TaskAttempt

START = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)


def context(**changes: Any) -> Any:
    """Make a task's context: the first of three tries."""
    facts: dict[str, Any] = {
        "dag_id": "d",
        "run_id": "r",
        "task_id": "t",
        "map_index": -1,
        "try_number": 1,
        "max_tries": 2,
        "retries": 2,
        "start": START,
        **changes,
    }
    return {
        "ti": SimpleNamespace(**facts),
        "task": SimpleNamespace(retries=facts["retries"]),
        "dag_run": SimpleNamespace(start_date=facts["start"]),
    }


def tokens(**changes: Any) -> list[str]:
    """Return the tokens of a try."""
    return TaskAttempt.from_context(context(**changes)).tokens()


def test_a_retry_has_the_tokens_of_the_attempts_before_it() -> None:
    """The first try has one token, the second that one and its own, and so on."""
    first, second, third = (tokens(try_number=n) for n in (1, 2, 3))
    assert [len(first), len(second), len(third)] == [1, 2, 3]
    assert third[:2] == second
    assert second[:1] == first
    assert len(set(third)) == 3


def test_a_cleared_task_has_new_tokens() -> None:
    """Clearing raises max_tries to the tries so far plus the retries: new tokens, one of them."""
    before = tokens(try_number=2)
    after = tokens(try_number=3, max_tries=4)
    assert len(after) == 1
    assert not set(after) & set(before)
    assert len(tokens(try_number=4, max_tries=4)) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"dag_id": "e"},
        {"run_id": "s"},
        {"task_id": "u"},
        {"map_index": 0},
        {"map_index": 1},
        {"start": START + timedelta(microseconds=1)},
        {"start": None},
    ],
)
def test_other_tasks_have_other_tokens(change: dict[str, Any]) -> None:
    """DAG, DAG run, its start, task and map index: each tells tasks apart."""
    assert tokens(**change) != tokens()


def test_time_zone_and_missing_map_index_change_no_token() -> None:
    """The same moment in another time zone is the same; no map index is -1."""
    elsewhere = START.astimezone(timezone(timedelta(hours=5)))
    assert tokens(start=elsewhere) == tokens()
    assert tokens(map_index=None) == tokens()


def test_names_that_read_alike_when_joined_have_other_tokens() -> None:
    """Two tasks whose names read the same when joined have different tokens."""
    assert tokens(dag_id="a", run_id="bc") != tokens(dag_id="ab", run_id="c")


def test_a_token_fits_the_api() -> None:
    """At most 64 characters, and never another one after an upgrade of this package."""
    (token,) = tokens()
    assert len(token) == 64
    assert token == "d8c801ddc12617a7f04e16b3a9b2b9f3439b5794aa67aa4f3eb820ba617de0a0"


def test_a_change_of_retries_between_attempts() -> None:
    """A DAG whose retries were changed in between still yields a token of its own."""
    assert len(tokens(try_number=1, max_tries=5, retries=2)) == 1
    assert (
        TaskAttempt.from_context(context(try_number=9, retries=0, max_tries=0)).attempt_index == 8
    )


def test_the_attempt_index_is_no_part_of_the_identity() -> None:
    """A token depends on the attempt index, not on which try asks."""
    one = TaskAttempt.from_context(context())
    assert replace(one, attempt_index=7).token(0) == one.token(0)
