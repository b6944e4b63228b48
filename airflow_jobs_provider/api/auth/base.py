"""What a client needs of credentials, and a cache for those that fetch a token."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from airflow_jobs_provider.api.errors import CredentialsError

__all__ = ["AccessToken", "CachedCredentials", "Credentials", "require_header_value"]

# A token that was fetched so recently is not the one that the service just refused.
_JUST_FETCHED_SECONDS = 10.0


class Credentials(ABC):
    """Credentials for the Authorization header. A client asks for them at every attempt.

    A subclass implements :meth:`authorization`. It overrides :meth:`a_authorization` only if that
    can do better than a thread. Its repr must not show a secret.
    """

    @abstractmethod
    def authorization(self) -> str:
        """Return the value of the Authorization header; may block.

        :raises JobsAPIError: there are no usable credentials (:class:`~.errors.CredentialsError`,
            which is not retried), or they cannot be fetched now (any other; the retry policy
            decides).
        """

    async def a_authorization(self) -> str:
        """Return the same from asyncio. Runs :meth:`authorization` in a thread.

        :raises JobsAPIError: as :meth:`authorization` does.
        """
        return await asyncio.to_thread(self.authorization)

    def invalidate(self) -> None:  # noqa: B027 - most credentials have nothing to drop
        """Drop what is cached. A client calls this after a 401 or 403, before the next attempt."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A bearer token with a limited lifetime.

    :ivar value: the token; not in the repr.
    :ivar expires_at: when it expires, in seconds since the epoch; None (default) if it does not.
    """

    value: str = field(repr=False)
    expires_at: float | None = None


class CachedCredentials(Credentials):
    """Credentials that fetch a token, keep it, and fetch the next one before it expires.

    A subclass implements :meth:`fetch_token`. At most one fetch is in flight, whichever threads and
    coroutines ask.

    :param refresh_before_seconds: how long before its end a token is replaced; default 300.
    :param clock: seconds since the epoch; default ``time.time``.
    """

    def __init__(
        self, *, refresh_before_seconds: float = 300.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._refresh_before_seconds = refresh_before_seconds
        self._clock = clock
        self._token: AccessToken | None = None
        self._fetched_at = 0.0
        # Reentrant: a signal handler may interrupt a fetch in its own thread, and send a request.
        self._lock = threading.RLock()
        self._in_flight: tuple[asyncio.AbstractEventLoop, asyncio.Future[str]] | None = None

    @abstractmethod
    def fetch_token(self) -> AccessToken:
        """Fetch a new token; may block.

        :raises JobsAPIError: as :meth:`authorization` does.
        """

    def authorization(self) -> str:
        """Return the value of the Authorization header, with a new token if it is time for one."""
        token = self._valid_token()
        if token is None:
            with self._lock:
                # Another thread may have fetched it while this one waited.
                token = self._valid_token() or self._fetch()
        return f"Bearer {token.value}"

    async def a_authorization(self) -> str:
        """Return the same from asyncio; coroutines of one event loop share one thread."""
        token = self._valid_token()
        if token is not None:
            return f"Bearer {token.value}"
        loop = asyncio.get_running_loop()
        if self._in_flight is None or self._in_flight[0] is not loop or self._in_flight[1].done():
            self._in_flight = loop, loop.run_in_executor(None, self.authorization)
        # Shielded: the fetch goes on for the others if one of them is canceled.
        return await asyncio.shield(self._in_flight[1])

    def invalidate(self) -> None:
        """Drop the token, unless it was fetched just now.

        Requests that were sent together are refused together. Only the first refusal is about the
        current token.
        """
        if self._clock() - self._fetched_at >= _JUST_FETCHED_SECONDS:
            self._token = None

    def _valid_token(self) -> AccessToken | None:
        token = self._token
        if token is None or token.expires_at is None:
            return token
        return token if self._clock() < token.expires_at - self._refresh_before_seconds else None

    def _fetch(self) -> AccessToken:
        token = self.fetch_token()
        require_header_value(token.value, "token")
        self._token, self._fetched_at = token, self._clock()
        return token


def require_header_value(secret: str, name: str) -> None:
    """Check that a secret can be sent in a header.

    :param secret: the secret; the error does not show it.
    :param name: what the error calls it, such as ``token``.
    :raises CredentialsError: it is empty, or has a character that no token has.
    """
    if not secret.strip():
        raise CredentialsError(f"the {name} is empty")
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise CredentialsError(
            f"the {name} has a blank, a line break or another character that no token has: "
            "copy it once more"
        )
