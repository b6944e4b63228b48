from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import airflow
import pytest

from airflow_jobs_provider.local.workspace import LocalWorkspace
from scripts.airflow_env import ROOT, airflow_environment, connection_to
from tests.end_to_end.dag_run import RunDag
from tests.helpers.snippets import PROGRAM, SNIPPETS, Snippet

pytestmark = pytest.mark.skipif(
    airflow.__version__ < "3", reason="the documents import from airflow.sdk"
)


def text_of(document: str) -> str:
    """Return a document's text."""
    return (ROOT / document).read_text(encoding="utf-8")


def code_blocks(document: str) -> list[str]:
    """Return the Python code that a document shows."""
    return re.findall(r"^```python\n(.*?)^```", text_of(document), re.MULTILINE | re.DOTALL)


def test_the_readme_has_a_dag_that_is_parsed() -> None:
    """The DAG of the README is code that Airflow takes, with the task that it shows."""
    (code,) = code_blocks("README.md")
    assert len([line for line in code.splitlines() if line]) <= 11
    shown: dict[str, object] = {}
    exec(code, shown)
    assert type(shown["etl"]).__name__ == "DatabricksSubmitRunOperator"


def test_the_quickstart_works_as_it_stands(tmp_path: Path, run_dag: RunDag) -> None:
    """Notebook and DAG of the tutorial, put where it says, give what it says."""
    notebook, dag = code_blocks("docs/quickstart.md")
    shared = tmp_path / "my_notebooks" / "Shared"
    shared.mkdir(parents=True)
    (shared / "hello.py").write_text(notebook)
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "hello.py").write_text(dag)
    with LocalWorkspace(tmp_path / "my_notebooks") as workspace:
        ran = run_dag(dags / "hello.py", connection=connection_to(workspace))
        # The step "Let it fail".
        (failure,) = re.findall(r"^    (raise .*)$", text_of("docs/quickstart.md"), re.MULTILINE)
        lines = notebook.splitlines()
        (shared / "hello.py").write_text("\n".join([*lines[:-1], failure]))
        failed = run_dag(dags / "hello.py", connection=connection_to(workspace))
    assert ran.state == "success", ran.log
    assert ran.tasks["hello"]["xcoms"]["return_value"] == "Hello, Airflow"
    assert "\nHello, Airflow\n" in ran.log_of("show")
    assert failed.state == "failed"
    assert "ValueError: no greeting today" in failed.log_of("hello")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalWorkspace]:
    """A workspace for the programs that the documents show."""
    with LocalWorkspace(tmp_path_factory.mktemp("root"), dry_run=True) as running:
        yield running


@pytest.mark.parametrize(
    "snippet",
    [snippet for snippet in SNIPPETS if snippet.how == PROGRAM],
    ids=lambda snippet: snippet.place,
)
def test_a_program_runs_as_it_stands(
    snippet: Snippet, workspace: LocalWorkspace, migrated_home: Path, tmp_path: Path
) -> None:
    """In a folder of its own, with the connection that it names."""
    (tmp_path / "my_workspace").mkdir()
    program = tmp_path / "program.py"
    program.write_text(snippet.code)
    env = airflow_environment(migrated_home, tmp_path, connection=connection_to(workspace))
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    if "test_connection" in snippet.code:
        assert "(True, " in done.stdout
