"""The purpose for which a DAG file is parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_jobs_provider.airflow_compat.dag_values import values_of_dag
from airflow_jobs_provider.airflow_compat.lines import airflow_line

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

__all__ = ["is_parsed_for_execution", "requests_are_validated"]


def is_parsed_for_execution(task: BaseOperator | None = None) -> bool:
    """Return whether this process has parsed, or parses, the DAG file to execute one of its tasks.

    False in the DAG processor, in ``python dag.py``, in ``dag.test()`` and on the command line.

    :param task: a task of the file, for whose DAG it is found out once.
    """
    values = values_of_dag(task)
    if is_parsed_for_execution not in values:
        values[is_parsed_for_execution] = airflow_line().is_parsed_for_execution()
    return bool(values[is_parsed_for_execution])


def requests_are_validated(task: BaseOperator | None = None) -> bool:
    """Return whether the requests of all tasks are validated while the DAG file is parsed.

    Not to execute a task, nor to call callbacks of tasks. Airflow takes no DAG from such a process,
    and shows none of its errors in the UI. It has taken the DAG from another process, which has
    validated the requests.

    :param task: as above.
    """
    values = values_of_dag(task)
    if requests_are_validated not in values:
        values[requests_are_validated] = not (
            is_parsed_for_execution(task) or airflow_line().is_parsed_for_callbacks()
        )
    return bool(values[requests_are_validated])
