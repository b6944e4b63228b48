"""The SDK's ``Config``, without what it reads from the environment by itself.

This module imports databricks-sdk. Import it when a token is fetched, with :func:`.extras.require`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from databricks.sdk import oauth, version
from databricks.sdk.config import Config
from databricks.sdk.credentials_provider import CredentialsStrategy

from airflow_jobs_provider.api.auth.sdk.client_credentials import azure_environment, usual_endpoints
from airflow_jobs_provider.api.auth.sdk.identity_client import IdentityClient
from airflow_jobs_provider.api.errors import CredentialsError, TokenRefusedError
from airflow_jobs_provider.api.text import is_true

__all__ = ["ConnectionConfig"]

# Private methods of the SDK that ConnectionConfig replaces, and the newest field that is used here.
_NEEDED = ("_load_from_env", "_known_file_config_loader", "_resolve_host_metadata", "group_id")
if _missing := [name for name in _NEEDED if not hasattr(Config, name)]:
    # With other names for the methods, the SDK would read the environment unnoticed.
    raise CredentialsError(
        f"databricks-sdk {version.__version__} cannot be used, since its Config has no "
        f"{_missing[0]}. Install the version that the constraints of this package name"
    )
# The SDK collects the attributes at the first call, of the class that it is called on.
Config.attributes()


class ConnectionConfig(Config):
    """The SDK's ``Config`` for a connection.

    It differs from its base in three ways. Environment variables and ``~/.databrickscfg`` are read
    only if the connection asks for it. The constructor sends no request of its own. The addresses
    of the workspace's OAuth service are asked for through the connection's proxies.

    :param client: sends requests to identity services.
    :param host: URL of the workspace.
    :param strategy: fetches the token.
    :param is_ambient: read what the fields lack from environment variables, and from the profile
        that they name.
    :param has_discovery: ask the workspace for the addresses of its OAuth service.
    :param fields: fields of ``Config``, and ``azure_ad_endpoint``; other names are ignored.
    """

    def __init__(
        self,
        client: IdentityClient,
        host: str,
        strategy: CredentialsStrategy,
        *,
        is_ambient: bool,
        has_discovery: bool,
        fields: Mapping[str, Any],
    ) -> None:
        self.identity_client = client
        self._is_ambient = is_ambient
        self._workspace_url = host
        self._oidc_endpoints = None if has_discovery else usual_endpoints(host)
        own = _own_fields(fields)
        own |= {"host": host, "disable_async_token_refresh": True}
        if any(name.startswith("azure_") for name in fields):
            own["databricks_environment"] = azure_environment(host, fields)
        super().__init__(credentials_strategy=strategy, **own)

    def _load_from_env(self) -> None:
        if self._is_ambient:
            super()._load_from_env()  # type: ignore[no-untyped-call]

    def _known_file_config_loader(self) -> None:
        if not self.profile:
            return
        path = Path(self.config_file or "~/.databrickscfg").expanduser()
        if not self._is_ambient and not path.exists():
            # The SDK would take any credentials that it finds elsewhere.
            raise CredentialsError(f"the profile {self.profile} is not found: there is no {path}")
        without_profile = dict(self._inner)
        # The file is asked for the profile's own host, since its secret must go to no other.
        self._inner.pop("host", None)
        super()._known_file_config_loader()  # type: ignore[no-untyped-call]
        self._fix_host_if_needed()  # type: ignore[no-untyped-call]
        host = self.host or self._workspace_url
        if host.rstrip("/").lower() == self._workspace_url.lower():
            self.host = self._workspace_url
        elif self._is_ambient:  # DATABRICKS_CONFIG_PROFILE
            self._inner = without_profile
        else:
            raise CredentialsError(
                f"the profile {self.profile} is for {host}, and the connection for "
                f"{self._workspace_url}"
            )

    def _resolve_host_metadata(self) -> None:
        """Ask nothing in the constructor; :attr:`databricks_oidc_endpoints` does if it must."""

    def wrap_debug_info(self, message: str) -> str:
        """Return the message without the list of fields that the SDK adds."""
        return message

    @property
    def databricks_oidc_endpoints(self) -> oauth.OidcEndpoints:
        """The addresses of the workspace's OAuth service, from its discovery documents.

        A host without such documents has the addresses of every workspace.

        :raises JobsAPIError: the host cannot be asked now.
        """
        if self._oidc_endpoints is None:
            self._oidc_endpoints = self._discover()
        return self._oidc_endpoints

    def _discover(self) -> oauth.OidcEndpoints:
        try:
            if not self.discovery_url:
                self._read_host_metadata()
            answer = self.identity_client.get(self.discovery_url)
        except TokenRefusedError:
            return usual_endpoints(self._workspace_url)  # there is no such document
        return oauth.OidcEndpoints.from_dict(answer)

    def _read_host_metadata(self) -> None:
        answer = self.identity_client.get(f"{self.host}/.well-known/databricks-config")
        metadata = oauth.HostMetadata.from_dict(answer)
        if not self.account_id and metadata.account_id:
            self.account_id = metadata.account_id
        root = metadata.oidc_endpoint.replace("{account_id}", self.account_id or "").rstrip("/")
        self.discovery_url = f"{root}/.well-known/oauth-authorization-server"
        audiences = metadata.token_federation_default_oidc_audiences
        if audiences and not self.token_audience:
            self.token_audience = audiences[0]


def _own_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of ``Config``. A form stores booleans as text."""
    return {
        one.name: is_true(fields[one.name]) if one.transform is bool else fields[one.name]
        for one in Config.attributes()
        if fields.get(one.name) not in (None, "")
    }
