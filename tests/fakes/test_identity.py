"""The identity services on loopback are such that the vendors' own clients log in with them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.fakes.fake_service import FakeService
from tests.fakes.identity import (
    DATABRICKS_SCOPE,
    TENANT,
    Certificates,
    Identity,
    IdentityServer,
    claims_of,
)

# The vendors' libraries take seconds to import.
pytestmark = pytest.mark.slow
AZURE_HOST = "adb-1.2.azuredatabricks.net"
LIST = "/api/2.0/jobs/runs/list"


@pytest.fixture
def identity() -> Identity:
    """The endpoints, with one service principal everywhere."""
    one = Identity()
    one.workspace.clients["me"] = one.entra.clients["me"] = "right"
    return one


@pytest.fixture
def workspace(identity: Identity, certificates: Certificates) -> Iterator[FakeService]:
    """A workspace over TLS that takes the tokens of these endpoints."""
    with FakeService(identity=identity, tls=certificates.context) as service:
        yield service


@pytest.fixture
def identity_server(
    identity: Identity,
    certificates: Certificates,
    workspace: FakeService,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[IdentityServer]:
    """The endpoints under their real names."""
    with IdentityServer(identity, certificates) as server:
        server.routes[AZURE_HOST] = workspace.port
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


def log_in(**fields: Any) -> Any:
    """Make the SDK's configuration."""
    core = pytest.importorskip("databricks.sdk.core")
    return core.Config(**fields)


def read(url: str, headers: dict[str, str]) -> requests.Response:
    """Read the list of runs."""
    return requests.get(url + LIST, headers=headers, timeout=10)


def test_client_credentials(
    identity: Identity, workspace: FakeService, identity_server: IdentityServer
) -> None:
    """The SDK finds the token endpoint; the workspace takes the token until it expires."""
    config = log_in(host=workspace.url, client_id="me", client_secret="right")
    headers = config.authenticate()
    assert config.auth_type == "oauth-m2m"
    assert read(workspace.url, headers).status_code == 200
    assert read(workspace.url, {}).status_code == 401
    assert read(workspace.url, {"Authorization": "Bearer x"}).status_code == 403
    identity.issuer.offset_seconds = 3601
    answer = read(workspace.url, headers)
    assert (answer.status_code, answer.json()["message"]) == (403, "JWT has expired")


@pytest.mark.parametrize(("secret", "words"), [("wrong", "failed"), ("right", "has expired")])
def test_client_credentials_are_checked(
    secret: str,
    words: str,
    identity: Identity,
    workspace: FakeService,
    identity_server: IdentityServer,
) -> None:
    """A wrong or an expired secret is refused as the real endpoint does it."""
    identity.workspace.expired.add("me")
    with pytest.raises(ValueError, match=f"invalid_client.*{words}"):
        log_in(host=workspace.url, client_id="me", client_secret=secret).authenticate()


def test_azure_service_principal(
    identity: Identity, workspace: FakeService, identity_server: IdentityServer
) -> None:
    """Under the real host names; with a resource id the workspace wants the second token."""
    identity.base_url = f"https://{AZURE_HOST}"
    config = log_in(
        host=identity.base_url,
        azure_client_id="me",
        azure_client_secret="right",
        azure_workspace_resource_id="/subscriptions/1",
    )
    headers = config.authenticate()
    assert read(identity.base_url, headers).status_code == 200
    resources = [request.form["resource"] for request in identity.entra.requests]
    assert resources == [DATABRICKS_SCOPE, "https://management.core.windows.net/"]
    headers["X-Databricks-Azure-SP-Management-Token"] = "x"
    assert read(identity.base_url, headers).status_code == 403
    assert {"login.microsoftonline.com", AZURE_HOST} == set(identity_server.connected)


def test_azure_libraries(
    identity: Identity, identity_server: IdentityServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """azure-identity gets a token of version 2 for a secret, and one of a managed identity."""
    azure = pytest.importorskip("azure.identity")
    scope = f"{DATABRICKS_SCOPE}/.default"
    token = azure.ClientSecretCredential(TENANT, "me", "right").get_token(scope).token
    assert claims_of(token)["aud"] == DATABRICKS_SCOPE
    with pytest.raises(Exception, match="AADSTS7000215"):
        azure.ClientSecretCredential(TENANT, "me", "wrong").get_token(scope)
    identity.instance.identities = ["identity-1"]
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", identity_server.url)
    token = azure.ManagedIdentityCredential().get_token(scope).token
    assert claims_of(token)["sub"] == "identity-1"
    with pytest.raises(Exception, match="Identity not found"):
        azure.ManagedIdentityCredential(client_id="other").get_token(scope)


def test_a_kubernetes_token_is_exchanged(
    identity: Identity,
    workspace: FakeService,
    identity_server: IdentityServer,
    tmp_path: Path,
) -> None:
    """A token that the cluster issues for the right audience becomes one of the workspace."""
    identity.kubernetes.service_account_tokens["pod"] = "airflow:default"
    identity.workspace.policies["kubernetes"] = "databricks"
    url = "https://kubernetes.default.svc/api/v1/namespaces/airflow/serviceaccounts/default/token"

    def ask(audience: str, token: str = "pod", seconds: int = 600) -> requests.Response:
        spec = {"audiences": [audience], "expirationSeconds": seconds}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        headers = {"Authorization": f"Bearer {token}"}
        return requests.post(url, json=body, headers=headers, timeout=10)

    assert ask("databricks", token="other").status_code == 401
    assert ask("databricks", seconds=60).status_code == 422
    file = tmp_path / "token"
    file.write_text(ask("databricks").json()["status"]["token"])
    fields = {"auth_type": "file-oidc", "oidc_token_filepath": str(file)}
    headers = log_in(host=workspace.url, client_id="me", **fields).authenticate()
    assert read(workspace.url, headers).status_code == 200
    file.write_text(ask("elsewhere").json()["status"]["token"])
    with pytest.raises(ValueError, match="No federation policy"):
        log_in(host=workspace.url, client_id="me", **fields).authenticate()


def test_an_aws_token(identity: Identity, identity_server: IdentityServer) -> None:
    """boto3 gets a token of the caller's role."""
    boto3 = pytest.importorskip("boto3")
    client = boto3.client(
        "sts",
        region_name="eu-west-1",
        aws_access_key_id="AKIA",
        aws_secret_access_key="secret",
        endpoint_url=identity_server.tls_url,
    )
    answer = client.get_web_identity_token(
        Audience=["databricks"], SigningAlgorithm="RS256", DurationSeconds=300
    )
    claims = claims_of(answer["WebIdentityToken"])
    assert (claims["sub"], claims["aud"]) == (identity.sts.role, "databricks")


def test_a_google_service_account(
    identity: Identity, workspace: FakeService, identity_server: IdentityServer
) -> None:
    """The SDK signs an assertion with the account's key; another key is refused."""
    pytest.importorskip("google.oauth2.service_account")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    keys = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]
    right, wrong = (
        one.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        for one in keys
    )
    email = "me@project.iam.gserviceaccount.com"
    identity.google.accounts[email] = right
    private = keys[0].private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    account = {
        "type": "service_account",
        "client_email": email,
        "private_key": private.decode(),
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    config = log_in(host=workspace.url, google_credentials=json.dumps(account))
    assert read(workspace.url, config.authenticate()).status_code == 200
    assert "oauth2.googleapis.com" in identity_server.connected
    identity.google.accounts[email] = wrong
    with pytest.raises(Exception, match="invalid_grant"):
        config.authenticate()


def test_a_token_of_a_ci_job(
    identity: Identity,
    workspace: FakeService,
    identity_server: IdentityServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """GitHub Actions: the SDK asks the runner for a token, and exchanges it."""
    identity.workspace.policies["ci"] = "my-audience"
    url = f"{identity_server.tls_url}/github/idtoken?version=1"
    monkeypatch.setitem(os.environ, "ACTIONS_ID_TOKEN_REQUEST_URL", url)
    monkeypatch.setitem(os.environ, "ACTIONS_ID_TOKEN_REQUEST_TOKEN", identity.ci.request_token)
    config = log_in(
        host=workspace.url, client_id="me", auth_type="github-oidc", token_audience="my-audience"
    )
    assert read(workspace.url, config.authenticate()).status_code == 200
