"""Which authentication method a connection gets, and what it needs; no token is fetched here."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Connection

from airflow_jobs_provider.api.auth import Basic, CachedCredentials, Credentials, Token
from airflow_jobs_provider.api.errors import CredentialsError
from airflow_jobs_provider.hooks.connection import WorkspaceAccess
from tests.fakes.fake_service import FakeService

HOST = "w.net"


def credentials(**fields: Any) -> Credentials:
    """Read a connection with these fields; further names are fields of the extra."""
    standard = {name: fields.pop(name) for name in ("login", "password") if name in fields}
    connection = Connection(
        conn_id="c", conn_type="databricks", host=HOST, extra=json.dumps(fields), **standard
    )
    return WorkspaceAccess.from_connection(connection).credentials


USER = {"login": "id", "password": "secret-of-id"}
METHODS: list[tuple[dict[str, Any], str]] = [
    ({"token": "t", **USER, "azure_tenant_id": "x"}, "access token of the connection"),
    ({"password": "t"}, "access token of the connection"),
    # What is left over of another method does not count.
    ({"password": "t", "azure_tenant_id": "x"}, "access token of the connection"),
    ({"password": "t", "service_principal_oauth": True}, "access token of the connection"),
    ({**USER, "use_azure_managed_identity": "false"}, "user and password of id"),
    ({**USER, "service_principal_oauth": "False", "federated_k8s": "0"}, "user and password of id"),
    ({"password": "t", "token": None}, "access token of the connection"),
    ({**USER, "service_principal_oauth": True}, "OAuth service principal id"),
    ({**USER, "service_principal_oauth": "true"}, "OAuth service principal id"),
    ({**USER, "azure_tenant_id": "x"}, "Azure service principal id"),
    ({**USER, "azure_tenant_id": "x", "service_principal_oauth": True}, "Azure service principal"),
    ({"use_azure_managed_identity": True}, "Azure managed identity"),
    ({"azure_tenant_id": "x", "use_azure_managed_identity": True}, "Azure managed identity"),
    (
        {"use_azure_managed_identity": "true", "azure_managed_identity_client_id": "mi"},
        "Azure managed identity mi",
    ),
    ({"use_default_azure_credential": True}, "default Azure credential"),
    ({"federated_k8s": True, "client_id": "sp"}, "federation with Kubernetes as sp"),
    ({"login": "federated_k8s", "client_id": "sp"}, "federation with Kubernetes as sp"),
    ({"federated_k8s": "y", "client_id": "sp"}, "federation with Kubernetes as sp"),
    (
        {"login": "federated_k8s", "client_id": "sp", "k8s_projected_volume_token_path": "/t"},
        "federation with Kubernetes as sp",
    ),
    ({"federated_aws": True}, "federation with AWS as the subject of the token"),
    ({"login": "federated_aws", "client_id": "sp"}, "federation with AWS as sp"),
    ({"federated_aws": True, "federated_k8s": True, "client_id": "sp"}, "federation with AWS"),
    (
        {"federated_token_provider": "my.tokens.fetch", "federated_aws": True},
        "federation with my.tokens.fetch as the subject of the token",
    ),
    ({"auth_type": "oauth-m2m", **USER}, "oauth-m2m of databricks-sdk id"),
    ({"auth_type": "pat", "password": "t"}, "access token of the connection"),
    ({"auth_type": "basic", **USER}, "user and password of id"),
    ({"auth_type": "azure-cli"}, "azure-cli of databricks-sdk"),
    ({"client_id": "sp", "client_secret": "s"}, "oauth-m2m of databricks-sdk sp"),
    ({"client_id": "sp", "oidc_token_filepath": "/t"}, "file-oidc of databricks-sdk sp"),
    ({"client_id": "sp", "oidc_token_env": "T"}, "env-oidc of databricks-sdk sp"),
    ({"google_service_account": "me@g"}, "google-id of databricks-sdk"),
    ({"profile": "prod"}, "profile prod of databricks-sdk"),
]


@pytest.mark.parametrize(("fields", "description"), METHODS)
def test_the_method(fields: dict[str, Any], description: str) -> None:
    """The official provider's precedence; a field that is false as text is not set."""
    chosen = credentials(**fields)
    assert chosen.description.startswith(description)
    for secret in ("secret-of-id", "'t'", "'s'"):
        assert secret not in repr(chosen)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"azure_tenant_id": "x", "login": "id"}, "azure_tenant_id.*no password"),
        ({"service_principal_oauth": True}, "service_principal_oauth.*no login and no password"),
        ({"federated_k8s": True}, "federated_k8s.*client_id"),
        ({"login": "federated_k8s"}, "federated_k8s.*client_id"),
        ({"k8s_projected_volume_token_path": "/t"}, '"federated_k8s": true'),
        ({"client_id": "sp"}, "client_id.*federated_aws"),
        (
            {"federated_k8s": True, "client_id": "sp", "expiration_seconds": "soon"},
            "expiration_seconds.* no number",
        ),
        ({"login": "me"}, "login but no password"),
        ({"auth_type": "external-browser"}, "a person.*service_principal_oauth.*databricks-cli"),
    ],
)
def test_a_method_that_lacks_a_field(fields: dict[str, Any], words: str) -> None:
    """One message that names the connection and the field, and sends nobody to another method."""
    with pytest.raises(CredentialsError, match=words) as caught:
        credentials(**fields)
    assert "'c'" in str(caught.value)
    if "login" not in words:
        assert "token into" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "aws_conn_id"),
    [({}, "aws_default"), ({"aws_conn_id": "a"}, "a"), ({"aws_conn_id": None}, None)],
)
def test_the_aws_connection(
    fields: dict[str, Any], aws_conn_id: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default one, or another; null stands for boto3's own settings, as in Airflow."""
    named: list[str | None] = []

    class StsHook:
        def __init__(self, aws_conn_id: str | None) -> None:
            named.append(aws_conn_id)

        def get_conn(self) -> None:
            pass

    for name in ("amazon", "amazon.aws", "amazon.aws.hooks", "amazon.aws.hooks.sts"):
        module: Any = ModuleType(f"airflow.providers.{name}")
        module.__spec__ = ModuleSpec(module.__name__, None)
        module.StsHook = StsHook
        monkeypatch.setitem(sys.modules, module.__name__, module)
    credentials(federated_aws=True, verify=f"/{aws_conn_id}.pem", **fields)
    assert named == [aws_conn_id]


def test_two_methods_are_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the fields of both clouds stand, the log says once which were taken."""
    monkeypatch.setattr("airflow_jobs_provider.hooks.authentication._logged", set())
    for _ in range(2):
        credentials(**USER, azure_tenant_id="y", service_principal_oauth=True)
    (record,) = caplog.records
    assert (
        "'c' authenticates by azure_tenant_id; it ignores service_principal_oauth" in record.message
    )


def test_the_process_shares_credentials() -> None:
    """One for the same settings; another for each other secret, client, host, proxy and CA."""
    one = credentials(**USER, service_principal_oauth=True)
    assert credentials(**USER, service_principal_oauth="true") is one
    others = [
        credentials(login="id", password="another", service_principal_oauth=True),
        credentials(login="other", password="secret-of-id", service_principal_oauth=True),
        credentials(**USER, service_principal_oauth=True, host="v.net"),
        credentials(**USER, service_principal_oauth=True, verify="/ca.pem"),
        credentials(**USER, service_principal_oauth=True, proxies={"https": "http://p"}),
    ]
    assert len({id(other) for other in [one, *others]}) == 6


@pytest.mark.parametrize(
    "address", [HOST, f"https://{HOST}", f"https://{HOST}:443/", "HTTPS://W.NET"]
)
def test_the_environment_counts_where_it_names_the_host(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token of the environment needs nothing of the SDK; other credentials do."""
    monkeypatch.setenv("DATABRICKS_HOST", address)
    monkeypatch.setenv("DATABRICKS_TOKEN", "t")
    assert credentials() == Token("t")
    assert credentials().description.endswith("of the environment variable DATABRICKS_TOKEN")
    assert credentials(**USER) == Basic("id", "secret-of-id")
    monkeypatch.setenv("DATABRICKS_AUTH_TYPE", "oauth-m2m")
    assert isinstance(credentials(), CachedCredentials)


def test_netrc_needs_no_extra_where_the_environment_names_the_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without databricks-sdk its file is read, and without an entry the extra is named."""
    for name in ("databricks", "databricks.sdk"):  # another test may have imported it
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("DATABRICKS_HOST", HOST)
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {HOST} login token password n\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert credentials() == Token("n")
    netrc.write_text("machine other.net login token password n\n")
    with pytest.raises(CredentialsError, match=r"pip install 'airflow-jobs-provider\[auth\]'"):
        credentials().authorization()


def test_the_environment_of_another_host_does_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its token goes to no other host; .netrc is asked as ever."""
    monkeypatch.setenv("DATABRICKS_HOST", "https://other.net")
    monkeypatch.setenv("DATABRICKS_TOKEN", "t")
    with pytest.raises(CredentialsError, match=r"no credentials for w\.net"):
        credentials()
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {HOST} login token password n\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert credentials() == Token("n")
    assert credentials().description == f"access token of {netrc}"


@pytest.mark.parametrize(
    ("fields", "module", "extra"),
    [
        ({**USER, "service_principal_oauth": True}, "databricks", "[auth]"),
        ({**USER, "azure_tenant_id": "x"}, "databricks", "[auth]"),
        ({"federated_k8s": True, "client_id": "sp"}, "databricks", "[auth]"),
        ({"auth_type": "azure-cli"}, "databricks", "[auth]"),
        ({"use_azure_managed_identity": True}, "azure", "[azure]"),
        ({"use_default_azure_credential": True}, "azure", "[azure]"),
    ],
)
def test_a_missing_extra_is_named(
    fields: dict[str, Any], module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says what to install, and for which method."""
    ours = "airflow_jobs_provider.api.auth.sdk"
    for name in (f"{ours}.strategies", f"{ours}.config"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in list(sys.modules):
        if name.startswith(("databricks", "azure")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    chosen = credentials(**fields, verify="/another.pem")
    with pytest.raises(CredentialsError, match="pip install") as caught:
        chosen.headers()
    assert f"pip install 'airflow-jobs-provider{extra}'" in str(caught.value)
    assert chosen.description in str(caught.value)


def test_what_needs_no_extra_imports_none(tmp_path: Path) -> None:
    """A token, user and password, .netrc: no module of the SDK, for whatever a task does."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login token password n\n")
    code = f"""
import asyncio, json, os, sys
os.environ["NETRC"] = {str(netrc)!r}
import airflow_jobs_provider.operators.jobs, airflow_jobs_provider.triggers.jobs
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
run = {{"notebook_task": {{"notebook_path": "/n"}}, "existing_cluster_id": "c"}}
token, user = {{"password": "t"}}, {{"login": "a", "password": "b"}}
for fields in (token, user, {{}}, {{"extra": {{"token": "t"}}}}):
    connection = {{"conn_type": "databricks", "host": "127.0.0.1", "schema": "http", **fields}}
    os.environ["AIRFLOW_CONN_C"] = json.dumps({{**connection, "port": int(sys.argv[1])}})
    run_id = DatabricksJobsHook("c").submit_run(run)
    assert asyncio.run(DatabricksJobsHook("c").a_get_run(run_id))["run_id"] == run_id
roots = ("databricks", "azure", "google.auth", "msal", "boto3", "botocore")
print(json.dumps([name for name in sys.modules if name.startswith(roots)]))
"""
    with FakeService() as service:
        result = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, str(service.port)],
            check=True,
            capture_output=True,
            text=True,
        )
    assert json.loads(result.stdout.splitlines()[-1]) == []
    assert len(service.seen) == 8
