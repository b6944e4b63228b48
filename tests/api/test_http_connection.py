"""The connections of the blocking client: kept open, replaced, ended."""

from __future__ import annotations

import gc
import http.client
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from airflow_jobs_provider.api import endpoints
from airflow_jobs_provider.api.auth import Token
from airflow_jobs_provider.api.client import JobsClient
from airflow_jobs_provider.api.http_connection import ConnectionPool, NotConnectedError
from airflow_jobs_provider.api.proxies import Route
from tests.fakes.fake_service import TOKEN, FakeService

DIRECT = Route(None, "", verify=True)


def pool(url: str) -> closing[ConnectionPool]:
    """Connections as the client makes them."""
    return closing(
        ConnectionPool(
            url, DIRECT, connect_seconds=10, timeout_seconds=10, response_timeout_seconds=10
        )
    )


@contextmanager
def peer(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Answer one request after the other on one connection; the URL, and what was received."""
    received: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as reader:
            for one in answers:
                head = b"".join(iter(reader.readline, b"\r\n"))
                length = re.search(rb"Content-Length: (\d+)", head)
                received.append(head + b"\r\n" + reader.read(int(length[1]) if length else 0))
                connection.sendall(one)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", received
        thread.join(10)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The connections that were opened."""
    opened: list[Any] = []
    connect = http.client.HTTPConnection.connect

    def counted(connection: http.client.HTTPConnection) -> None:
        connect(connection)
        opened.append(connection)

    monkeypatch.setattr(http.client.HTTPConnection, "connect", counted)
    return opened


def test_one_connection_for_all_requests(opened: list[Any]) -> None:
    """Also after an error, and for a list of several pages."""
    with FakeService() as service, JobsClient(service.url, Token(TOKEN)) as client:
        run_id = client.send(endpoints.submit_run({"run_name": "r"}))
        for _ in range(3):
            assert client.send(endpoints.get_run(run_id))["run_id"] == run_id
        with pytest.raises(Exception, match="does not exist"):
            client.send(endpoints.get_run(run_id + 1))
        assert list(client.iterate(endpoints.list_runs()))
    assert len(opened) == 1
    assert opened[0].sock is None, "it was closed with the client"


def test_a_connection_that_the_service_has_closed_is_replaced(opened: list[Any]) -> None:
    """It was closed while it was idle, so nothing is lost and nothing is retried."""
    with FakeService() as service, JobsClient(service.url, Token(TOKEN)) as client:
        run_id = client.send(endpoints.submit_run({"run_name": "r"}))
        opened[0].sock.shutdown(socket.SHUT_RDWR)
        assert client.send(endpoints.get_run(run_id))["run_id"] == run_id
        assert [seen.endpoint for seen in service.seen] == ["runs/submit", "runs/get"]
    assert len(opened) == 2


def test_threads_share_a_client(opened: list[Any]) -> None:
    """Each request has a connection of its own while it lasts; those are used again."""
    ids: list[int] = []
    with FakeService() as service, JobsClient(service.url, Token(TOKEN)) as client:
        for _ in range(2):
            threads = [
                threading.Thread(
                    target=lambda: ids.append(client.send(endpoints.submit_run({"run_name": "r"})))
                )
                for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert len(set(ids)) == 8
    assert len(opened) <= 4


def test_a_client_that_nobody_closes(opened: list[Any]) -> None:
    """Its connections are closed with it."""
    with FakeService() as service:
        client = JobsClient(service.url, Token(TOKEN))
        client.send(endpoints.submit_run({"run_name": "r"}))
        assert opened[0].sock is not None
        del client
        gc.collect()
        assert opened[0].sock is None


def test_a_response_that_is_not_read_to_its_end_ends_the_connection(opened: list[Any]) -> None:
    """The rest of its body would be taken for the next response."""
    body = b"x" * 300_000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + body
    with peer(answer) as (url, _), pool(url) as connections:
        with connections.send("GET", url + "/a", {}, None) as response:
            assert 100_000 < len(response.read(100_000)) < 300_000
        assert opened[0].sock is None


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nshort",
    ],
)
def test_a_body_that_is_too_short(answer: bytes) -> None:
    """Such a body is not taken for the whole."""
    with (
        peer(answer) as (url, _),
        pool(url) as connections,
        pytest.raises(http.client.IncompleteRead),
        connections.send("GET", url + "/a", {}, None) as response,
    ):
        response.read(1000)


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    """As HTTP/1.0 has it."""
    with (
        peer(b"HTTP/1.0 200 OK\r\n\r\nall of it") as (url, _),
        pool(url) as connections,
        connections.send("GET", url + "/a", {}, None) as response,
    ):
        assert response.read(1000) == b"all of it"
        assert response.status == 200


def test_the_request_as_it_is_sent() -> None:
    """The path is quoted once; a header of ours is not sent twice."""
    headers = {"Accept-Encoding": "gzip", "Authorization": "Bearer t"}
    with (
        peer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (url, received),
        pool(url) as connections,
        connections.send("POST", url + "/é/a%20b?c=d%2F e", headers, b"{}") as response,
    ):
        assert response.read(10) == b""
    head, _, body = received[0].partition(b"\r\n\r\n")
    line, *lines = head.splitlines()
    assert line == b"POST /%C3%A9/a%20b?c=d%2F%20e HTTP/1.1"
    assert sorted(lines) == sorted(
        [
            f"Host: {url.removeprefix('http://')}".encode(),
            b"Accept-Encoding: gzip",
            b"Authorization: Bearer t",
            b"Content-Length: 2",
        ]
    )
    assert body == b"{}"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://[::1]:1", "[::1]:1"),
        ("http://example.invalid", "example.invalid"),
        ("https://example.invalid:443", "example.invalid"),
        ("https://example.invalid:8443", "example.invalid:8443"),
        ("https://münchen.invalid", "xn--mnchen-3ya.invalid"),
    ],
)
def test_the_host_header(url: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A default port is left out; an address of IPv6 has brackets; names are in ASCII."""
    sent: list[Any] = []

    def request(_self: Any, _verb: str, _target: str, _body: Any, headers: Any) -> None:
        sent.append(headers["Host"])
        raise OSError("enough")

    monkeypatch.setattr(http.client.HTTPConnection, "request", request)
    monkeypatch.setattr(
        "airflow_jobs_provider.api.http_connection._Connection.connect", lambda _: None
    )
    with pool(url) as connections, pytest.raises(OSError, match="enough"):
        connections.send("GET", url + "/a", {}, None)
    assert sent == [host]


def test_nobody_listens() -> None:
    """The error says that nothing was sent, and holds the reason."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with pool(url) as connections, pytest.raises(NotConnectedError) as caught:
        connections.send("GET", url + "/a", {}, None)
    assert isinstance(caught.value.cause, ConnectionRefusedError)
    assert not caught.value.at_proxy
