"""How the hook reads a connection, and its connection form."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Connection

from airflow_jobs_provider.api.auth import Basic, Token
from airflow_jobs_provider.api.errors import CredentialsError, InvalidSettingsError
from airflow_jobs_provider.hooks.connection import WorkspaceAccess


def access(**fields: Any) -> WorkspaceAccess:
    """Read a connection with these fields."""
    extra = fields.pop("extra", None)
    fields.setdefault("conn_type", "databricks_jobs")
    return WorkspaceAccess.from_connection(
        Connection(conn_id="c", extra=json.dumps(extra) if extra else None, **fields)
    )


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "adb-1.2.azuredatabricks.net"}, "https://adb-1.2.azuredatabricks.net"),
        ({"host": "https://w.net/"}, "https://w.net"),
        ({"host": " https://w.net "}, "https://w.net"),
        ({"host": "https://w.net/proxy/path/"}, "https://w.net/proxy/path"),
        ({"host": "w.net", "port": 8443}, "https://w.net:8443"),
        ({"host": "w.net:8443"}, "https://w.net:8443"),
        ({"host": "https://w.net:8443", "port": 1}, "https://w.net:8443"),
        ({"host": "https://w.net/path", "port": 8443}, "https://w.net:8443/path"),
        ({"host": "127.0.0.1", "port": 80, "schema": "http"}, "http://127.0.0.1:80"),
        ({"host": "http://localhost:8421"}, "http://localhost:8421"),
        ({"host": "w.net", "schema": "default"}, "https://w.net"),
        ({"host": "https://somebody@w.net"}, "https://w.net"),
        # The official provider ignores the scheme of Host.
        ({"host": "http://adb-1.2.azuredatabricks.net"}, "https://adb-1.2.azuredatabricks.net"),
        # Nor does it know a path.
        ({"host": "https://w.net/browse/x", "conn_type": "databricks"}, "https://w.net"),
        ({"extra": {"host": "w.net"}}, "https://w.net"),
        ({"host": "w.net", "conn_type": "databricks"}, "https://w.net"),
    ],
)
def test_the_address(fields: dict[str, Any], url: str) -> None:
    """Host with or without scheme, slash, port and path; also an official connection."""
    assert access(password="t", **fields).base_url == url


@pytest.mark.parametrize(
    "host",
    ["", "ftp://w.net", "https://", "w.net:port", "[::1", "dapi not a host", "dapi\u2100secret"],
)
def test_an_address_that_is_none(host: str) -> None:
    """The message names the connection and shows what a host looks like, never what stood there."""
    with pytest.raises(InvalidSettingsError, match=r"'c'.*azuredatabricks") as caught:
        access(host=host, password="t")
    if host.startswith("dapi"):
        assert "dapi" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "credentials"),
    [
        ({"password": "t"}, Token("t")),
        ({"login": "token", "password": "t"}, Token("t")),
        ({"extra": {"token": "t"}}, Token("t")),
        ({"login": "me", "password": "p", "extra": {"token": "t"}}, Token("t")),
        ({"login": "me", "password": "p"}, Basic("me", "p")),
    ],
)
def test_the_credentials(fields: dict[str, Any], credentials: object) -> None:
    """A token in the password or the extra, or user and password."""
    assert access(host="w.net", **fields).credentials == credentials


@pytest.mark.parametrize(
    ("extra", "version"),
    [
        ({}, None),
        ({"api_version": ""}, None),
        ({"api_version": "2.0"}, "2.0"),
        ({"api_version": "2.1"}, "2.1"),
        ({"api_version": 2.2}, "2.2"),
    ],
)
def test_the_version(extra: dict[str, Any], version: str | None) -> None:
    """None is pinned unless the extra names one, as text or as a number."""
    assert access(host="w.net", password="t", extra=extra).api_version == version


def test_a_version_that_there_is_not() -> None:
    """The message names the connection and the versions that there are."""
    with pytest.raises(InvalidSettingsError, match=r"'c'.*'3'.*2\.0, 2\.1, 2\.2"):
        access(host="w.net", password="t", extra={"api_version": "3"})


@pytest.mark.parametrize("timeout", ["soon", 0, -1, "nan", "inf", [5]])
def test_a_time_out_that_is_none(timeout: object) -> None:
    """The message names the connection and the field."""
    with pytest.raises(InvalidSettingsError, match=r"timeout_seconds.*'c' is not a number of"):
        access(host="w.net", password="t", extra={"timeout_seconds": timeout})


def test_credentials_from_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any in the connection, .netrc is asked for the host, port or no port."""
    file = tmp_path / "netrc"
    file.write_text("machine w.net login token password t\nmachine v.net login me password p\n")
    monkeypatch.setenv("NETRC", str(file))
    assert access(host="w.net").credentials == Token("t")
    assert access(host="v.net:8443").credentials == Basic("me", "p")
    with pytest.raises(CredentialsError, match="no entry for that host"):
        access(host="u.net")
    file.write_text("machine w.net login token passwrd hush\n")
    with pytest.raises(CredentialsError, match="line 1") as caught:
        access(host="w.net")
    assert "hush" not in str(caught.value)
    file.unlink()
    with pytest.raises(CredentialsError, match=r"Put the token into the connection's password"):
        access(host="w.net")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"login": "me"}, "no password"),
        ({"extra": {"azure_tenant_id": "x"}, "login": "me"}, "azure_tenant_id.*no password"),
        ({"password": "two words hush"}, "copy it once more"),
        ({"password": "hush\n"}, "copy it once more"),
        ({"password": "tökenhush"}, "copy it once more"),
    ],
)
def test_credentials_that_cannot_work(fields: dict[str, Any], words: str) -> None:
    """One clear message, that does not quote the secret."""
    with pytest.raises(CredentialsError, match=words) as caught:
        access(host="w.net", **fields)
    assert "hush" not in str(caught.value)


def test_options_in_the_extra() -> None:
    """A form brings booleans as text."""
    one = access(host="w.net", password="t", extra={"allow_http": "true", "verify": "false"})
    assert (one.allow_http, one.verify) == (True, False)
    two = access(host="w.net", password="t", extra={"verify": "/ca.pem", "timeout_seconds": "5"})
    assert (two.allow_http, two.verify, two.timeout_seconds) == (False, "/ca.pem", 5.0)


def test_no_secret_in_a_repr() -> None:
    """What is read from a connection can be logged."""
    assert "hush" not in repr(access(host="w.net", password="hush"))


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "w.net", "password": "a-secret\n"},
        {"host": "w.net", "extra": {"token": "a secret"}},
        {"host": "https://a-secret:x y"},
    ],
)
def test_a_refused_connection_leaves_no_secret_in_a_traceback(fields: dict[str, Any]) -> None:
    """Airflow 3.0 logs tracebacks with local variables."""
    with pytest.raises((ValueError, CredentialsError)) as caught:
        access(**fields)
    shown = [
        repr(frame.f_locals)
        for frame, _ in traceback.walk_tb(caught.value.__traceback__)
        if "airflow_jobs_provider" in frame.f_globals["__name__"]
    ]
    assert len(shown) == 1
    assert "secret" not in shown[0]


@pytest.mark.parametrize("verify", [None, ""])
def test_an_empty_field_does_not_turn_the_check_of_certificates_off(verify: object) -> None:
    """A form saves what was left empty as null or as an empty text."""
    extra = {"verify": verify, "timeout_seconds": verify, "token": verify, "allow_http": verify}
    one = access(host="w.net", password="t", extra=extra)
    assert (one.verify, one.timeout_seconds, one.allow_http) == (True, None, False)
    assert one.credentials == Token("t")


@pytest.mark.parametrize(
    ("extra", "fields"),
    [("{nonsense", {}), ('["token"]', {"password": "t"}), ('"token"', {"password": "t"})],
)
@pytest.mark.filterwarnings("ignore:Encountered")  # by Airflow 2
def test_an_extra_that_is_no_object(extra: str, fields: dict[str, Any]) -> None:
    """The message names it. It is not quoted."""
    with pytest.raises((CredentialsError, InvalidSettingsError), match=r"the extra of.*'c'.*JSON"):
        connected(extra, **fields)


@pytest.mark.filterwarnings("ignore:Encountered")  # by Airflow 2
def test_an_extra_that_nothing_is_needed_of() -> None:
    """Airflow takes what is not JSON for an empty extra."""
    assert connected("{nonsense", password="t").credentials == Token("t")


def connected(extra: str, **fields: Any) -> WorkspaceAccess:
    """Read a connection with this text as extra."""
    return WorkspaceAccess.from_connection(
        Connection(conn_id="c", conn_type="databricks_jobs", host="w.net", extra=extra, **fields)
    )
