"""What is the state of a task now, as Airflow knows it?"""

from __future__ import annotations

from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.airflow_compat.lines.base import DELETED
from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt

__all__ = ["DELETED", "task_state"]


def task_state(attempt: TaskAttempt) -> str | None:
    """Return a task's state; None while it is to be scheduled, ``DELETED`` if it does not exist.

    One request to Airflow's API, or one row of its database in Airflow 2.

    :param attempt: an attempt of the task.
    :raises Exception: Airflow does not answer, or refuses to.
    """
    return airflow_line().task_state(attempt)
