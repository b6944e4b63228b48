"""What the plugin gives Airflow, also where a part of it cannot be made."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import airflow
import pytest

from airflow_jobs_provider.plugin import DatabricksJobsPlugin

AIRFLOW_2 = airflow.__version__.startswith("2.")
APP = "airflow_jobs_provider.ui.app"
HAS_PAGES = tuple(map(int, airflow.__version__.split(".")[:2])) >= (3, 1)


@pytest.mark.skipif(HAS_PAGES, reason="the page is tested in test_app.py")
def test_older_lines_have_no_page() -> None:
    """Airflow 2 mounts no application, and 3.0 has no menu entry for one."""
    plugin = DatabricksJobsPlugin()
    assert plugin.fastapi_apps == plugin.external_views == []


@pytest.mark.skipif(not HAS_PAGES, reason="no pages of plugins before Airflow 3.1")
def test_the_menu_entry_leads_to_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address is relative to Airflow's own, which may be below a path."""
    monkeypatch.setitem(sys.modules, APP, SimpleNamespace(make_app=object))
    (view,) = DatabricksJobsPlugin().external_views
    assert view["href"] == "databricks-jobs/"
    assert "url_route" not in view


@pytest.mark.skipif(not HAS_PAGES, reason="no pages of plugins before Airflow 3.1")
def test_a_page_that_cannot_be_made(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception would end Airflow's API server. There is no menu entry for the page either."""
    # Such as where a later Airflow has moved what it imports.
    monkeypatch.setitem(sys.modules, APP, None)
    plugin = DatabricksJobsPlugin()
    assert plugin.fastapi_apps == plugin.external_views == []
    assert "The page of Databricks runs cannot be shown" in caplog.text
    assert plugin.operator_extra_links


@pytest.mark.skipif(AIRFLOW_2, reason="the operators have the links on Airflow 2")
def test_links_that_cannot_be_made(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception would keep Airflow's scheduler from reading DAGs."""
    monkeypatch.setitem(sys.modules, "airflow_jobs_provider.ui.links", None)
    assert DatabricksJobsPlugin().operator_extra_links == []
    assert "Links of Databricks tasks cannot be shown" in caplog.text
