"""What Airflow takes from plugins."""

from __future__ import annotations

from airflow_jobs_provider.airflow_compat.lines import airflow_line

__all__ = ["shows_plugin_pages", "takes_links_of_plugins"]


def takes_links_of_plugins() -> bool:
    """Return whether links of plugins work (Airflow 3)."""
    return airflow_line().takes_links_of_plugins


def shows_plugin_pages() -> bool:
    """Return whether the UI has a menu entry for a plugin's page (Airflow 3.1 and later)."""
    return airflow_line().shows_plugin_pages
