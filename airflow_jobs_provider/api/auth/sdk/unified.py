"""Credentials on databricks-sdk: all methods of its unified authentication."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow_jobs_provider.api.auth.cached import AccessToken, CachedCredentials
from airflow_jobs_provider.api.auth.debug_logs import hide_debug_logs
from airflow_jobs_provider.api.auth.sdk.extras import require
from airflow_jobs_provider.api.auth.sdk.identity_client import IdentityClient
from airflow_jobs_provider.api.auth.sdk.subject_tokens import SubjectToken
from airflow_jobs_provider.api.auth.transport import Transport
from airflow_jobs_provider.api.errors import (
    JobsAPIError,
    TokenRefusedError,
    TokenUnavailableError,
)

__all__ = ["EXTERNAL_BROWSER", "NEEDS_A_BROWSER", "UnifiedCredentials"]

#: The SDK's name of the method that opens a browser, and why it cannot be used.
EXTERNAL_BROWSER = "external-browser"
NEEDS_A_BROWSER = (
    "auth_type external-browser needs a person who signs in with a browser, which a task does not "
    "have. Use service_principal_oauth with client id and secret in Login and Password, or "
    "auth_type databricks-cli after databricks auth login on this machine"
)

_PACKAGE = "airflow_jobs_provider.api.auth.sdk"
_INSTALL = "airflow-jobs-provider[auth]"
# Of a token that does not say when it expires.
_UNKNOWN_LIFETIME_SECONDS = 300.0
_ENDLESS = ("pat", "basic")
# The methods and fields of the official connection. Without others the SDK's Config is not needed.
_DIRECT_METHODS = ("oauth-m2m", "azure-client-secret")
_DIRECT_FIELDS = {
    "auth_type",
    "azure_ad_endpoint",
    "azure_client_id",
    "azure_client_secret",
    "azure_environment",
    "azure_tenant_id",
    "azure_workspace_resource_id",
    "client_id",
    "client_secret",
}
_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+(\.[\w-]*)?")
_ERROR_LENGTH = 600
# Those that the SDK marks as sensitive.
_SECRET_FIELDS = (
    "azure_client_secret",
    "client_secret",
    "google_credentials",
    "metadata_service_url",
    "password",
    "token",
)


class UnifiedCredentials(CachedCredentials):
    """Credentials on databricks-sdk.

    The methods of the official connection need its ``oauth`` module only, others its ``Config``.

    :param description: the method and the principal, for messages.
    :param transport: how requests for tokens are sent.
    :param fields: fields of the SDK's ``Config``, and ``azure_ad_endpoint``. Other names are
        ignored. Without ``auth_type`` the SDK chooses the method by the fields.
    :param advice: what to check if a token is refused.
    :param is_ambient: read what the fields lack from environment variables, and from the profile
        that they name; default False.
    :param has_discovery: ask the workspace for the address of its OAuth service, as the SDK does;
        default False: it is ``/oidc/v1/token``, as on every workspace.
    :param subject_token: returns the token to exchange for one of the workspace; default None, for
        the methods of the SDK.
    """

    def __init__(
        self,
        description: str,
        transport: Transport,
        fields: Mapping[str, Any],
        *,
        advice: str,
        is_ambient: bool = False,
        has_discovery: bool = False,
        subject_token: SubjectToken | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._description = description
        self._transport = transport
        self._fields = dict(fields)
        self._advice = advice
        self._is_ambient = is_ambient
        self._has_discovery = has_discovery
        self._subject_token = subject_token

    @property
    def description(self) -> str:
        """The method and the principal."""
        return self._description

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._description!r})"

    def fetch_token(self) -> AccessToken:
        """Fetch a token.

        :raises CredentialsError: databricks-sdk is not installed, a field is missing, or the token
            is refused.
        :raises ConnectError: no token can be fetched now.
        """
        failure: JobsAPIError
        try:
            return self._fetch_by_config() if self._needs_config else self._fetch_directly()
        except Exception as error:  # noqa: BLE001 - whatever a library raises
            failure = self._translate(error)
        raise failure

    @property
    def _needs_config(self) -> bool:
        is_official = self._subject_token or self._fields.get("auth_type") in _DIRECT_METHODS
        has_more = self._is_ambient or self._has_discovery or self._fields.keys() - _DIRECT_FIELDS
        return bool(has_more or not is_official)

    def _require(self, module: str) -> Any:
        required = require(f"{_PACKAGE}.{module}", method=self._description, install=_INSTALL)
        hide_debug_logs("databricks.sdk", "google", "urllib3")
        return required

    def _fetch_directly(self) -> AccessToken:
        client = IdentityClient(self._transport, self._description, self._advice)
        settings = self._require("client_credentials").ClientSettings(
            client, self._transport.workspace_url, self._fields
        )
        token, headers = settings.fetch(self._subject_token and self._subject_token(client))
        return AccessToken(token.access_token, token.expiry.timestamp(), headers)

    def _fetch_by_config(self) -> AccessToken:
        strategies, config = self._require("strategies"), self._require("config")
        client = IdentityClient(self._transport, self._description, self._advice)
        source = self._subject_token
        made = config.ConnectionConfig(
            client,
            self._transport.workspace_url,
            strategies.Chain()
            if source is None
            else strategies.TokenExchange("federation", lambda _config: source(client)),
            is_ambient=self._is_ambient,
            has_discovery=self._has_discovery,
            fields=self._fields,
        )
        return _access_token(made)

    def _translate(self, error: BaseException) -> JobsAPIError:
        """Return the package's exception for one of the SDK, which wraps all in ValueError."""
        causes: list[BaseException] = [error]
        while (cause := causes[-1].__cause__) is not None and cause not in causes:
            causes.append(cause)
        for cause in causes:
            if isinstance(cause, JobsAPIError):
                return cause
        text = _TOKEN.sub("***", str(error))
        for name in _SECRET_FIELDS:
            if secret := str(self._fields.get(name) or ""):
                text = text.replace(secret, "***")
        # Cut last, since a part of a secret would not be found.
        text = " ".join(text.split())[:_ERROR_LENGTH].rstrip(".")
        if any(_is_outage(one) for one in causes):
            return TokenUnavailableError(f"no token can be fetched now: {text}")
        return TokenRefusedError(f"{self._description}: {text}. {self._advice}")


def _is_outage(error: BaseException) -> bool:
    """Return whether an exception of a library says that no usable response came."""
    import requests

    return (
        isinstance(error, (requests.RequestException, KeyError, TypeError))
        # Those of google-auth.
        or type(error).__name__ == "TransportError"
        or bool(getattr(error, "retryable", False))
        or "<html" in str(error).lower()
    )


def _access_token(config: Any) -> AccessToken:
    """Return the token of a ``Config``."""
    headers = dict(config.authenticate())
    authorization = headers.pop("Authorization")
    scheme, _, value = authorization.partition(" ")
    if scheme != "Bearer":  # user and password
        headers["Authorization"] = authorization
    if config.auth_type in _ENDLESS:
        return AccessToken(value, None, headers)
    return AccessToken(value, _expires_at(config, value), headers)


def _expires_at(config: Any, value: str) -> float:
    """Return when a token expires, in seconds since the epoch."""
    from databricks.sdk.oauth import Token

    expiry: datetime | None = None
    # For Google the SDK would fetch another token, and return it as text.
    if not config.auth_type.startswith("google"):
        try:
            expiry = config.oauth_token().expiry
        except ValueError:  # not every method has it
            expiry = None
    if expiry is not None and expiry.tzinfo is not None:
        return expiry.timestamp()
    # An expiry without time zone comes from a command. The SDK drops the zone that it printed.
    claims: dict[str, Any] = Token(value).jwt_claims()
    expires = claims.get("exp")
    if isinstance(expires, (int, float)):
        return float(expires)
    if expiry is not None:
        return expiry.timestamp()
    return datetime.now().timestamp() + _UNKNOWN_LIFETIME_SECONDS  # noqa: DTZ005
