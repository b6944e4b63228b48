"""The pytest plugin, as pytest loads it for a user's tests."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from scripts.airflow_env import ROOT

PLUGIN = "airflow_jobs_provider.testing.plugin"


def run_pytest(folder: Path, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on a test module of this source, with this plugin only."""
    (folder / "test_user.py").write_text(textwrap.dedent(source))
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", PLUGIN, "-p", "no:cacheprovider", *options],
        cwd=folder,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_fixture(tmp_path: Path) -> None:
    """It has a workspace of its own for each test, a connection to it, and no waits."""
    (tmp_path / "notebooks").mkdir()
    done = run_pytest(
        tmp_path,
        """
        import json, os, time
        import pytest
        from airflow_jobs_provider.api.auth import Token
        from airflow_jobs_provider.api.client import JobsClient
        from airflow_jobs_provider.api.endpoints import submit_run

        def submit(conn_id="DATABRICKS_DEFAULT"):
            connection = json.loads(os.environ[f"AIRFLOW_CONN_{conn_id}"])
            task = {"existing_cluster_id": "1", "notebook_task": {"notebook_path": "/etl"}}
            with JobsClient(connection["host"], Token(connection["password"])) as client:
                return client.send(submit_run(task))

        def test_outage(databricks_workspace):
            databricks_workspace.returns("/etl", "done")
            databricks_workspace.break_next("runs/submit", times=3)
            began = time.monotonic()
            submit()
            assert time.monotonic() - began < 20  # and not 90 s
            databricks_workspace.assert_launched("/etl")
            databricks_workspace.assert_nothing_is_left()

        @pytest.mark.databricks_workspace(root="notebooks", dry_run=True, conn_id="other")
        def test_marker(databricks_workspace):
            assert databricks_workspace.root.name == "notebooks"
            assert not list(databricks_workspace.root.iterdir())
            assert databricks_workspace.runs == []
            submit("OTHER")
            assert "AIRFLOW_CONN_DATABRICKS_DEFAULT" not in os.environ

        def test_wrong(databricks_workspace):
            databricks_workspace.returns("/etl")
            submit()
            databricks_workspace.assert_launched("/elt")
        """,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert "1 failed" in done.stdout, done.stdout
    assert "/elt was launched 0 times, not 1. The runs are:" in done.stdout, done.stdout


def test_pytest_pays_nothing_for_it(tmp_path: Path) -> None:
    """Without the fixture only the plugin and the packages that it is in are imported."""
    done = run_pytest(
        tmp_path,
        f"""
        import sys

        def test_imports():
            ours = {{name for name in sys.modules if name.startswith("airflow_jobs_provider")}}
            expected = {{"airflow_jobs_provider", "airflow_jobs_provider._version",
                         "airflow_jobs_provider.testing", "{PLUGIN}"}}
            assert ours == expected
            assert not {{"airflow", "aiohttp", "requests", "pydantic"}} & sys.modules.keys()
        """,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
