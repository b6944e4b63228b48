"""Tests of users' own DAGs, without a Databricks account.

With the extra ``[testing]`` pytest has the fixture ``databricks_workspace``: a workspace on this
machine whose runs end as the test says, and whose requests fail as the test asks for. See
docs/testing.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_jobs_provider.api.retry import no_waiting
    from airflow_jobs_provider.testing.workspace import DatabricksWorkspace, WorkspaceRun

__all__ = ["DatabricksWorkspace", "WorkspaceRun", "no_waiting"]


def __getattr__(name: str) -> Any:
    # pytest imports this package at each start, so it imports nothing before it is used.
    if name == "no_waiting":
        from airflow_jobs_provider.api.retry import no_waiting

        return no_waiting
    if name in __all__:
        from airflow_jobs_provider.testing import workspace

        return getattr(workspace, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
