"""Tokens made from a task's identity."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt

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


def test_a_task_instance_that_is_created_anew_has_the_tokens_of_the_deleted_one() -> None:
    """Its id differs, as at each retry. A limit, which docs/guarantees.md tells."""
    assert tokens(id="created anew") == tokens(id="deleted")


def test_a_cleared_task_has_new_tokens() -> None:
    """Clearing raises max_tries to the tries so far plus the retries: new tokens, one of them."""
    before = tokens(try_number=2)
    after = tokens(try_number=3, max_tries=4)
    assert len(after) == 1
    assert not set(after) & set(before)
    assert len(tokens(try_number=4, max_tries=4)) == 2


def test_an_attempt_has_no_more_tokens_than_there_were_attempts() -> None:
    """Where ``retries`` was raised in the DAG file after the DAG run had begun."""
    assert tokens(retries=5) == tokens()
    assert tokens(try_number=2, retries=5) == tokens(try_number=2)


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
    assert one._replace(attempt_index=7).token(0) == one.token(0)


def test_all_facts_of_the_context_are_read() -> None:
    """Airflow 3 has an id of the task instance and a number of clears; both are kept."""
    given = context(try_number=2, map_index=4)
    given["ti"].id, given["dag_run"].clear_number, given["test_mode"] = "an-id", 3, True
    assert TaskAttempt.from_context(given, operator_task_id="inner", execution=5) == TaskAttempt(
        dag_id="d",
        run_id="r",
        dag_run_start=f"{START.timestamp():.6f}",
        task_id="t",
        map_index=4,
        try_number=2,
        max_tries=2,
        attempt_index=1,
        operator_task_id="inner",
        execution=5,
        ti_id="an-id",
        clear_number=3,
        is_test=True,
    )


def test_facts_that_the_context_does_not_have() -> None:
    """No DAG run and no task object: no start, no retries, no further facts."""
    ti = context(try_number=1, max_tries=0)["ti"]
    attempt = TaskAttempt.from_context({"ti": ti})
    assert attempt == TaskAttempt("d", "r", "", "t", -1, 1, 0, 0, "t")
    assert (attempt.execution, attempt.is_test) == (0, False)
    assert (attempt.ti_id, attempt.clear_number) == (None, None)
    ti.try_number = 3
    assert TaskAttempt.from_context({"ti": ti}).attempt_index == 2
    attempt = TaskAttempt.from_context({"ti": ti, "task": SimpleNamespace(retries=None)})  # type: ignore[typeddict-item]
    assert attempt.attempt_index == 2


@pytest.mark.parametrize(("try_number", "is_left"), [(1, True), (2, True), (3, False)])
def test_a_retry_is_left_up_to_max_tries(try_number: int, is_left: bool) -> None:
    """Airflow retries while try_number <= max_tries."""
    assert TaskAttempt.from_context(context(try_number=try_number)).has_retry_left is is_left


def test_nested_operators_have_tokens_of_their_own() -> None:
    """Each operator of a task and each of its executions; the task's own first one keeps its."""
    made = [
        TaskAttempt.from_context(context(), operator_task_id=task_id, execution=execution)
        for task_id in (None, "a", "b")
        for execution in (0, 1, 2)
    ]
    assert len({attempt.token(0) for attempt in made}) == 9
    assert made[0].token(0) == tokens()[0]
    named = TaskAttempt.from_context(context(), operator_task_id="t")
    assert named.token(0) == tokens()[0]
