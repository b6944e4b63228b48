"""The retry policy: which errors are retried, the waits, and the limits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from types import SimpleNamespace
from typing import Any

import pytest
import tenacity

from airflow_jobs_provider.api import errors, retry
from airflow_jobs_provider.api.retry import Backoff, ConsecutiveFailures, RetryPolicy, no_waiting

POLICY = RetryPolicy(random=lambda: 0.0, clock=lambda: 0.0)
POLLING = POLICY.without_deadline()

CONNECTION_FAILED = errors.ConnectError("no route")
RESPONSE_LOST = errors.ResponseLostError("reset")
SERVER_ERROR = errors.ServerError(status=503)
RATE_LIMITED = errors.RateLimitError(status=429)
CONFLICT = errors.ConflictError(status=400)
NOT_FOUND = errors.NotFoundError(status=400)
UNAUTHORIZED = errors.AuthenticationError(status=401)
FORBIDDEN = errors.AuthenticationError(status=403)
BAD_REQUEST = errors.BadRequestError(status=400)
REDIRECT = errors.UnexpectedResponseError(status=302)
PAGE = errors.UnexpectedResponseError(status=200, is_page=True)
INVALID_BODY = errors.UnexpectedResponseError(status=200)
PASSWORD_REFUSED = errors.ProxyAuthenticationError("407", status=407)


def proxy_error(status: int | None, *, first_contact: bool) -> errors.ProxyError:
    """Make an error of the proxy."""
    return errors.ProxyError("proxy", status=status, first_contact=first_contact)


@pytest.mark.parametrize(
    ("error", "policy", "expected"),
    [
        (SERVER_ERROR, POLICY, Backoff(30, 60, 600, None, False)),
        (RATE_LIMITED, POLICY, Backoff(1, 60, 600, None, False)),
        (RESPONSE_LOST, POLICY, Backoff(0.5, 30, 600, None, False)),
        (CONNECTION_FAILED, POLICY, Backoff(0.5, 30, 600, None, False)),
        (CONFLICT, POLICY, Backoff(1, 30, 600, None, False)),
        (PAGE, POLICY, Backoff(30, 60, 600, None, False)),
        (INVALID_BODY, POLICY, Backoff(1, 30, 600, 10, True)),
        (PASSWORD_REFUSED, POLICY, Backoff(30, 60, 900, None, True)),
        (errors.HostNotFoundError("dns"), POLICY, Backoff(0.5, 30, 600, None, False)),
        (
            errors.HostNotFoundError("dns", first_contact=True),
            POLICY,
            Backoff(1, 10, 50, None, True),
        ),
        (proxy_error(None, first_contact=True), POLICY, Backoff(1, 10, 50, None, True)),
        (proxy_error(499, first_contact=True), POLICY, Backoff(1, 10, 50, None, True)),
        (proxy_error(500, first_contact=True), POLICY, Backoff(0.5, 30, 600, None, True)),
        (proxy_error(502, first_contact=False), POLICY, Backoff(0.5, 30, 600, None, False)),
        (
            errors.ProxyAuthenticationError("407", status=407, first_contact=True),
            POLICY,
            None,
        ),
        (errors.InvalidProxyError("socks", first_contact=True), POLICY, None),
        (errors.InvalidProxyError("socks"), POLICY, None),
        (errors.CertificateError("unknown CA"), POLICY, None),
        (BAD_REQUEST, POLICY, None),
        (NOT_FOUND, POLICY, None),
        (UNAUTHORIZED, POLICY, None),
        (UNAUTHORIZED, POLLING, Backoff(30, 60, 900, None, True)),
        (FORBIDDEN, POLLING, Backoff(30, 60, 900, None, True)),
        (REDIRECT, POLICY, None),
        (REDIRECT, POLLING, None),
        (REDIRECT, POLICY.with_known_host(), None),
        (REDIRECT, POLLING.with_known_host(), Backoff(1, 60, 900, None, True)),
        (BAD_REQUEST, POLLING.with_known_host(), None),
        (ValueError("a bug"), POLLING.with_known_host(), None),
    ],
)
def test_each_error_has_its_backoff(
    error: Exception, policy: RetryPolicy, expected: Backoff | None
) -> None:
    """The table of the module's docstring; what is not in it is not retried."""
    assert policy.backoff_for(error, idempotent=True) == expected


@pytest.mark.parametrize(
    ("error", "is_retried"),
    [
        (RESPONSE_LOST, False),
        (SERVER_ERROR, False),
        (PAGE, False),
        (CONNECTION_FAILED, True),
        (RATE_LIMITED, True),
        (CONFLICT, True),
    ],
)
def test_a_call_that_is_not_idempotent_is_not_retried_after_it_may_have_acted(
    error: Exception, is_retried: bool
) -> None:
    """A second attempt could create a second job."""
    assert (POLICY.backoff_for(error, idempotent=False) is not None) is is_retried
    assert POLICY.backoff_for(error, idempotent=True) is not None


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (SERVER_ERROR, [30, 60, 60]),
        (RATE_LIMITED, [1, 2, 4, 8, 16, 32, 60, 60]),
        (RESPONSE_LOST, [0.5, 1, 2, 4, 8, 16, 30, 30]),
        (BAD_REQUEST, [0]),
    ],
)
def test_the_wait_doubles_up_to_its_maximum(error: Exception, waits: list[float]) -> None:
    """Each wait is twice the one before."""
    assert [POLICY.wait_seconds(error, n) for n in range(1, len(waits) + 1)] == waits


def test_thousands_of_attempts_have_a_wait() -> None:
    """The exponent does not overflow; it still grows up to the 21st attempt."""
    assert POLLING.wait_seconds(RATE_LIMITED, 5_000) == 60
    slow = RetryPolicy(initial_wait=1e-6, random=lambda: 0.0)
    assert slow.wait_seconds(SERVER_ERROR, 20) == pytest.approx(1e-6 * 2**19)
    assert slow.wait_seconds(SERVER_ERROR, 21) == pytest.approx(1e-6 * 2**20)
    assert slow.wait_seconds(SERVER_ERROR, 22) == pytest.approx(1e-6 * 2**20)


def test_initial_wait_replaces_the_first_wait() -> None:
    """A longer one than the maximum is used for all waits."""
    policy = RetryPolicy(initial_wait=2, random=lambda: 0.0)
    assert [policy.wait_seconds(SERVER_ERROR, n) for n in (1, 2, 6, 7)] == [2, 4, 60, 60]
    policy = RetryPolicy(initial_wait=100, random=lambda: 0.0)
    assert [policy.wait_seconds(SERVER_ERROR, n) for n in (1, 2)] == [100, 100]


@pytest.mark.parametrize(("random", "factor"), [(0.0, 1.0), (0.5, 1.125), (1.0, 1.25)])
def test_jitter_adds_up_to_a_quarter(random: float, factor: float) -> None:
    """It lengthens every wait, also that of a Retry-After."""
    policy = RetryPolicy(random=lambda: random)
    assert policy.wait_seconds(SERVER_ERROR, 1) == 30 * factor
    limited = errors.RateLimitError(status=429, retry_after=8)
    assert policy.wait_seconds(limited, 1) == 8 * factor


@pytest.mark.parametrize(("retry_after", "wait"), [(7, 7), (299, 299), (301, 300), (3600, 300)])
def test_retry_after_is_honoured(retry_after: float, wait: float) -> None:
    """Its seconds replace the table's and ``initial_wait``, up to ``max_retry_after``."""
    limited = errors.RateLimitError(status=429, retry_after=retry_after)
    for policy in (POLICY, RetryPolicy(initial_wait=0.1, random=lambda: 0.0)):
        assert [policy.wait_seconds(limited, n) for n in (1, 5)] == [wait, wait]
    policy = RetryPolicy(max_retry_after=5, random=lambda: 0.0)
    assert policy.wait_seconds(limited, 1) == 5


class Clock:
    """A clock that the test sets."""

    now = 1_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_limits_hold_for_consecutive_failures_only() -> None:
    """An error without a limit starts the limits anew."""
    clock = Clock()
    polling, failures = RetryPolicy(clock=clock, no_deadline=True), ConsecutiveFailures()
    assert polling.should_retry(FORBIDDEN, failures)
    clock.now += 900
    assert polling.should_retry(FORBIDDEN, failures)
    clock.now += 1
    assert not polling.should_retry(FORBIDDEN, failures)
    assert polling.should_retry(SERVER_ERROR, failures)
    assert failures == ConsecutiveFailures(None, 0)
    assert polling.should_retry(FORBIDDEN, failures)
    assert failures.since == clock.now


def test_the_next_wait_counts_towards_the_timeout() -> None:
    """No attempt begins after the timeout."""
    clock = Clock()
    policy, failures = RetryPolicy(clock=clock), ConsecutiveFailures()
    assert policy.should_retry(SERVER_ERROR, failures, next_wait=600)
    clock.now += 590
    assert policy.should_retry(SERVER_ERROR, failures, next_wait=10)
    assert not policy.should_retry(SERVER_ERROR, failures, next_wait=10.1)
    assert not policy.should_retry(BAD_REQUEST, failures)


def test_invalid_bodies_are_given_up_after_ten_attempts() -> None:
    """The tenth is the last one, whatever the time; other errors do not count."""
    polling, failures = RetryPolicy(clock=Clock(), no_deadline=True), ConsecutiveFailures()
    assert all(polling.should_retry(INVALID_BODY, failures) for _ in range(9))
    assert polling.should_retry(FORBIDDEN, failures)
    assert failures.counted == 9
    assert polling.should_retry(INVALID_BODY, failures) is False


def test_without_deadline_outages_are_waited_out() -> None:
    """However long they last."""
    clock = Clock()
    polling, failures = RetryPolicy(clock=clock).without_deadline(), ConsecutiveFailures()
    for _ in range(3):
        clock.now += 86_400
        assert polling.should_retry(SERVER_ERROR, failures)


def test_a_known_host_is_recorded_once() -> None:
    """The policy stays as it is, but for that."""
    assert POLLING.with_known_host() == RetryPolicy(
        no_deadline=True, is_host_known=True, random=POLLING.random, clock=POLLING.clock
    )
    known = POLICY.with_known_host()
    assert known.with_known_host() is known


def test_the_default_policy() -> None:
    """A deadline of the table, Retry-After up to five minutes."""
    policy = RetryPolicy()
    assert (policy.max_attempts, policy.initial_wait, policy.max_retry_after) == (None, None, 300)
    assert (policy.no_deadline, policy.is_host_known) == (False, False)


def attempts_of(policy: RetryPolicy, *outcomes: Exception, **call: Any) -> tuple[int, list[float]]:
    """Return how often a call is sent that fails so, and the waits between."""
    waits: list[float] = []
    sent = 0

    def send() -> None:
        nonlocal sent
        sent += 1
        if sent <= len(outcomes):
            raise outcomes[sent - 1]

    call.setdefault("idempotent", True)
    retrying = tenacity.Retrying(sleep=waits.append, **policy.tenacity("runs/get", **call))
    with contextlib.suppress(*{type(outcome) for outcome in outcomes}):
        retrying(send)
    return sent, waits


def test_a_call_is_sent_until_it_succeeds() -> None:
    """With the waits of the policy between."""
    assert attempts_of(POLICY, SERVER_ERROR, RATE_LIMITED) == (3, [30, 2])


def test_a_call_is_given_up_after_its_timeout() -> None:
    """Faked waits count as passed: 30 s and then nine times 60 s fit into 600 s."""
    assert attempts_of(POLICY, *[SERVER_ERROR] * 50) == (11, [30, *[60] * 9])
    clock = Clock()
    late = RetryPolicy(random=lambda: 0.0, clock=clock)
    arguments = late.tenacity("runs/get", idempotent=True)
    clock.now += 571
    state = SimpleNamespace(
        outcome=SimpleNamespace(exception=lambda: SERVER_ERROR),
        attempt_number=1,
        idle_for=0.0,
        upcoming_sleep=30.0,
    )
    assert arguments["stop"](state) is True
    state.upcoming_sleep = 29.0
    assert arguments["stop"](state) is False


def test_polling_has_no_timeout_of_its_own() -> None:
    """An error without a limit in between starts the limits anew."""
    assert attempts_of(POLLING, *[SERVER_ERROR] * 50)[0] == 51
    assert attempts_of(POLLING, *[FORBIDDEN] * 50)[0] == 16
    assert attempts_of(POLLING, *[FORBIDDEN] * 10, SERVER_ERROR, *[FORBIDDEN] * 10)[0] == 22


def test_max_attempts_replaces_the_timeouts() -> None:
    """It does not hold for polling without a deadline."""
    assert attempts_of(RetryPolicy(max_attempts=3), *[SERVER_ERROR] * 50)[0] == 3
    assert attempts_of(RetryPolicy(max_attempts=20), *[SERVER_ERROR] * 50)[0] == 20
    assert attempts_of(RetryPolicy(max_attempts=3, no_deadline=True), *[SERVER_ERROR] * 9)[0] == 10


def test_a_forbidden_response_can_be_final() -> None:
    """A 403 is then not retried, a 401 and other errors are."""
    assert attempts_of(POLLING, FORBIDDEN, forbidden_is_final=True)[0] == 1
    arguments = POLLING.tenacity("runs/get", idempotent=True, forbidden_is_final=True)
    state = SimpleNamespace(outcome=SimpleNamespace(exception=lambda: FORBIDDEN))
    assert arguments["retry"](state) is False
    assert attempts_of(POLLING, UNAUTHORIZED, forbidden_is_final=True)[0] == 2
    assert attempts_of(POLLING, SERVER_ERROR, forbidden_is_final=True)[0] == 2
    assert attempts_of(POLLING, FORBIDDEN)[0] == 2


def test_what_may_have_acted_is_not_sent_again_unless_idempotent() -> None:
    """The error is raised at once."""
    assert attempts_of(POLICY, RESPONSE_LOST, idempotent=False) == (1, [])


def test_the_first_failure_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Further ones of the same call are logged at debug level."""
    caplog.set_level("DEBUG", logger=retry.__name__)
    attempts_of(POLICY, SERVER_ERROR, RATE_LIMITED)
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (logging.WARNING, f"runs/get failed: {SERVER_ERROR}. Next attempt in 30.0 s."),
        (logging.DEBUG, f"runs/get failed: {RATE_LIMITED}. Next attempt in 2.0 s."),
    ]


def test_arguments_for_tenacity_replace_the_policys() -> None:
    """All but ``reraise``."""
    stop = tenacity.stop_after_attempt(2)
    policy = RetryPolicy(tenacity_args={"stop": stop, "reraise": False})
    arguments = policy.tenacity("runs/get", idempotent=True)
    assert arguments["stop"] is stop
    assert arguments["reraise"] is True
    assert attempts_of(policy, *[RATE_LIMITED] * 9)[0] == 2


def test_a_users_own_condition_keeps_the_policys_stop_and_wait() -> None:
    """What the table does not retry is sent once; a response is asked for again without a wait."""
    of_any_error = {"retry": tenacity.retry_if_exception_type(Exception)}
    assert attempts_of(RetryPolicy(tenacity_args=of_any_error), BAD_REQUEST) == (1, [])
    of_nothing = {
        "retry": tenacity.retry_if_result(lambda result: result is None),
        "stop": tenacity.stop_after_attempt(3),
        "before_sleep": None,
        "retry_error_callback": lambda _: None,
    }
    assert attempts_of(RetryPolicy(tenacity_args=of_nothing)) == (3, [0, 0])


def test_waits_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are recorded instead; the end of the block restores what was before it."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(retry, "time", SimpleNamespace(sleep=slept.append))
    monkeypatch.setattr(retry, "asyncio", SimpleNamespace(sleep=sleep))
    with no_waiting() as waits:
        retry.blocking_sleep(600)
        asyncio.run(retry.async_sleep(900))
        with no_waiting() as inner:
            retry.blocking_sleep(1)
        retry.blocking_sleep(2)
    assert (waits, inner) == ([600, 900, 2], [1])
    assert slept == [0]
    retry.blocking_sleep(3)
    asyncio.run(retry.async_sleep(4))
    assert slept == [0, 3, 4]
