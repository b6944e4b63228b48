"""Whether Airflow tells a trigger that a user has acted on its task."""

from __future__ import annotations

from airflow_jobs_provider.airflow_compat.lines import airflow_line

__all__ = ["calls_on_kill"]


def calls_on_kill() -> bool:
    """Return whether Airflow calls a trigger's ``on_kill`` when a user clears or marks its task.

    Where it does not, a trigger is canceled for every reason and has to ask for the task's state:
    see :mod:`airflow_jobs_provider.airflow_compat.deferred_tasks`.
    """
    return airflow_line().calls_on_kill
