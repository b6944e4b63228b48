"""Credentials at the wire: one fetch for many requests, new tokens in time, no secret shown."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_jobs_provider.api import endpoints
from airflow_jobs_provider.api.auth import (
    AccessToken,
    Basic,
    CachedCredentials,
    Credentials,
    Token,
    fingerprint,
)
from airflow_jobs_provider.api.client import AsyncJobsClient, JobsClient
from airflow_jobs_provider.api.errors import (
    AuthenticationError,
    CredentialsError,
    JobsAPIError,
    ServerError,
)
from airflow_jobs_provider.api.retry import RetryPolicy
from tests.fakes.scripted_server import ScriptedServer, answer
from tests.helpers.client_face import Face
from tests.helpers.counting_credentials import (
    LIFETIME,
    POLLING,
    CountingCredentials,
    tokens_sent,
)
from tests.helpers.tracebacks import shown_with_locals


def test_a_token_is_fetched_once_and_reused(face: Face, server: ScriptedServer) -> None:
    """Each request carries the token; only the first one fetches it."""
    credentials = CountingCredentials()
    face.connect(server.url, credentials)
    for _ in range(3):
        face.send(endpoints.get_run(7))
    assert (credentials.fetched, tokens_sent(server)) == (1, ["t1"] * 3)


@pytest.mark.parametrize(
    ("seconds", "token", "fetched"),
    [(0, "t1", 1), (2399, "t1", 1), (2400, "t1", 2), (3560, "t2", 2)],
)
def test_a_token_is_renewed_ahead_of_its_end(
    seconds: float, token: str, fetched: int, face: Face, server: ScriptedServer
) -> None:
    """A token of an hour is renewed after 40 minutes, in the background, and used meanwhile."""
    now = [1000.0]
    may_fetch = threading.Event()
    may_fetch.set()
    credentials = CountingCredentials(lambda: now[0], before_fetch=lambda: may_fetch.wait(10))
    face.connect(server.url, credentials)
    face.send(endpoints.get_run(7))
    now[0] += seconds
    if seconds < 3560:
        may_fetch.clear()
    face.send(endpoints.get_run(7))
    may_fetch.set()
    assert tokens_sent(server) == ["t1", token]
    assert len(credentials.threads) == fetched


def test_a_token_without_an_end_is_kept(face: Face, server: ScriptedServer) -> None:
    """Whatever the time, a token that does not expire is not fetched again."""

    class Endless(CountingCredentials):
        def fetch_token(self) -> AccessToken:
            return AccessToken(super().fetch_token().value)

    now = [0.0]
    face.connect(server.url, Endless(lambda: now[0]))
    face.send(endpoints.get_run(7))
    now[0] = 1e12
    face.send(endpoints.get_run(7))
    assert tokens_sent(server) == ["t1", "t1"]


def test_a_refused_token_is_replaced(face: Face, server: ScriptedServer) -> None:
    """While a run is polled, the attempt after a 401 carries a new token."""
    face.connect(server.url, CountingCredentials(lambda: sum(face.waits)))
    server.will(answer({}, 401))
    face.send(endpoints.get_run(7), retries=POLLING)
    assert (tokens_sent(server), face.waits) == (["t1", "t2"], [30])


def test_requests_that_are_refused_together_fetch_one_token(server: ScriptedServer) -> None:
    """Ten refusals of one token lead to one new token."""
    now = [1000.0]
    credentials = CountingCredentials(lambda: now[0])
    server.will(*(answer({}, 401) for _ in range(10)))

    async def sleep(seconds: float) -> None:
        now[0] = 1000.0 + seconds
        await asyncio.sleep(0)

    async def send_all() -> None:
        async with AsyncJobsClient(server.url, credentials, sleep=sleep, retries=POLLING) as client:
            await asyncio.gather(*(client.send(endpoints.get_run(n)) for n in range(1, 11)))

    asyncio.run(send_all())
    assert sorted(tokens_sent(server)) == ["t1"] * 10 + ["t2"] * 10
    assert credentials.fetched == 2


def test_a_late_refusal_of_the_old_token_does_not_drop_the_new_one(server: ScriptedServer) -> None:
    """A hundred requests are refused, most of them after others have fetched the next token."""
    now = [1000.0]
    credentials = CountingCredentials(lambda: now[0])
    first = RetryPolicy(max_attempts=1)
    server.will(*(answer({}, 401) for _ in range(100)))

    async def send_all() -> None:
        async with AsyncJobsClient(server.url, credentials, retries=first) as client:
            calls = [client.send(endpoints.get_run(n)) for n in range(1, 101)]
            errors = await asyncio.gather(*calls, return_exceptions=True)
            for error in errors:
                assert isinstance(error, AuthenticationError)
                now[0] += 11
                await client.renew_credentials(error)
                await client.send(endpoints.get_run(7))

    asyncio.run(send_all())
    assert tokens_sent(server) == ["t1"] * 100 + ["t2"] * 100
    assert credentials.fetched == 2


def test_a_new_token_that_is_refused_is_replaced_after_ten_seconds(
    face: Face, server: ScriptedServer
) -> None:
    """A service that refuses all tokens does not cause a fetch for each request."""
    now = [1000.0]
    credentials = CountingCredentials(lambda: now[0])
    client = face.connect(server.url, credentials, retries=RetryPolicy(max_attempts=1))
    for seconds in (0, 5, 11, 12):
        now[0] = 1000.0 + seconds
        server.will(answer({}, 401))
        with pytest.raises(AuthenticationError) as caught:
            face.send(endpoints.get_run(7))
        client._credentials.invalidate(caught.value.refused_credentials)
    face.send(endpoints.get_run(7))
    assert tokens_sent(server) == ["t1", "t1", "t1", "t2", "t2"]


def test_a_fingerprint_is_no_secret() -> None:
    """It tells tokens apart, and cannot be computed by another process."""
    one = fingerprint({"Authorization": "Bearer t1"})
    assert one == fingerprint({"Authorization": "Bearer t1", "Other": "x"})
    assert one != fingerprint({"Authorization": "Bearer t2"})
    code = "from airflow_jobs_provider.api.auth import fingerprint\n"
    code += "print(fingerprint({'Authorization': 'Bearer t1'}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert one.encode() != other.stdout.strip()


def test_coroutines_share_one_fetch_and_the_loop_goes_on(server: ScriptedServer) -> None:
    """While the token is fetched in a thread the event loop runs; nobody fetches it again."""
    go_on = threading.Event()
    tell_loop: list[Callable[[], object]] = []

    def wait_for_the_loop() -> None:
        tell_loop[0]()
        assert go_on.wait(10), "the event loop was blocked"

    credentials = CountingCredentials(before_fetch=wait_for_the_loop)

    async def send_all() -> None:
        is_fetching = asyncio.Event()
        loop = asyncio.get_running_loop()
        tell_loop.append(lambda: loop.call_soon_threadsafe(is_fetching.set))
        async with AsyncJobsClient(server.url, credentials) as client:
            tasks = [asyncio.create_task(client.send(endpoints.get_run(n))) for n in range(1, 21)]
            await is_fetching.wait()
            # One that gives up does not end the fetch for the others.
            tasks[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await tasks[0]
            go_on.set()
            await asyncio.gather(*tasks[1:])

    asyncio.run(send_all())
    assert tokens_sent(server) == ["t1"] * 19
    assert (credentials.fetched, len(credentials.threads)) == (1, 1)
    assert credentials.threads[0] != threading.get_ident()


def test_threads_share_one_fetch(server: ScriptedServer) -> None:
    """Clients of several threads with the same credentials fetch one token."""
    barrier = threading.Barrier(4)
    credentials = CountingCredentials()

    def send() -> None:
        with JobsClient(server.url, credentials) as client:
            barrier.wait(10)
            client.send(endpoints.get_run(7))

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(send) for _ in range(4)]:
            future.result(30)
    assert (credentials.fetched, tokens_sent(server)) == (1, ["t1"] * 4)


def test_credentials_serve_one_event_loop_after_another(server: ScriptedServer) -> None:
    """What was fetched in a loop that has ended is no obstacle in the next one."""
    now = [0.0]
    credentials = CountingCredentials(lambda: now[0])

    async def send() -> None:
        async with AsyncJobsClient(server.url, credentials) as client:
            await client.send(endpoints.get_run(7))

    asyncio.run(send())
    now[0] += LIFETIME
    asyncio.run(send())
    assert tokens_sent(server) == ["t1", "t2"]


def test_a_fetch_that_fails_for_now_is_retried(face: Face, server: ScriptedServer) -> None:
    """The retry policy decides, as for a response of the workspace; nothing is sent before."""
    failures: list[JobsAPIError] = [ServerError(status=503)]

    def fail_once() -> None:
        if failures:
            raise failures.pop()

    clock = lambda: sum(face.waits)  # noqa: E731
    face.connect(server.url, CountingCredentials(clock, before_fetch=fail_once))
    face.send(endpoints.get_run(7))
    assert (tokens_sent(server), face.waits) == (["t1"], [30])


def test_a_fetch_that_cannot_work_is_an_error_at_once(face: Face, server: ScriptedServer) -> None:
    """Credentials that do not exist are not waited for."""

    def fail() -> None:
        raise CredentialsError("there is no such principal")

    face.connect(server.url, CountingCredentials(before_fetch=fail))
    with pytest.raises(CredentialsError, match="no such principal"):
        face.send(endpoints.get_run(7))
    assert (server.requests, face.waits) == ([], [])


def test_an_unknown_exception_shows_no_secret(face: Face, server: ScriptedServer) -> None:
    """What an authentication library raises is named by its class; its message may be secret."""

    class Failing(Credentials):
        def authorization(self) -> str:
            raise OSError("client_secret=hush")

    face.connect(server.url, Failing())
    with pytest.raises(CredentialsError, match="OSError") as caught:
        face.send(endpoints.get_run(7))
    assert "hush" not in shown_with_locals(caught.value)
    assert (server.requests, face.waits) == ([], [])


@pytest.mark.parametrize("value", ["", " ", "a b", "a\nb", "tökeн"])
def test_a_token_that_no_header_can_hold(value: str, face: Face, server: ScriptedServer) -> None:
    """A fetched token is checked like one of a connection; it is not kept."""

    class Odd(CachedCredentials):
        def fetch_token(self) -> AccessToken:
            return AccessToken(value)

    face.connect(server.url, Odd())
    for _ in range(2):
        with pytest.raises(CredentialsError, match="the token"):
            face.send(endpoints.get_run(7))
    assert server.requests == []


@pytest.mark.parametrize("credentials", [Token("t"), Basic("me", "p")])
def test_static_credentials_need_no_thread(credentials: Credentials) -> None:
    """From asyncio they answer at once, without a turn of the event loop."""
    with pytest.raises(StopIteration) as returned:
        credentials.a_headers().__await__().__next__()
    assert returned.value.value == {"Authorization": credentials.authorization()}


def test_no_repr_shows_a_secret() -> None:
    """Credentials and tokens can be logged."""
    shown = repr((Token("hush"), Basic("me", "hush"), AccessToken("hush", 1.0)))
    assert "hush" not in shown
