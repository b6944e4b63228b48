"""What a client needs of credentials."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping

from airflow_jobs_provider.api.errors import CredentialsError

__all__ = ["Credentials", "fingerprint", "keyed_digest", "require_header_value"]

_KEY = os.urandom(32)


class Credentials(ABC):
    """Credentials for the headers of a request. A client asks for them at every attempt.

    A subclass implements :meth:`authorization`, or :meth:`headers` if it sends further headers. It
    overrides :meth:`a_headers` only if that can do better than a thread. Its repr must not show a
    secret.
    """

    @property
    def description(self) -> str:
        """The method and the principal, without secrets, such as ``user and password of me``."""
        return type(self).__name__

    @abstractmethod
    def authorization(self) -> str:
        """Return the value of the Authorization header; may block.

        :raises JobsAPIError: there are no usable credentials (:class:`~.errors.CredentialsError`,
            which is not retried), or they cannot be fetched now (any other; the retry policy
            decides).
        """

    def headers(self) -> Mapping[str, str]:
        """Return the headers that authenticate a request; may block.

        :raises JobsAPIError: as :meth:`authorization` does.
        """
        return {"Authorization": self.authorization()}

    async def a_headers(self) -> Mapping[str, str]:
        """Return the same from asyncio. Runs :meth:`headers` in a thread.

        :raises JobsAPIError: as :meth:`authorization` does.
        """
        return await asyncio.to_thread(self.headers)

    def invalidate(self, refused: str) -> None:  # noqa: B027 - most credentials have nothing to drop
        """Drop what is cached. A client calls this after a 401 or 403, before the next attempt.

        :param refused: the :func:`fingerprint` of the headers that the refused request had. Another
            request may have led to new ones meanwhile, which are kept.
        """


def fingerprint(headers: Mapping[str, str]) -> str:
    """Return what tells the headers of one token from those of another, and no secret.

    :param headers: what :meth:`Credentials.headers` returned.
    """
    return keyed_digest(headers.get("Authorization", ""))


def keyed_digest(text: str) -> str:
    """Return a digest of a secret. Other processes have other digests of the same secret.

    :param text: the secret.
    """
    return hmac.new(_KEY, text.encode(), hashlib.sha256).hexdigest()


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
