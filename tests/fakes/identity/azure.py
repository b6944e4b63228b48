"""Entra ID's token endpoints (v1 and v2), its discovery, and Azure's instance metadata."""

from __future__ import annotations

import re
import time

from tests.fakes.identity.base import Endpoint, RefusedError, Request, Response, TokenIssuer
from tests.fakes.identity.workspace import DATABRICKS_SCOPE, MANAGEMENT_RESOURCE

__all__ = ["EntraDiscovery", "EntraTokens", "InstanceMetadata"]

ISSUER = "entra"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
RESOURCES = (DATABRICKS_SCOPE, MANAGEMENT_RESOURCE, "https://management.azure.com/")


class EntraTokens(Endpoint):
    """``/<tenant>/oauth2/token`` (v1, with a resource) and ``/oauth2/v2.0/token`` (with a scope).

    :ivar clients: secrets of the tenant's applications, by client id.
    :ivar expired: client ids whose secret has expired.
    :ivar federated: issuers whose tokens are taken in place of a secret.
    """

    _path = re.compile(r"/(?P<tenant>[\w.-]+)/oauth2/(?P<v2>v2\.0/)?token")

    def __init__(self, issuer: TokenIssuer, tenant: str) -> None:
        super().__init__(issuer)
        self.tenant = tenant
        self.clients: dict[str, str] = {}
        self.expired: set[str] = set()
        self.federated: set[str] = set()

    def serves(self, request: Request) -> bool:
        """Return whether a token is asked for."""
        return self._path.fullmatch(request.path) is not None

    def answer(self, request: Request) -> Response:
        """Issue a token."""
        match = self._path.fullmatch(request.path)
        assert match is not None
        form = request.form
        unknown = _error("invalid_request", 90002, f"Tenant '{match['tenant']}' not found.", 400)
        self.expect(match["tenant"], self.tenant, unknown)
        wrong_grant = _error("unsupported_grant_type", 70003, "The app requested a grant", 400)
        self.expect(form.get("grant_type"), "client_credentials", wrong_grant)
        client_id = self._client(form)
        if match["v2"]:
            resource = form.get("scope", "").removesuffix("/.default")
        else:
            resource = form.get("resource", "")
        if resource not in RESOURCES:
            message = f"The resource principal named {resource} was not found in the tenant."
            raise RefusedError(_error("invalid_resource", 500011, message, 400))
        token = self.issuer.issue(ISSUER, client_id, resource)
        answer = {
            "token_type": "Bearer",
            "expires_in": int(self.issuer.lifetime_seconds),
            "ext_expires_in": int(self.issuer.lifetime_seconds),
            "access_token": token.value,
        }
        if not match["v2"]:  # texts, and when it expires
            answer = {name: str(value) for name, value in answer.items()}
            answer |= {"expires_on": str(int(token.expires_at)), "resource": resource}
        return Response(answer)

    def _client(self, form: dict[str, str]) -> str:
        client_id = form.get("client_id", "")
        if client_id not in self.clients:
            message = f"Application with identifier '{client_id}' was not found in the directory."
            raise RefusedError(_error("unauthorized_client", 700016, message, 400))
        if "client_assertion" in form:
            self._check_assertion(form)
            return client_id
        message = f"Invalid client secret provided for app '{client_id}'."
        refusal = _error("invalid_client", 7000215, message, 401)
        self.expect(form.get("client_secret"), self.clients[client_id], refusal)
        if client_id in self.expired:
            message = f"The provided client secret keys for app '{client_id}' are expired."
            raise RefusedError(_error("invalid_client", 7000222, message, 401))
        return client_id

    def _check_assertion(self, form: dict[str, str]) -> None:
        wrong_type = _error("invalid_request", 90014, "client_assertion_type", 400)
        self.expect(form.get("client_assertion_type"), ASSERTION_TYPE, wrong_type)
        try:
            assertion = self.issuer.check(form["client_assertion"], "api://AzureADTokenExchange")
        except TimeoutError:
            message = "Client assertion is not within its valid time range."
            raise RefusedError(_error("invalid_client", 700024, message, 401)) from None
        except KeyError:
            message = "Client assertion failed signature validation."
            raise RefusedError(_error("invalid_client", 700027, message, 401)) from None
        if assertion.issuer not in self.federated:
            message = "No matching federated identity record found for presented assertion."
            raise RefusedError(_error("invalid_request", 70021, message, 400))


class EntraDiscovery(Endpoint):
    """What Microsoft's libraries read before they ask for a token."""

    _path = re.compile(r"/(?P<tenant>[\w.-]+)/v2\.0/\.well-known/openid-configuration")

    def __init__(self, issuer: TokenIssuer, tenant: str) -> None:
        super().__init__(issuer)
        self._tenant = tenant

    def serves(self, request: Request) -> bool:
        """Return whether it is one of the two documents."""
        is_tenant = self._path.fullmatch(request.path) is not None
        return is_tenant or request.path == "/common/discovery/instance"

    def answer(self, request: Request) -> Response:
        """Return the document."""
        host = request.headers.get("host", request.host)
        authority = f"https://{host}/{self._tenant}"
        if request.path == "/common/discovery/instance":
            document = f"{authority}/v2.0/.well-known/openid-configuration"
            return Response({"tenant_discovery_endpoint": document, "metadata": []})
        return Response(
            {
                "issuer": f"{authority}/v2.0",
                "token_endpoint": f"{authority}/oauth2/v2.0/token",
                "authorization_endpoint": f"{authority}/oauth2/v2.0/authorize",
            }
        )


class InstanceMetadata(Endpoint):
    """The endpoint at 169.254.169.254 of a virtual machine with managed identities.

    :ivar identities: client ids of the identities; the first one is used if none is named.
    """

    def __init__(self, issuer: TokenIssuer) -> None:
        super().__init__(issuer)
        self.identities: list[str] = []

    def serves(self, request: Request) -> bool:
        """Return whether it is a path of this endpoint."""
        return request.path in ("/metadata/identity/oauth2/token", "/metadata/instance")

    def answer(self, request: Request) -> Response:
        """Describe the machine, or issue a token for one of its identities."""
        without = Response({"error": "Bad Request. Required metadata header not specified"}, 400)
        self.expect(request.headers.get("metadata", "").lower(), "true", without)
        if "x-forwarded-for" in request.headers:
            raise RefusedError(Response({"error": "Forwarded requests are refused"}, 403))
        if not request.query.get("api-version"):
            raise RefusedError(Response({"error": "Bad request. api-version is missing"}, 400))
        if request.path == "/metadata/instance":
            return Response({"compute": {"azEnvironment": "AzurePublicCloud", "vmId": "1"}})
        wanted = request.query.get("client_id") or request.query.get("msi_res_id")
        if not self.identities or wanted not in (None, *self.identities):
            message = {"error": "invalid_request", "error_description": "Identity not found"}
            raise RefusedError(Response(message, 400))
        resource = request.query.get("resource", "")
        if resource not in (*RESOURCES, MANAGEMENT_RESOURCE.rstrip("/")):
            message = {"error": "invalid_resource", "error_description": f"{resource} is unknown"}
            raise RefusedError(Response(message, 400))
        if resource == MANAGEMENT_RESOURCE.rstrip("/"):
            resource = MANAGEMENT_RESOURCE
        client_id = wanted or self.identities[0]
        token = self.issuer.issue(ISSUER, client_id, resource)
        return Response(
            {
                "access_token": token.value,
                "client_id": client_id,
                "expires_in": str(int(self.issuer.lifetime_seconds)),
                "expires_on": str(int(token.expires_at)),
                "not_before": str(int(self.issuer.now())),
                "resource": resource,
                "token_type": "Bearer",
            }
        )


def _error(code: str, number: int, message: str, status: int) -> Response:
    trace = "\r\nTrace ID: 0\r\nCorrelation ID: 0"
    timestamp = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
    return Response(
        {
            "error": code,
            "error_description": f"AADSTS{number}: {message}{trace}",
            "error_codes": [number],
            "timestamp": timestamp,
        },
        status,
    )
