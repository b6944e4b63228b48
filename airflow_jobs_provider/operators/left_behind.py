"""The end of a run whose task has failed for good without being able to say so.

A worker may die with everything on it. Airflow notices after a while; if no retry is left, nobody
would follow the run any more, nor stop it. But Airflow has its DAG processor call the task's
``on_failure_callback``, and that is where the run is cancelled.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["cancel_run_left_behind", "with_callback", "xcoms_can_be_read"]


def cancel_run_left_behind(context: Context) -> None:
    """Cancel the run of a task that has failed for good, if it goes on: a failure callback."""
    # On a worker, the task instance has the object that was executed; the context of Airflow 3.0
    # has what it was copied from. The DAG processor has one object for all that it does.
    task: Any = getattr(context["ti"], "task", None) or context["task"]
    copy.copy(task).cancel_left_behind(context)


def with_callback(given: Any, callback: Any) -> list[Any]:
    """Return a user's callbacks, none, one or several, with one more in front."""
    if given is None:
        return [callback]
    return [callback, *(given if isinstance(given, Iterable) else [given])]


def xcoms_can_be_read() -> bool:
    """Whether this process may ask Airflow for XComs.

    The DAG processor of Airflow 3.0 does not know the question, and does not survive it.
    """
    processor = sys.modules.get("airflow.dag_processing.processor")
    speaks_to_manager = hasattr(processor, "ToManager")
    return not speaks_to_manager or hasattr(processor, "GetXCom")
