"""Credentials that never change: a token, or user and password."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_jobs_provider.api.auth.base import Credentials, require_header_value

__all__ = ["Basic", "Token"]


@dataclass(frozen=True, slots=True)
class Token(Credentials):
    """A personal access token, or any other bearer token (reference: "Authentication").

    :param token: the token; not in the repr.
    :param source: where it was found, for messages; default ``the connection``.
    :raises CredentialsError: it is empty, or has a character that no token has.
    """

    token: str = field(repr=False)
    source: str = field(default="the connection", compare=False)

    def __post_init__(self) -> None:
        require_header_value(self.token, "token")

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


@dataclass(frozen=True, slots=True)
class Basic(Credentials):
    """User and password.

    :param user: the user's name.
    :param password: the password; not in the repr.
    """

    user: str
    password: str = field(repr=False)

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
