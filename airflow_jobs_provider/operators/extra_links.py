"""The extra links that an operator itself has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_jobs_provider.airflow_compat.plugins import takes_links_of_plugins
from airflow_jobs_provider.links import DatabricksJobRunLink

__all__ = ["extra_links", "task_run_links"]

# Of one operator. Airflow shows each as a button.
MAX_TASK_LINKS = 20


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


def task_run_links(tasks: Any) -> tuple[Any, ...]:
    """Return a link for each task of a run on Airflow 2; nothing on Airflow 3.

    :param tasks: the tasks of the request as the DAG has them. Those with a key that is a template
        have no link, and at most :data:`MAX_TASK_LINKS` have one.
    """
    if takes_links_of_plugins() or not isinstance(tasks, (list, tuple)) or len(tasks) < 2:
        return ()
    from airflow_jobs_provider.ui.links import DatabricksTaskRunLink

    keys = [task.get("task_key") for task in tasks if isinstance(task, Mapping)]
    literal = [key for key in keys if isinstance(key, str) and "{" not in key]
    return tuple(DatabricksTaskRunLink(key) for key in literal[:MAX_TASK_LINKS])
