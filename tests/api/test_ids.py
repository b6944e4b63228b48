"""What counts as the id of a job, a run or a repair."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.api.ids import MAX_ID, parse_id, require_id
from tests.helpers.invalid_ids import NO_IDS


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1), ("1", 1), ("1234567890", 1234567890), (MAX_ID, MAX_ID), (str(MAX_ID), MAX_ID)],
)
def test_a_whole_number_or_its_decimal_text_is_an_id(value: Any, expected: int) -> None:
    """An int64 above 0, also as text."""
    read = parse_id(value)
    assert (read, type(read)) == (expected, int)


@pytest.mark.parametrize("value", NO_IDS, ids=lambda value: repr(value)[:20])
def test_anything_else_is_no_id(value: Any) -> None:
    """Nothing is rounded, trimmed or guessed; the error about an argument does not quote it."""
    assert parse_id(value) is None
    with pytest.raises(InvalidRequestError, match=r"^job_id must be a whole number from 1 to 92"):
        require_id("job_id", value)
