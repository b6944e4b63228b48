"""Other people's clients, each in an environment of its own, and a workspace for them."""

from __future__ import annotations

import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_jobs_provider.local.workspace import LocalWorkspace
from scripts.install import install
from tests.local.api import Api
from tests.local.program import Program
from tests.real_clients.client import Client
from tests.real_clients.forwarding import forwarding

_CACHE = Path(__file__).parents[2] / ".venvs"
_NOTEBOOKS = {
    "greet": "dbutils.notebook.exit('hello ' + dbutils.widgets.get('name'))",
    "fail": "raise ValueError('the text')",
    "sleep": "import time; time.sleep(600)",
}


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalWorkspace]:
    """Return a workspace with a few notebooks."""
    root = tmp_path_factory.mktemp("workspace")
    for name, source in _NOTEBOOKS.items():
        (root / f"{name}.py").write_text(f"# Databricks notebook source\n{source}\n")
    (root / "job.py").write_text("import sys; print(sys.argv[1:])")
    with LocalWorkspace(root) as workspace:
        yield workspace


@pytest.fixture(scope="session")
def port_finder(workspace: LocalWorkspace) -> Iterator[str]:
    """Return the URL of a proxy for clients that know a host's name, but no port of it."""
    with forwarding(workspace) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def client_of(workspace: LocalWorkspace, tmp_path: Path) -> Callable[..., Client]:
    """Return what installs requirements in an environment of that name, once and for all."""

    def make(name: str, *requirements: str) -> Client:
        folder = _CACHE / f"{name}-{sys.version_info[0]}.{sys.version_info[1]}"
        done = folder / "installed"
        wanted = "\n".join(requirements)
        if not done.exists() or done.read_text() != wanted:
            venv.create(folder, clear=True, symlinks=True)
            install(folder / "bin" / "python", *requirements)
            done.write_text(wanted)
        return Client(folder, workspace, tmp_path)

    return make


@pytest.fixture
def workspace_of(tmp_path: Path) -> Iterator[Callable[[Client], Api]]:
    """Return what starts a workspace in a client's environment: its notebooks have the client."""
    programs: list[Program] = []

    def start(client: Client) -> Api:
        root = tmp_path / f"root{len(programs)}"
        root.mkdir()
        programs.append(Program(root, "--port", "0", environment=client.folder))
        return programs[-1].api()

    yield start
    for program in programs:
        program.process.terminate()
        program.end()
