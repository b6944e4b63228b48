"""When Airflow fails a deferred task, and whether it has."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.airflow_compat.lines import airflow_line

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

__all__ = ["is_timed_out", "trigger_deadline"]

# How Airflow resumes a task whose trigger failed, and its reasons where that took too long.
_TRIGGER_FAILED = "__fail__"
_TIMEOUTS = ("Trigger timeout", "Trigger/execution timeout")


def trigger_deadline(trigger: BaseTrigger) -> float | None:
    """Return when Airflow fails the task that waits for a trigger, in seconds since the epoch.

    :param trigger: the trigger.
    :returns: None for never.
    """
    end = airflow_line().trigger_timeout(trigger)
    if end is None:
        return None
    return (end if end.tzinfo else end.replace(tzinfo=UTC)).timestamp()


def is_timed_out(next_method: str, next_kwargs: Mapping[str, Any] | None) -> bool:
    """Return whether Airflow resumes a task because its trigger took too long.

    :param next_method: what ``resume_execution`` of the task's operator was given.
    :param next_kwargs: likewise.
    """
    return next_method == _TRIGGER_FAILED and (next_kwargs or {}).get("error") in _TIMEOUTS
