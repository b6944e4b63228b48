"""The attempts of a call, and who is told of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from airflow_jobs_provider.api.auth import fingerprint
from airflow_jobs_provider.api.calls import Call
from airflow_jobs_provider.api.errors import (
    APIStatusError,
    AuthenticationError,
    JobsAPIError,
    NotFoundError,
    TokenRefusedError,
    is_success,
)

__all__ = ["AttemptTracker", "ClientObserver", "OnAttempt", "ignore_attempt"]

log = logging.getLogger(__name__)


class ClientObserver(Protocol):
    """Is told of the requests of a client, for metrics.

    The clients call it in the event loop and between two requests, so it must not block, and must
    not raise.
    """

    def request_ended(self, call: Call[Any], status: str, seconds: float) -> None:
        """Take note of a request.

        :param call: the call.
        :param status: the HTTP status of the response; where there is none, or where the response
            cannot be used, the name of the exception.
        :param seconds: time from the request to the end of the response.
        """

    def call_retried(self, call: Call[Any]) -> None:
        """Take note that a call is sent again.

        :param call: the call.
        """

    def outage_ended(self, seconds: float) -> None:
        """Take note that a call was answered, or given up, after attempts that failed.

        :param seconds: time since the first attempt.
        """


OnAttempt = Callable[[Call[Any], JobsAPIError | None], None]
"""Called with the call, and None before an attempt or the error after a failed one."""


def ignore_attempt(_call: Call[Any], _error: JobsAPIError | None) -> None:
    """Do nothing: the default of ``on_attempt``."""


class AttemptTracker:
    """Counts the attempts of one call, and records what is known of their outcome.

    :param call: the call.
    :param observer: is told of the requests; default None: nobody is.
    :param clock: monotonic clock in seconds; default :func:`time.monotonic`.

    :ivar call: the call.
    :ivar count: attempts so far.
    :ivar status: HTTP status of the latest response; 0 before one.
    :ivar outcome_unknown: whether the service may have acted on an attempt that failed.
    :ivar turn_seconds: how long the attempts have waited for their turns in a rate limit.
    :ivar refusal: how the latest attempt ended, if it was with a 401 or 403, or with the refusal of
        an identity service; else None.
    """

    def __init__(
        self,
        call: Call[Any],
        observer: ClientObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.call = call
        self.count = 0
        self.status = 0
        self.outcome_unknown = False
        self.refusal: JobsAPIError | None = None
        self._credentials = ""
        self.turn_seconds = 0.0
        self._clock = clock
        self._started = self._waits_since = clock()
        self._sent = time.monotonic()
        self._observer = observer

    def start(self) -> None:
        """Count an attempt, which waits for its turn."""
        self.count += 1
        self._waits_since = self._clock()
        if self._observer is not None and self.count > 1:
            self._observer.call_retried(self.call)

    def begin_request(self) -> None:
        """Take the time at which a request is sent: its turn has come."""
        self.turn_seconds += self._clock() - self._waits_since
        if self._observer is not None:
            self._sent = time.monotonic()

    def end_request(self, error: JobsAPIError | None = None) -> None:
        """Tell the observer of a request.

        :param error: how it failed; default None: it did not.
        """
        if self._observer is None:
            return
        if error is None:
            status = str(self.status)
        elif isinstance(error, APIStatusError) and not is_success(error.status):
            status = str(error.status)
        else:
            status = type(error).__name__
        self._observer.request_ended(self.call, status, time.monotonic() - self._sent)

    def record_credentials(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Record which credentials the attempt has, and return them.

        :param headers: the headers that authenticate it.
        """
        self._credentials = fingerprint(headers)
        return headers

    def is_already_done(self, error: JobsAPIError) -> bool:
        """Record an error; return whether it shows that an earlier attempt did the work.

        So it is if a call that deletes is repeated and answered with "does not exist".

        :param error: how the latest attempt failed.
        """
        if isinstance(error, AuthenticationError):
            error.refused_credentials = self._credentials
        is_refusal = isinstance(error, (AuthenticationError, TokenRefusedError))
        self.refusal = error if is_refusal else None
        self.outcome_unknown = self.outcome_unknown or error.outcome_unknown
        is_gone = isinstance(error, NotFoundError)
        return is_gone and self.call.missing_ok and self.outcome_unknown

    def log_recovery(self, idle_seconds: float) -> None:
        """Log that the call succeeded, if an attempt before failed.

        :param idle_seconds: sum of the waits.
        """
        if self.count > 1:
            seconds = self._seconds(idle_seconds)
            log.info(
                "%s succeeded after %d attempts in %.0f s.", self.call.name, self.count, seconds
            )
            if self._observer is not None:
                self._observer.outage_ended(seconds)

    def record_attempts(self, error: JobsAPIError, idle_seconds: float) -> None:
        """Store the number and the time of the attempts in the last error.

        :param error: how the latest attempt failed.
        :param idle_seconds: sum of the waits.
        """
        elapsed = self._seconds(idle_seconds)
        error.record_attempts(
            self.call.name, self.count, elapsed, outcome_unknown=self.outcome_unknown
        )
        if self._observer is not None and self.count > 1:
            self._observer.outage_ended(elapsed)

    def _seconds(self, idle_seconds: float) -> float:
        """Return the time since the first attempt, without turns; tests skip the waits."""
        return max(self._clock() - self._started - self.turn_seconds, idle_seconds)
