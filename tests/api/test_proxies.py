"""Which proxy and which trust are chosen: as requests does, but never a proxy for loopback."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import requests
from requests.adapters import BaseAdapter

from airflow_jobs_provider.api.auth import Token
from airflow_jobs_provider.api.client import JobsClient
from airflow_jobs_provider.api.errors import CertificateError, InvalidProxyError
from airflow_jobs_provider.api.proxies import Proxies, choose_route, is_loopback

HOST = "https://adb-1.2.azuredatabricks.net"
NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
TRUST = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
P = "http://proxy.corp:3128"

# name: environment, proxies of the connection, address, the proxy that is expected
CASES: dict[str, tuple[dict[str, str], dict[str, str | None], str, str | None]] = {
    "nothing": ({}, {}, HOST, None),
    "HTTPS_PROXY": ({"HTTPS_PROXY": P}, {}, HOST, P),
    "https_proxy": ({"https_proxy": P}, {}, HOST, P),
    "lower case wins": ({"https_proxy": P, "HTTPS_PROXY": "http://other:1"}, {}, HOST, P),
    "HTTP_PROXY is not for https": ({"HTTP_PROXY": P}, {}, HOST, None),
    "HTTP_PROXY": ({"HTTP_PROXY": P}, {}, "http://workspace.corp", P),
    "http_proxy": ({"http_proxy": P}, {}, "http://workspace.corp", P),
    "ALL_PROXY": ({"ALL_PROXY": P}, {}, HOST, P),
    "all_proxy": ({"all_proxy": P}, {}, HOST, P),
    "its own before ALL_PROXY": ({"ALL_PROXY": "http://other:1", "HTTPS_PROXY": P}, {}, HOST, P),
    "without a scheme": ({"HTTPS_PROXY": "proxy.corp:3128"}, {}, HOST, P),
    "without scheme and port": ({"HTTPS_PROXY": "proxy.corp"}, {}, HOST, "http://proxy.corp"),
    "empty": ({"HTTPS_PROXY": ""}, {}, HOST, None),
    "credentials": ({"HTTPS_PROXY": "http://me:s%40t@p:1"}, {}, HOST, "http://me:s%40t@p:1"),
    "credentials without scheme": ({"HTTPS_PROXY": "me:pw@p:1"}, {}, HOST, "http://me:pw@p:1"),
    "TLS to the proxy": ({"HTTPS_PROXY": "https://p:1"}, {}, HOST, "https://p:1"),
    "NO_PROXY *": ({"HTTPS_PROXY": P, "NO_PROXY": "*"}, {}, HOST, None),
    "NO_PROXY host": (
        {"HTTPS_PROXY": P, "NO_PROXY": "adb-1.2.azuredatabricks.net"},
        {},
        HOST,
        None,
    ),
    "NO_PROXY domain": ({"HTTPS_PROXY": P, "NO_PROXY": "azuredatabricks.net"}, {}, HOST, None),
    "NO_PROXY .domain": ({"HTTPS_PROXY": P, "NO_PROXY": ".azuredatabricks.net"}, {}, HOST, None),
    "NO_PROXY other": ({"HTTPS_PROXY": P, "NO_PROXY": "databricks.net"}, {}, HOST, P),
    "NO_PROXY list": ({"HTTPS_PROXY": P, "NO_PROXY": "a.b, azuredatabricks.net"}, {}, HOST, None),
    "NO_PROXY port": (
        {"HTTPS_PROXY": P, "no_proxy": "w.corp:8443"},
        {},
        "https://w.corp:8443",
        None,
    ),
    "NO_PROXY other port": ({"HTTPS_PROXY": P, "no_proxy": "w.corp:1"}, {}, "https://w.corp:2", P),
    "NO_PROXY CIDR": ({"HTTPS_PROXY": P, "NO_PROXY": "10.1.0.0/16"}, {}, "https://10.1.2.3", None),
    "NO_PROXY other CIDR": (
        {"HTTPS_PROXY": P, "NO_PROXY": "10.1.0.0/16"},
        {},
        "https://10.2.0.1",
        P,
    ),
    "NO_PROXY address": ({"HTTPS_PROXY": P, "NO_PROXY": "10.1.2.3"}, {}, "https://10.1.2.3", None),
    "connection": ({}, {"https": P}, HOST, P),
    "connection before environment": ({"HTTPS_PROXY": "http://other:1"}, {"https": P}, HOST, P),
    "connection before NO_PROXY": ({"NO_PROXY": "*"}, {"https": P}, HOST, P),
    "connection for another scheme": ({"HTTPS_PROXY": P}, {"http": "http://other:1"}, HOST, P),
    "connection for one host": ({"HTTPS_PROXY": "http://other:1"}, {HOST: P}, HOST, P),
    "connection for all": ({}, {"all": P}, HOST, P),
    "connection says none": ({"HTTPS_PROXY": P}, {"https": None}, HOST, None),
    "connection says empty": ({"HTTPS_PROXY": P}, {"https": ""}, HOST, None),
    "connection with no_proxy": (
        {"HTTPS_PROXY": P},
        {"no_proxy": "azuredatabricks.net"},
        HOST,
        None,
    ),
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no bundle of the machine that runs the tests."""
    for name in (*NAMES, *(name.upper() for name in NAMES), *TRUST):
        monkeypatch.delenv(name, raising=False)


class _Seen(BaseAdapter):
    """Notes what requests itself would do."""

    def __init__(self) -> None:
        super().__init__()
        self.proxy: str | None = None
        self.verify: Any = None

    def send(self, request: requests.PreparedRequest, *_: Any, **how: Any) -> requests.Response:
        self.proxy = requests.utils.select_proxy(str(request.url), how["proxies"])
        self.verify = how["verify"]
        response = requests.Response()
        response.status_code = 200
        return response

    def close(self) -> None:
        pass


def requests_choice(url: str, proxies: dict[str, Any], verify: bool | str) -> tuple[Any, Any]:
    """Return what requests hands to its adapter."""
    seen = _Seen()
    with requests.Session() as session:
        session.mount("http://", seen)
        session.mount("https://", seen)
        session.get(url, proxies=dict(proxies), verify=verify)
    return seen.proxy or None, seen.verify


@pytest.mark.parametrize("name", CASES)
def test_the_proxy_is_the_one_that_requests_uses(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table, and beside each line what requests does; it adds the scheme as it connects."""
    environment, proxies, url, expected = CASES[name]
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    route = choose_route(url, Proxies(proxies), verify=True)
    assert route.proxy == expected
    of_requests, _ = requests_choice(url, proxies, verify=True)
    assert (of_requests is None) == (expected is None)
    if expected is not None:
        assert of_requests in (expected, expected.removeprefix("http://"))


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "127.1", "[::1]", "[::ffff:127.0.0.1]"],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_loopback_is_never_proxied(host: str, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would be shown the token; requests would ask it."""
    monkeypatch.setenv(f"{scheme}_proxy", P)
    url = f"{scheme}://{host}:8443"
    assert requests_choice(url, {}, verify=True)[0] == P
    for proxies in (Proxies(), Proxies({scheme: P}), Proxies({"all": P})):
        assert choose_route(url, proxies, verify=True).proxy is None


@pytest.mark.parametrize("host", ["localhost.corp", "10.0.0.1", "adb-1.2.net", "", "::2", "é.fr"])
def test_what_is_not_loopback(host: str) -> None:
    """Only names and addresses that are this machine for certain."""
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("given", "requests_bundle", "curl_bundle"),
    [
        (True, "", ""),
        (True, "bundle.pem", ""),
        (True, "", "bundle.pem"),
        (True, "bundle.pem", "folder"),
        (True, "folder", ""),
        (False, "bundle.pem", ""),
        ("bundle.pem", "folder", ""),
        ("folder", "", ""),
    ],
)
def test_the_trust_is_that_of_requests(
    given: bool | str,
    requests_bundle: str,
    curl_bundle: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``verify`` of the connection, else REQUESTS_CA_BUNDLE, else CURL_CA_BUNDLE."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle.pem").touch()
    (tmp_path / "folder").mkdir()
    for name, value in zip(TRUST, (requests_bundle, curl_bundle), strict=True):
        if value:
            monkeypatch.setenv(name, value)
    expected = given if given is not True else (requests_bundle or curl_bundle or True)
    assert choose_route(HOST, Proxies(), given).verify == expected
    assert requests_choice(HOST, {}, given)[1] == expected


def test_a_bundle_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file and where it may be set; over http nothing is checked."""
    monkeypatch.setenv("CURL_CA_BUNDLE", "/no/such/bundle.pem")
    with pytest.raises(CertificateError, match=r"/no/such/bundle\.pem.*CURL_CA_BUNDLE"):
        choose_route(HOST, Proxies(), verify=True)
    choose_route("http://127.0.0.1:1", Proxies(), verify=True)


UNUSABLE = {
    "socks5://me:hunter2@p.corp:1080": "socks5://p.corp:1080.*SOCKS",
    "socks5h://me:hunter2@p.corp:1080": "socks5h://p.corp:1080.*SOCKS",
    "socks4://p.corp:1080": "SOCKS",
    "ftp://me:hunter2@p.corp": "ftp://p.corp.*http://",
    "http://": "not a URL",
    "http://me:hunter2@": "not a URL",
    "http://me:hunter2@p.corp:port": "not a URL",
    "http://me:hunter2@[::1": "not a URL",
    "http://me:hunter2東京@p.corp:1": "http://p.corp:1.*character",
    "http://me:hunter2%0d%0a@p.corp:1": "http://p.corp:1.*character",
}


@pytest.mark.parametrize("proxy", UNUSABLE)
def test_an_unusable_proxy_is_refused_in_words(proxy: str) -> None:
    """The message has the address, never the password, and says where proxies are set."""
    with pytest.raises(InvalidProxyError, match=UNUSABLE[proxy]) as caught:
        choose_route(HOST, Proxies({"https": proxy}), verify=True)
    assert "hunter2" not in str(caught.value)
    assert "HTTPS_PROXY" in str(caught.value)


def test_no_password_in_a_repr() -> None:
    """Neither of the proxies of a connection, nor of the route, nor of a client."""
    proxies = Proxies({"https": "http://me:hunter2@p.corp:1"})
    route = choose_route(HOST, proxies, verify=True)
    client = JobsClient(HOST, Token("t"), proxies=proxies)
    assert "hunter2" not in f"{proxies!r} {route!r} {client!r}"
    assert route.address == "http://p.corp:1"


def test_requests_is_asked_and_the_environment_is_not_changed() -> None:
    """The choice changes neither the proxies that were given nor the environment."""
    given: dict[str, str | None] = {"https": None}
    with mock.patch.dict(os.environ, {"HTTP_PROXY": P}):
        before = dict(os.environ)
        choose_route(HOST, Proxies(given), verify=True)
        assert (given, dict(os.environ)) == ({"https": None}, before)
