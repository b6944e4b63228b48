"""Keeps a trigger from resuming its task too early: Airflow 3 fails such a task.

A task's process defers and ends. The executor reports that end to the scheduler a little later. If
the trigger has fired before, the scheduler takes the end of the deferring process for that of the
resumed one, and fails the task: ``finished with state success, but the task instance's state
attribute is queued`` (or ``scheduled``, or ``running``; apache/airflow#66374, #67287, #72716). The
times that users have reported there are 2 to 7 seconds.
"""

from __future__ import annotations

import time

from airflow_jobs_provider.airflow_compat.lines import airflow_line

__all__ = ["LONGEST_SECONDS", "seconds_until_event"]

#: How long after its deferral a task is resumed at the earliest. A trigger waits for no longer than
#: its polling period: nobody expects it to notice an end sooner.
LONGEST_SECONDS = 10.0


def seconds_until_event(began: float, polling_period_seconds: float) -> float:
    """Return how long a trigger has to wait before it resumes its task; 0 in Airflow 2.

    :param began: when the trigger began, on the monotonic clock.
    :param polling_period_seconds: its polling period.
    """
    if not airflow_line().fails_tasks_resumed_early:
        return 0.0
    earliest = began + min(polling_period_seconds, LONGEST_SECONDS)
    return max(0.0, earliest - time.monotonic())
