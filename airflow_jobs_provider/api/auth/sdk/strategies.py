"""The SDK's credential strategies, with token requests that go through the connection's proxies.

This module imports databricks-sdk. Import it when a token is fetched, with :func:`.extras.require`.

The SDK chooses the strategy, by ``auth_type`` or by the fields that are set. Its own strategies for
Google, the Azure CLI and the Databricks CLI are used as they are. Those that ask another service
for a token are replaced by the ones of this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from databricks.sdk import oauth, oidc, oidc_token_supplier
from databricks.sdk.credentials_provider import (
    CredentialsStrategy,
    DefaultCredentials,
    OAuthCredentialsProvider,
)

from airflow_jobs_provider.api.auth.sdk import client_credentials
from airflow_jobs_provider.api.auth.sdk.config import ConnectionConfig
from airflow_jobs_provider.api.auth.sdk.unified import EXTERNAL_BROWSER, NEEDS_A_BROWSER
from airflow_jobs_provider.api.errors import CredentialsError, TokenRefusedError

__all__ = ["Chain", "TokenExchange"]


def _provider(token: oauth.Token, more_headers: Mapping[str, str]) -> OAuthCredentialsProvider:
    headers = {"Authorization": f"Bearer {token.access_token}", **more_headers}
    return OAuthCredentialsProvider(lambda: headers, lambda: token)


class OAuthServicePrincipal(CredentialsStrategy):
    """``oauth-m2m``: client id and secret of a service principal of Databricks."""

    def auth_type(self) -> str:
        """Return the SDK's name of the method."""
        return "oauth-m2m"

    def __call__(self, cfg: Any) -> Any:
        """Fetch a token, if the fields are set."""
        if not (cfg.client_id and cfg.client_secret):
            return None
        return _provider(*client_credentials.service_principal(cfg))


class TokenExchange(CredentialsStrategy):
    """Exchanges the token of another issuer for one of the workspace (RFC 8693).

    :param auth_type: the SDK's name of the method.
    :param subject_token: returns the other issuer's token, or None if the method is not
        configured.
    """

    def __init__(
        self, auth_type: str, subject_token: Callable[[ConnectionConfig], str | None]
    ) -> None:
        self._auth_type = auth_type
        self._subject_token = subject_token

    def auth_type(self) -> str:
        """Return the SDK's name of the method."""
        return self._auth_type

    def __call__(self, cfg: Any) -> Any:
        """Fetch a token, if the method is configured."""
        subject_token = self._subject_token(cfg)
        if subject_token is None:
            return None
        return _provider(*client_credentials.exchange(cfg, subject_token))


class AzureServicePrincipal(CredentialsStrategy):
    """``azure-client-secret``: client id and secret of a service principal of Entra ID."""

    def auth_type(self) -> str:
        """Return the SDK's name of the method."""
        return "azure-client-secret"

    def __call__(self, cfg: Any) -> Any:
        """Fetch a token, and one for Azure's management if the workspace's resource id is given."""
        if not (cfg.azure_client_id and cfg.azure_client_secret):
            return None
        return _provider(*client_credentials.azure_service_principal(cfg))


class GitHubOnAzure(CredentialsStrategy):
    """``github-oidc-azure``: a token of GitHub Actions, exchanged for one of Entra ID."""

    def auth_type(self) -> str:
        """Return the SDK's name of the method."""
        return "github-oidc-azure"

    def __call__(self, cfg: Any) -> Any:
        """Fetch a token, if this method is the one of the connection."""
        if cfg.auth_type != self.auth_type():
            return None
        if not cfg.azure_client_id:
            raise CredentialsError("github-oidc-azure has no azure_client_id")
        cfg.load_azure_tenant_id()
        if not cfg.azure_tenant_id:
            raise CredentialsError("github-oidc-azure has no azure_tenant_id")
        supplier = oidc_token_supplier.GitHubOIDCTokenSupplier
        assertion = _ci_token(self.auth_type(), supplier, "api://AzureADTokenExchange")
        more = {
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": assertion,
        }
        resource = cfg.effective_azure_login_app_id
        source = client_credentials.entra_source(cfg, resource, secret="", **more)
        return _provider(source.refresh(), {})


class MetadataService(CredentialsStrategy):
    """``metadata-service``: a service on this machine that issues tokens."""

    def auth_type(self) -> str:
        """Return the SDK's name of the method."""
        return "metadata-service"

    def __call__(self, cfg: Any) -> Any:
        """Fetch a token, if the address of the service is set."""
        url = cfg.metadata_service_url
        if not url:
            return None
        headers = {"X-Databricks-Metadata-Version": "1", "X-Databricks-Host": cfg.host}
        answer = cfg.identity_client.send("GET", url, headers=headers, secrets=[url])
        token = client_credentials.read_token(
            answer, "the metadata service", expiry_field="expires_on"
        )
        return _provider(token, {})


class ExternalBrowser(CredentialsStrategy):
    """``external-browser``: refused, in place of a browser that nobody sees."""

    def auth_type(self) -> str:
        """Return the SDK's name of the method."""
        return EXTERNAL_BROWSER

    def __call__(self, cfg: Any) -> Any:
        """Refuse, if the environment or a profile asks for this method."""
        if cfg.auth_type == EXTERNAL_BROWSER:
            raise CredentialsError(NEEDS_A_BROWSER)


def _from_environment(cfg: ConnectionConfig) -> str | None:
    if cfg.auth_type != "env-oidc" and not cfg.oidc_token_env:
        return None
    return _id_token(oidc.EnvIdTokenSource(cfg.oidc_token_env or "DATABRICKS_OIDC_TOKEN"))


def _from_file(cfg: ConnectionConfig) -> str | None:
    if not cfg.oidc_token_filepath:
        return None
    return _id_token(oidc.FileIdTokenSource(cfg.oidc_token_filepath))


def _id_token(source: oidc.IdTokenSource) -> str:
    try:
        return str(source.id_token().jwt)
    except ValueError as error:
        # The SDK's own words: the file or the variable does not exist, or is empty.
        reason = str(error)
    raise TokenRefusedError(f"there is no token to exchange: {reason}")


def _from_github(cfg: ConnectionConfig) -> str | None:
    return _of_ci(cfg, "github-oidc", oidc_token_supplier.GitHubOIDCTokenSupplier)


def _from_azure_devops(cfg: ConnectionConfig) -> str | None:
    return _of_ci(cfg, "azure-devops-oidc", oidc_token_supplier.AzureDevOpsOIDCTokenSupplier)


def _of_ci(cfg: ConnectionConfig, auth_type: str, supplier: Callable[[], Any]) -> str | None:
    if cfg.auth_type != auth_type:
        return None
    audience = cfg.token_audience or cfg.databricks_oidc_endpoints.token_endpoint
    return _ci_token(auth_type, supplier, audience)


def _ci_token(auth_type: str, supplier: Callable[[], Any], audience: str) -> str:
    """Return the token that a pipeline issues to its job.

    :raises TokenRefusedError: this process is no job of a pipeline, or gets no token.
    """
    try:
        token = supplier().get_oidc_token(audience)
    except ValueError as error:  # it names the variables that are missing
        token, reason = None, str(error)
    else:
        reason = f"this process does not run in a pipeline that issues tokens for {auth_type}"
    if not token:
        raise TokenRefusedError(f"there is no token to exchange: {reason}")
    return str(token)


_OURS: tuple[CredentialsStrategy, ...] = (
    OAuthServicePrincipal(),
    AzureServicePrincipal(),
    TokenExchange("env-oidc", _from_environment),
    TokenExchange("file-oidc", _from_file),
    TokenExchange("github-oidc", _from_github),
    TokenExchange("azure-devops-oidc", _from_azure_devops),
    GitHubOnAzure(),
    MetadataService(),
    ExternalBrowser(),
)


class Chain(DefaultCredentials):
    """The SDK's choice among its strategies, with those of this module in place of its own."""

    def __init__(self) -> None:
        super().__init__()
        ours = {one.auth_type(): one for one in _OURS}
        self._auth_providers = [ours.get(one.auth_type(), one) for one in self._auth_providers]
