"""What the plugin costs the processes that have nothing to do with the UI: nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import airflow
import pytest

from airflow_jobs_provider.plugin import DatabricksJobsPlugin

AIRFLOW_2 = airflow.__version__.startswith("2.")
APP = "airflow_jobs_provider.ui.app"
HAS_PAGES = tuple(map(int, airflow.__version__.split(".")[:2])) >= (3, 1)
# Prints what is imported: by a process that loads plugins, and by one that reads DAGs, too.
PROCESS = """
import sys
import airflow.models
from airflow.providers.common.compat.sdk import AirflowPlugin, BaseOperatorLink
from airflow_jobs_provider.airflow_compat import forking_processes

def show(before):
    print(*sorted(set(sys.modules) - before) or ["nothing"])
    return set(sys.modules)

before = set(sys.modules)
from airflow_jobs_provider.plugin import DatabricksJobsPlugin
plugin = DatabricksJobsPlugin()
plugin.on_load()
before = show(before)
assert bool(plugin.operator_extra_links) == (airflow.__version__ >= "3")
show(before)
"""


def test_only_the_api_server_imports_the_page() -> None:
    """Loading the plugin imports the plugin; reading DAGs its links. Neither imports FastAPI."""
    done = subprocess.run(
        [sys.executable, "-c", PROCESS],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    loaded, links = (set(line.split()) for line in done.stdout.splitlines()[-2:])
    assert loaded == {"airflow_jobs_provider.plugin"}
    ours = {name for name in links if name.startswith("airflow_jobs_provider")}
    of_ui = {name.partition(".")[2] for name in ours if ".ui" in name}
    assert of_ui == (set() if AIRFLOW_2 else {"ui", "ui.links", "ui.job_page"})
    assert {name.partition(".")[0] for name in links - ours} <= set(sys.stdlib_module_names)
    assert not {name for name in ours if "operators" in name or "triggers" in name}


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
