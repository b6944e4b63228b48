"""Tokens by client credentials, with databricks-sdk's ``oauth`` module and no other part of it.

Its ``Config`` imports Google's libraries and more, which takes four times as long. The methods of
the official connection need none of that, so :class:`ClientSettings` takes the place of ``Config``.

This module imports databricks-sdk. Import it when a token is fetched, with :func:`.extras.require`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

from databricks.sdk import oauth
from databricks.sdk.environments import (
    ARM_DATABRICKS_RESOURCE_ID,
    ENVIRONMENTS,
    AzureEnvironment,
    Cloud,
    DatabricksEnvironment,
    get_environment_for_hostname,
)

from airflow_jobs_provider.api.auth.sdk.identity_client import IdentityClient
from airflow_jobs_provider.api.errors import CredentialsError, TokenRefusedError

__all__ = [
    "ClientSettings",
    "Issued",
    "azure_environment",
    "azure_service_principal",
    "entra_source",
    "exchange",
    "read_token",
    "service_principal",
    "usual_endpoints",
]

_EXCHANGE = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
}
#: A token, and further headers that authenticate a request.
Issued = tuple[oauth.Token, dict[str, str]]


class Settings(Protocol):
    """What is read of the SDK's ``Config``, or of :class:`ClientSettings`."""

    identity_client: IdentityClient
    client_id: Any
    client_secret: Any
    group_id: Any
    authorization_details: Any
    azure_client_id: Any
    azure_client_secret: Any
    azure_tenant_id: Any
    azure_workspace_resource_id: Any

    @property
    def databricks_oidc_endpoints(self) -> oauth.OidcEndpoints:
        """The addresses of the workspace's OAuth service."""

    @property
    def arm_environment(self) -> AzureEnvironment:
        """The addresses of Azure."""

    @property
    def effective_azure_login_app_id(self) -> str:
        """The application id of Azure Databricks."""

    def get_scopes_as_string(self) -> str:
        """The scopes of a token."""


@dataclass
class ClientSettings:
    """The settings of a connection of the official provider. Nothing is read from the environment.

    :ivar identity_client: sends requests to identity services.
    :ivar host: URL of the workspace.
    :ivar fields: fields of the SDK's ``Config``, and ``azure_ad_endpoint``.
    """

    identity_client: IdentityClient
    host: str
    fields: Mapping[str, Any]
    group_id: Any = None
    authorization_details: Any = None

    def __post_init__(self) -> None:
        self.client_id = self.fields.get("client_id")
        self.client_secret = self.fields.get("client_secret")
        self.azure_client_id = self.fields.get("azure_client_id")
        self.azure_client_secret = self.fields.get("azure_client_secret")
        self.azure_tenant_id = self.fields.get("azure_tenant_id")
        self.azure_workspace_resource_id = self.fields.get("azure_workspace_resource_id")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.host!r})"

    @property
    def databricks_oidc_endpoints(self) -> oauth.OidcEndpoints:
        """The addresses of the workspace's OAuth service."""
        return usual_endpoints(self.host)

    @property
    def arm_environment(self) -> AzureEnvironment:
        """The addresses of Azure."""
        azure = azure_environment(self.host, self.fields).azure_environment
        assert azure is not None  # it is that of Azure
        return azure

    @property
    def effective_azure_login_app_id(self) -> str:
        """The application id of Azure Databricks."""
        return str(azure_environment(self.host, self.fields).azure_application_id)

    def get_scopes_as_string(self) -> str:
        """The scopes of a token: the SDK's default."""
        return "all-apis"

    def fetch(self, subject_token: str | None) -> Issued:
        """Fetch a token.

        :param subject_token: the token to exchange; None for client id and secret.
        :raises JobsAPIError: none can be fetched.
        """
        if subject_token is not None:
            return exchange(self, subject_token)
        return azure_service_principal(self) if self.azure_client_id else service_principal(self)


class _ClientCredentials(oauth.ClientCredentials):
    """The SDK's token source, with another way to send its request."""

    def __init__(self, settings: Settings, **fields: Any) -> None:
        self._client = settings.identity_client
        super().__init__(
            scopes=settings.get_scopes_as_string(),
            authorization_details=settings.authorization_details,
            **fields,
        )

    def refresh(self) -> oauth.Token:
        """Fetch a token."""
        form = {"grant_type": "client_credentials"}
        if self.scopes:
            form["scope"] = self.scopes
        if self.authorization_details:
            form["authorization_details"] = self.authorization_details
        form |= self.endpoint_params or {}
        if self.use_params:
            secrets = {"client_id": self.client_id, "client_secret": self.client_secret}
            form |= {name: value for name, value in secrets.items() if value}
        basic = (self.client_id, self.client_secret) if self.use_header else None
        # Before the request: its time counts as part of the token's life.
        now = time.time()
        answer = self._client.post_form(self.token_url, form, basic=basic)
        return read_token(answer, self.token_url, expiry_field="expires_in", since=now)


def service_principal(settings: Settings) -> Issued:
    """Fetch a token for the client id and secret of a service principal of Databricks.

    :param settings: the settings.
    """
    group = settings.group_id
    source = _ClientCredentials(
        settings,
        client_id=settings.client_id,
        client_secret=settings.client_secret,
        token_url=settings.databricks_oidc_endpoints.token_endpoint,
        use_header=True,
        endpoint_params={"assume_group": group} if group else None,
    )
    return source.refresh(), {}


def exchange(settings: Settings, subject_token: str) -> Issued:
    """Exchange the token of another issuer for one of the workspace (RFC 8693).

    :param settings: the settings.
    :param subject_token: the token to exchange.
    """
    more = {"assume_group": settings.group_id} if settings.group_id else {}
    source = _ClientCredentials(
        settings,
        client_id=settings.client_id,
        client_secret="",
        token_url=settings.databricks_oidc_endpoints.token_endpoint,
        endpoint_params={**_EXCHANGE, "subject_token": subject_token, **more},
        use_params=True,
    )
    return source.refresh(), {}


def azure_service_principal(settings: Settings) -> Issued:
    """Fetch a token of Entra ID, and one for Azure's management if the resource id is given.

    :param settings: the settings.
    :raises CredentialsError: there is no ``azure_tenant_id``.
    """
    if not settings.azure_tenant_id:
        raise CredentialsError("the Azure service principal has no azure_tenant_id")
    secret = settings.azure_client_secret
    token = entra_source(settings, settings.effective_azure_login_app_id, secret=secret).refresh()
    if not settings.azure_workspace_resource_id:
        return token, {}
    management_url = settings.arm_environment.service_management_endpoint
    management = entra_source(settings, management_url, secret=secret).refresh()
    headers = {
        "X-Databricks-Azure-Workspace-Resource-Id": settings.azure_workspace_resource_id,
        "X-Databricks-Azure-SP-Management-Token": management.access_token,
    }
    ends = [one.expiry for one in (token, management) if one.expiry]
    return oauth.Token(token.access_token, token.token_type, expiry=min(ends)), headers


def entra_source(
    settings: Settings, resource: str, *, secret: str, **more: str
) -> oauth.ClientCredentials:
    """Return a token source on Entra ID's v1 endpoint.

    :param settings: the settings.
    :param resource: what the token is for.
    :param secret: the client's secret.
    :param more: further fields of the form.
    """
    authority = settings.arm_environment.active_directory_endpoint
    return _ClientCredentials(
        settings,
        client_id=settings.azure_client_id,
        client_secret=secret,
        token_url=f"{authority}{settings.azure_tenant_id}/oauth2/token",
        endpoint_params={"resource": resource, **more},
        use_params=True,
    )


def read_token(
    answer: Mapping[str, Any], source: str, *, expiry_field: str, since: float = 0.0
) -> oauth.Token:
    """Return the token of a response.

    :param answer: the response.
    :param source: what the error calls the service.
    :param expiry_field: the field with its expiry, in seconds.
    :param since: what those seconds count from; default the epoch.
    """
    try:
        return oauth.Token(
            access_token=answer["access_token"],
            token_type=answer.get("token_type", "Bearer"),
            expiry=datetime.fromtimestamp(since + float(answer[expiry_field]), UTC),
        )
    except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
        reason = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else "value"
    raise TokenRefusedError(
        f"{source} answered with what is no token ({reason}). Check the address"
    )


def usual_endpoints(host: str) -> oauth.OidcEndpoints:
    """Return the addresses of a workspace's OAuth service, as every workspace has them.

    :param host: URL of the workspace.
    """
    return oauth.OidcEndpoints(f"{host}/oidc/v1/authorize", f"{host}/oidc/v1/token")


def azure_environment(host: str, fields: Mapping[str, Any]) -> DatabricksEnvironment:
    """Return the addresses of Azure for a workspace, also for one with a host name of its own.

    :param host: URL of the workspace.
    :param fields: fields of the connection.
    """
    environment = get_environment_for_hostname(urlsplit(host).hostname)
    azure = environment.azure_environment
    if azure is None:
        name = str(fields.get("azure_environment") or "PUBLIC").upper()
        name = name.removeprefix("AZURE").removesuffix("CLOUD")
        if name not in ENVIRONMENTS:
            raise CredentialsError(
                f"azure_environment is not one of {', '.join(sorted(ENVIRONMENTS))}"
            )
        azure = ENVIRONMENTS[name]
    if authority := str(fields.get("azure_ad_endpoint") or "").strip():
        authority = authority if "://" in authority else f"https://{authority}"
        azure = replace(azure, active_directory_endpoint=f"{authority.rstrip('/')}/")
    return DatabricksEnvironment(
        Cloud.AZURE,
        environment.dns_zone,
        environment.azure_application_id or ARM_DATABRICKS_RESOURCE_ID,
        azure,
    )
