"""The workspace stays small: it may be one of many processes on a laptop, or on a CI machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.local.program import REPOSITORY

MOST_MEGABYTES = 60
# What the processes of notebooks and of their pages import.
JUPYTER = {"IPython", "ipykernel", "jupyter_client", "jsonschema", "nbclient", "nbconvert", "zmq"}
SERVER = """
import sys, tempfile
from pathlib import Path
from airflow_jobs_provider.local.workspace import LocalWorkspace
from tests.local.api import Api

with tempfile.TemporaryDirectory() as root, LocalWorkspace(root) as workspace:
    api = Api(workspace)
    run, output = api.run_notebook("print(1)", "dbutils.notebook.exit('done')")
    assert output["notebook_output"]["result"] == "done"
    for page in ("", f"runs/{run['run_id']}", f"runs/{run['run_id']}/notebook"):
        api.session.get(f"{workspace.url}/{page}").raise_for_status()
print(*{name.partition(".")[0] for name in sys.modules})
"""


def output_of(*arguments: str) -> str:
    """Return what a Python process prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_server_imports_nothing_of_jupyter() -> None:
    """Not even when it has executed a notebook and shown its page."""
    imported = {*output_of("-c", SERVER).split()}
    assert {"aiohttp", "jinja2"} < imported
    assert not imported & JUPYTER


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measured on Linux")
def test_memory_of_the_server() -> None:
    """With a thousand runs kept, a notebook executed and pages opened; the benchmark has 10,000."""
    output = output_of("-m", "benchmarks.workspace_memory", "1000")
    rows = [line.split("|") for line in output.splitlines() if line.startswith("|")][2:]
    assert len(rows) == 6
    resident = {row[1].strip(): float(row[3]) for row in rows}
    assert max(resident.values()) < MOST_MEGABYTES, output
