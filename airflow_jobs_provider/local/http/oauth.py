"""OAuth of the local workspace: the discovery documents, the token endpoint, and its tokens.

The workspace has one service principal. Its client id is :data:`CLIENT_ID`, its client secret is
the workspace's access token.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

__all__ = ["CLIENT_ID", "ExpiredTokenError", "OAuth"]

CLIENT_ID = "local-service-principal"
_SCOPE = "all-apis"
_GRANT = "client_credentials"
_HEADER = {"alg": "HS256", "typ": "JWT"}
_MAX_FORM_BYTES = 16 * 1024
# Responses with a token must not be stored (RFC 6749, 5.1).
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class ExpiredTokenError(Exception):
    """A token that this workspace issued, and that has expired."""


class OAuth:
    """Issues OAuth tokens and checks them.

    A token is a JWT that is signed with the client secret. So a workspace that was started again
    with the same secret takes the tokens that it issued before.

    :param secret: the client secret.
    :param lifetime_seconds: how long a token is valid.
    :param request_seconds: how long the body of a request may take to arrive.
    :param now: seconds since the epoch; default ``time.time``.
    """

    def __init__(
        self,
        secret: bytes,
        lifetime_seconds: int,
        request_seconds: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._secret = secret
        self._lifetime_seconds = lifetime_seconds
        self._request_seconds = request_seconds
        self._now = now

    def add_routes(self, app: web.Application, base_url: Callable[[], str]) -> None:
        """Add the discovery documents and the token endpoint; they need no credentials.

        :param base_url: returns the workspace's URL.
        """

        async def host_metadata(_request: web.Request) -> web.Response:
            return web.json_response({"oidc_endpoint": f"{base_url()}/oidc"})

        async def authorization_server(_request: web.Request) -> web.Response:
            return web.json_response(
                {
                    "issuer": f"{base_url()}/oidc",
                    "authorization_endpoint": f"{base_url()}/oidc/v1/authorize",
                    "token_endpoint": f"{base_url()}/oidc/v1/token",
                    "grant_types_supported": [_GRANT],
                    "response_types_supported": [],
                    "scopes_supported": [_SCOPE],
                    "token_endpoint_auth_methods_supported": [
                        "client_secret_basic",
                        "client_secret_post",
                    ],
                }
            )

        app.router.add_get("/.well-known/databricks-config", host_metadata)
        app.router.add_get("/oidc/.well-known/oauth-authorization-server", authorization_server)
        app.router.add_post("/oidc/v1/token", self._token)

    def issued(self, token: bytes) -> bool:
        """Return whether a token is a valid one that was issued here.

        :raises ExpiredTokenError: it was issued here, and has expired.
        """
        signed, _, signature = token.rpartition(b".")
        if not hmac.compare_digest(self._sign(signed), signature):
            return False
        claims = json.loads(_decode(signed.partition(b".")[2]))
        if self._now() >= claims["exp"]:
            raise ExpiredTokenError
        return True

    async def _token(self, request: web.Request) -> web.Response:
        """Issue a token for client id and secret (RFC 6749, 4.4)."""
        try:
            form = await self._form(request)
        except (TimeoutError, ValueError, web.RequestPayloadError):
            return _error(HTTPStatus.BAD_REQUEST, "invalid_request", "The form cannot be read")
        client_id, secret = _client(request, form)
        is_known = hmac.compare_digest(client_id.encode(), CLIENT_ID.encode())
        if not hmac.compare_digest(secret.encode(), self._secret) or not is_known:
            return _error(
                HTTPStatus.UNAUTHORIZED,
                "invalid_client",
                "Client authentication failed",
                {"WWW-Authenticate": "Basic"},
            )
        if form.get("grant_type") != _GRANT:
            message = f"The local workspace supports grant_type={_GRANT} only"
            return _error(HTTPStatus.BAD_REQUEST, "unsupported_grant_type", message)
        if form.get("scope", _SCOPE) != _SCOPE:
            message = f"The local workspace supports scope={_SCOPE} only"
            return _error(HTTPStatus.BAD_REQUEST, "invalid_scope", message)
        return web.json_response(
            {
                "access_token": self._issue(),
                "token_type": "Bearer",
                "expires_in": self._lifetime_seconds,
                "scope": _SCOPE,
            },
            headers=_NO_STORE,
        )

    async def _form(self, request: web.Request) -> dict[str, str]:
        async with asyncio.timeout(self._request_seconds):
            body = b""
            while part := await request.content.readany():
                body += part
                if len(body) > _MAX_FORM_BYTES:
                    raise ValueError("the form is too large")
        return dict(parse_qsl(body.decode(), keep_blank_values=True))

    def _issue(self) -> str:
        now = int(self._now())
        claims = {
            "sub": CLIENT_ID,
            "client_id": CLIENT_ID,
            "scope": _SCOPE,
            "iat": now,
            "exp": now + self._lifetime_seconds,
        }
        signed = b".".join(_encode(json.dumps(part).encode()) for part in (_HEADER, claims))
        return (signed + b"." + self._sign(signed)).decode()

    def _sign(self, signed: bytes) -> bytes:
        return _encode(hmac.digest(self._secret, signed, hashlib.sha256))


def _client(request: web.Request, form: Mapping[str, str]) -> tuple[str, str]:
    """Return client id and secret, from the Authorization header or the form (RFC 6749, 2.3.1)."""
    scheme, _, credential = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return form.get("client_id", ""), form.get("client_secret", "")
    try:
        client_id, _, secret = base64.b64decode(credential, validate=True).decode().partition(":")
    except ValueError:
        return "", ""
    # As they were sent: Databricks' own clients do not encode them.
    return client_id, secret


def _error(
    status: HTTPStatus, code: str, description: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    body: dict[str, Any] = {"error": code, "error_description": description}
    return web.json_response(body, status=status, headers={**_NO_STORE, **(headers or {})})


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _decode(data: bytes) -> bytes:
    return base64.urlsafe_b64decode(data + b"=" * (-len(data) % 4))
