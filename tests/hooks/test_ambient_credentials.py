"""Credentials of a connection never mix with those that databricks-sdk finds by itself.

The SDK takes seconds to import.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.api.auth.transport import Transport
from airflow_jobs_provider.api.errors import CredentialsError
from airflow_jobs_provider.api.proxies import Proxies
from airflow_jobs_provider.hooks.authentication import choose_credentials
from airflow_jobs_provider.hooks.connection_fields import ConnectionFields
from tests.fakes.fake_service import FakeService
from tests.fakes.identity import Identity

pytestmark = pytest.mark.slow


@pytest.fixture
def identity() -> Identity:
    """Two service principals: the connection's and the environment's."""
    one = Identity()
    one.workspace.clients |= {"own": "own-secret", "ambient": "ambient-secret"}
    return one


@pytest.fixture
def url(identity: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The URL of a workspace, in an environment full of other credentials."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in {
        "DATABRICKS_HOST": "https://other.cloud.databricks.com",
        "DATABRICKS_TOKEN": "ambient-token",
        "DATABRICKS_CLIENT_ID": "ambient",
        "DATABRICKS_CLIENT_SECRET": "ambient-secret",
        "DATABRICKS_AUTH_TYPE": "pat",
        "DATABRICKS_CONFIG_PROFILE": "other",
        "ARM_CLIENT_ID": "ambient",
        "ARM_CLIENT_SECRET": "ambient-secret",
        "ARM_TENANT_ID": "ambient-tenant",
        "GOOGLE_CREDENTIALS": "{}",
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".databrickscfg").write_text(
        "[other]\nhost = https://other.cloud.databricks.com\ntoken = profile-token\n"
    )
    with FakeService(identity=identity) as workspace:
        yield workspace.url


def log_in(url: str, login: str = "", password: str = "", **extra: Any) -> None:
    """Fetch a token for a connection."""
    transport = Transport(url, Proxies())
    choose_credentials(ConnectionFields("c", login, password, extra, transport)).headers()


def clients(identity: Identity) -> list[tuple[str, str]]:
    """Return the client ids and secrets that were sent."""
    return [request.client for request in identity.workspace.requests]


@pytest.mark.parametrize(
    "fields",
    [
        {"login": "own", "password": "own-secret", "service_principal_oauth": True},
        {"login": "own", "password": "own-secret", "auth_type": "oauth-m2m"},
        {"client_id": "own", "client_secret": "own-secret"},
    ],
)
def test_own_credentials_are_used_alone(
    fields: dict[str, Any], identity: Identity, url: str
) -> None:
    """Whatever the environment and the files of the SDK hold; the environment stays as it is."""
    before = dict(os.environ)
    log_in(url, **fields)
    assert clients(identity) == [("own", "own-secret")]
    assert dict(os.environ) == before


def test_half_of_own_credentials_gets_no_other_half(identity: Identity, url: str) -> None:
    """An own client id is not completed by the secret of the environment."""
    with pytest.raises(CredentialsError):
        log_in(url, auth_type="oauth-m2m", client_id="own")
    assert clients(identity) == []


def test_ambient_credentials_are_used_where_the_connection_asks(
    identity: Identity, url: str
) -> None:
    """By auth_type: the host is the connection's; a profile of another host does not count."""
    log_in(url, auth_type="oauth-m2m")
    assert clients(identity) == [("ambient", "ambient-secret")]


def test_a_browser_is_not_opened(
    identity: Identity, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The method of the environment may be one that needs a person."""
    monkeypatch.setenv("DATABRICKS_HOST", url)
    monkeypatch.setenv("DATABRICKS_AUTH_TYPE", "external-browser")
    monkeypatch.delenv("DATABRICKS_CONFIG_PROFILE")
    with pytest.raises(CredentialsError, match="needs a person who signs in with a browser"):
        log_in(url)
    assert clients(identity) == []


def test_a_profile_without_its_file_is_refused(url: str, tmp_path: Path) -> None:
    """The SDK would try all that it finds elsewhere, such as the login of a command."""
    (tmp_path / ".databrickscfg").unlink()
    with pytest.raises(CredentialsError, match=r"profile other is not found: .*\.databrickscfg"):
        log_in(url, profile="other")


def test_an_sdk_that_reads_the_environment_otherwise_is_refused(
    identity: Identity, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent if this package would not notice what the SDK reads."""
    from databricks.sdk.config import Config

    monkeypatch.delattr(Config, "_load_from_env")
    monkeypatch.delitem(sys.modules, "airflow_jobs_provider.api.auth.sdk.config", raising=False)
    with pytest.raises(CredentialsError, match=r"databricks-sdk \d.*_load_from_env.*constr"):
        log_in(url, "own", "own-secret", auth_type="oauth-m2m")
    assert clients(identity) == []


def test_a_profile_of_another_host_is_refused(identity: Identity, url: str) -> None:
    """Its secret goes to no host but its own."""
    with pytest.raises(CredentialsError, match=r"profile other is for https://other\.cloud"):
        log_in(url, profile="other")
    assert identity.workspace.requests == []
