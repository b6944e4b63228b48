"""The hook logs in to the local workspace with OAuth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_jobs_provider.api.errors import CredentialsError
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.local.__main__ import _connection
from airflow_jobs_provider.local.workspace import LocalWorkspace

RUN = {"existing_cluster_id": "c", "notebook_task": {"notebook_path": "/n"}}


@pytest.mark.slow  # databricks-sdk takes seconds to import
def test_oauth_with_the_local_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The printed connection works; a wrong secret is refused with its reason."""
    pytest.importorskip("databricks.sdk")
    with LocalWorkspace(tmp_path, dry_run=True, oauth=True) as workspace:
        connection = _connection(workspace.url, workspace.token, oauth=True)
        monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))
        works, message = DatabricksJobsHook().test_connection()
        assert works, message
        assert message == (
            f"Connected to {workspace.url} as {workspace.client_id}: the Jobs API answers "
            f"(authentication: OAuth service principal {workspace.client_id})."
        )
        assert DatabricksJobsHook().submit_run(RUN) > 0
        wrong = json.dumps({**connection, "password": "wrong-secret"})
        monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", wrong)
        with pytest.raises(CredentialsError, match="invalid_client: Client authentication failed"):
            DatabricksJobsHook().submit_run(RUN)
        works, message = DatabricksJobsHook().test_connection()
        assert not works
        assert "invalid_client" in message
        assert "wrong-secret" not in message
