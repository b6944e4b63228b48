"""The pytest plugin of the extra ``[testing]``.

pytest loads it by its entry point at every start, so it imports nothing but pytest until a fixture
is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow_jobs_provider.testing.workspace import DatabricksWorkspace

__all__ = ["databricks_workspace", "pytest_configure"]

_MARKER = (
    "databricks_workspace(root=None, dry_run=False, wait=False, conn_id='databricks_default', "
    "**options): how the fixture databricks_workspace starts its workspace"
)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def databricks_workspace(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DatabricksWorkspace]:
    """A workspace on this machine for one test, and an Airflow connection that leads to it.

    Without the marker ``databricks_workspace`` it has an empty root, the connection is
    ``databricks_default``, and this package's own waits end at once. Arguments of the marker:

    * root: the folder that is the workspace's ``/``: a path, or one relative to pytest's root
      folder; default an empty folder.
    * dry_run: whether runs that no result was decided for succeed without running anything; default
      False: they really run.
    * wait: whether the waits between polls and attempts take their time; default False.
    * conn_id: the Airflow connection that leads to the workspace; default ``databricks_default``.
    * other arguments: those of :class:`~airflow_jobs_provider.local.workspace.LocalWorkspace`.
    """
    from airflow_jobs_provider.testing import DatabricksWorkspace, no_waiting

    marker = request.node.get_closest_marker("databricks_workspace")
    options: dict[str, Any] = dict(marker.kwargs) if marker is not None else {}
    wait = options.pop("wait", False)
    conn_id = options.pop("conn_id", "databricks_default")
    root = options.pop("root", None)
    if root is None:
        folder = tmp_path / "workspace"
        folder.mkdir()
    else:
        folder = request.config.rootpath / root
        options.setdefault("state_dir", tmp_path / "workspace_state")
    with ExitStack() as stack:
        workspace = stack.enter_context(DatabricksWorkspace(folder, **options))
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", workspace.connection)
        # A proxy does not lead to this machine.
        for variable in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(variable, "127.0.0.1,localhost", prepend=",")
        if not wait:
            stack.enter_context(no_waiting())
        yield workspace
