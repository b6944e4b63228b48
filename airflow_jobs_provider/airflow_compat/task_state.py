"""The state of a task, and the XComs of other tasks, as Airflow knows them now."""

from __future__ import annotations

from typing import Any

from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.airflow_compat.lines.base import DELETED
from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt

__all__ = ["DELETED", "read_own_xcom", "read_xcom_of", "task_state"]


def task_state(attempt: TaskAttempt) -> str | None:
    """Return a task's state; None while it is to be scheduled, ``DELETED`` if it does not exist.

    One request to Airflow's API, or one row of its database in Airflow 2.

    :param attempt: an attempt of the task.
    :raises Exception: Airflow does not answer, or refuses to.
    """
    return airflow_line().task_state(attempt)


def read_own_xcom(task_instance: Any, key: str) -> Any:
    """Return an XCom that an attempt of a task has pushed; None without. It blocks.

    :param task_instance: the task's, in the triggerer.
    :param key: key of the XCom.
    """
    return airflow_line().read_own_xcom(task_instance, key)


def read_xcom_of(attempt: TaskAttempt, task_id: str, key: str) -> Any:
    """Return an XCom of another task of the DAG run that is not mapped; None without. It blocks.

    :param attempt: an attempt of the task that asks.
    :param task_id: the other task.
    :param key: key of the XCom.
    """
    return airflow_line().read_xcom(attempt._replace(map_index=-1), task_id, key)
