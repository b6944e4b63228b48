"""The retry policy of both clients: when a call is sent again, and the wait before.

============================  ==============  ============  ===========
Error                         First wait      Longest wait  Given up
============================  ==============  ============  ===========
5xx                           30 s            60 s          after 10 min
429                           Retry-After,    60 s          after 10 min
                              else 1 s
response lost                 0.5 s           30 s          after 10 min
connection failed             0.5 s           30 s          after 10 min
host name or proxy unusable,  1 s             10 s          after 1 min
no response ever came
the same, proxy answers 5xx   0.5 s           30 s          after 10 min
proxy refuses password (407)  30 s            60 s          after 15 min
COULD_NOT_ACQUIRE_LOCK        1 s             30 s          after 10 min
response body invalid         1 s             30 s          after 10 attempts (about 3 min)
401, 403 when polling         30 s            60 s          after 15 min
token refused when polling    30 s            60 s          after 15 min
redirect, page when polling   1 s             60 s          after 15 min
any other error               not retried
============================  ==============  ============  ===========

The wait doubles with each attempt. A random jitter of up to a quarter is added, so that many tasks
that met the same outage do not retry at the same moment. After a 5xx it is never shorter than the
30 s that the reference asks for ("If you receive a 500-level error ..."). The time for which an
attempt waits for its turn in a rate limit does not count.

A call that is not idempotent (creating a job) is retried only if the service cannot have acted on
it. A launch is idempotent by its token: a launch whose response has no run_id is sent again with
the same token, and finds the run if there is one.

Polling a run that is known to exist uses :meth:`RetryPolicy.without_deadline`, which waits out any
outage. Some errors are limited all the same, because waiting is unlikely to help:

* 401 and 403, and a token that an identity service refuses to issue. Maintenance has answered 403
  for minutes, but a revoked token stays revoked.
* An invalid response body: JSON without an id, or with a field of another type.
* A host name that does not resolve or a proxy that cannot be used, as long as no response ever came
  through it. A 407 of such a proxy is not retried at all. Once a response has come, the same error
  counts as an outage, like a lost connection.
* A redirect, or a page with a status such as 404. It mostly means a wrong address. If the API has
  answered before (:meth:`RetryPolicy.with_known_host`), a gateway is the likely cause.

:func:`no_waiting` switches all waits off, for tests.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import tenacity

from airflow_jobs_provider.api.errors import (
    AuthenticationError,
    CertificateError,
    ConflictError,
    ConnectError,
    HostNotFoundError,
    InvalidProxyError,
    JobsAPIError,
    ProxyAuthenticationError,
    ProxyError,
    RateLimitError,
    ResponseLostError,
    ServerError,
    TokenRefusedError,
    UnexpectedResponseError,
    is_success,
)

__all__ = [
    "JITTER",
    "Backoff",
    "ConsecutiveFailures",
    "RetryPolicy",
    "async_sleep",
    "blocking_sleep",
    "no_waiting",
    "seconds_to_wait",
    "skipped_seconds",
]

log = logging.getLogger(__name__)

_MINUTE = 60.0
#: Largest part of a wait that is added at random.
JITTER = 0.25

# The waits that :func:`no_waiting` recorded; None while it is off.
_recorded_waits: list[float] | None = None


@contextmanager
def no_waiting() -> Iterator[list[float]]:
    """Switch off all waits of all clients in this process, for tests.

    Each wait, between two attempts of a call or two polls of a run, ends at once. Its seconds are
    appended to the list that the context manager returns. Leaving the block, also with an
    exception, restores what was set before, so blocks may be nested::

        with no_waiting() as waits:
            operator.execute(context)  # the service answers 503 for ten minutes
        assert sum(waits) >= 600

    The deadlines of the policy count the skipped waits as passed, so a call gives up as it would
    in real time.

    :return: the list of skipped waits, in seconds.
    """
    global _recorded_waits  # noqa: PLW0603 - one switch for all clients of the process
    previous, _recorded_waits = _recorded_waits, []
    try:
        yield _recorded_waits
    finally:
        _recorded_waits = previous


def skipped_seconds() -> float:
    """Return the sum of the waits that :func:`no_waiting` has skipped; 0 if it is off."""
    return sum(_recorded_waits or ())


def blocking_sleep(seconds: float) -> None:
    """Sleep, unless :func:`no_waiting` is on.

    :param seconds: how long.
    """
    if _recorded_waits is None:
        time.sleep(seconds)
    else:
        _recorded_waits.append(seconds)


async def async_sleep(seconds: float) -> None:
    """Sleep in asyncio, unless :func:`no_waiting` is on; other tasks run either way.

    :param seconds: how long.
    """
    if _recorded_waits is None:
        await asyncio.sleep(seconds)
    else:
        _recorded_waits.append(seconds)
        await asyncio.sleep(0)


def seconds_to_wait(seconds: float) -> float:
    """Return how long to wait really: none of it while :func:`no_waiting` is on.

    For waits that are ended by an event, too, so that they are no plain sleep.

    :param seconds: how long the wait is.
    """
    if _recorded_waits is None:
        return seconds
    _recorded_waits.append(seconds)
    return 0.0


class Backoff(NamedTuple):
    """The waits after one kind of error.

    :ivar initial: seconds before the second attempt; each further wait is twice the one before.
    :ivar maximum: longest wait in seconds.
    :ivar timeout: seconds after the first attempt, after which no attempt begins; default 600.
    :ivar max_attempts: failed attempts of this kind in a row; None (default) for no limit.
    :ivar always_limited: whether both limits hold for a policy without a deadline; default False.
    """

    initial: float
    maximum: float
    timeout: float = 10 * _MINUTE
    max_attempts: int | None = None
    always_limited: bool = False


# The first line that fits counts, so a subclass stands before its base. None: not retried.
_BACKOFFS: tuple[tuple[type[JobsAPIError], Backoff | None], ...] = (
    (CertificateError, None),
    (InvalidProxyError, None),
    (ProxyAuthenticationError, Backoff(30, 60, timeout=15 * _MINUTE, always_limited=True)),
    (ConnectError, Backoff(0.5, 30)),
    (ResponseLostError, Backoff(0.5, 30)),
    (RateLimitError, Backoff(1, 60)),
    (ServerError, Backoff(30, 60)),
    (ConflictError, Backoff(1, 30)),
)
# A page with a 2xx status comes from a gateway, and does not mean a wrong address.
_GATEWAY_PAGE = Backoff(30, 60)
_INVALID_BODY = Backoff(1, 30, max_attempts=10, always_limited=True)
_REFUSED_CREDENTIALS = Backoff(30, 60, timeout=15 * _MINUTE, always_limited=True)
_UNEXPECTED_WHILE_POLLING = Backoff(1, 60, timeout=15 * _MINUTE, always_limited=True)
# The last attempt may take CONNECT_SECONDS, so that it is over within a minute.
_UNUSABLE_FROM_THE_START = Backoff(1, 10, timeout=50, always_limited=True)
# The proxy works, and cannot tell a wrong host from an outage.
_PROXY_CANNOT_CONNECT = Backoff(0.5, 30, always_limited=True)


class ConsecutiveFailures:
    """Failed attempts with no success between them, as far as a limit applies to them.

    :ivar since: clock time of the first of them; None (default) if no limit applies to the latest,
        such as an outage while a run is polled. The limits then start anew.
    :ivar counted: how many of them have a kind whose number is limited; default 0.
    """

    __slots__ = ("counted", "since")

    def __init__(self, since: float | None = None, counted: int = 0) -> None:
        self.since = since
        self.counted = counted

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return (self.since, self.counted) == (other.since, other.counted)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def record(self, now: float, backoff: Backoff, *, is_limited: bool) -> None:
        """Record a failed attempt.

        :param now: clock time in seconds.
        :param backoff: the waits for its error.
        :param is_limited: whether the limits of these waits apply.
        """
        if not is_limited:
            self.since, self.counted = None, 0
            return
        self.since = now if self.since is None else self.since
        self.counted += backoff.max_attempts is not None


# Not a MappingProxyType, which can be neither copied deeply nor pickled.
_NO_ARGUMENTS: Mapping[str, Any] = {}


class RetryPolicy(NamedTuple):
    """Decides after each failed attempt whether to retry, and when.

    :param max_attempts: attempts at most; None (default) leaves it to the table of this module.
    :param initial_wait: seconds before the second attempt, in place of the table's first waits; a
        Retry-After is still honoured. None (default) for the table.
    :param no_deadline: wait out any outage, however long; for polling a run that is known to
        exist, where the caller has a timeout of its own. Default False.
    :param is_host_known: with ``no_deadline``, retry a response that is not the API's, because the
        host has answered before. Default False.
    :param max_retry_after: longest Retry-After in seconds that is honoured; default 300.
    :param tenacity_args: arguments for tenacity that replace the policy's own (``stop``,
        ``wait``, ``retry``, ``before_sleep``, ...), as ``databricks_retry_args`` gives them.
    :param random: source of jitter, 0 to 1.
    :param clock: monotonic clock in seconds.
    """

    max_attempts: int | None = None
    initial_wait: float | None = None
    no_deadline: bool = False
    is_host_known: bool = False
    max_retry_after: float = 5 * _MINUTE
    tenacity_args: Mapping[str, Any] = _NO_ARGUMENTS
    random: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic

    def without_deadline(self) -> RetryPolicy:
        """Return the same policy with ``no_deadline``, for polling a run that is known to exist."""
        return self._replace(no_deadline=True)

    def with_known_host(self) -> RetryPolicy:
        """Return the same policy with ``is_host_known``, for a host that has answered."""
        return self if self.is_host_known else self._replace(is_host_known=True)

    def backoff_for(self, error: BaseException, *, idempotent: bool) -> Backoff | None:
        """Return the waits after an error; None if the call must not be retried.

        :param error: how the attempt failed.
        :param idempotent: whether the call may be sent again if its response was lost.
        """
        backoff: Backoff | None = None
        if isinstance(error, (HostNotFoundError, ProxyError)) and error.first_contact:
            backoff = _backoff_at_first_contact(error)
        elif self.no_deadline and isinstance(error, (AuthenticationError, TokenRefusedError)):
            backoff = _REFUSED_CREDENTIALS
        elif isinstance(error, UnexpectedResponseError) and is_success(error.status):
            backoff = _INVALID_BODY if error.does_not_fit else _GATEWAY_PAGE
        elif self.no_deadline and self.is_host_known and isinstance(error, UnexpectedResponseError):
            backoff = _UNEXPECTED_WHILE_POLLING
        else:
            for kind, known in _BACKOFFS:
                if isinstance(error, kind):
                    backoff = known
                    break
        may_have_acted = isinstance(error, JobsAPIError) and error.outcome_unknown
        return None if may_have_acted and not idempotent else backoff

    def should_retry(
        self, error: BaseException, failures: ConsecutiveFailures, next_wait: float = 0.0
    ) -> bool:
        """Return whether to make another attempt, for a caller that has its own retry loop.

        :param error: how the latest attempt failed.
        :param failures: the failed attempts before it; this one is recorded there.
        :param next_wait: seconds to wait before the next attempt; default 0.
        """
        backoff = self.backoff_for(error, idempotent=True)
        return backoff is not None and self._is_within_limits(
            backoff, failures, self.clock(), next_wait
        )

    def _is_within_limits(
        self, backoff: Backoff, failures: ConsecutiveFailures, now: float, next_wait: float
    ) -> bool:
        failures.record(now, backoff, is_limited=not self.no_deadline or backoff.always_limited)
        if failures.since is None:
            return True
        if backoff.max_attempts is not None and failures.counted >= backoff.max_attempts:
            return False
        return now + next_wait - failures.since <= backoff.timeout

    def wait_seconds(self, error: BaseException, attempts: int) -> float:
        """Return the seconds to wait before the next attempt.

        :param error: how the latest attempt failed.
        :param attempts: number of failed attempts so far.
        """
        backoff = self.backoff_for(error, idempotent=True)
        if backoff is None:
            return 0.0
        initial = backoff.initial if self.initial_wait is None else self.initial_wait
        # The exponent is limited, since without a deadline there may be thousands of attempts.
        seconds = min(initial * 2.0 ** min(attempts - 1, 20), max(backoff.maximum, initial))
        if isinstance(error, RateLimitError) and error.retry_after is not None:
            seconds = min(error.retry_after, self.max_retry_after)
        return seconds * (1 + JITTER * self.random())

    def tenacity(
        self,
        call_name: str,
        *,
        idempotent: bool,
        forbidden_is_final: bool = False,
        turn_seconds: Callable[[], float] = lambda: 0.0,
    ) -> dict[str, Any]:
        """Return the arguments of ``tenacity.Retrying`` and ``AsyncRetrying`` for one call.

        :param call_name: the call's name for the log.
        :param idempotent: whether the call may be sent again if its response was lost.
        :param forbidden_is_final: whether a 403 is an expected response, which is not retried;
            default False.
        :param turn_seconds: returns how long the attempts have waited for their turns in a rate
            limit; default 0. That time does not count.
        """
        started = self.clock()
        # With a deadline, all other time since the first attempt counts.
        failures = ConsecutiveFailures(None if self.no_deadline else 0.0)

        def error_of(state: tenacity.RetryCallState) -> BaseException | None:
            return state.outcome.exception() if state.outcome is not None else None

        def retry(state: tenacity.RetryCallState) -> bool:
            error = error_of(state)
            # A 401 is about the credentials, never about what was asked for.
            if (
                forbidden_is_final
                and isinstance(error, AuthenticationError)
                and error.status == 403
            ):
                return False
            return error is not None and self.backoff_for(error, idempotent=idempotent) is not None

        def wait(state: tenacity.RetryCallState) -> float:
            error = error_of(state)
            return 0.0 if error is None else self.wait_seconds(error, state.attempt_number)

        def stop(state: tenacity.RetryCallState) -> bool:
            error = error_of(state)
            backoff = None if error is None else self.backoff_for(error, idempotent=idempotent)
            if backoff is None:
                return True
            if self.max_attempts is not None and not self.no_deadline:
                return state.attempt_number >= self.max_attempts
            # idle_for: where sleeping is faked, the waits count although the clock stood still.
            now = max(self.clock() - started - turn_seconds(), state.idle_for)
            return not self._is_within_limits(backoff, failures, now, state.upcoming_sleep)

        def before_sleep(state: tenacity.RetryCallState) -> None:
            # One warning for each outage; the further attempts at debug level.
            level = logging.WARNING if state.attempt_number == 1 else logging.DEBUG
            log.log(
                level,
                "%s failed: %s. Next attempt in %.1f s.",
                call_name,
                error_of(state),
                state.upcoming_sleep,
            )

        arguments: dict[str, Any] = {
            "retry": retry,
            "wait": wait,
            "stop": stop,
            "before_sleep": before_sleep,
        }
        return {**arguments, **self.tenacity_args, "reraise": True}


def _backoff_at_first_contact(error: HostNotFoundError | ProxyError) -> Backoff | None:
    """Return the waits for what may be a wrong setting: no response ever came from the host."""
    if isinstance(error, (InvalidProxyError, ProxyAuthenticationError)):
        return None  # sending the same password again may lock the account
    if isinstance(error, ProxyError) and (error.status or 0) >= 500:
        return _PROXY_CANNOT_CONNECT
    return _UNUSABLE_FROM_THE_START
