"""The tests beside the example DAGs, which teams copy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.airflow_env import ROOT, airflow_environment
from tests.end_to_end.airflow_versions import AIRFLOW_3_0, RENDERS_IN_TRIGGERER


@pytest.mark.skipif(AIRFLOW_3_0, reason="tried with the first and the last line")
def test_the_tests_of_the_example_dags_pass(tmp_path: Path) -> None:
    """Green, red, retried, through an outage, with the real notebook; and the tests of the page.

    The folder may have any name.
    """
    dags = tmp_path / "dags"
    shutil.copytree(ROOT / "example_dags", dags)
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    snippet = page.partition("```python\n")[2].partition("```")[0]
    (dags / "tests" / "test_page.py").write_text(snippet)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    plugin = ("-p", "airflow_jobs_provider.testing.plugin")
    only = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    output = output_of_pytest(*plugin, home=tmp_path, root=tmp_path, dags=dags, **only)
    assert "7 passed" in output


@pytest.mark.skipif(not RENDERS_IN_TRIGGERER, reason="the warnings of the development environment")
def test_they_pass_with_the_settings_of_this_repository(tmp_path: Path) -> None:
    """Those make errors of warnings, also of Airflow's own but the ones that they list."""
    dags = ROOT / "example_dags"
    chosen = ("-p", "no:cacheprovider", str(dags / "tests"), "-k", "green or real")
    output = output_of_pytest(*chosen, home=tmp_path, root=ROOT, dags=dags)
    assert "2 passed" in output


def output_of_pytest(
    *arguments: str, home: Path, root: Path, dags: Path, **environment: str
) -> str:
    """Run pytest in a process of its own, which has to pass."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *arguments],
        cwd=root,
        env={
            **airflow_environment(home, dags, connection=None),
            "PYTHONPATH": str(ROOT),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
