"""The tests beside the example DAGs, which teams copy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.airflow_env import ROOT, airflow_environment
from tests.end_to_end.airflow_versions import AIRFLOW_3_0


@pytest.mark.skipif(AIRFLOW_3_0, reason="tried with the first and the last line")
def test_the_tests_of_the_example_dags_pass(tmp_path: Path) -> None:
    """Green, red, retried, through an outage, with the real notebook; and the tests of the page."""
    shutil.copytree(ROOT / "example_dags", tmp_path / "example_dags")
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    snippet = page.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "example_dags" / "tests" / "test_page.py").write_text(snippet)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    environment = airflow_environment(tmp_path, tmp_path / "example_dags", connection=None)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "airflow_jobs_provider.testing.plugin"],
        cwd=tmp_path,
        env={
            **environment,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout
