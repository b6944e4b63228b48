"""No exception of the client shows a credential, whatever is answered, and whatever is sent.

Airflow 3.0 logs an exception with the local variables of each frame, and an HTTP library's frames
hold the headers. Other tools show the exceptions that one came from, too.
"""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import threading
from typing import Any

import pytest

from airflow_jobs_provider.api import endpoints, errors
from airflow_jobs_provider.api.auth import Basic
from airflow_jobs_provider.api.client import AsyncJobsClient, JobsClient
from airflow_jobs_provider.api.proxies import Proxies
from airflow_jobs_provider.api.retry import RetryPolicy
from tests.fakes.scripted_server import (
    TOKEN,
    ScriptedServer,
    never_answer,
)
from tests.helpers.broken_responses import ANSWERS
from tests.helpers.client_face import Face
from tests.helpers.tracebacks import shown_with_locals

ONCE = RetryPolicy(max_attempts=1)
PASSWORD = "the-password-of-somebody-1234"
BASIC = "bWU6dGhlLXBhc3N3b3JkLW9mLXNvbWVib2R5LTEyMzQ="


def circular() -> dict[str, Any]:
    """A payload that holds itself."""
    payload: dict[str, Any] = {"run_name": "r"}
    payload["notebook_task"] = {"base_parameters": payload}
    return payload


def deep(levels: int = 100_000) -> dict[str, Any]:
    """A payload that is nested deeper than Python's stack."""
    payload: dict[str, Any] = {}
    for _ in range(levels):
        payload = {"a": payload}
    return payload


PAYLOADS: dict[str, tuple[dict[str, Any], str]] = {
    "set": ({"libraries": [{"jar": "a"}, {1, 2}]}, r"libraries\[1\] must be a JSON value.*a set"),
    "bytes": ({"run_name": b"r"}, "run_name must be a JSON value.*bytes"),
    "NaN": ({"timeout_seconds": float("nan")}, "timeout_seconds must be a finite number.*nan"),
    "infinity": ({"a": {"b": [float("-inf")]}}, r"a\.b\[0\] must be a finite number.*-inf"),
    "object": ({"new_cluster": object()}, "new_cluster must be a JSON value.*object"),
    "tuple as a name": ({"a": {(1, 2): 3}}, "a must have text as keys"),
    "circular": (circular(), "contains itself"),
    "deep": (deep(), "nested too deep"),
}


@pytest.fixture(params=["token", "password"])
def secret(request: pytest.FixtureRequest) -> Any:
    """Credentials of both kinds."""
    return None if request.param == "token" else Basic("me", PASSWORD)


def assert_no_secret(error: BaseException) -> None:
    """Neither in the exception, nor in a frame, nor in what it came from."""
    shown = shown_with_locals(error)
    for secret in (TOKEN, PASSWORD, BASIC):
        assert secret not in shown
    assert "Authorization" not in shown
    assert not re.search(r'File "[^"]*site-packages/(requests|urllib3|aiohttp)/', shown)
    assert "_send_once" in shown or isinstance(error, errors.InvalidRequestError)


@pytest.mark.parametrize("name", ANSWERS)
def test_no_credential_in_the_traceback_of_an_answer(
    name: str, secret: Any, face: Face, server: ScriptedServer
) -> None:
    """And no exception but the client's own."""
    server.will(*[ANSWERS[name]] * 3)
    face.connect(server.url, secret, timeout_seconds=0.3)
    with pytest.raises(errors.JobsAPIError) as caught:
        # A launch, so that an answer without an id is an error, too.
        face.send(endpoints.submit_run({}), retries=ONCE)
    assert_no_secret(caught.value)


@pytest.mark.parametrize("name", PAYLOADS)
def test_what_json_cannot_express_is_not_sent(
    name: str, secret: Any, face: Face, server: ScriptedServer
) -> None:
    """Where the check of requests is off, too; the message names the field."""
    payload, words = PAYLOADS[name]
    face.connect(server.url, secret)
    for call in (endpoints.create_job(payload), endpoints.submit_run(payload)):
        with pytest.raises(errors.InvalidRequestError, match=words) as caught:
            face.send(call)
        if name != "deep":  # no traceback with local variables can be made of it
            assert_no_secret(caught.value)
    assert (server.requests, face.waits) == ([], [])


def test_half_a_surrogate_pair_is_not_sent_in_a_query(face: Face, server: ScriptedServer) -> None:
    """A URL can hold Unicode text only."""
    face.connect(server.url)
    with pytest.raises(errors.InvalidRequestError, match="Unicode"):
        face.send(endpoints.export_run(7, "\ud800"))
    assert server.requests == []


@pytest.mark.parametrize("port", [1, 0])
def test_no_credential_where_nobody_listens(port: int, secret: Any, face: Face) -> None:
    """Nor where a name does not resolve, or a proxy does not answer."""
    for url, proxy in (
        (f"http://127.0.0.1:{port}", None),
        ("https://workspace.test.invalid", None),
        ("https://workspace.test.invalid", f"http://127.0.0.1:{port}"),
    ):
        face.connect(url, secret, proxies=Proxies({"https": proxy}))
        with pytest.raises(errors.ConnectError) as caught:
            face.send(endpoints.get_run(7), retries=ONCE)
        assert_no_secret(caught.value)


class Interrupted(BaseException):
    """What a signal handler raises in the middle of a request, as Airflow's time-out does."""


def test_no_credential_where_a_signal_interrupts(server: ScriptedServer) -> None:
    """``execution_timeout`` raises in whatever frame is under way: one of the HTTP library."""

    def interrupt(_number: int, _frame: Any) -> None:
        raise Interrupted

    server.will(never_answer)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with JobsClient(server.url, Basic("me", PASSWORD)) as client:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(Interrupted) as caught:
                client.send(endpoints.get_run(7))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(server.requests) == 1
    assert_no_secret(caught.value)


async def test_no_credential_where_a_task_is_canceled(server: ScriptedServer) -> None:
    """A canceled trigger, whose traceback Airflow logs."""
    asked = threading.Event()

    def tell(connection: socket.socket) -> None:
        asked.set()
        never_answer(connection)

    server.will(tell)
    async with AsyncJobsClient(server.url, Basic("me", PASSWORD)) as client:
        task = asyncio.create_task(client.send(endpoints.get_run(7)))
        assert await asyncio.to_thread(asked.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    assert_no_secret(caught.value)
