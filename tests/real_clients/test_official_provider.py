"""Both providers, this one and the official one, installed in one Airflow."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider import __version__
from scripts import official

pytestmark = pytest.mark.real_clients
ROOT = Path(__file__).parents[2]
SCRIPT = """
import json
from airflow.models import Connection
from airflow.providers_manager import ProvidersManager
manager = ProvidersManager()
hooks = {name: [manager.hooks[name].hook_class_name, manager.hooks[name].package_name]
         for name in manager.hooks if name.startswith("databricks")}
classes = {name: type(Connection(conn_id="c", conn_type=name, host="h", password="p").get_hook())
           for name in hooks}
from airflow.providers.databricks.hooks.databricks import DatabricksHook
print(json.dumps({
    "hooks": hooks,
    "classes": {name: f"{one.__module__}.{one.__name__}" for name, one in classes.items()},
    "fields": sorted({name.split("__")[1] for name in manager.connection_form_widgets
                      if "__databricks" in name}),
    "user_agent": DatabricksHook().user_agent_value}))
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Airflow finds of the two providers."""
    folder = tmp_path_factory.mktemp("installed")
    # What an installation of this package leaves beside its modules.
    distribution = folder / f"airflow_jobs_provider-{__version__}.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: airflow-jobs-provider\nVersion: {__version__}\n"
    )
    (distribution / "entry_points.txt").write_text(
        "[apache_airflow_provider]\nprovider_info = airflow_jobs_provider:get_provider_info\n"
    )
    result = subprocess.run(
        [official.python(), "-W", "ignore", "-c", SCRIPT],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
            "AIRFLOW_HOME": str(folder / "airflow"),
        },
    )
    *logged, found = result.stdout.splitlines()
    logged += result.stderr.splitlines()
    return {"logged": [line for line in logged if "registered" in line], **json.loads(found)}


def test_each_provider_keeps_its_connection_type(both: dict[str, Any]) -> None:
    """``databricks`` belongs to the official provider, ``databricks_jobs`` to this one."""
    official_hook = "airflow.providers.databricks.hooks.databricks.DatabricksHook"
    own_hook = "airflow_jobs_provider.hooks.jobs.DatabricksJobsHook"
    assert both["hooks"] == {
        "databricks": [official_hook, "apache-airflow-providers-databricks"],
        "databricks_jobs": [own_hook, "airflow-jobs-provider"],
    }
    assert both["classes"] == {"databricks": official_hook, "databricks_jobs": own_hook}
    assert both["fields"] == ["databricks_jobs"]


def test_nothing_is_said_about_a_clash(both: dict[str, Any]) -> None:
    """No warning at Airflow's start, and the official hook still knows its own version."""
    assert both["logged"] == []
    assert both["user_agent"].startswith("databricks-airflow/7.")
