"""When a call is tried again, and how long to wait before: one policy for both faces.

============================  ==============  ============  ===========
What went wrong               First wait      Growing to    Given up
============================  ==============  ============  ===========
5xx                           30 s            60 s          after 10 min
429                           Retry-After,    60 s          after 10 min
                              else 1 s
answer lost                   0.5 s           30 s          after 10 min
connection failed             0.5 s           30 s          after 10 min
host name or proxy unusable,  1 s             10 s          after 1 min
no answer ever came
the same, proxy answers 5xx   0.5 s           30 s          after 10 min
proxy refuses password (407)  30 s            60 s          after 15 min
COULD_NOT_ACQUIRE_LOCK        1 s             30 s          after 10 min
answer that does not fit      1 s             30 s          after 10 tries (about 3 min)
401, 403 when polling         30 s            60 s          after 15 min
redirect, page when polling   1 s             60 s          after 15 min
anything else                 not tried again
============================  ==============  ============  ===========

While a run that is known to be there is polled (``without_deadline()``), any outage is waited out,
however long. Bounds hold for what waiting is unlikely to mend: a refusal of the credentials, since
maintenance has answered 403 for minutes but a revoked token stays revoked; an answer that does not
fit, which is JSON without an id or with a field of another type; and, as long as no answer ever
came through it, a host name that does not resolve or a proxy that cannot be used, which is an
error at most a minute after the first try, and a proxy's 407 at once. After an answer the same is
an outage like a lost connection. A launch whose answer has no run_id is sent again with the same
token, which finds the run if there is one.

An answer that is not the API's, such as a redirect or a page with 404, mostly means a wrong
address; where the API has answered before (``answered_before()``) it is a gateway's trouble, and is
given as much patience as a refusal.

Backoff double and carry a jitter of up to a quarter, added, so that many tasks hit by the same
outage do not come back in step and 5xx never waits less than the 30 s that the reference asks
for ("If you receive a 500-level error ..."). A call that may not be repeated (creating a job) is
tried again only where the service cannot have acted on it.

Tests need not wait for any of this: see :func:`no_waiting`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import tenacity

from airflow_jobs_provider.api.errors import (
    AuthenticationError,
    CertificateError,
    ConflictError,
    ConnectError,
    HostNotFoundError,
    InvalidProxyError,
    JobsAPIError,
    NotFoundError,
    ProxyAuthenticationError,
    ProxyError,
    RateLimitError,
    ResponseLostError,
    ServerError,
    UnexpectedResponseError,
    is_success,
)

__all__ = [
    "Backoff",
    "FailuresInARow",
    "RetryPolicy",
    "async_sleep",
    "blocking_sleep",
    "no_waiting",
]

log = logging.getLogger(__name__)

MINUTE = 60.0
JITTER = 0.25


_noted: list[float] | None = None


@contextmanager
def no_waiting() -> Iterator[list[float]]:
    """Let no client wait, for tests: a wait is noted in the list that this lends, and is over.

    ::

        with no_waiting() as waits:
            operator.execute(context)  # the service answers 503 for ten minutes
        assert sum(waits) >= 600
    """
    global _noted  # noqa: PLW0603 - one switch for all clients of the process
    before, _noted = _noted, []
    try:
        yield _noted
    finally:
        _noted = before


def blocking_sleep(seconds: float) -> None:
    """Wait so long."""
    if _noted is None:
        time.sleep(seconds)
    else:
        _noted.append(seconds)


async def async_sleep(seconds: float) -> None:
    """Wait so long, from asyncio."""
    if _noted is None:
        await asyncio.sleep(seconds)
    else:
        _noted.append(seconds)
        await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class Backoff:
    """How one kind of trouble is waited out.

    :ivar first: seconds before the second try; each further wait is twice the one before.
    :ivar longest: seconds that a wait grows to.
    :ivar patience: seconds after the first try at which no further try is begun.
    :ivar tries: tries that may fail in this way in a row; None for any number.
    :ivar bounded: whether it is given up even while polling.
    """

    first: float
    longest: float
    patience: float = 10 * MINUTE
    tries: int | None = None
    bounded: bool = False


# The first line that fits counts, so a subclass stands before its base.
_TROUBLE: tuple[tuple[type[JobsAPIError], Backoff | None], ...] = (
    (CertificateError, None),
    (InvalidProxyError, None),
    (ProxyAuthenticationError, Backoff(30, 60, patience=15 * MINUTE, bounded=True)),
    (ConnectError, Backoff(0.5, 30)),
    (ResponseLostError, Backoff(0.5, 30)),
    (RateLimitError, Backoff(1, 60)),
    (ServerError, Backoff(30, 60)),
    (ConflictError, Backoff(1, 30)),
)
# A gateway's page with a status below 300 is the gateway's trouble, not a wrong address.
_GATEWAY_PAGE = Backoff(30, 60)
_NOT_SHOWN_YET = Backoff(0.5, 5)
_DOES_NOT_FIT = Backoff(1, 30, tries=10, bounded=True)
_REFUSED_WHILE_POLLING = Backoff(30, 60, patience=15 * MINUTE, bounded=True)
_ODD_WHILE_POLLING = Backoff(1, 60, patience=15 * MINUTE, bounded=True)
# The last try may take CONNECT_SECONDS, so that it is over within a minute.
_UNUSABLE_FROM_THE_FIRST_TRY = Backoff(1, 10, patience=50, bounded=True)
# The proxy itself works; whether the host is wrong or has an outage, it cannot tell.
_PROXY_CANNOT_CONNECT = Backoff(0.5, 30, bounded=True)


@dataclass(slots=True)
class FailuresInARow:
    """Failed tries without success between them, as far as there is a bound to them.

    :ivar since: when the first of them failed; None while the trouble is one without a bound, such
        as an outage while a run is polled. What comes after it begins anew.
    :ivar counted: those among them whose number is limited.
    """

    since: float | None = None
    counted: int = 0

    def note(self, now: float, waits: Backoff, *, is_bounded: bool) -> None:
        """Note a failed try."""
        if not is_bounded:
            self.since, self.counted = None, 0
            return
        self.since = now if self.since is None else self.since
        self.counted += waits.tries is not None


@dataclass(frozen=True)
class RetryPolicy:
    """Decides after each failed try whether to try again, and when.

    :param limit: tries at the most; None (default) leaves it to the times of the table above.
    :param delay: seconds before the second try, in place of the table's first waits, except that
        a Retry-After is still honoured; None (default) for the table.
    :param endless: wait out any outage, however long (for polling a run that is known to be
        there: the caller's own time limit ends it). Default False.
    :param address_is_good: take an answer that is not the API's for trouble that passes, with
        ``endless``. Default False.
    :param missing_passes: take "does not exist" for trouble that passes: the run was just launched.
        Default False.
    :param longest_retry_after: cap in seconds on what a Retry-After may ask for; default 5
        minutes.
    :param tenacity_args: arguments for tenacity that replace the policy's own (``stop``,
        ``wait``, ``retry``, ``before_sleep``, ...), as ``databricks_retry_args`` gives them.
    :param random: source of jitter, 0 to 1.
    :param clock: seconds from any start, only ever growing.
    """

    limit: int | None = None
    delay: float | None = None
    endless: bool = False
    address_is_good: bool = False
    missing_passes: bool = False
    longest_retry_after: float = 5 * MINUTE
    tenacity_args: Mapping[str, Any] = field(default_factory=dict)
    random: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic

    def without_deadline(self) -> RetryPolicy:
        """Return the same policy, waiting out any outage: for polling a known run."""
        return replace(self, endless=True)

    def answered_before(self) -> RetryPolicy:
        """Return the same policy for who knows the address to be good: the API has answered."""
        return self if self.address_is_good else replace(self, address_is_good=True)

    def waits(self, error: BaseException, *, idempotent: bool) -> Backoff | None:
        """Return how to wait out an error; None when the same call must not be tried again."""
        waits: Backoff | None = None
        if isinstance(error, (HostNotFoundError, ProxyError)) and error.first_contact:
            waits = _at_first_contact(error)
        elif self.endless and isinstance(error, AuthenticationError):
            waits = _REFUSED_WHILE_POLLING
        elif self.missing_passes and isinstance(error, NotFoundError):
            waits = _NOT_SHOWN_YET
        elif isinstance(error, UnexpectedResponseError) and is_success(error.status):
            waits = _DOES_NOT_FIT if error.does_not_fit else _GATEWAY_PAGE
        elif self.endless and self.address_is_good and isinstance(error, UnexpectedResponseError):
            waits = _ODD_WHILE_POLLING
        else:
            for kind, known in _TROUBLE:
                if isinstance(error, kind):
                    waits = known
                    break
        may_have_acted = isinstance(error, JobsAPIError) and error.outcome_unknown
        return None if may_have_acted and not idempotent else waits

    def waits_on(
        self, error: BaseException, failures: FailuresInARow, next_wait: float = 0.0
    ) -> bool:
        """Return whether there is to be another try, for who sends each try by itself.

        :param error: how the latest try failed.
        :param failures: the tries that failed before it; this one is noted.
        :param next_wait: seconds to wait before another try; default 0.
        """
        waits = self.waits(error, idempotent=True)
        return waits is not None and self._goes_on(waits, failures, self.clock(), next_wait)

    def _goes_on(
        self, waits: Backoff, failures: FailuresInARow, now: float, next_wait: float = 0.0
    ) -> bool:
        failures.note(now, waits, is_bounded=not self.endless or waits.bounded)
        if failures.since is None:
            return True
        if waits.tries is not None and failures.counted >= waits.tries:
            return False
        return now + next_wait - failures.since <= waits.patience

    def wait_before_try(self, error: BaseException, tries: int) -> float:
        """Seconds to wait after the given number of failed tries, the last one with this error."""
        waits = self.waits(error, idempotent=True)
        if waits is None:
            return 0.0
        first = waits.first if self.delay is None else self.delay
        # The exponent is bounded since an endless wait may come to thousands of tries.
        seconds = min(first * 2.0 ** min(tries - 1, 20), max(waits.longest, first))
        if isinstance(error, RateLimitError) and error.retry_after is not None:
            seconds = min(error.retry_after, self.longest_retry_after)
        return seconds * (1 + JITTER * self.random())

    def tenacity(
        self, call_name: str, *, idempotent: bool, forbidden_is_final: bool = False
    ) -> dict[str, Any]:
        """Return the arguments of ``tenacity.Retrying`` and ``AsyncRetrying`` for one call.

        :param call_name: what it is called in the log.
        :param idempotent: whether the call may be sent again when its answer got lost.
        :param forbidden_is_final: whether a 403 is an answer like others, and no trouble.
        """
        started = self.clock()
        # Where nothing is waited out without a bound, all time since the first try counts.
        failures = FailuresInARow(None if self.endless else 0.0)

        def error_of(state: tenacity.RetryCallState) -> BaseException | None:
            return state.outcome.exception() if state.outcome is not None else None

        def retry(state: tenacity.RetryCallState) -> bool:
            error = error_of(state)
            # A 401 is never about what was asked for, but about the credentials.
            if (
                forbidden_is_final
                and isinstance(error, AuthenticationError)
                and error.status == 403
            ):
                return False
            return error is not None and self.waits(error, idempotent=idempotent) is not None

        def wait(state: tenacity.RetryCallState) -> float:
            error = error_of(state)
            return 0.0 if error is None else self.wait_before_try(error, state.attempt_number)

        def stop(state: tenacity.RetryCallState) -> bool:
            error = error_of(state)
            waits = None if error is None else self.waits(error, idempotent=idempotent)
            if waits is None:
                return True
            if self.limit is not None and not self.endless:
                return state.attempt_number >= self.limit
            # idle_for: with faked sleeping the waits count although the clock stood still.
            now = max(self.clock() - started, state.idle_for)
            return not self._goes_on(waits, failures, now, state.upcoming_sleep)

        def before_sleep(state: tenacity.RetryCallState) -> None:
            # One line when trouble starts; the rest is for who looks closely.
            level = logging.WARNING if state.attempt_number == 1 else logging.DEBUG
            log.log(
                level,
                "%s did not work: %s. Next try in %.1f s.",
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


def _at_first_contact(error: HostNotFoundError | ProxyError) -> Backoff | None:
    """Return how to wait out what may be a wrong setting: no answer ever came from the host."""
    if isinstance(error, (InvalidProxyError, ProxyAuthenticationError)):
        return None  # the same password again may lock the account
    if isinstance(error, ProxyError) and (error.status or 0) >= 500:
        return _PROXY_CANNOT_CONNECT
    return _UNUSABLE_FROM_THE_FIRST_TRY
