"""The Airflow plugin: preloading, extra links of tasks, and a page in Airflow's UI.

========================  =========================================================================
Attribute                 What reads it
========================  =========================================================================
``on_load``               Every process. It preloads the provider's modules where Airflow forks
                          processes that execute tasks or parse DAG files, and imports nothing
                          elsewhere.
``operator_extra_links``  Processes that read DAGs from Airflow's database. The links import nothing
                          heavy.
``fastapi_apps``          The API server, when it starts, and ``airflow plugins``. Only this imports
                          FastAPI.
``external_views``        The API server, when a user opens the UI.
========================  =========================================================================

It has no listeners. An error in one of the last three is logged, and Airflow goes on without links
or page: it reads them where an exception would end its scheduler or API server.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property
from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin

from airflow_jobs_provider.airflow_compat.forking_processes import (
    forks_parsing_processes,
    forks_task_processes,
)

__all__ = ["DatabricksJobsPlugin"]

log = logging.getLogger(__name__)


class DatabricksJobsPlugin(AirflowPlugin):
    """Preloads the provider's modules, and adds links and a page to Airflow's UI."""

    name = "databricks_jobs"

    @classmethod
    def on_load(cls, *_args: Any, **_kwargs: Any) -> None:
        """Preload, if this process forks others. Airflow calls it in every process."""
        if forks_task_processes():
            from airflow_jobs_provider.preload import preload

            preload()
        elif forks_parsing_processes():
            from airflow_jobs_provider.preload import preload_for_parsing

            preload_for_parsing()

    # These are lists in Airflow's class. Here they are made when Airflow reads them.

    @cached_property
    def operator_extra_links(self) -> list[Any]:  # type: ignore[override]
        """The links that Airflow's server computes: job, run of a workflow group, runs of tasks.

        On Airflow 2 the operators have them.
        """
        return _list_or_nothing("Links of Databricks tasks", _links)

    @cached_property
    def fastapi_apps(self) -> list[Any]:  # type: ignore[override]
        """The application that serves the page; none before Airflow 3.1."""
        return _list_or_nothing("The page of Databricks runs", _apps)

    @cached_property
    def external_views(self) -> list[Any]:  # type: ignore[override]
        """The menu entry of the page; none where there is no page.

        Without ``url_route`` Airflow opens the page in a tab of its own. Otherwise it would show it
        in a frame, which may not open links to Databricks.
        """
        if not self.fastapi_apps:
            return []
        from airflow_jobs_provider.ui.links import PAGE_PREFIX

        return [
            {
                "name": "Databricks runs",
                "href": f"{PAGE_PREFIX}/",
                "destination": "nav",
                "category": "browse",
            }
        ]


def _links() -> list[Any]:
    from airflow_jobs_provider.airflow_compat.plugins import (
        shows_plugin_pages,
        takes_links_of_plugins,
    )

    if not takes_links_of_plugins():
        return []
    from airflow_jobs_provider.ui.links import PAGE_LINKS, UI_LINKS

    return [*UI_LINKS, *(PAGE_LINKS if shows_plugin_pages() else ())]


def _apps() -> list[Any]:
    from airflow_jobs_provider.airflow_compat.plugins import shows_plugin_pages

    if not shows_plugin_pages():
        return []
    from airflow_jobs_provider.ui.app import make_app
    from airflow_jobs_provider.ui.links import PAGE_PREFIX

    return [{"app": make_app(), "url_prefix": f"/{PAGE_PREFIX}", "name": "Databricks runs"}]


def _list_or_nothing(what: str, make: Callable[[], list[Any]]) -> list[Any]:
    """Return the list that a function makes; an empty one, and a line in the log, if it fails.

    :param what: what is missing then.
    :param make: the function.
    """
    try:
        return make()
    except Exception:
        log.exception("%s cannot be shown", what)
        return []
