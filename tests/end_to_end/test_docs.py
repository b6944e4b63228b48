from __future__ import annotations

import re
from pathlib import Path

import airflow
import pytest

from airflow_jobs_provider.local.workspace import LocalWorkspace
from scripts.airflow_env import ROOT, connection_to
from tests.end_to_end.conftest import RunDag

pytestmark = pytest.mark.skipif(
    airflow.__version__ < "3", reason="the documents import from airflow.sdk"
)


def code_blocks(document: str) -> list[str]:
    """Return the Python code that a document shows."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_readme_has_a_dag_that_is_parsed() -> None:
    """The DAG of the README is code that Airflow takes, with the task that it shows."""
    (code,) = code_blocks("README.md")
    assert len([line for line in code.splitlines() if line]) <= 11
    shown: dict[str, object] = {}
    exec(code, shown)
    assert type(shown["etl"]).__name__ == "DatabricksSubmitRunOperator"


def test_the_quickstart_works_as_it_stands(tmp_path: Path, run_dag: RunDag) -> None:
    """Notebook and DAG of the quickstart, put where it says, give what it says."""
    notebook, dag = code_blocks("docs/quickstart.md")
    shared = tmp_path / "my_notebooks" / "Shared"
    shared.mkdir(parents=True)
    (shared / "hello.py").write_text(notebook)
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "hello.py").write_text(dag)
    with LocalWorkspace(tmp_path / "my_notebooks") as workspace:
        ran = run_dag(dags / "hello.py", connection=connection_to(workspace))
    assert ran.state == "success", ran.log
    assert ran.tasks["hello"]["xcoms"]["return_value"] == "Hello, Airflow"
    assert "\nHello, Airflow\n" in ran.log_of("show")
