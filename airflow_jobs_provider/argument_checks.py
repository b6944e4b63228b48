"""Checks of the operators' and the sensor's own arguments, in their constructors."""

from __future__ import annotations

from typing import Any

from airflow_jobs_provider.templates import has_unrendered

__all__ = ["check_id"]


def check_id(name: str, value: Any) -> None:
    """Check the id of a run or job, if it is given and known before the task runs.

    :param name: name of the argument.
    :param value: the argument.
    :raises InvalidRequest: it is no id.
    """
    if value is not None and not has_unrendered(value):
        from airflow_jobs_provider.api.ids import id_argument

        id_argument(name, value)
