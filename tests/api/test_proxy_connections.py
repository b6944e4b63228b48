"""Proxies over real HTTP: both faces use the same one, and tell an unusable one from an outage."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from airflow_jobs_provider.api import async_client, blocking_client, endpoints, errors, retry
from airflow_jobs_provider.api import proxies as proxies_module
from airflow_jobs_provider.api.proxies import Proxies
from airflow_jobs_provider.api.retry import RetryPolicy
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger
from airflow_jobs_provider.triggers.polling.registry import get_poller
from tests.fakes.scripted_server import TOKEN, ScriptedServer, answer, lose, never_answer
from tests.helpers.client_face import Face
from tests.helpers.proxy import Proxy
from tests.helpers.tracebacks import shown_with_locals

# No name server knows it: only a proxy can lead there.
HOST = "workspace.test.invalid"
PASSWORD = "hunter2-of-the-proxy"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no bundle of the machine that runs the tests."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No host has answered this process yet."""
    monkeypatch.setattr(proxies_module, "_reached", set())


@pytest.fixture
def authority() -> trustme.CA:
    """A CA that nobody knows."""
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    """Its certificate as a bundle."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


@pytest.fixture
def workspace(authority: trustme.CA) -> Iterator[ScriptedServer]:
    """A workspace behind TLS, with a certificate for the made-up name."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(tls)
    server = ScriptedServer(tls=tls)
    yield server
    server.close()


def tls_for_proxy(authority: trustme.CA) -> ssl.SSLContext:
    """What a proxy needs that is spoken to over TLS."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    return tls


def closed_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def test_https_goes_through_a_tunnel(face: Face, workspace: ScriptedServer, ca_file: str) -> None:
    """The proxy sees the host's name and its own credentials, never the token."""
    with Proxy(workspace.port, user="me:s@crét") as proxy:
        url = proxy.url.replace("//", "//me:s%40cr%C3%A9t@")
        face.connect(f"https://{HOST}", verify=ca_file, proxies=Proxies({"https": url}))
        assert face.send(endpoints.get_run(7)) == {"run_id": 7}
    assert [line.rpartition(" ")[0] for line in proxy.seen] == [f"CONNECT {HOST}:443"]
    (request,) = workspace.requests
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert "proxy-authorization" not in request.headers


def test_http_is_asked_for_in_absolute_form(face: Face, server: ScriptedServer) -> None:
    """As the connection allows it; the query comes through."""
    with Proxy(server.port, user="me:pw") as proxy:
        url = proxy.url.replace("//", "//me:pw@")
        face.connect(f"http://{HOST}", allow_http=True, proxies=Proxies({"all": url}))
        assert face.send(endpoints.get_run(7)) == {"run_id": 7}
    assert proxy.seen == [f"GET http://{HOST}/api/2.0/jobs/runs/get?run_id=7 HTTP/1.1"]


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_the_environments_proxy_without_a_scheme(
    name: str,
    face: Face,
    workspace: ScriptedServer,
    ca_file: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``host:port`` is enough, in every variable that requests reads."""
    with Proxy(workspace.port) as proxy:
        monkeypatch.setenv(name, f"127.0.0.1:{proxy.port}")
        face.connect(f"https://{HOST}", verify=ca_file)
        assert face.send(endpoints.get_run(7)) == {"run_id": 7}
        assert len(proxy.seen) == 1


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_environments_bundle(
    name: str,
    kind: str,
    face: Face,
    workspace: ScriptedServer,
    authority: trustme.CA,
    ca_file: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bundle of the environment is a file, or a directory as ``openssl rehash`` makes it."""
    bundle = ca_file
    if kind == "folder":
        (tmp_path / "certs").mkdir()
        bundle = str(tmp_path / "certs")
        authority.cert_pem.write_to_path(f"{bundle}/{subject_hash(authority)}.0")
    with Proxy(workspace.port) as proxy:
        face.connect(f"https://{HOST}", proxies=Proxies({"https": proxy.url}))
        with pytest.raises(errors.CertificateError, match=f"certificate of {HOST} is not trust"):
            face.send(endpoints.get_run(7))
        monkeypatch.setenv(name, bundle)
        face.connect(f"https://{HOST}", proxies=Proxies({"https": proxy.url}))
        assert face.send(endpoints.get_run(7)) == {"run_id": 7}


def subject_hash(authority: trustme.CA) -> str:
    """Name a certificate as OpenSSL looks for it."""
    import subprocess

    done = subprocess.run(
        ["openssl", "x509", "-noout", "-subject_hash"],
        input=authority.cert_pem.bytes(),
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().strip()


def test_a_proxy_that_is_spoken_to_over_tls(
    face: Face, workspace: ScriptedServer, authority: trustme.CA, ca_file: str
) -> None:
    """TLS to the proxy, and TLS to the workspace inside of it, trusted by the same bundle."""
    with Proxy(workspace.port, tls=tls_for_proxy(authority)) as proxy:
        proxies = Proxies({"https": proxy.url})
        face.connect(f"https://{HOST}", verify=ca_file, proxies=proxies)
        assert face.send(endpoints.get_run(7)) == {"run_id": 7}
        assert [line.rpartition(" ")[0] for line in proxy.seen] == [f"CONNECT {HOST}:443"]


def test_a_tls_proxy_that_is_not_trusted(
    face: Face, workspace: ScriptedServer, ca_file: str
) -> None:
    """It is the proxy that is named, and nothing is sent."""
    with Proxy(workspace.port, tls=tls_for_proxy(trustme.CA())) as proxy:
        face.connect(f"https://{HOST}", verify=ca_file, proxies=Proxies({"https": proxy.url}))
        with pytest.raises(errors.ProxyError, match=f"{proxy.url} cannot be used.*certificate"):
            face.send(endpoints.get_run(7))
    assert workspace.requests == []


def test_loopback_is_never_proxied(
    face: Face, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A workspace on this machine is asked directly: a proxy would be shown the token."""
    with Proxy(server.port) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
            face.connect(url, proxies=Proxies({"http": proxy.url}))
            assert face.send(endpoints.get_run(7)) == {"run_id": 7}
    assert proxy.seen == []
    assert len(server.requests) == 2


@pytest.mark.parametrize("without_deadline", [False, True])
@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4"])
def test_socks_is_refused_in_words(scheme: str, without_deadline: bool, face: Face) -> None:
    """At once, with the address and without the password."""
    url = f"{scheme}://me:{PASSWORD}@127.0.0.1:1080"
    face.connect(f"https://{HOST}", proxies=Proxies({"https": url}))
    policy = RetryPolicy().without_deadline() if without_deadline else None
    with pytest.raises(
        errors.InvalidProxyError, match=rf"{scheme}://127\.0\.0\.1:1080.*SOCKS"
    ) as caught:
        face.send(endpoints.get_run(7), retries=policy)
    assert PASSWORD not in shown_with_locals(caught.value)
    assert face.waits == []


@pytest.mark.parametrize("without_deadline", [False, True])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_never_worked(scheme: str, without_deadline: bool, face: Face) -> None:
    """It is given up within a minute, whether or not the policy has a deadline."""
    port = closed_port()
    url = f"http://me:{PASSWORD}@127.0.0.1:{port}"
    face.connect(f"{scheme}://{HOST}", allow_http=True, proxies=Proxies({scheme: url}))
    policy = RetryPolicy(random=lambda: 1.0)
    with pytest.raises(errors.ProxyError, match=rf"http://127\.0\.0\.1:{port} .*refused") as caught:
        face.send(
            endpoints.get_run(7), retries=policy.without_deadline() if without_deadline else policy
        )
    assert 30 <= sum(face.waits) <= 50
    assert (caught.value.proxy, caught.value.host) == (f"http://127.0.0.1:{port}", HOST)
    assert PASSWORD not in shown_with_locals(caught.value)
    assert "HTTPS_PROXY" in str(caught.value)


@pytest.mark.parametrize("without_deadline", [False, True])
@pytest.mark.slow
def test_a_proxys_name_that_does_not_resolve(without_deadline: bool, face: Face) -> None:
    """It is the proxy's address that the message names, not the workspace's."""
    proxies = Proxies({"https": "http://proxy.test.invalid:3128"})
    face.connect(f"https://{HOST}", proxies=proxies)
    policy = RetryPolicy(random=lambda: 0.0)
    with pytest.raises(errors.ProxyError, match=r"http://proxy\.test\.invalid:3128 cannot be used"):
        face.send(
            endpoints.get_run(7), retries=policy.without_deadline() if without_deadline else policy
        )
    assert sum(face.waits) <= 50


@pytest.mark.parametrize("without_deadline", [False, True])
@pytest.mark.slow
def test_a_host_name_that_never_resolved(without_deadline: bool, face: Face) -> None:
    """The same for the workspace's own name."""
    face.connect(f"https://{HOST}")
    policy = RetryPolicy(random=lambda: 0.0)
    with pytest.raises(errors.HostNotFoundError, match=HOST):
        face.send(
            endpoints.get_run(7), retries=policy.without_deadline() if without_deadline else policy
        )
    assert 30 <= sum(face.waits) <= 50


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_another_password(scheme: str, face: Face) -> None:
    """407 is final at once: the same password again may lock the account."""
    with Proxy(1, user="me:right") as proxy:
        url = proxy.url.replace("//", f"//me:{PASSWORD}@")
        face.connect(f"{scheme}://{HOST}", allow_http=True, proxies=Proxies({scheme: url}))
        with pytest.raises(errors.ProxyAuthenticationError, match=rf"{proxy.url} .*407") as caught:
            face.send(endpoints.get_run(7), retries=RetryPolicy().without_deadline())
        assert len(proxy.seen) == 1
    assert PASSWORD not in shown_with_locals(caught.value)
    assert caught.value.status == 407


@pytest.mark.parametrize(("status", "longest"), [(403, 50), (503, 600)])
def test_a_proxy_that_does_not_connect(status: int, longest: int, face: Face) -> None:
    """A refusal is a wrong setting; a 5xx may be the workspace's outage, so has more time."""
    with Proxy(1, status=status) as proxy:
        face.connect(f"https://{HOST}", proxies=Proxies({"https": proxy.url}))
        without_deadline = RetryPolicy(random=lambda: 0.0).without_deadline()
        with pytest.raises(
            errors.ProxyError, match=f"does not connect to {HOST} .{status}"
        ) as caught:
            face.send(endpoints.create_job({}), retries=without_deadline)
    assert caught.value.status == status
    assert longest * 0.6 <= sum(face.waits) <= longest


def test_a_proxy_that_worked_before(face: Face, workspace: ScriptedServer, ca_file: str) -> None:
    """Then it is an outage as a lost connection is: waited out while polling, tried for 10 min."""
    with Proxy(workspace.port) as proxy:
        face.connect(f"https://{HOST}", verify=ca_file, proxies=Proxies({"https": proxy.url}))
        assert face.send(endpoints.get_run(7)) == {"run_id": 7}
    with pytest.raises(errors.ProxyError):
        face.send(endpoints.get_run(7))
    assert 500 < sum(face.waits) <= 600


def test_a_proxy_that_says_nothing(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts the connection and never answers CONNECT: no longer than a connection may take."""
    for module in (async_client, blocking_client):
        monkeypatch.setattr(module, "CONNECT_SECONDS", 0.3)
    silent = ScriptedServer([never_answer])
    try:
        face.connect(f"https://{HOST}", proxies=Proxies({"https": silent.url}), timeout_seconds=30)
        began = time.monotonic()
        with pytest.raises(errors.ProxyError, match=silent.url):
            face.send(endpoints.get_run(7), retries=RetryPolicy(max_attempts=1))
        assert time.monotonic() - began < 5
    finally:
        silent.close()


def test_a_proxy_that_hangs_up(face: Face) -> None:
    """The request was not sent, so that a creation may be repeated."""
    server = ScriptedServer([lose] * 3)
    try:
        face.connect(f"https://{HOST}", proxies=Proxies({"https": server.url}))
        with pytest.raises(errors.ProxyError, match=server.url):
            face.send(endpoints.create_job({}), retries=RetryPolicy(max_attempts=3))
        assert len(face.waits) == 2
    finally:
        server.close()


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> float:
    """What is given up after 50 s is given up after half a second."""
    short = retry._UNUSABLE_FROM_THE_START._replace(timeout=0.5)
    monkeypatch.setattr(retry, "_UNUSABLE_FROM_THE_START", short)
    return short.timeout


def connect(monkeypatch: pytest.MonkeyPatch, host: str, **extra: Any) -> None:
    """Make the default connection."""
    connection = {"conn_type": "databricks_jobs", "host": host, "password": TOKEN, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))


@pytest.mark.parametrize("kind", ["proxy", "host name"])
async def test_a_wait_does_not_last_for_ever(
    kind: str, short_patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that wait through a proxy that never worked, or for a host that never was, hear of it."""
    proxy = f"http://me:{PASSWORD}@127.0.0.1:{closed_port()}"
    connect(monkeypatch, f"https://{HOST}", proxies={"https": proxy} if kind == "proxy" else {})
    poller = get_poller(DatabricksJobsHook(retry_delay=0.05))
    waits = [poller.wait_for_change(run_id, period=0.1) for run_id in (7, 8)]
    async with asyncio.timeout(20):
        results = await asyncio.gather(*waits, return_exceptions=True)
    wanted = errors.ProxyError if kind == "proxy" else errors.HostNotFoundError
    assert [type(result) for result in results] == [wanted, wanted]
    assert PASSWORD not in str(results)


@pytest.mark.slow
async def test_a_wait_outlasts_a_proxy_that_worked_before(
    short_patience: float, workspace: ScriptedServer, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy is away for longer than one that never worked is given; the run is followed on."""
    running = {"run_id": 7, "state": {"life_cycle_state": "RUNNING"}}
    ended = {"run_id": 7, "state": {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}}
    workspace.will(answer(running), answer(ended))
    with Proxy(workspace.port) as proxy:
        extra = {"verify": ca_file, "proxies": {"https": proxy.url}}
        connect(monkeypatch, f"https://{HOST}", **extra)
        poller = get_poller(DatabricksJobsHook(retry_delay=0.05))
        async with asyncio.timeout(20):
            run = await poller.wait_for_change(7, period=0.1)
        wait = asyncio.create_task(poller.wait_for_change(7, period=0.1, known=run))
    await asyncio.sleep(4 * short_patience)
    assert not wait.done()
    with Proxy(workspace.port, port=proxy.port):
        async with asyncio.timeout(20):
            assert (await wait)["state"]["result_state"] == "SUCCESS"


@pytest.mark.parametrize("worker_reached_it", ["by this proxy", "by another proxy"])
@pytest.mark.slow
async def test_a_triggerer_that_starts_while_the_proxy_is_down(
    worker_reached_it: str,
    short_patience: float,
    workspace: ScriptedServer,
    ca_file: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is an outage if the worker reached the workspace in the same way, else a wrong setting."""
    ended = {"run_id": 7, "state": {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}}
    workspace.will(answer({"run_id": 7}), answer(ended))
    with Proxy(workspace.port) as proxy, Proxy(workspace.port) as other:
        used = proxy if worker_reached_it == "by this proxy" else other
        url = used.url.replace("//", f"//me:{PASSWORD}@")
        connect(monkeypatch, f"https://{HOST}", verify=ca_file, proxies={"https": url})
        client = DatabricksJobsHook().client
        await asyncio.to_thread(client.send, endpoints.get_run(7))
        client.close()
    _, arguments = DatabricksJobRunTrigger(
        run_id=7,
        polling_period_seconds=0.1,
        retry_delay=0.05,
        reached_by=client.reached_by,
    ).serialize()
    assert PASSWORD not in json.dumps(arguments)
    monkeypatch.setattr(proxies_module, "_reached", set())
    connect(monkeypatch, f"https://{HOST}", verify=ca_file, proxies={"https": proxy.url})
    wait = asyncio.ensure_future(anext(aiter(DatabricksJobRunTrigger(**arguments).run())))
    if used is other:
        async with asyncio.timeout(20):
            assert f"{proxy.url} cannot be used" in (await wait).payload["error"]
        return
    await asyncio.sleep(4 * short_patience)
    assert not wait.done()
    with Proxy(workspace.port, port=proxy.port):
        async with asyncio.timeout(20):
            assert (await wait).payload["run"]["state"]["result_state"] == "SUCCESS"


async def test_socks_ends_a_wait_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the triggerer as on a worker; the trigger's event has the words."""
    connect(monkeypatch, f"https://{HOST}", proxies={"https": f"socks5://me:{PASSWORD}@p:1080"})
    trigger = DatabricksJobRunTrigger(
        run_id=7, databricks_conn_id="databricks_default", polling_period_seconds=0.1
    )
    async with asyncio.timeout(20):
        event = await anext(aiter(trigger.run()))
    assert "socks5://p:1080" in str(event.payload)
    assert "SOCKS is not supported" in str(event.payload)
    assert PASSWORD not in str(event.payload)


@pytest.mark.parametrize(
    "proxies",
    ['{"https": "http://p:1"}', {"https": "http://p:1"}, "", None, {}, {"https": None}],
)
def test_proxies_of_a_connection(proxies: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As JSON, or as the text that a form brings."""
    connect(monkeypatch, f"https://{HOST}", proxies=proxies)
    DatabricksJobsHook().client.close()


@pytest.mark.parametrize(
    "proxies",
    [f"http://me:{PASSWORD}@p:1", [f"http://{PASSWORD}"], {"https": 7, "http": PASSWORD}, "[]x"],
)
def test_proxies_that_are_none(proxies: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how they should look, and does not quote them."""
    connect(monkeypatch, f"https://{HOST}", proxies=proxies)
    with pytest.raises(ValueError, match="proxies in the extra of connection") as caught:
        _ = DatabricksJobsHook().client
    assert PASSWORD not in shown_with_locals(caught.value)
