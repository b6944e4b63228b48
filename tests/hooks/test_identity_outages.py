"""Identity services that fail in any way are waited for, with every authentication method."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.api.auth import shared
from airflow_jobs_provider.api.errors import CredentialsError, TokenRefusedError
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from tests.fakes.fake_service import FakeService
from tests.fakes.identity import FAULTS, Certificates, Identity, IdentityServer
from tests.helpers.login_methods import AZURE_HOST, METHODS, LoginMethod, World

# The vendors' libraries take seconds to import.
pytestmark = pytest.mark.slow
RUN = {"existing_cluster_id": "c", "notebook_task": {"notebook_path": "/n"}}
GOOGLE_ACCOUNT = "me@project.iam.gserviceaccount.com"


@cache
def google_keys() -> tuple[str, bytes, bytes]:
    """Return a private key, its public key, and another public key."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    keys = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]
    private = keys[0].private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public, other = (
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        for key in keys
    )
    return private.decode(), public, other


def google(world: World) -> dict[str, Any]:
    """Return a connection of a service account of Google."""
    private, public, _ = google_keys()
    world.identity.google.accounts[GOOGLE_ACCOUNT] = public
    world.environment(HTTPS_PROXY=world.server.url, NO_PROXY="127.0.0.1")
    world.environment(REQUESTS_CA_BUNDLE=str(world.server.certificates.ca_file))
    account = {
        "type": "service_account",
        "client_email": GOOGLE_ACCOUNT,
        "private_key": private,
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    return world.connection(auth_type="google-credentials", google_credentials=json.dumps(account))


def other_key(world: World) -> None:
    """Let Google know another key of the account."""
    world.identity.google.accounts[GOOGLE_ACCOUNT] = google_keys()[2]


def google_with_other_key(world: World) -> dict[str, Any]:
    """Return a connection whose key Google does not know."""
    connection = google(world)
    other_key(world)
    return connection


GOOGLE = LoginMethod(
    "google-credentials", google, lambda identity: identity.google, other_key, "invalid_grant"
)


@pytest.fixture
def world(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """A workspace over TLS, and all identity services."""
    monkeypatch.setattr(shared, "_shared", type(shared._shared)())
    monkeypatch.setenv("HOME", str(tmp_path))
    identity = Identity()
    identity.workspace.clients["client-1"] = "secret-of-client-1"
    identity.entra.clients["client-1"] = "secret-of-client-1"
    service = FakeService(identity=identity, tls=certificates.context)
    with service as workspace, IdentityServer(identity, certificates) as server:
        server.routes[AZURE_HOST] = workspace.port
        yield World(identity, workspace, server, tmp_path, monkeypatch)


def launch(method: LoginMethod, world: World, prefix: str = "") -> int:
    """Launch a run with a connection of a method."""
    world.monkeypatch.setenv("AIRFLOW_CONN_C", json.dumps(method.connection(world)))
    result = getattr(DatabricksJobsHook("c"), f"{prefix}submit_run")(RUN)
    return int(asyncio.run(result) if prefix else result)


@pytest.mark.parametrize("fault", ["502 HTML", "200 HTML", "no response"])
@pytest.mark.parametrize("method", [*METHODS, GOOGLE], ids=lambda method: str(method.name))
def test_any_outage_of_an_identity_service_is_waited_for(
    method: LoginMethod, fault: str, world: World
) -> None:
    """A gateway's page, a sign-in page, a lost connection: no refusal. The run is launched once."""
    identity = world.identity
    endpoints = {method.endpoint(identity), identity.kubernetes, identity.sts}
    for endpoint in endpoints:
        # The vendors' libraries repeat a request up to four times by themselves.
        endpoint.faults.extend([FAULTS[fault]] * 6)
    with no_waiting() as waits:
        launch(method, world)
    assert waits
    assert [one.endpoint for one in world.workspace.seen] == ["runs/submit"]


@pytest.mark.parametrize("prefix", ["", "a_"], ids=["blocking", "asyncio"])
def test_a_google_service_account(prefix: str, world: World) -> None:
    """Logs in; another key is refused in Google's words, and the own one is not shown."""
    assert launch(GOOGLE, world, prefix) > 0
    shared._shared.clear()
    refused = replace(GOOGLE, connection=google_with_other_key)
    with pytest.raises(TokenRefusedError, match="invalid_grant") as caught:
        launch(refused, world, prefix)
    assert "PRIVATE KEY" not in str(caught.value)


@pytest.mark.parametrize("issuer", ["kubernetes", "sts"])
def test_a_token_that_is_not_valid_yet_is_refused(issuer: str, world: World) -> None:
    """The clock of the cluster, or of AWS, is 5 minutes ahead of that of the workspace."""
    getattr(world.identity, issuer).ahead_seconds = 300
    name = {"kubernetes": "federated_k8s", "sts": "federated_aws"}[issuer]
    (method,) = [one for one in METHODS if one.name == name]
    with pytest.raises(CredentialsError, match=r"invalid_grant.*not valid yet"):
        launch(method, world)


def test_the_message_of_a_refusal_tells_that_the_clocks_differ(world: World) -> None:
    """What else could explain a refused secret that is right."""
    world.identity.issuer.offset_seconds = 300
    method = METHODS[0]
    world.identity.workspace.expired.add("client-1")
    with pytest.raises(CredentialsError, match=r"clock is (299|300|301) s behind that of"):
        launch(method, world)
