"""Credentials that fetch a token, keep it, and renew it ahead of its end."""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from airflow_jobs_provider.api.auth.base import Credentials, fingerprint, require_header_value
from airflow_jobs_provider.api.auth.debug_logs import fetching
from airflow_jobs_provider.api.errors import (
    CredentialsError,
    JobsAPIError,
    TokenUnavailableError,
)
from airflow_jobs_provider.api.retry import RetryPolicy, skipped_seconds

__all__ = ["AccessToken", "CachedCredentials"]

log = logging.getLogger(__name__)

# So that a service that refuses every token does not cause a fetch for each request.
_JUST_FETCHED_SECONDS = 10.0
# As in databricks-sdk: Azure Databricks refuses a token in the last 30 s of its life.
_UNUSABLE_SECONDS = 40.0
# After a renewal ahead of time was refused.
_REFUSED_RENEWAL_SECONDS = 60.0
# Of a token without an end, or one that has ended by this machine's clock when it arrives.
_ODD_LIFETIME_SECONDS = 60.0


# The pauses after failed fetches. Without jitter, so that a pause has ended when a client that met
# the failure has waited for its next attempt.
_POLICY = RetryPolicy(random=lambda: 0.0)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A bearer token with a limited lifetime. The repr shows no secret.

    :ivar value: the token.
    :ivar expires_at: when it expires, in seconds since the epoch; None (default) if it does not.
    :ivar more_headers: further headers that authenticate a request, such as the management token of
        an Azure service principal; default none.
    """

    value: str = field(repr=False)
    expires_at: float | None = None
    more_headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class _Pause:
    """No token is fetched for some time, since the latest fetch failed.

    :ivar failure: how.
    :ivar failures: failed fetches in a row.
    :ivar since: when it failed.
    :ivar seconds: length of the pause.
    """

    failure: JobsAPIError
    failures: int
    since: float
    seconds: float


@dataclass(frozen=True, slots=True)
class _CachedToken:
    headers: Mapping[str, str] = field(repr=False)
    fetched_at: float
    renew_at: float = float("inf")
    unusable_at: float = float("inf")
    lifetime: float = float("inf")


class CachedCredentials(Credentials):
    """Credentials that fetch a token, keep it, and renew it ahead of its end.

    A subclass implements :meth:`fetch_token`. It runs in a thread of its own. At most one fetch is
    in flight, whichever threads and event loops ask.

    ==========================  ==================================================================
    Age of the token            What a request gets
    ==========================  ==================================================================
    until ``renew_at``          the token. ``renew_at`` is ``renew_before_seconds`` before its end,
                                or half of its life if that is less
    until it cannot be used     the token. The next one is fetched in the background. If that
                                fails, the old one serves on
    later, or none was fetched  the next token; the request waits for it
    refused by the service      the next token. The old one, if none can be fetched now
    ==========================  ==================================================================

    After a failed fetch the next one is made after a pause, as long as the waits of
    :class:`~airflow_jobs_provider.api.retry.RetryPolicy`: 0.5 s after an outage, then twice as long
    each time, up to 30 s. A request in the pause gets the old token, or else the failure of the
    latest fetch. A refusal causes a pause only while the old token serves.

    :param renew_before_seconds: how long before its end a token is renewed; default 1,200, as in
        databricks-sdk.
    :param fetch_timeout_seconds: longest wait for a token; default 120.
    :param clock: seconds since the epoch; default ``time.time``.
    """

    def __init__(
        self,
        *,
        renew_before_seconds: float = 1200.0,
        fetch_timeout_seconds: float = 120.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._renew_before_seconds = renew_before_seconds
        self._fetch_timeout_seconds = fetch_timeout_seconds
        self._clock = clock
        self._token: _CachedToken | None = None
        self._is_token_refused = False
        self._pause: _Pause | None = None
        # Reentrant: a signal handler may interrupt its own thread here, and send a request.
        self._lock = threading.RLock()
        self._renewal: Future[_CachedToken] | None = None
        self._renewal_started = 0.0
        self._pid = os.getpid()
        #: Whether the latest fetch was refused, so that the connection should be read again.
        self.is_refused = False

    @abstractmethod
    def fetch_token(self) -> AccessToken:
        """Fetch a new token; may block.

        :raises JobsAPIError: as :meth:`authorization` does.
        """

    def authorization(self) -> str:
        """Return the value of the Authorization header, with a new token if it is time for one."""
        return self.headers()["Authorization"]

    def headers(self) -> Mapping[str, str]:
        """Return the headers that authenticate a request, with a new token if it is time for one.

        :raises JobsAPIError: no token can be fetched.
        """
        known = self._token
        token = self._usable_token(known)
        if token is not None:
            return token.headers
        renewal = self._renew(replaced=known)
        try:
            return renewal.result(self._fetch_timeout_seconds).headers
        except TimeoutError:
            failure: JobsAPIError = self._too_slow()
        except JobsAPIError as error:
            failure = error
        return self._headers_after(failure)

    async def a_headers(self) -> Mapping[str, str]:
        """Return the same from asyncio; the event loop is not blocked.

        :raises JobsAPIError: no token can be fetched.
        """
        known = self._token
        token = self._usable_token(known)
        if token is not None:
            return token.headers
        # Shielded: the fetch goes on for the others if one of them is canceled.
        renewal = asyncio.shield(asyncio.wrap_future(self._renew(replaced=known)))
        try:
            async with asyncio.timeout(self._fetch_timeout_seconds):
                return (await renewal).headers
        except TimeoutError:
            failure: JobsAPIError = self._too_slow()
        except JobsAPIError as error:
            failure = error
        return self._headers_after(failure)

    def invalidate(self, refused: str) -> None:
        """Fetch another token before the next request, if the refused one is the current one.

        A token that was fetched less than 10 s ago is kept all the same.

        :param refused: the fingerprint of the refused headers.
        """
        with self._locked():
            token = self._token
            if token is None or fingerprint(token.headers) != refused:
                return
            # An age below 0 is that of a clock that was set back.
            if not 0 <= self._clock() - token.fetched_at < _JUST_FETCHED_SECONDS:
                self._is_token_refused = True

    def _usable_token(self, token: _CachedToken | None) -> _CachedToken | None:
        """Return the token, if a request need not wait for another; renew it if it is time."""
        now = self._clock()
        if token is None or self._is_token_refused or now >= token.unusable_at:
            return None
        if now >= token.renew_at and self._current_pause() is None:
            self._renew(replaced=token)
        return token

    def _headers_after(self, failure: JobsAPIError) -> Mapping[str, str]:
        """Return the headers with the old token, if it may serve on; raise the failure if not."""
        token = self._token
        if (
            token is not None
            and not isinstance(failure, CredentialsError)
            and self._clock() < token.unusable_at
        ):
            return token.headers
        # A copy without traceback: many raise it, and the frames of a fetch hold secrets.
        raise _copy_of(failure)

    def _too_slow(self) -> TokenUnavailableError:
        return TokenUnavailableError(
            f"no token came within {self._fetch_timeout_seconds:g} s ({self.description})"
        )

    def _renew(self, *, replaced: _CachedToken | None) -> Future[_CachedToken]:
        """Start to fetch a token, if no fetch is in flight; return the fetch.

        :param replaced: the token that is to be replaced. If it has been, the fetch is done.
        """
        with self._locked():
            if self._token is not None and self._token is not replaced:
                done: Future[_CachedToken] = Future()
                done.set_result(self._token)
                return done
            # A fetch that hangs is given up.
            is_over = (
                self._renewal is None
                or self._renewal.done()
                or time.monotonic() - self._renewal_started > self._fetch_timeout_seconds
            )
            if self._renewal is None or is_over:
                pause = self._current_pause()
                if pause is not None and not isinstance(pause.failure, CredentialsError):
                    failed: Future[_CachedToken] = Future()
                    failed.set_exception(_copy_of(pause.failure))
                    return failed
                self._renewal = Future()
                self._renewal.set_running_or_notify_cancel()
                self._renewal_started = time.monotonic()
                self._start_fetch(self._renewal)
            return self._renewal

    def _locked(self) -> threading.RLock:
        """Return the lock, as a context manager."""
        if self._pid != os.getpid():
            # Forked: the thread of a fetch is gone, and another thread may have held the lock.
            self._lock, self._renewal, self._pid = threading.RLock(), None, os.getpid()
        return self._lock

    def _current_pause(self) -> _Pause | None:
        pause = self._pause
        if pause is None or not 0 <= self._pause_clock() - pause.since < pause.seconds:
            return None
        return pause

    def _pause_clock(self) -> float:
        return self._clock() + skipped_seconds()

    def _start_fetch(self, renewal: Future[_CachedToken]) -> None:
        fetch = threading.Thread(
            target=self._fetch_into, args=(renewal,), name="token", daemon=True
        )
        try:
            fetch.start()
        except RuntimeError as error:  # too many threads, or the interpreter shuts down
            failure = TokenUnavailableError(f"no thread can be started to fetch a token: {error}")
            self._record_failure(failure)
            renewal.set_exception(failure)

    def _fetch_into(self, renewal: Future[_CachedToken]) -> None:
        failure: JobsAPIError
        try:
            started = self._clock()
            with fetching():
                fetched = self.fetch_token()
            require_header_value(fetched.value, "token")
            token = self._cached(fetched, started)
        except JobsAPIError as error:
            failure = error
        except BaseException as error:  # noqa: BLE001 - whatever an authentication library raises
            # Its message may quote a secret.
            failure = CredentialsError(f"the credentials cannot be read ({type(error).__name__})")
        else:
            with self._lock:
                self._token, self._is_token_refused, self.is_refused = token, False, False
                self._pause = None
            renewal.set_result(token)
            return
        self._record_failure(failure)
        renewal.set_exception(_copy_of(failure))

    def _record_failure(self, failure: JobsAPIError) -> None:
        token, now = self._token, self._clock()
        if token is not None and now >= token.unusable_at:
            token = None
        self.is_refused = isinstance(failure, CredentialsError)
        failures = 1 if self._pause is None else self._pause.failures + 1
        seconds = _POLICY.wait_seconds(failure, failures) or _REFUSED_RENEWAL_SECONDS
        if token is not None:
            seconds = min(seconds, token.lifetime / 20)
        # A copy, since the frames of a fetch hold secrets.
        self._pause = _Pause(_copy_of(failure), failures, self._pause_clock(), seconds)
        if token is not None:
            log.warning(
                "The token cannot be renewed now: %s. The old one serves for another %.0f s; "
                "next attempt in %.0f s.",
                failure,
                token.unusable_at - now,
                seconds,
            )

    def _cached(self, token: AccessToken, started: float) -> _CachedToken:
        headers = {"Authorization": f"Bearer {token.value}", **token.more_headers}
        if token.expires_at is None:
            return _CachedToken(headers, started)
        lifetime = token.expires_at - started
        if lifetime <= 0:
            log.warning(
                "A new token has expired already, by the clock of this machine (%.0f s ago). "
                "It is used for %.0f s. Check the clock.",
                -lifetime,
                _ODD_LIFETIME_SECONDS,
            )
            lifetime = _ODD_LIFETIME_SECONDS
        return _CachedToken(
            headers,
            fetched_at=started,
            renew_at=started + lifetime - min(self._renew_before_seconds, lifetime / 2),
            unusable_at=started + lifetime - min(_UNUSABLE_SECONDS, lifetime / 10),
            lifetime=lifetime,
        )


def _copy_of(error: JobsAPIError) -> JobsAPIError:
    """Return the same error without traceback, to be raised once more."""
    kind = type(error)
    copied = kind.__new__(kind, *error.args)
    copied.args = error.args
    copied.__dict__.update(copy.copy(error.__dict__))
    return copied
