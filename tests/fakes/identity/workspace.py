"""The identity endpoints of a workspace: discovery, tokens (RFC 6749, RFC 8693), who one is."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.fakes.identity.base import (
    Endpoint,
    RefusedError,
    Request,
    Response,
    TokenIssuer,
    claims_of,
)

__all__ = [
    "Discovery",
    "LoginPage",
    "Me",
    "MetadataService",
    "WorkspaceTokens",
    "bearer_refusal",
]

ISSUER = "workspace"
DATABRICKS_SCOPE = "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d"
MANAGEMENT_RESOURCE = "https://management.core.windows.net/"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
# What the service is known to answer to an expired token, at different times and in other clouds.
EXPIRED = {
    "403": Response({"error_code": 403, "message": "JWT has expired"}, 403),
    "401": Response({"error_code": 401, "message": "Token is expired"}, 401),
    "400": Response({"error_code": "400", "message": "ExpiredJwtException: JWT expired"}, 400),
}


class Discovery(Endpoint):
    """``/.well-known/databricks-config`` and the document that names the token endpoint."""

    def __init__(self, issuer: TokenIssuer, base_url: Callable[[], str]) -> None:
        super().__init__(issuer)
        self._base_url = base_url

    def serves(self, request: Request) -> bool:
        """Return whether it is one of the two documents."""
        return request.path in (
            "/.well-known/databricks-config",
            "/oidc/.well-known/oauth-authorization-server",
        )

    def answer(self, request: Request) -> Response:
        """Return the document."""
        oidc = f"{self._base_url()}/oidc"
        if request.path.startswith("/.well-known/"):
            return Response({"oidc_endpoint": oidc, "workspace_id": "1234567890123456"})
        return Response(
            {
                "issuer": oidc,
                "authorization_endpoint": f"{oidc}/v1/authorize",
                "token_endpoint": f"{oidc}/v1/token",
                "grant_types_supported": ["client_credentials", "authorization_code", EXCHANGE],
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "none"],
                "scopes_supported": ["all-apis", "offline_access"],
            }
        )


class WorkspaceTokens(Endpoint):
    """``/oidc/v1/token``: client credentials, and the exchange of another issuer's token.

    :ivar clients: secrets of service principals, by client id.
    :ivar expired: client ids whose secret has expired.
    :ivar policies: audience that a token must have to be exchanged, by its issuer.
    """

    def __init__(self, issuer: TokenIssuer) -> None:
        super().__init__(issuer)
        self.clients: dict[str, str] = {}
        self.expired: set[str] = set()
        self.policies: dict[str, str] = {}

    def serves(self, request: Request) -> bool:
        """Return whether a token is asked for."""
        return request.path == "/oidc/v1/token"

    def answer(self, request: Request) -> Response:
        """Issue a token."""
        form = request.form
        self.expect(request.verb, "POST", _error("invalid_request", "POST only", 405))
        self.expect(form.get("scope"), "all-apis", _error("invalid_scope", "Unknown scope"))
        match form.get("grant_type"):
            case "client_credentials":
                subject = self._client(request)
            case grant if grant == EXCHANGE:
                subject = self._exchanged(form)
            case _:
                raise RefusedError(_error("unsupported_grant_type", "Unsupported grant type"))
        token = self.issuer.issue(ISSUER, subject, ISSUER)
        return Response(
            {
                "access_token": token.value,
                "token_type": "Bearer",
                "expires_in": int(self.issuer.lifetime_seconds),
                "scope": "all-apis",
            }
        )

    def _client(self, request: Request) -> str:
        client_id, secret = request.client
        refusal = _error("invalid_client", "Client authentication failed", 401)
        self.expect(secret, self.clients.get(client_id, object()), refusal)
        if client_id in self.expired:
            raise RefusedError(_error("invalid_client", "The client secret has expired", 401))
        return client_id

    def _exchanged(self, form: dict[str, str]) -> str:
        token = form.get("subject_token", "")
        self.expect(
            form.get("subject_token_type"), JWT_TYPE, _error("invalid_request", "Not a JWT")
        )
        try:
            assertion = self.issuer.check(token)
        except KeyError:
            raise RefusedError(_error("invalid_grant", "The subject token is not valid")) from None
        except TimeoutError:
            raise RefusedError(_error("invalid_grant", "The subject token has expired")) from None
        if claims_of(token)["nbf"] > self.issuer.now():
            raise RefusedError(_error("invalid_grant", "The subject token is not valid yet"))
        wanted = self.policies.get(assertion.issuer)
        refusal = _error("invalid_grant", "No federation policy matches the subject token")
        self.expect(assertion.audience, wanted, refusal)
        client_id = form.get("client_id")
        if client_id is not None and client_id not in self.clients:
            raise RefusedError(_error("invalid_client", "Client authentication failed", 401))
        return client_id or assertion.subject


class MetadataService(Endpoint):
    """A service beside the process that issues tokens of whoever is signed in there.

    :ivar is_signed_in: whether somebody is.
    """

    is_signed_in = True

    def serves(self, request: Request) -> bool:
        """Return whether a token is asked for."""
        return request.path.startswith("/databricks/")

    def answer(self, request: Request) -> Response:
        """Issue a token for the host that a header names."""
        wrong = Response({"error": "unsupported version"}, 400)
        self.expect(request.headers.get("x-databricks-metadata-version"), "1", wrong)
        is_named = request.headers.get("x-databricks-host", "").startswith("https://")
        self.expect(is_named, True, Response({"error": "no host"}, 400))
        self.expect(self.is_signed_in, True, Response({"error": "not signed in"}, 401))
        token = self.issuer.issue(ISSUER, "me", ISSUER)
        expires_on = int(token.expires_at)
        answer = {"access_token": token.value, "token_type": "Bearer", "expires_on": expires_on}
        return Response(answer)


class LoginPage(Endpoint):
    """Pages that lead to Entra ID, from which clients learn the tenant.

    :ivar authority: where Entra ID is.
    """

    authority = "https://login.microsoftonline.com"

    def __init__(self, issuer: TokenIssuer, tenant: str) -> None:
        super().__init__(issuer)
        self._tenant = tenant

    def serves(self, request: Request) -> bool:
        """Return whether it is one of these pages."""
        return request.path in ("/aad/auth", "/oidc/oauth2/v2.0/authorize")

    def answer(self, request: Request) -> Response:
        """Redirect."""
        version = "oauth2/v2.0" if "v2.0" in request.path else "oauth2"
        location = f"{self.authority}/{self._tenant}/{version}/authorize"
        return Response({}, 302, {"Location": location})


class Me(Endpoint):
    """``/api/2.0/preview/scim/v2/Me``: who the caller is."""

    def serves(self, request: Request) -> bool:
        """Return whether the caller asks who it is."""
        return request.path == "/api/2.0/preview/scim/v2/Me"

    def answer(self, request: Request) -> Response:
        """Return the caller's name."""
        refusal = bearer_refusal(self.issuer, request)
        if refusal is not None:
            return refusal
        subject = self.issuer.issued[request.bearer].subject
        return Response({"id": "1", "userName": subject, "displayName": f"name of {subject}"})


def bearer_refusal(issuer: TokenIssuer, request: Request, expired: str = "403") -> Response | None:
    """Return how the workspace refuses a request, or None if its token is valid.

    A token of Entra ID must be for Databricks. Where the workspace's resource id is named, the
    second token must be for Azure's management.

    :param expired: what to answer to an expired token; a key of ``EXPIRED``.
    """
    if not request.bearer:
        message = "Credential was not sent or was of an unsupported type for this API."
        return Response({"error_code": 401, "message": message}, 401)
    invalid = Response({"error_code": 403, "message": "Invalid access token."}, 403)
    try:
        token = issuer.check(request.bearer)
        if "x-databricks-azure-workspace-resource-id" in request.headers:
            second = request.headers.get("x-databricks-azure-sp-management-token", "")
            issuer.check(second, MANAGEMENT_RESOURCE)
    except TimeoutError:
        return EXPIRED[expired]
    except KeyError:
        return invalid
    return None if token.audience in (ISSUER, DATABRICKS_SCOPE, request.host) else invalid


def _error(code: str, description: str, status: int = 400) -> Response:
    body = json.dumps({"error": code, "error_description": description}).encode()
    return Response(body, status)
