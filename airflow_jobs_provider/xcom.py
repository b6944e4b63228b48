"""The keys of the XComs that a task of this package pushes."""

from __future__ import annotations

__all__ = ["OUTPUT_KEYS", "RESERVED_KEYS"]

# What a run that ended well gave back.
OUTPUT_KEYS = ("return_value", "output_truncated")
# What no task of a run is pushed under with multiple_outputs, whatever its key: the keys above,
# those of the run itself, the one by which tries on Airflow 2 and 3.0 tell each other apart, and
# Airflow's own for what a task has skipped.
RESERVED_KEYS = frozenset(
    {*OUTPUT_KEYS, "run_id", "job_id", "run_page_url", "latest_try_number", "skipmixin_key"}
)
