"""Credentials at the wire: one fetch for many requests, new tokens in time, no secret shown."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

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
    RateLimitError,
    ServerError,
    TokenRefusedError,
    TokenUnavailableError,
)
from airflow_jobs_provider.api.retry import RetryPolicy, no_waiting
from tests.fakes.scripted_server import ScriptedServer, answer
from tests.helpers.client_face import Face
from tests.helpers.tracebacks import shown_with_locals

POLLING = RetryPolicy(random=lambda: 0.0).without_deadline()
LIFETIME = 3600.0


class CountingCredentials(CachedCredentials):
    """Tokens ``t1``, ``t2``, ... that live for an hour of the clock that is passed in."""

    def __init__(
        self,
        clock: Callable[[], float] = lambda: 0.0,
        before_fetch: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(clock=clock)
        self.fetched = 0
        self.threads: list[int] = []
        self._clock = clock
        self._before_fetch = before_fetch

    def fetch_token(self) -> AccessToken:
        """Return the next token."""
        self.threads.append(threading.get_ident())
        self._before_fetch()
        self.fetched += 1
        return AccessToken(f"t{self.fetched}", self._clock() + LIFETIME)


def sent(server: ScriptedServer) -> list[str]:
    """Return the tokens that the server received, in order."""
    return [request.headers["authorization"].removeprefix("Bearer ") for request in server.requests]


def test_a_token_is_fetched_once_and_reused(face: Face, server: ScriptedServer) -> None:
    """Each request carries the token; only the first one fetches it."""
    credentials = CountingCredentials()
    face.connect(server.url, credentials)
    for _ in range(3):
        face.send(endpoints.get_run(7))
    assert (credentials.fetched, sent(server)) == (1, ["t1"] * 3)


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
    assert sent(server) == ["t1", token]
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
    assert sent(server) == ["t1", "t1"]


def test_a_refused_token_is_replaced(face: Face, server: ScriptedServer) -> None:
    """While a run is polled, the attempt after a 401 carries a new token."""
    face.connect(server.url, CountingCredentials(lambda: sum(face.waits)))
    server.will(answer({}, 401))
    face.send(endpoints.get_run(7), retries=POLLING)
    assert (sent(server), face.waits) == (["t1", "t2"], [30])


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
    assert sorted(sent(server)) == ["t1"] * 10 + ["t2"] * 10
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
    assert sent(server) == ["t1"] * 100 + ["t2"] * 100
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
    assert sent(server) == ["t1", "t1", "t1", "t2", "t2"]


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
    assert sent(server) == ["t1"] * 19
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
    assert (credentials.fetched, sent(server)) == (1, ["t1"] * 4)


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
    assert sent(server) == ["t1", "t2"]


def test_a_fetch_that_fails_for_now_is_retried(face: Face, server: ScriptedServer) -> None:
    """The retry policy decides, as for a response of the workspace; nothing is sent before."""
    failures: list[JobsAPIError] = [ServerError(status=503)]

    def fail_once() -> None:
        if failures:
            raise failures.pop()

    clock = lambda: sum(face.waits)  # noqa: E731
    face.connect(server.url, CountingCredentials(clock, before_fetch=fail_once))
    face.send(endpoints.get_run(7))
    assert (sent(server), face.waits) == (["t1"], [30])


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
        return sent(self._server)[-1]


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
    assert (sent(server), len(credentials.threads), len(waits)) == (["t1"], 4, 3)


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
    assert sent(server) == ["t1"] * 3
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
    assert (sent(server), face.waits) == (["t1"], [0.5])


def test_a_forked_process_fetches_for_itself(server: ScriptedServer) -> None:
    """The thread of a fetch does not live on there, and its lock may be held for ever."""
    credentials = CountingCredentials()
    credentials._lock.acquire()
    credentials._renewal = Future()
    credentials._pid -= 1
    with JobsClient(server.url, credentials) as client, ThreadPoolExecutor(1) as pool:
        pool.submit(client.send, endpoints.get_run(7)).result(10)
    assert sent(server) == ["t1"]


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
