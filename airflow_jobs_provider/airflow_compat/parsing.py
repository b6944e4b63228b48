"""For what purpose is a DAG file parsed?"""

from __future__ import annotations

from airflow_jobs_provider.airflow_compat.lines import airflow_line

__all__ = ["is_parsed_for_execution"]


def is_parsed_for_execution() -> bool:
    """Return whether this process has parsed, or parses, the DAG file to execute one of its tasks.

    False in the DAG processor, in ``python dag.py``, in ``dag.test()`` and on the command line.
    """
    return airflow_line().is_parsed_for_execution()
