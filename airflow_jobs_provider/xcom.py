"""The XComs that a task of this package pushes: their keys, and how they are pushed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = [
    "JOB_ID_KEY",
    "LATEST_TRY_NUMBER_KEY",
    "LAUNCH_RECORD_KEY",
    "OUTPUT_KEYS",
    "OUTPUT_TRUNCATED_KEY",
    "RESERVED_KEYS",
    "RETURN_VALUE_KEY",
    "RUN_ID_KEY",
    "RUN_PAGE_URL_KEY",
    "TASK_RUN_IDS_KEY",
    "push_xcoms",
    "run_xcoms",
]

# The output of a run that succeeded, under Airflow's own key for what a task returns.
RETURN_VALUE_KEY = "return_value"
# True where a part of the output is missing.
OUTPUT_TRUNCATED_KEY = "output_truncated"
OUTPUT_KEYS = (RETURN_VALUE_KEY, OUTPUT_TRUNCATED_KEY)
# The task runs of a run of several tasks: their ids by task key, once it has ended.
TASK_RUN_IDS_KEY = "task_run_ids"
# The run that the task launched or waited for, its job, and its page in the workspace.
RUN_ID_KEY = "run_id"
JOB_ID_KEY = "job_id"
RUN_PAGE_URL_KEY = "run_page_url"
# The number of a retry, by which Airflow 3.0 and 3.1 tell it from the attempt before.
LATEST_TRY_NUMBER_KEY = "latest_try_number"
# Which attempts a task has made that starts in the triggerer (Airflow 3.3).
LAUNCH_RECORD_KEY = "launch_record"
# With multiple_outputs, the output of a run's task is pushed under the task's key, unless it is one
# of these: the keys above, and Airflow's own for the tasks that a task has skipped.
RESERVED_KEYS = frozenset(
    {
        *OUTPUT_KEYS,
        TASK_RUN_IDS_KEY,
        RUN_ID_KEY,
        JOB_ID_KEY,
        RUN_PAGE_URL_KEY,
        LATEST_TRY_NUMBER_KEY,
        LAUNCH_RECORD_KEY,
        "skipmixin_key",
    }
)


def push_xcoms(context: Context, values: Mapping[str, Any]) -> None:
    """Push each value under its key.

    :param context: the task's context.
    :param values: the values by key.
    """
    for key, value in values.items():
        context["ti"].xcom_push(key=key, value=value)


def run_xcoms(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the XComs by which a sensor says what run it waited for; none for a missing field.

    :param run: the run, or the task's own run.
    """
    values = {RUN_ID_KEY: run.get("run_id"), RUN_PAGE_URL_KEY: run.get("run_page_url")}
    return {key: value for key, value in values.items() if value is not None}
