"""Local workspaces for the tests in this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_jobs_provider.local.workspace import LocalWorkspace
from tests.local.api import Api
from tests.local.program import Program


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Return a workspace for all tests of the session."""
    root = tmp_path_factory.mktemp("workspace")
    with LocalWorkspace(root, max_concurrent_runs=4) as workspace:
        yield Api(workspace)


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Api]:
    """Return a workspace that does one run at a time."""
    with LocalWorkspace(tmp_path, max_concurrent_runs=1) as workspace:
        yield Api(workspace)


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    """Return where to keep the programs that are to be ended."""
    started: list[Program] = []
    yield started
    for program in started:
        program.process.kill()
        program.process.communicate()


@pytest.fixture(scope="module")
def dry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Return a workspace whose runs end at once, without doing anything."""
    with LocalWorkspace(tmp_path_factory.mktemp("dry"), dry_run=True) as workspace:
        yield Api(workspace)
