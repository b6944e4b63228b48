"""How the hook reads a connection, and its connection form."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Connection

from airflow_jobs_provider.api.auth import Basic, Token
from airflow_jobs_provider.api.errors import CredentialsError
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
        ({"extra": {"host": "w.net"}}, "https://w.net"),
        ({"host": "w.net", "conn_type": "databricks"}, "https://w.net"),
    ],
)
def test_the_address(fields: dict[str, Any], url: str) -> None:
    """Host with or without scheme, slash, port and path; also an official connection."""
    assert access(password="t", **fields).base_url == url


@pytest.mark.parametrize("host", ["", "ftp://w.net", "https://", "w.net:port", "dapi not a host"])
def test_an_address_that_is_none(host: str) -> None:
    """The message names the connection and shows what a host looks like, never what stood there."""
    with pytest.raises(ValueError, match=r"'c'.*azuredatabricks") as caught:
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
    with pytest.raises(ValueError, match=r"'c'.*'3'.*2\.0, 2\.1, 2\.2"):
        access(host="w.net", password="t", extra={"api_version": "3"})


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
        ({"extra": {"azure_tenant_id": "x"}, "login": "me", "password": "hush"}, "azure_tenant_id"),
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


@pytest.mark.skipif(
    version("apache-airflow").startswith(("3.0.", "3.1."))
    and importlib.util.find_spec("flask_appbuilder") is None,
    reason="Airflow 3.0 and 3.1 shape no form, nobody's, where Flask-AppBuilder is not installed",
)
def test_airflow_shows_the_form() -> None:
    """Standard fields in the workspace's words, the extra's fields beside them, on each Airflow."""
    code = FORM_BY_API if importlib.util.find_spec("airflow.api_fastapi") else FORM_BY_MANAGER
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", REGISTER + code],
        check=True,
        capture_output=True,
        text=True,
    )
    form = json.loads(result.stdout.splitlines()[-1])
    assert form["fields"] == {
        "token": True,
        "verify": False,
        "proxies": False,
        "timeout_seconds": False,
        "api_version": False,
        "allow_http": False,
    }
    assert form["host"] == "Workspace address"
    assert form["placeholder"].startswith("https://")
    assert form["schema_hidden"] is True


# The package may be installed or not where the tests run; Airflow is told of it all the same.
REGISTER = """
import json
from airflow.providers_manager import ProviderInfo, ProvidersManager
import inspect
import airflow_jobs_provider as package
info = package.get_provider_info()
facts = {"version": package.__version__, "data": info, "package_or_source": "package"}
wanted = inspect.signature(ProviderInfo).parameters
original = ProvidersManager.initialize_providers_list
def registering(self, *args, **kwargs):
    original(self, *args, **kwargs)
    self._provider_dict[info["package-name"]] = ProviderInfo(
        **{name: value for name, value in facts.items() if name in wanted})
ProvidersManager.initialize_providers_list = registering
"""
FORM_BY_API = """
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
(form,) = [m for m in HookMetaService.hook_meta_data() if m.connection_type == "databricks_jobs"]
standard = form.standard_fields
print(json.dumps({
    "fields": {name: f["schema"].get("format") == "password"
               for name, f in form.extra_fields.items()},
    "host": standard.host.title, "placeholder": standard.host.placeholder,
    "schema_hidden": standard.url_schema.hidden}))
"""
FORM_BY_MANAGER = """
manager = ProvidersManager()
behaviour = manager.field_behaviours["databricks_jobs"]
print(json.dumps({
    "fields": {w.field_name: w.is_sensitive
               for name, w in manager.connection_form_widgets.items()
               if name.startswith("extra__databricks_jobs__")},
    "host": behaviour["relabeling"]["host"], "placeholder": behaviour["placeholders"]["host"],
    "schema_hidden": "schema" in behaviour["hidden_fields"]}))
"""
