"""The pages' key: what the buttons need, and what shows whole requests and settings.

A browser sends cookies with the requests that any page makes, so a page of another site, or of
another program on this machine, could press the buttons with them. Therefore there is no cookie: a
script of these pages keeps the key in the storage of its origin, which other origins cannot read,
and sends it in a header, which other origins may not set.

The key is made of the access token, and does not tell it. It is not accepted by the API.
"""

from __future__ import annotations

import hmac
from http import HTTPStatus

from aiohttp import web

from airflow_jobs_provider.local.errors import ApiError

__all__ = ["PagesKey"]

_PURPOSE = b"local workspace: pages"


class PagesKey:
    """Checks the key.

    :param token: the workspace's access token.
    """

    def __init__(self, token: bytes) -> None:
        self._token = token
        self.text = hmac.new(token, _PURPOSE, "sha256").hexdigest()

    def check(self, request: web.Request, base_url: str) -> None:
        """Check that a request has the key, and does not come from a page of another origin.

        :raises ApiError: it has not, or it does.
        """
        self._check_origin(request, base_url)
        if not hmac.compare_digest(_secret_of(request), self.text.encode()):
            raise ApiError(
                HTTPStatus.UNAUTHORIZED, "UNAUTHENTICATED", "The key of these pages is needed."
            )

    def check_token(self, request: web.Request, base_url: str) -> None:
        """Check that a request has the access token, with which a user gets the key.

        :raises ApiError: it has not, or it comes from a page of another origin.
        """
        self._check_origin(request, base_url)
        if not hmac.compare_digest(_secret_of(request), self._token):
            raise ApiError(HTTPStatus.FORBIDDEN, "PERMISSION_DENIED", "Invalid access token.")

    def _check_origin(self, request: web.Request, base_url: str) -> None:
        origin = request.headers.get("Origin")
        port = base_url.rpartition(":")[2]
        if origin not in {None, base_url, f"http://localhost:{port}"}:
            raise ApiError(
                HTTPStatus.FORBIDDEN,
                "PERMISSION_DENIED",
                "The request comes from a page of another origin.",
            )


def _secret_of(request: web.Request) -> bytes:
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    return secret.strip().encode("utf-8", "surrogateescape") if scheme.lower() == "bearer" else b""
