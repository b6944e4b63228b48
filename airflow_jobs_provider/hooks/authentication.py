"""Chooses the authentication method of an Airflow connection.

The first line that fits counts, as in the official provider:

===============================================  ==================================================
Connection                                       Method
===============================================  ==================================================
extra ``token``                                  that token
extra ``auth_type``                              the method of databricks-sdk with this name
Password without Login, or with Login ``token``  that token
``use_azure_managed_identity``                   managed identity of Azure
``azure_tenant_id``                              service principal of Entra ID, in Login and
                                                 Password
``use_default_azure_credential``                 default Azure credential
``service_principal_oauth``                      service principal of Databricks, in Login and
                                                 Password
``federated_token_provider``                     token of a Python function, exchanged
``federated_aws`` (extra or Login)               token of AWS STS, exchanged
``federated_k8s`` (extra or Login)               token of Kubernetes, exchanged
other fields of databricks-sdk                   its method that needs this field
Login and Password                               user and password
none, and ``DATABRICKS_HOST`` is the host        what databricks-sdk finds in the environment
none                                             ``.netrc``
===============================================  ==================================================

A field with the text ``false`` is not set. ``0``, ``no`` and ``off`` switch no method on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_jobs_provider.api import auth
from airflow_jobs_provider.api.errors import CredentialsError
from airflow_jobs_provider.hooks.connection_fields import ConnectionFields, unified_credentials

if TYPE_CHECKING:
    from airflow_jobs_provider.api.auth import Credentials
    from airflow_jobs_provider.hooks.official_methods import OfficialMethod

__all__ = ["choose_credentials"]

log = logging.getLogger(__name__)

# Fields of databricks-sdk that need one method, and its name there. The first one counts.
_METHOD_OF_FIELD = {
    "client_secret": "oauth-m2m",
    "azure_client_secret": "azure-client-secret",
    "oidc_token_filepath": "file-oidc",
    "oidc_token_env": "env-oidc",
    "google_credentials": "google-credentials",
    "google_service_account": "google-id",
    "metadata_service_url": "metadata-service",
}
# Fields with credentials of the SDK's methods: beside them nothing is read from the environment.
_OWN_CREDENTIALS = (*_METHOD_OF_FIELD, "profile", "client_id", "azure_client_id", "username")
_EXTRA_ADVICE = "Check the fields of this method in the connection's extra"


def choose_credentials(fields: ConnectionFields) -> Credentials:
    """Return the credentials of a connection. Nothing is imported or fetched for them yet.

    :param fields: the connection's fields.
    :raises CredentialsError: what the method needs is missing.
    """
    login, password = fields.login, fields.password
    if token := fields.text("token"):
        return auth.Token(token)
    if auth_type := fields.text("auth_type").lower():
        return _sdk_method(fields, auth_type)
    if password and login in ("", "token"):
        return auth.Token(password)
    # The other methods are imported only here: most connections have a token.
    from airflow_jobs_provider.hooks.official_methods import OFFICIAL_METHODS

    chosen = [method for method in OFFICIAL_METHODS if method.is_chosen(fields)]
    if chosen:
        _log_ignored(fields, chosen)
        return chosen[0].make(fields)
    for field_name, auth_type in _METHOD_OF_FIELD.items():
        if fields.text(field_name):
            return _sdk_method(fields, auth_type)
    if fields.text("profile"):
        return _sdk_credentials(fields, f"profile {fields.text('profile')} of databricks-sdk")
    if login and password:
        return auth.Basic(login, password)
    _refuse_incomplete(fields)
    workspace = urlsplit(fields.transport.workspace_url)
    host = workspace.hostname or ""
    if not _same_host(os.environ.get("DATABRICKS_HOST", ""), workspace.netloc):
        return auth.from_netrc(host)
    if not _sdk_is_installed() and not os.environ.get("DATABRICKS_TOKEN"):
        # Its file needs no extra, and may be all that the user has.
        with suppress(CredentialsError):
            return auth.from_netrc(host)
    return _from_environment(fields)


def _log_ignored(fields: ConnectionFields, chosen: list[OfficialMethod]) -> None:
    if len(chosen) == 1:
        return
    ignored = ", ".join(one.field for one in chosen[1:])
    message = (
        f"Connection {fields.name!r} authenticates by {chosen[0].field}; it ignores {ignored}."
    )
    if message not in _logged and len(_logged) < _MAX_LOGGED:
        _logged.add(message)
        log.warning("%s", message)


# Each message once for a process: hooks are made anew for each task and trigger.
_logged: set[str] = set()
_MAX_LOGGED = 1000


def _refuse_incomplete(fields: ConnectionFields) -> None:
    """Refuse a connection whose fields name a method, but do not suffice for it."""
    if names := [name for name in fields.extra if name.startswith("k8s_") and fields.text(name)]:
        raise CredentialsError(
            f'connection {fields.name!r} has {names[0]}, but not "federated_k8s": true in its extra'
        )
    if fields.text("client_id"):
        raise CredentialsError(
            f"connection {fields.name!r} has client_id, but nothing in its extra says how to "
            "authenticate as it: client_secret, federated_k8s, federated_aws, "
            "federated_token_provider or auth_type"
        )
    if fields.login:
        raise CredentialsError(f"connection {fields.name!r} has a login but no password")


def _sdk_method(fields: ConnectionFields, auth_type: str) -> Credentials:
    from airflow_jobs_provider.api.auth.sdk.unified import EXTERNAL_BROWSER, NEEDS_A_BROWSER

    if auth_type == EXTERNAL_BROWSER:
        raise CredentialsError(f"connection {fields.name!r}: {NEEDS_A_BROWSER}")
    login, password = fields.login, fields.password
    own: dict[str, Any] = {"auth_type": auth_type}
    if auth_type == "pat" and password:
        return auth.Token(password)
    if auth_type == "basic" and login and password:
        return auth.Basic(login, password)
    if auth_type == "oauth-m2m":
        own |= {"client_id": login, "client_secret": password}
    elif auth_type == "azure-client-secret":
        own |= {"azure_client_id": login, "azure_client_secret": password}
    own = {name: value for name, value in own.items() if value}
    return _sdk_credentials(fields, f"{auth_type} of databricks-sdk", own)


def _sdk_credentials(
    fields: ConnectionFields, description: str, more: Mapping[str, Any] | None = None
) -> Credentials:
    values = {**(more or {}), **{name: fields.extra[name] for name in fields.extra}}
    if "azure_resource_id" in values:
        values.setdefault("azure_workspace_resource_id", values["azure_resource_id"])
    has_own = any(values.get(name) for name in _OWN_CREDENTIALS)
    principal = str(values.get("client_id") or values.get("azure_client_id") or "")
    return unified_credentials(
        fields,
        f"{description} {principal}".strip(),
        values,
        advice=_EXTRA_ADVICE,
        is_ambient=not has_own,
        has_discovery=True,
    )


def _sdk_is_installed() -> bool:
    try:
        return find_spec("databricks.sdk") is not None
    except ModuleNotFoundError:  # no package of that namespace
        return False


def _same_host(address: str, netloc: str) -> bool:
    """Return whether an address, with or without scheme, names a host."""
    other = urlsplit(address if "://" in address else f"https://{address}").netloc
    return bool(other) and other.lower().removesuffix(":443") == netloc.lower().removesuffix(":443")


def _from_environment(fields: ConnectionFields) -> Credentials:
    token = os.environ.get("DATABRICKS_TOKEN", "")
    if token and os.environ.get("DATABRICKS_AUTH_TYPE", "pat") == "pat":
        return auth.Token(token, "the environment variable DATABRICKS_TOKEN")
    description = "the environment (DATABRICKS_HOST is the connection's host)"
    advice = "Check the environment variables of databricks-sdk and ~/.databrickscfg"
    return unified_credentials(
        fields, description, {}, advice=advice, is_ambient=True, has_discovery=True
    )
