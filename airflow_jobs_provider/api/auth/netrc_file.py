"""Credentials from a .netrc file."""

from __future__ import annotations

import netrc
import os
from pathlib import Path

from airflow_jobs_provider.api.auth.base import Credentials
from airflow_jobs_provider.api.auth.static import Basic, Token
from airflow_jobs_provider.api.errors import CredentialsError

__all__ = ["from_netrc"]


def from_netrc(host: str, file: str | Path | None = None) -> Credentials:
    """Read the credentials for a host from a .netrc file, as ``curl --netrc`` does.

    :param host: host name, without port.
    :param file: path of the file; None (default) for the one that the environment variable
        ``NETRC`` names, else ``~/.netrc``.
    :return: a :class:`Token` if the login is ``token`` (as in the reference's examples), else
        :class:`Basic`.
    :raises CredentialsError: the file does not exist, cannot be read, or has no entry for the host.
    """
    path = Path(file or os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        entry = netrc.netrc(str(path)).authenticators(host)
    except FileNotFoundError:
        raise CredentialsError(
            f"there are no credentials for {host}: the connection has neither a token nor user and "
            f"password, and there is no {path}. Put the token into the connection's password"
        ) from None
    except (netrc.NetrcParseError, OSError) as error:
        # The parser's message may quote a line of the file, and so a password.
        reason = error.strerror if isinstance(error, OSError) else f"line {error.lineno}"
        raise CredentialsError(f"{path} cannot be read ({reason})") from None
    if entry is None:
        raise CredentialsError(
            f"there are no credentials for {host}: the connection has neither a token nor user and "
            f"password, and {path} has no entry for that host"
        )
    login, _, password = entry
    return Token(password, str(path)) if login == "token" else Basic(login, password)
