"""The methods of the hook return what those of the official hook return."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from airflow_jobs_provider.local.workspace import LocalWorkspace
from scripts import official

pytestmark = pytest.mark.real_clients
ROOT = Path(__file__).parents[2]


def test_both_hooks_return_the_same(tmp_path: Path) -> None:
    """One script calls each method of both against one workspace."""
    root = tmp_path / "workspace"
    root.mkdir()
    (root / "greet.py").write_text("# Databricks notebook source\ndbutils.notebook.exit('hi')\n")
    with LocalWorkspace(root, dry_run=True) as workspace:
        parts = urlsplit(workspace.url)
        connection = {
            "conn_type": "databricks",
            "host": parts.hostname,
            "schema": "http",
            "port": parts.port,
            "password": workspace.token,
        }
        result = subprocess.run(
            [official.python(), "-W", "ignore", ROOT / "tests/real_clients/drive_hooks.py"],
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "AIRFLOW_HOME": str(tmp_path / "airflow"),
                "AIRFLOW_CONN_DATABRICKS_DEFAULT": json.dumps(connection),
            },
        )
    results = json.loads(result.stdout.splitlines()[-1])
    assert len(results) > 40
    assert {call: pair for call, pair in results.items() if pair[0] != pair[1]} == {}
