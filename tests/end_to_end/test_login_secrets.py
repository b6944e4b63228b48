"""No secret of an authentication method is in what Airflow writes, its masking turned off."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.dag_run import UNMASKED, DagRun, RunDag
from tests.fakes.fake_service import Plan
from tests.fakes.identity import Certificates
from tests.helpers.login_methods import METHODS
from tests.helpers.login_world import served_world

# The vendors' libraries take seconds to import.
pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
REFUSED = "secret-that-is-refused-8642"
# One for each library that fetches tokens, and each kind of secret. All methods are searched for in
# tests/hooks/test_login_secrets.py, within one process.
NAMES = (
    "service_principal_oauth",
    "azure_service_principal_resource_id",
    "managed_identity_resource_id",
    "default_azure_credential",
    "federated_k8s",
    "federated_aws",
    "github-oidc",
    "profile",
)
WITH_PASSWORD = "service_principal_oauth"


@dataclass(frozen=True)
class Outcome:
    """A DAG run, and what it must not show."""

    dag_run: DagRun
    secrets: set[str]


@pytest.fixture(scope="module")
def outcome(
    run_dag: RunDag, tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Outcome:
    """The methods, run once at level DEBUG."""
    for module in ("databricks.sdk", "azure.identity", "boto3"):
        pytest.importorskip(module)
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        served_world(
            tmp_path_factory.mktemp("world"), certificates, monkeypatch, Plan(looks=2)
        ) as world,
    ):
        connections: dict[str, Any] = {}
        methods = [method for method in METHODS if method.name in NAMES]
        for method in methods:
            connections[method.name.replace("-", "_")] = method.connection(world)
        refused = {**connections[WITH_PASSWORD], "password": REFUSED}
        connections |= {"refused": refused, "blocking_refused": refused}
        dag_run = run_dag(
            HERE / "secret_dags" / "keeping_tokens.py",
            connection="{}",
            env={
                **UNMASKED,
                "CONNECTIONS_OF_THE_TEST": " ".join(connections),
                **{
                    f"AIRFLOW_CONN_{name.upper()}": json.dumps(one)
                    for name, one in connections.items()
                },
            },
        )
    # Of a token, its signed part: that is what a client could use.
    tokens = {token.rpartition(".")[0] for token in world.identity.issuer.issued}
    assert len(tokens) >= len(methods)
    kept = {secret for method in methods for secret in method.keeps_secret}
    return Outcome(dag_run, {REFUSED, *kept, *tokens})


def test_each_method_was_in_use(outcome: Outcome) -> None:
    """What should go well went well, and what should be refused was refused."""
    dag_run = outcome.dag_run
    states = {name: task["state"] for name, task in dag_run.tasks.items()}
    wanted = {name: "failed" if "refused" in name else "success" for name in states}
    assert states == wanted, dag_run.log[-5000:]
    assert len(states) == len(NAMES) + 2
    assert "DEBUG" in dag_run.log.upper()


def test_no_secret_anywhere(outcome: Outcome) -> None:
    """Not in the log, exceptions included, nor in any file: database, XComs, rendered templates."""
    # At DEBUG, and only there, Airflow 3 quotes what it tells itself to mask.
    log = [line for line in outcome.dag_run.log.splitlines() if "MaskSecret(" not in line]
    home = outcome.dag_run.home
    files = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    for secret in outcome.secrets:
        assert [line[:300] for line in log if secret in line] == []
        holders = [str(path) for path, data in files.items() if secret.encode() in data]
        assert holders == []
