"""An AWS connection of the Amazon provider, for the tokens that ``federated_aws`` exchanges."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.identity import Certificates
from tests.helpers.login_world import CLIENT, served_world

pytestmark = pytest.mark.real_clients
ROOT = Path(__file__).parents[2]
REQUIREMENT = "apache-airflow-providers-amazon==9.39.0"
LAUNCH = """
import asyncio, sys
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook

run = {"notebook_task": {"notebook_path": "/n"}, "existing_cluster_id": "c"}
hook = DatabricksJobsHook("c")
print(asyncio.run(hook.a_submit_run(run)) if sys.argv[1] == "asyncio" else hook.submit_run(run))
"""


@pytest.fixture(scope="module")
def amazon_provider() -> Path:
    """Return a folder with the provider alone; boto3 is here already."""
    folder = ROOT / ".venvs" / REQUIREMENT
    if not (folder / "airflow").exists():
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(folder),
        ]
        subprocess.run([*pip, REQUIREMENT], check=True, timeout=300)
    return folder


@pytest.mark.parametrize("face", ["blocking", "asyncio"])
@pytest.mark.parametrize("is_allowed", [True, False])
def test_its_hook_asks_for_the_token(
    face: str,
    is_allowed: bool,
    amazon_provider: Path,
    tmp_path: Path,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the keys, region, endpoint and certificates of the AWS connection."""
    with served_world(tmp_path, certificates, monkeypatch) as world:
        identity = world.identity
        identity.workspace.policies["sts"] = "databricks"
        identity.sts.role = identity.sts.role if is_allowed else None
        aws = {
            "conn_type": "aws",
            "login": "AKIA-OF-THE-CONNECTION",
            "password": "secret-of-aws",
            "extra": {
                "region_name": "eu-west-1",
                "endpoint_url": world.server.tls_url,
                "verify": str(certificates.ca_file),
            },
        }
        connection = world.connection(federated_aws=True, client_id=CLIENT, aws_conn_id="my_aws")
        result = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", LAUNCH, face],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(amazon_provider), str(ROOT)]),
                "AIRFLOW_CONN_MY_AWS": json.dumps(aws),
                "AIRFLOW_CONN_C": json.dumps(connection),
                "AWS_EC2_METADATA_DISABLED": "true",
            },
        )
        assert len(identity.sts.requests) == 1, result.stderr
        assert "AKIA-OF-THE-CONNECTION/" in identity.sts.requests[0].headers["authorization"]
        assert "secret-of-aws" not in result.stdout + result.stderr
        launched = [one.endpoint for one in world.workspace.seen]
        assert launched == (["runs/submit"] if is_allowed else []), result.stderr
        if not is_allowed:
            assert "AWS STS refuses a token: AccessDenied" in result.stderr
