"""The keys of the XComs that a task of this package pushes."""

from __future__ import annotations

__all__ = ["LATEST_TRY_NUMBER_KEY", "OUTPUT_KEYS", "RESERVED_KEYS"]

# What a run that ended well gave back.
OUTPUT_KEYS = ("return_value", "output_truncated")
# The number of a retry, by which Airflow 3.0 and 3.1 tell it from the attempt before.
LATEST_TRY_NUMBER_KEY = "latest_try_number"
# What no task of a run is pushed under with multiple_outputs, whatever its key: the keys above,
# those of the run itself, a retry's number, and Airflow's own for what a task has skipped.
RESERVED_KEYS = frozenset(
    {*OUTPUT_KEYS, "run_id", "job_id", "run_page_url", LATEST_TRY_NUMBER_KEY, "skipmixin_key"}
)
