"""prefect-databricks works on the local workspace as on Databricks."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from airflow_jobs_provider.local.workspace import LocalWorkspace
from tests.real_clients.client import Client
from tests.real_clients.forwarding import forwarding

pytestmark = pytest.mark.real_clients


def test_flows(client_of: Callable[..., Client], workspace: LocalWorkspace, tmp_path: Path) -> None:
    """Its flows submit a run, fail with the service's text, create a job and run it."""
    client = client_of("prefect", "prefect-databricks==0.4.2")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    seen = tmp_path / "seen.json"
    # It speaks https only.
    with forwarding(workspace, tls=context) as port:
        variables = {
            "DATABRICKS_INSTANCE": f"127.0.0.1:{port}",
            "CA_FILE": str(tmp_path / "ca.pem"),
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "DO_NOT_TRACK": "1",
        }
        program = str(Path(__file__).with_name("drive_prefect.py"))
        done = replace(client, variables=variables).run("python", program, str(seen))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(seen.read_text())
    assert found["submitted"]["only"]["result"] == "hello Prefect"
    assert found["failure"].startswith("DatabricksJobInternalError: ")
    assert "fails" in found["failure"]
    assert found["listed"] is True
    assert found["ran"]["only"]["result"] == "hello a job"
