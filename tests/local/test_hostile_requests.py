"""Requests that no client of good will sends are refused in the API's form, and hold up nobody."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest
import requests

from tests.local.api import Api

SETTINGS = {"notebook_task": {"notebook_path": "/nowhere"}, "existing_cluster_id": "c"}
TEN_MEGABYTES = 10 * 1024 * 1024


def create(
    api: Api, body: bytes, version: str = "2.2", headers: dict[str, str] | None = None
) -> requests.Response:
    """Send this body to ``jobs/create``."""
    url = f"{api.workspace.url}/api/{version}/jobs/create"
    return api.session.post(url, data=body, headers=headers, timeout=60)


def with_field(value: bytes) -> bytes:
    """Return a job's settings with a field of this JSON."""
    return json.dumps(SETTINGS).encode()[:-1] + b', "later_field": ' + value + b"}"


def exchange(api: Api, request: bytes) -> tuple[int, dict[str, object]]:
    """Send these bytes over a connection of their own; return the answer's status and JSON."""
    address = urlsplit(api.workspace.url)
    assert address.hostname is not None
    with socket.create_connection((address.hostname, address.port or 0), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize("path", ["GET /api/2.0/jobs/list", "POST /local/notebook-run"])
@pytest.mark.parametrize(
    ("credential", "known_scheme"),
    [
        ("Bearer tästä".encode(), True),
        ("Bearer tästä".encode("latin-1"), True),
        (b"Bearer \xff\xfe", True),
        (b"Basic dG9rZW46d3Jvbmc=\xe4", False),
        (b"Digest \xe4", False),
    ],
)
def test_credentials_that_are_not_ascii(
    api: Api, path: str, credential: bytes, known_scheme: bool
) -> None:
    """A credential that is not ASCII is a wrong one (403), or none (401), as any other."""
    host = urlsplit(api.workspace.url).netloc.encode()
    status, body = exchange(
        api,
        path.encode() + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n"
        b"Authorization: " + credential + b"\r\nContent-Length: 0\r\n\r\n",
    )
    wanted = 403 if known_scheme or path.endswith("notebook-run") else 401
    assert (status, body["error_code"]) == (wanted, wanted)


@pytest.mark.parametrize("version", ["2.0", "2.1", "2.2"])
@pytest.mark.parametrize("depth", [100, 500, 900, 975, 1000, 20_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting(api: Api, version: str, depth: int, opening: bytes, closing: bytes) -> None:
    """JSON that is nested more than 100 levels deep is malformed, however deep it is."""
    value = opening * depth + b"1" + closing * depth
    for body in (with_field(value), value):
        answer = create(api, body, version)
        assert answer.status_code == 400
        if body is value and depth == 100:
            continue  # deep enough, but no settings
        assert answer.json()["error_code"] == "MALFORMED_REQUEST"
        assert "at most 100 levels" in answer.json()["message"]


def test_nesting_that_is_stored(api: Api) -> None:
    """What is nested as deep as is allowed is kept, answered and run."""
    value = b'{"a":[' * 49 + b'"[[[[\\"{{"' + b"]}" * 49
    job_id = create(api, with_field(value)).json()["job_id"]
    kept = api.get("get", version="2.2", job_id=job_id).json()["settings"]["later_field"]
    assert kept == json.loads(value)
    for path in ("list", "runs/list"):
        assert api.get(path, version="2.2").status_code == 200
    # Brackets in a text are no nesting.
    text = json.dumps("[" * 4000 + '"\\' + "{" * 4000).encode()
    assert create(api, with_field(text)).status_code == 200


@pytest.mark.parametrize(
    "number",
    ["1e400", "-1e400", "[1e309]", "NaN", "Infinity", "-Infinity", "1" * 309, "1" * 5000],
)
def test_numbers_out_of_range(api: Api, number: str) -> None:
    """A number beyond the largest double, and what is no number in JSON, is malformed."""
    answer = create(api, with_field(number.encode()))
    assert (answer.status_code, answer.json()["error_code"]) == (400, "MALFORMED_REQUEST")
    assert "out of range" in answer.json()["message"] or "no JSON" in answer.json()["message"]


@pytest.mark.parametrize("number", ["1e308", "-1e308", "9" * 308, "1e-400"])
def test_numbers_within_range(api: Api, number: str) -> None:
    """A number that a double holds comes back as it was given."""
    job_id = create(api, with_field(number.encode())).json()["job_id"]
    settings = api.get("get", version="2.2", job_id=job_id).json()["settings"]
    assert settings["later_field"] == json.loads(number)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (json.dumps(SETTINGS).encode("utf-16"), {}),
        (b'{"name": "\xed\xa0\x80"}', {}),
        (b"no gzip", {"Content-Encoding": "gzip"}),
    ],
)
def test_bodies_that_cannot_be_decoded(api: Api, body: bytes, headers: dict[str, str]) -> None:
    """A body that is not UTF-8, or not in the encoding that it names, is malformed."""
    answer = create(api, body, headers=headers)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "MALFORMED_REQUEST")
    # The client is told where the connection cannot be used again.
    assert create(api, b"{}").status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        b"[" * TEN_MEGABYTES,
        b'{"a":[' * (TEN_MEGABYTES // 6),
        b'{"a":[' + b"1," * (TEN_MEGABYTES // 2 - 10) + b"x]}",
        b'{"a":[' + b"[]," * (TEN_MEGABYTES // 3 - 10) + b"x]}",
    ],
    ids=["brackets", "objects", "numbers", "lists"],
)
@pytest.mark.slow
def test_large_bodies_hold_up_nobody(api: Api, body: bytes) -> None:
    """While 10 MB that are no JSON are read, other requests are answered."""
    longest, done = 0.0, threading.Event()
    began = threading.Event()

    def ask() -> None:
        nonlocal longest
        with requests.Session() as session:
            session.headers.update(api.session.headers)
            while not done.is_set():
                start = time.monotonic()
                url = f"{api.workspace.url}/api/2.0/jobs/runs/list"
                assert session.get(url, params={"limit": 1}, timeout=60).status_code == 200
                longest = max(longest, time.monotonic() - start)
                began.set()

    asking = threading.Thread(target=ask)
    asking.start()
    assert began.wait(10)
    answer = create(api, body)
    done.set()
    asking.join()
    assert (answer.status_code, answer.json()["error_code"]) == (400, "MALFORMED_REQUEST")
    assert longest < 2


@pytest.mark.parametrize("position", ["9" * 19, "9" * 30, "9" * 5000, "-1", "1.5", "x", ""])
def test_page_tokens_of_no_page(api: Api, position: str) -> None:
    """A page_token that the workspace has not given is refused, whatever it holds."""
    for path, kind in (("runs/list", "runs"), ("list", "jobs")):
        token = base64.urlsafe_b64encode(f"{kind}:{position}".encode()).decode().rstrip("=")
        answer = api.get(path, version="2.1", page_token=token)
        assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
