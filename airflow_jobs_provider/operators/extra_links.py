"""The extra links that an operator itself has."""

from __future__ import annotations

from typing import Any

from airflow_jobs_provider.airflow_compat.plugins import takes_links_of_plugins
from airflow_jobs_provider.links import DatabricksJobRunLink

__all__ = ["extra_links"]


def extra_links(*names: str) -> tuple[Any, ...]:
    """Return the link to the run, and on Airflow 2 those that its web server computes.

    On Airflow 3 the plugin has the others: there a task pushes an XCom for each link of its
    operator.

    :param names: class names of those others, in :mod:`airflow_jobs_provider.ui.links`.
    """
    links: tuple[Any, ...] = (DatabricksJobRunLink(),)
    if takes_links_of_plugins():
        return links
    from airflow_jobs_provider.ui import links as computed

    return (*links, *(getattr(computed, name)() for name in names))
