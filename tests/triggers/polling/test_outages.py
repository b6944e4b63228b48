"""Outages of the whole service and of single runs: what is recorded, and what is logged."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_jobs_provider.api.errors import (
    AuthenticationError,
    BadRequestError,
    RateLimitError,
    ServerError,
)
from airflow_jobs_provider.api.retry import ConsecutiveFailures, RetryPolicy
from airflow_jobs_provider.triggers.polling import outages
from airflow_jobs_provider.triggers.polling.outages import ServiceOutage, UnreadableRuns

DOWN = ServerError(status=503)
SLOWER = RateLimitError(status=429)
FORBIDDEN = AuthenticationError(status=403)


class Clock:
    """A clock that the test sets."""

    now = 1_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Clock:
    """A clock in place of the real one, and a log that tells all."""
    caplog.set_level("DEBUG", logger=outages.__name__)
    one = Clock()
    monkeypatch.setattr(outages, "time", SimpleNamespace(monotonic=one))
    return one


@pytest.fixture
def retries(clock: Clock) -> RetryPolicy:
    """The policy of a poller, without jitter."""
    return RetryPolicy(no_deadline=True, random=lambda: 0.0, clock=clock)


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return what was logged since the last call."""
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    caplog.clear()
    return found


def test_an_outage_is_logged_once_when_it_begins_and_ends(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its failures are counted, its seconds run from the first of them."""
    outage = ServiceOutage()
    outage.record_success()
    assert (outage.failures, outage.seconds, lines(caplog)) == (0, 0.0, [])
    outage.record_failure(DOWN, 5)
    assert lines(caplog) == [("WARNING", f"5 runs cannot be followed for now: {DOWN}")]
    clock.now += 90
    outage.record_failure(FORBIDDEN, 6)
    outage.consecutive.since = clock.now
    assert (outage.failures, outage.seconds, lines(caplog)) == (2, 90.0, [])
    outage.record_success()
    assert lines(caplog) == [
        ("INFO", "The service answers again, after 90 s; all runs are followed.")
    ]
    assert (outage.failures, outage.seconds) == (0, 0.0)
    assert outage.consecutive == ConsecutiveFailures()
    outage.record_success()
    assert lines(caplog) == []


def test_a_service_that_never_answered_has_its_failures_counted(clock: Clock) -> None:
    """From the first failure on, also where no request succeeded before."""
    outage = ServiceOutage()
    assert (outage.failures, outage.consecutive) == (0, ConsecutiveFailures())
    outage.record_failure(DOWN, 1)
    assert outage.failures == 1
    outage.record_failure(DOWN, 1)
    assert outage.failures == 2


def test_a_rate_limit_is_logged_every_ten_minutes(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A rate limit that is met again and again does not fill the log."""
    assert outages.LOG_RATE_LIMIT_EVERY_SECONDS == 600
    outage = ServiceOutage()
    logged = []
    for seconds in (0, 300, 299, 1, 599, 1):
        clock.now += seconds
        outage.record_failure(SLOWER, 1)
        outage.record_success()
        logged.append(len(lines(caplog)))
    assert logged == [2, 0, 0, 2, 0, 2]
    outage.record_failure(DOWN, 1)
    outage.record_success()
    assert len(lines(caplog)) == 2


def test_unreadable_runs_are_logged_once_together(
    clock: Clock, retries: RetryPolicy, caplog: pytest.LogCaptureFixture
) -> None:
    """They are read again after the waits of the policy, each by its own failures."""
    unreadable = UnreadableRuns()
    assert unreadable.record_failure({}, retries) == {}
    assert lines(caplog) == []
    assert unreadable.record_failure({7: DOWN}, retries) == {}
    assert lines(caplog) == [("WARNING", f"Run 7 cannot be read for now, while others can: {DOWN}")]
    assert unreadable.not_before() == {7: 1030.0}
    clock.now += 30
    assert unreadable.record_failure({7: DOWN, 8: FORBIDDEN, 9: SLOWER}, retries) == {}
    assert lines(caplog) == [
        ("WARNING", f"Runs 8, 9 cannot be read for now, while others can: {FORBIDDEN}")
    ]
    assert unreadable.not_before() == {7: 1090.0, 8: 1060.0, 9: 1031.0}
    assert 7 in unreadable
    assert 6 not in unreadable


def test_a_run_that_can_be_read_again_is_logged(
    clock: Clock, retries: RetryPolicy, caplog: pytest.LogCaptureFixture
) -> None:
    """With the time since its first failure; a later outage begins anew."""
    unreadable = UnreadableRuns()
    unreadable.record_success(7)
    assert lines(caplog) == []
    unreadable.record_failure({7: DOWN}, retries)
    clock.now += 45
    unreadable.record_failure({7: DOWN}, retries)
    lines(caplog)
    unreadable.record_success(7)
    assert lines(caplog) == [("INFO", "Run 7 can be read again, after 45 s.")]
    assert 7 not in unreadable
    unreadable.record_failure({7: DOWN}, retries)
    assert len(lines(caplog)) == 1
    assert unreadable.not_before() == {7: clock.now + 30}


def test_a_run_is_given_up_as_the_policy_says(
    clock: Clock, retries: RetryPolicy, caplog: pytest.LogCaptureFixture
) -> None:
    """At once after an error that is not retried, else at the limit; others go on."""
    unreadable, refused = UnreadableRuns(), BadRequestError(status=400)
    given_up = unreadable.record_failure({7: refused, 8: FORBIDDEN}, retries)
    assert given_up == {7: refused}
    # Another waiter of the run that was given up need not wait.
    assert unreadable.not_before() == {7: 0.0, 8: clock.now + 30}
    assert [text for _, text in lines(caplog)] == [
        f"Run 8 cannot be read for now, while others can: {FORBIDDEN}"
    ]
    clock.now += 900
    assert unreadable.record_failure({8: FORBIDDEN}, retries) == {}
    clock.now += 1
    assert unreadable.record_failure({8: FORBIDDEN}, retries) == {8: FORBIDDEN}
    assert lines(caplog) == []


def test_a_run_without_a_waiter_is_forgotten(clock: Clock, retries: RetryPolicy) -> None:
    """Forgetting an unknown one does no harm."""
    unreadable = UnreadableRuns()
    unreadable.record_failure({7: DOWN}, retries)
    unreadable.forget(7)
    unreadable.forget(8)
    assert unreadable.not_before() == {}


def test_an_outage_after_a_rate_limit_is_an_outage(clock: Clock) -> None:
    """It has begun with a 429, and then the service did not answer at all."""
    ended: list[float] = []
    outage = ServiceOutage(ended.append)
    was_rate_limit = []
    for error in (SLOWER, DOWN, SLOWER):
        outage.record_failure(error, 1)
        was_rate_limit.append(outage.is_rate_limit)
        clock.now += 20
    assert was_rate_limit == [True, False, False]
    outage.record_success()
    assert ended == [60]


def test_an_outage_that_concerns_nobody_is_forgotten(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A later one counts anew, in the log and in the metric."""
    ended: list[float] = []
    outage = ServiceOutage(ended.append)
    outage.record_failure(DOWN, 1)
    outage.consecutive.since = clock.now
    outage.forget()
    assert (outage.failures, outage.seconds) == (0, 0.0)
    assert outage.consecutive == ConsecutiveFailures()
    clock.now += 3600
    outage.record_success()
    assert ended == []
    outage.record_failure(DOWN, 2)
    clock.now += 5
    outage.record_success()
    assert ended == [5]
    assert len(lines(caplog)) == 3
