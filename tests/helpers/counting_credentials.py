"""Credentials whose tokens tell how many were fetched."""

from __future__ import annotations

import threading
from collections.abc import Callable

from airflow_jobs_provider.api.auth import AccessToken, CachedCredentials
from airflow_jobs_provider.api.retry import RetryPolicy
from tests.fakes.scripted_server import ScriptedServer

__all__ = ["LIFETIME", "POLLING", "CountingCredentials", "tokens_sent"]

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


def tokens_sent(server: ScriptedServer) -> list[str]:
    """Return the tokens that the server received, in order."""
    return [request.headers["authorization"].removeprefix("Bearer ") for request in server.requests]
