"""What counts as the id of a run or job."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_jobs_provider.api.errors import InvalidRequest
from airflow_jobs_provider.api.ids import MAX_ID, as_id, read_id

# What int() reads, and what a template may give in place of an id.
NO_IDS: list[Any] = [
    None, True, False, 0, -7, 1.0, 1.5, float("nan"), MAX_ID + 1, 10**400, "", "0", "-7", "+7",
    " 7", "7\n", "1_000", "1.0", "1e3", "0x10", "\uff11\uff12", "\u0663", "12abc", "None",
    "9223372036854775808", "9" * 5000, b"7", [7], {"run_id": 7},
]  # fmt: skip


@pytest.mark.parametrize("value", NO_IDS, ids=lambda value: repr(value)[:20])
def test_what_is_no_id(value: Any) -> None:
    """The error names the argument and the rule, and no more of the value than its kind."""
    assert as_id(value) is None
    with pytest.raises(InvalidRequest, match=r"^job_id must be a whole number from 1 to 92"):
        read_id("job_id", value)


@pytest.mark.parametrize("value", [1, 7, MAX_ID, "1", "7", "007", str(MAX_ID)])
def test_what_is_an_id(value: Any) -> None:
    """A number, or its decimal digits."""
    assert as_id(value) == read_id("run_id", value) == int(value)
