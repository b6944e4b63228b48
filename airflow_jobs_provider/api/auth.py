"""Credentials, and the Authorization header they become.

A :class:`Credentials` is asked for the header at every try of every call, so one that fetches and
refreshes tokens has its place here later. The secret is masked in every repr.
"""

from __future__ import annotations

import base64
import netrc
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from airflow_jobs_provider.api.errors import CredentialsError

__all__ = ["Basic", "Credentials", "Token", "from_netrc"]


class Credentials(Protocol):
    """What a client needs of credentials."""

    def authorization(self) -> str:
        """Return the value of the Authorization header."""
        ...


@dataclass(frozen=True, slots=True)
class Token:
    """A personal access token, or any other bearer token."""

    token: str = field(repr=False)

    def __post_init__(self) -> None:
        _must_fit_a_header(self.token, "token")

    def authorization(self) -> str:
        """Return the value of the Authorization header."""
        return f"Bearer {self.token}"


@dataclass(frozen=True, slots=True)
class Basic:
    """User and password."""

    user: str
    password: str = field(repr=False)

    def authorization(self) -> str:
        """Return the value of the Authorization header."""
        pair = f"{self.user}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


def from_netrc(host: str, file: str | Path | None = None) -> Credentials:
    """Read the credentials for a host from a .netrc file, as ``curl --netrc`` does.

    :param host: host name, without port.
    :param file: the file; ``NETRC`` from the environment, else ``~/.netrc``, if None.
    :return: a :class:`Token` where the login is ``token`` (the way the reference's examples keep
        one), else :class:`Basic`.
    :raises CredentialsError: the file is not there, cannot be read, or has no entry for the host.
    """
    import os

    path = Path(file or os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        entry = netrc.netrc(str(path)).authenticators(host)
    except FileNotFoundError:
        raise CredentialsError(
            f"there are no credentials for {host}: the connection has neither a token nor user and "
            f"password, and there is no {path}. Put the token into the connection's password"
        ) from None
    except (netrc.NetrcParseError, OSError) as error:
        # The parser's text may quote a line of the file, and so a password.
        reason = error.strerror if isinstance(error, OSError) else f"line {error.lineno}"
        raise CredentialsError(f"{path} cannot be read ({reason})") from None
    if entry is None:
        raise CredentialsError(
            f"there are no credentials for {host}: the connection has neither a token nor user and "
            f"password, and {path} has no entry for that host"
        )
    login, _, password = entry
    return Token(password) if login == "token" else Basic(login, password)


def _must_fit_a_header(secret: str, name: str) -> None:
    if not secret.strip():
        raise CredentialsError(f"the {name} is empty")
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise CredentialsError(
            f"the {name} has a blank, a line break or another character that no token has: "
            "copy it once more"
        )
