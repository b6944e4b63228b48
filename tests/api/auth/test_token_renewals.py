"""Credentials at the wire: renewals of a token that fail, hang, or come too late."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from airflow_jobs_provider.api import endpoints
from airflow_jobs_provider.api.auth import (
    AccessToken,
    CachedCredentials,
)
from airflow_jobs_provider.api.client import JobsClient
from airflow_jobs_provider.api.errors import (
    JobsAPIError,
    RateLimitError,
    TokenRefusedError,
    TokenUnavailableError,
)
from airflow_jobs_provider.api.retry import RetryPolicy, no_waiting
from tests.fakes.scripted_server import ScriptedServer, answer
from tests.helpers.client_face import Face
from tests.helpers.counting_credentials import (
    POLLING,
    CountingCredentials,
    tokens_sent,
)


class Fetches:
    """What the next fetches of a token do, by the clock of a test."""

    def __init__(self, face: Face, server: ScriptedServer) -> None:
        self.now = 1000.0
        self.failure: JobsAPIError | None = None
        self.done = threading.Semaphore(0)
        self.credentials = CountingCredentials(lambda: self.now, before_fetch=self._fetch)
        self._face = face
        self._server = server
        face.connect(server.url, self.credentials)

    def _fetch(self) -> None:
        self.done.release()
        if self.failure is not None:
            raise self.failure

    def token_at(self, seconds: float, retries: RetryPolicy | None = None) -> str:
        """Send a request so many seconds after the beginning; return the token that it carried."""
        self.now = 1000.0 + seconds
        self._face.send(endpoints.get_run(7), retries=retries)
        return tokens_sent(self._server)[-1]


@pytest.fixture
def fetches(face: Face, server: ScriptedServer) -> Fetches:
    """Credentials whose fetches a test controls."""
    return Fetches(face, server)


def wait_for_renewal(credentials: CachedCredentials) -> None:
    """Wait until the fetch that is in flight has ended."""
    renewal = credentials._renewal
    assert renewal is not None
    renewal.exception(10)


@pytest.mark.parametrize(
    "failure", [TokenUnavailableError("the endpoint is down"), TokenRefusedError("wrong secret")]
)
def test_the_old_token_serves_while_it_lives(
    failure: JobsAPIError, fetches: Fetches, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed renewal costs nothing while the old token lives; it is repeated after a pause."""
    assert fetches.token_at(0) == "t1"
    fetches.failure = failure
    for seconds in (2400, 2400.4, 2461, 3500):
        assert fetches.token_at(seconds) == "t1"
        wait_for_renewal(fetches.credentials)
    assert len(fetches.credentials.threads) == 1 + 3
    assert f"{failure}. The old one serves for another 1160 s" in caplog.text
    with pytest.raises(type(failure)):
        fetches.token_at(3560)
    fetches.failure = None
    assert fetches.token_at(3600) == "t2"


@pytest.mark.parametrize(
    ("failure", "times"),
    [
        (TokenUnavailableError("the endpoint is down"), [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 61.5]),
        (RateLimitError(status=429, retry_after=40.0), [0, 40, 80]),
    ],
)
@pytest.mark.parametrize("with_token", [False, True])
def test_the_pauses_between_failed_fetches_grow(
    failure: JobsAPIError, times: list[float], with_token: bool
) -> None:
    """However many requests ask meanwhile, before the old token ends and after it."""
    now = [0.0]
    may_fail: list[float] = []

    def fail() -> None:
        if not with_token or now[0]:
            may_fail.append(now[0])
            raise failure

    credentials = CountingCredentials(lambda: now[0], before_fetch=fail)
    if with_token:
        credentials.headers()
    start = 2400.0 if with_token else 0.0
    for tick in range(900):
        now[0] = start + tick / 10
        if with_token:
            assert credentials.headers() == {"Authorization": "Bearer t1"}
            wait_for_renewal(credentials)
        else:
            with pytest.raises(type(failure)):
                credentials.headers()
    assert [one - start for one in may_fail] == times


def test_a_pause_ends_with_a_success(fetches: Fetches) -> None:
    """And with a clock that is set back, which no pause outlasts."""
    fetches.failure = TokenUnavailableError("the endpoint is down")
    once = RetryPolicy(max_attempts=1)
    for seconds in (0, 0.1):
        with pytest.raises(TokenUnavailableError, match="the endpoint is down"):
            fetches.token_at(seconds, retries=once)
    fetches.failure = None
    with pytest.raises(TokenUnavailableError, match="the endpoint is down"):
        fetches.token_at(0.2, retries=once)
    assert len(fetches.credentials.threads) == 1
    assert fetches.token_at(-100, retries=once) == "t1"
    assert fetches.credentials._pause is None


def test_waits_that_are_skipped_end_a_pause(server: ScriptedServer) -> None:
    """With ``no_waiting`` no time passes."""
    failures: list[JobsAPIError] = [TokenUnavailableError("the endpoint is down")] * 3

    def fail() -> None:
        if failures:
            raise failures.pop()

    credentials = CountingCredentials(before_fetch=fail)
    with no_waiting() as waits, JobsClient(server.url, credentials) as client:
        client.send(endpoints.get_run(7))
    assert (tokens_sent(server), len(credentials.threads), len(waits)) == (["t1"], 4, 3)


def test_a_refused_token_is_replaced_after_the_clock_was_set_back(
    fetches: Fetches, server: ScriptedServer
) -> None:
    """By two hours: a token that has ended seems to have a long life before it."""
    assert fetches.token_at(7200) == "t1"
    server.will(answer({}, 401))
    assert fetches.token_at(0, retries=POLLING) == "t2"


def test_no_thread_for_a_renewal(fetches: Fetches, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the old token lives nobody notices; later it is an outage, which passes."""
    assert fetches.token_at(0) == "t1"
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name == "token":
            raise RuntimeError("can't start new thread")
        start(thread)

    once = RetryPolicy(max_attempts=1)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        assert fetches.token_at(2400) == "t1"
        with pytest.raises(TokenUnavailableError, match="can't start new thread"):
            fetches.token_at(3560, retries=once)
    assert fetches.token_at(3563, retries=once) == "t2"


def test_a_refused_token_serves_on_while_no_other_can_be_fetched(
    fetches: Fetches, server: ScriptedServer
) -> None:
    """A 403 of a maintenance window does not end the wait when the token endpoint is down, too."""
    assert fetches.token_at(0) == "t1"
    fetches.failure = TokenUnavailableError("the endpoint is down")
    server.will(answer({}, 403))
    assert fetches.token_at(100, retries=POLLING) == "t1"
    fetches.failure = None
    assert fetches.token_at(200) == "t2"


def test_a_refusal_is_waited_out_for_a_quarter_of_an_hour_while_polling(
    face: Face, fetches: Fetches, server: ScriptedServer
) -> None:
    """As a 403 of the workspace is; nothing is sent meanwhile."""
    fetches.failure = TokenRefusedError("wrong secret")
    with pytest.raises(TokenRefusedError, match="wrong secret"):
        fetches.token_at(0, retries=POLLING)
    assert 800 < sum(face.waits) <= 900
    assert server.requests == []


@pytest.mark.parametrize("lifetime", [-300.0, 0.0])
def test_a_token_that_has_expired_by_this_clock_is_used(
    lifetime: float, face: Face, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The clock of this machine may be minutes ahead; the message says so."""
    now = [1000.0]

    class Expired(CountingCredentials):
        def fetch_token(self) -> AccessToken:
            return AccessToken(super().fetch_token().value, now[0] + lifetime)

    credentials = Expired(lambda: now[0])
    face.connect(server.url, credentials)
    for _ in range(3):
        face.send(endpoints.get_run(7))
    assert tokens_sent(server) == ["t1"] * 3
    assert f"expired already, by the clock of this machine ({-lifetime:.0f} s ago)" in caplog.text


def test_a_fetch_that_hangs_is_given_up(face: Face, server: ScriptedServer) -> None:
    """The request fails as in an outage, and the next one fetches again."""
    hang = threading.Event()
    hangs = [True]

    class Hanging(CountingCredentials):
        def __init__(self) -> None:
            super().__init__(before_fetch=lambda: hangs.pop() and hang.wait(10) if hangs else None)
            self._fetch_timeout_seconds = 0.05

    face.connect(server.url, Hanging())
    face.send(endpoints.get_run(7))
    hang.set()
    assert (tokens_sent(server), face.waits) == (["t1"], [0.5])


def test_a_forked_process_fetches_for_itself(server: ScriptedServer) -> None:
    """The thread of a fetch does not live on there, and its lock may be held for ever."""
    credentials = CountingCredentials()
    credentials._lock.acquire()
    credentials._renewal = Future()
    credentials._pid -= 1
    with JobsClient(server.url, credentials) as client, ThreadPoolExecutor(1) as pool:
        pool.submit(client.send, endpoints.get_run(7)).result(10)
    assert tokens_sent(server) == ["t1"]


def test_each_waiter_gets_an_exception_of_its_own() -> None:
    """What a client notes in an exception is about its own call."""
    go_on = threading.Event()

    def fail() -> None:
        go_on.wait(10)
        raise TokenRefusedError("wrong secret", status=401, error_code="invalid_client")

    credentials = CountingCredentials(before_fetch=fail)

    async def ask() -> list[Any]:
        tasks = [asyncio.create_task(credentials.a_headers()) for _ in range(3)]
        await asyncio.sleep(0)
        go_on.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    errors = asyncio.run(ask())
    assert len({id(error) for error in errors}) == 3
    assert {(str(e), e.status, e.error_code) for e in errors} == {
        ("wrong secret", 401, "invalid_client")
    }
    assert len(credentials.threads) == 1
