"""Credentials that never change: a token, or user and password."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from airflow_jobs_provider.api.auth.base import Credentials, require_header_value
from airflow_jobs_provider.api.values import Value

__all__ = ["Basic", "Token"]


class Token(Value, Credentials):
    """A personal access token, or any other bearer token (reference: "Authentication").

    :param token: the token; not in the repr.
    :param source: where it was found, for messages; default ``the connection``.
    :raises CredentialsError: it is empty, or has a character that no token has.
    """

    __slots__ = __match_args__ = ("token", "source")
    _secret = ("token",)
    _not_compared = ("source",)
    token: str
    source: str

    def __init__(self, token: str, source: str = "the connection") -> None:
        require_header_value(token, "token")
        self._set(token=token, source=source)

    def authorization(self) -> str:
        """Return the value of the Authorization header."""
        return f"Bearer {self.token}"

    async def a_headers(self) -> Mapping[str, str]:
        """Return the headers that authenticate a request."""
        return self.headers()

    @property
    def description(self) -> str:
        """The method, and where the token was found."""
        return f"access token of {self.source}"


class Basic(Value, Credentials):
    """User and password.

    :param user: the user's name.
    :param password: the password; not in the repr.
    """

    __slots__ = __match_args__ = ("user", "password")
    _secret = ("password",)
    user: str
    password: str

    def __init__(self, user: str, password: str) -> None:
        self._set(user=user, password=password)

    def authorization(self) -> str:
        """Return the value of the Authorization header."""
        pair = f"{self.user}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"

    async def a_headers(self) -> Mapping[str, str]:
        """Return the headers that authenticate a request."""
        return self.headers()

    @property
    def description(self) -> str:
        """The method and the user."""
        return f"user and password of {self.user}"
