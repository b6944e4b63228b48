"""Credentials on azure-identity: managed identities, and the default Azure credential."""

from __future__ import annotations

import re
from typing import Any

from airflow_jobs_provider.api.auth.cached import AccessToken, CachedCredentials
from airflow_jobs_provider.api.auth.debug_logs import hide_debug_logs
from airflow_jobs_provider.api.auth.sdk.extras import require
from airflow_jobs_provider.api.auth.transport import Transport
from airflow_jobs_provider.api.errors import (
    JobsAPIError,
    TokenRefusedError,
    TokenUnavailableError,
)

__all__ = ["AzureIdentityCredentials"]

#: The application id of Azure Databricks, the same in all clouds of Azure.
DATABRICKS = "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d"
_MANAGEMENT = {
    ".databricks.azure.us": "https://management.core.usgovcloudapi.net/",
    ".databricks.azure.cn": "https://management.core.chinacloudapi.cn/",
}
_MANAGEMENT_PUBLIC = "https://management.core.windows.net/"
_TEXT_LENGTH = 600
# azure-identity keeps of an outage the text only, inside that of other exceptions.
_OUTAGE = re.compile(
    r"HTTP Error: (5\d\d|429)|temporarily_unavailable|server_error|timed out|Failed to resolve"
    r"|Connection (refused|reset|aborted)|Max retries exceeded|Unable to connect to proxy"
    r"|Remote end closed|Expecting value|Unexpected response|<html"  # none, or one that is no JSON
)
_NO_ANSWER = re.compile(
    # Those of a refusal: azure-identity before 1.25.1, and later.
    r"no response from the IMDS endpoint(?!\.? *(invalid_request|Token request error))"
    r"|authentication unavailable\.$"  # the response is no JSON
)


class AzureIdentityCredentials(CachedCredentials):
    """Credentials on azure-identity.

    :param transport: how requests for tokens are sent. A managed identity's endpoint is on the
        machine itself, and never behind a proxy.
    :param kind: ``managed`` for a managed identity, ``default`` for the default Azure credential,
        which tries environment, workload identity, managed identity and the Azure CLI.
    :param client_id: client id of a managed identity that the user assigned; default empty.
    :param resource_id: resource id of the workspace, for a principal that is no user of it; default
        empty.
    """

    def __init__(
        self,
        transport: Transport,
        kind: str,
        *,
        client_id: str = "",
        resource_id: str = "",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._transport = transport
        self._kind = kind
        self._client_id = client_id
        self._resource_id = resource_id

    @property
    def description(self) -> str:
        """The method and the principal."""
        method = "default Azure credential" if self._kind == "default" else "Azure managed identity"
        return f"{method} {self._client_id}".strip()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.description!r})"

    def fetch_token(self) -> AccessToken:
        """Fetch a token, and one for Azure's management if the workspace's resource id is given.

        :raises CredentialsError: azure-identity is not installed, or the token is refused.
        :raises ConnectError: no token can be fetched now.
        """
        azure_identity = require(
            "azure.identity", method=self.description, install="airflow-jobs-provider[azure]"
        )
        from azure.core.exceptions import AzureError

        hide_debug_logs("azure", "msal", "urllib3")
        failure: JobsAPIError
        try:
            with self._credential(azure_identity) as credential:
                token = credential.get_token(f"{DATABRICKS}/.default")
                if not self._resource_id:
                    return AccessToken(token.token, float(token.expires_on))
                management = credential.get_token(f"{self._management_url()}/.default")
        except AzureError as error:
            failure = self._translate(error)
        else:
            return AccessToken(
                token.token,
                float(min(token.expires_on, management.expires_on)),
                {
                    "X-Databricks-Azure-Workspace-Resource-Id": self._resource_id,
                    "X-Databricks-Azure-SP-Management-Token": management.token,
                },
            )
        raise failure

    def _credential(self, azure_identity: Any) -> Any:
        # Few retries of its own: the retry policy of the call repeats it.
        limits = {"retry_total": 1, "connection_timeout": 5, "read_timeout": 30}
        client_id = self._client_id or None
        if self._kind == "managed":
            return azure_identity.ManagedIdentityCredential(client_id=client_id, **limits)
        options: dict[str, Any] = {**limits, "connection_verify": self._transport.verify}
        if proxies := self._transport.proxies.by_scheme:
            options["proxies"] = dict(proxies)
        if client_id:
            options["managed_identity_client_id"] = client_id
        return azure_identity.DefaultAzureCredential(**options)

    def _management_url(self) -> str:
        host = self._transport.workspace_url
        return next((url for zone, url in _MANAGEMENT.items() if zone in host), _MANAGEMENT_PUBLIC)

    def _translate(self, error: Any) -> JobsAPIError:
        from azure.core.exceptions import (
            HttpResponseError,
            ServiceRequestError,
            ServiceResponseError,
        )

        text = " ".join(str(error.message or "").split())[:_TEXT_LENGTH]
        status = getattr(error, "status_code", None) or 0
        is_outage = (
            isinstance(error, (ServiceRequestError, ServiceResponseError))
            or (isinstance(error, HttpResponseError) and (status >= 500 or status == 429))
            or _OUTAGE.search(text)
            # The default credential may find no endpoint because the machine has none.
            or (self._kind == "managed" and _NO_ANSWER.search(text))
        )
        if is_outage:
            return TokenUnavailableError(f"no token can be fetched now: {self.description}: {text}")
        return TokenRefusedError(
            f"a token is refused ({self.description}): {text}. Check the identity and its "
            "permissions in the workspace"
        )
