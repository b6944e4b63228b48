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

A field with the text ``false`` is not set.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_jobs_provider.api import auth
from airflow_jobs_provider.api.auth.sdk.unified import UnifiedCredentials
from airflow_jobs_provider.api.errors import CredentialsError
from airflow_jobs_provider.api.text import is_true

if TYPE_CHECKING:
    from airflow_jobs_provider.api.auth import CachedCredentials, Credentials
    from airflow_jobs_provider.api.auth.sdk.identity_client import Transport
    from airflow_jobs_provider.api.auth.sdk.subject_tokens import SubjectToken

__all__ = ["ConnectionFields", "choose_credentials"]

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
_LOGIN_ADVICE = (
    "Check client id and secret in Login and Password of the connection. The secret may be wrong, "
    "deleted or expired"
)
_EXTRA_ADVICE = "Check the fields of this method in the connection's extra"
_FEDERATION_ADVICE = (
    "Check the federation policy of the service principal (issuer, subject and audience of the "
    "token), and client_id in the connection's extra"
)


@dataclass(frozen=True)
class ConnectionFields:
    """What decides about the authentication of a connection. The repr shows no secret.

    :ivar name: the connection's id.
    :ivar login: Login; empty if not set.
    :ivar password: Password; empty if not set.
    :ivar extra: Extra.
    :ivar transport: how requests for tokens are sent.
    """

    name: str
    login: str
    password: str
    extra: Mapping[str, Any]
    transport: Transport

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def text(self, name: str) -> str:
        """Return a field of the extra as text; empty if it is not set, or false.

        :param name: name of the field.
        """
        value = self.extra.get(name)
        text = "" if value is None or value is False else str(value).strip()
        return "" if text.lower() == "false" else text

    def is_set(self, name: str) -> bool:
        """Return whether a field of the extra that switches a method on is true.

        :param name: name of the field.
        """
        return is_true(self.extra.get(name))

    def number(self, name: str, default: int) -> int:
        """Return a field of the extra as a whole number.

        :param name: name of the field.
        :param default: if it is not set.
        :raises CredentialsError: it is no whole number.
        """
        text = self.text(name)
        try:
            return int(text or default)
        except ValueError:
            pass
        raise CredentialsError(f"{name} in the extra of connection {self.name!r} is no number")


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
    chosen = [method for method in _METHODS if method.is_chosen(fields)]
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
    if _same_host(os.environ.get("DATABRICKS_HOST", ""), workspace.netloc):
        return _from_environment(fields)
    return auth.from_netrc(workspace.hostname or "")


@dataclass(frozen=True)
class _Method:
    """A method of the official provider.

    :ivar field: the field that chooses it.
    :ivar is_chosen: whether it is set.
    :ivar make: makes the credentials.
    """

    field: str
    is_chosen: Callable[[ConnectionFields], bool]
    make: Callable[[ConnectionFields], Credentials]


def _log_ignored(fields: ConnectionFields, chosen: list[_Method]) -> None:
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


def _login_and_password(fields: ConnectionFields, method: str) -> tuple[str, str]:
    missing = [name for name in ("login", "password") if not getattr(fields, name)]
    if missing:
        raise CredentialsError(
            f"connection {fields.name!r} authenticates by {method}, which takes the client id from "
            f"its Login and the secret from its Password. It has no {' and no '.join(missing)}"
        )
    return fields.login, fields.password


def _unified(
    fields: ConnectionFields,
    description: str,
    values: Mapping[str, Any],
    *,
    advice: str,
    is_ambient: bool = False,
    has_discovery: bool = False,
    subject: tuple[Mapping[str, Any], Callable[[], SubjectToken]] | None = None,
) -> CachedCredentials:
    """Return credentials on the SDK's ``Config``, shared by the process.

    :param subject: what decides about the token to exchange, and what makes its source.
    """
    own = {name: value for name, value in values.items() if value not in (None, "")}
    settings = {
        "description": description,
        "values": own,
        "transport": _transport_settings(fields),
        "subject": subject[0] if subject else None,
        "environment": _ambient_settings() if is_ambient else None,
    }
    return auth.shared_credentials(
        settings,
        lambda: UnifiedCredentials(
            description,
            fields.transport,
            own,
            advice=advice,
            is_ambient=is_ambient,
            has_discovery=has_discovery or any(map(own.get, ("discovery_url", "account_id"))),
            subject_token=subject[1]() if subject else None,
        ),
    )


def _transport_settings(fields: ConnectionFields) -> list[Any]:
    one = fields.transport
    return [one.workspace_url, dict(one.proxies.by_scheme), one.verify, one.allow_http]


def _ambient_settings() -> dict[str, str]:
    prefixes = ("DATABRICKS_", "ARM_", "GOOGLE_")
    return {name: value for name, value in os.environ.items() if name.startswith(prefixes)}


def _sdk_method(fields: ConnectionFields, auth_type: str) -> Credentials:
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
    return _unified(
        fields,
        f"{description} {principal}".strip(),
        values,
        advice=_EXTRA_ADVICE,
        is_ambient=not has_own,
        has_discovery=True,
    )


def _same_host(address: str, netloc: str) -> bool:
    """Return whether an address, with or without scheme, names a host."""
    other = urlsplit(address if "://" in address else f"https://{address}").netloc
    return bool(other) and other.lower().removesuffix(":443") == netloc.lower().removesuffix(":443")


def _from_environment(fields: ConnectionFields) -> Credentials:
    token = os.environ.get("DATABRICKS_TOKEN", "")
    if token and os.environ.get("DATABRICKS_AUTH_TYPE", "pat") == "pat":
        return auth.Token(token)
    description = "the environment (DATABRICKS_HOST is the connection's host)"
    advice = "Check the environment variables of databricks-sdk and ~/.databrickscfg"
    return _unified(fields, description, {}, advice=advice, is_ambient=True, has_discovery=True)


def _oauth(fields: ConnectionFields) -> Credentials:
    login, password = _login_and_password(fields, "service_principal_oauth")
    values = {
        "auth_type": "oauth-m2m",
        "client_id": login,
        "client_secret": password,
        "discovery_url": fields.text("discovery_url"),
        "account_id": fields.text("account_id"),
        "scopes": fields.text("scopes"),
    }
    description = f"OAuth service principal {login}"
    return _unified(fields, description, values, advice=_LOGIN_ADVICE)


def _azure_service_principal(fields: ConnectionFields) -> Credentials:
    login, password = _login_and_password(fields, "azure_tenant_id")
    values = {
        "auth_type": "azure-client-secret",
        "azure_client_id": login,
        "azure_client_secret": password,
        "azure_tenant_id": fields.text("azure_tenant_id"),
        "azure_ad_endpoint": fields.text("azure_ad_endpoint"),
        "azure_workspace_resource_id": _resource_id(fields),
        "azure_environment": fields.text("azure_environment"),
    }
    return _unified(fields, f"Azure service principal {login}", values, advice=_LOGIN_ADVICE)


def _resource_id(fields: ConnectionFields) -> str:
    return fields.text("azure_resource_id") or fields.text("azure_workspace_resource_id")


def _azure_identity(kind: str) -> Callable[[ConnectionFields], Credentials]:
    def make(fields: ConnectionFields) -> Credentials:
        from airflow_jobs_provider.api.auth.sdk.azure_identity import AzureIdentityCredentials

        own = {
            "client_id": fields.text("azure_managed_identity_client_id"),
            "resource_id": _resource_id(fields),
        }
        settings = {"kind": kind, **own, "transport": _transport_settings(fields)}
        return auth.shared_credentials(
            settings, lambda: AzureIdentityCredentials(fields.transport, kind, **own)
        )

    return make


def _federation(
    fields: ConnectionFields,
    issuer: str,
    settings: Mapping[str, Any],
    source: Callable[[], SubjectToken],
) -> Credentials:
    client_id = fields.text("client_id")
    values = {
        "client_id": client_id,
        "discovery_url": fields.text("discovery_url"),
        "account_id": fields.text("account_id"),
    }
    description = f"federation with {issuer} as {client_id or 'the subject of the token'}"
    return _unified(
        fields, description, values, advice=_FEDERATION_ADVICE, subject=(settings, source)
    )


def _provided(fields: ConnectionFields) -> Credentials:
    path = fields.text("federated_token_provider")

    def source() -> SubjectToken:
        from airflow_jobs_provider.api.auth.sdk.subject_tokens import provided_token

        return provided_token(_function(path), path)

    return _federation(fields, path, {"provider": path}, source)


def _function(path: str) -> Callable[[], object]:
    """Return a function that imports another one and calls it."""

    def call() -> object:
        from importlib import import_module

        module, _, name = path.rpartition(".")
        return getattr(import_module(module), name)()

    return call


def _aws(fields: ConnectionFields) -> Credentials:
    aws_conn_id = fields.text("aws_conn_id")
    audience = fields.text("aws_jwt_audience") or "databricks"
    duration = fields.number("aws_web_identity_token_duration", 300)
    settings = {"aws_conn_id": aws_conn_id, "audience": audience, "duration": duration}

    def source() -> SubjectToken:
        from airflow_jobs_provider.api.auth.sdk.subject_tokens import aws_token
        from airflow_jobs_provider.hooks.aws import security_token_service

        sts = security_token_service(aws_conn_id)
        return aws_token(sts, audience=audience, duration_seconds=duration)

    return _federation(fields, "AWS", settings, source)


def _kubernetes(fields: ConnectionFields) -> Credentials:
    if not fields.text("client_id"):
        raise CredentialsError(
            f"connection {fields.name!r} authenticates by federated_k8s, which needs client_id in "
            "its extra: the client id of the service principal that has the federation policy"
        )
    if path := fields.text("k8s_projected_volume_token_path"):
        settings: dict[str, Any] = {"projected": path}
    else:
        settings = {
            "audience": fields.text("audience"),
            "expiration_seconds": fields.number("expiration_seconds", 3600),
            "token_path": fields.text("k8s_token_path"),
            "namespace_path": fields.text("k8s_namespace_path"),
        }
        settings = {name: value for name, value in settings.items() if value}

    def source() -> SubjectToken:
        from airflow_jobs_provider.api.auth.sdk.subject_tokens import (
            kubernetes_token,
            projected_token,
        )

        return projected_token(path) if path else kubernetes_token(**settings)

    return _federation(fields, "Kubernetes", settings, source)


def _by_login(name: str) -> Callable[[ConnectionFields], bool]:
    return lambda fields: fields.login == name or fields.is_set(name)


# In this order.
_METHODS = (
    _Method(
        "use_azure_managed_identity",
        lambda fields: fields.is_set("use_azure_managed_identity"),
        _azure_identity("managed"),
    ),
    _Method(
        "azure_tenant_id",
        lambda fields: bool(fields.text("azure_tenant_id")),
        _azure_service_principal,
    ),
    _Method(
        "use_default_azure_credential",
        lambda fields: fields.is_set("use_default_azure_credential"),
        _azure_identity("default"),
    ),
    _Method(
        "service_principal_oauth", lambda fields: fields.is_set("service_principal_oauth"), _oauth
    ),
    _Method(
        "federated_token_provider",
        lambda fields: bool(fields.text("federated_token_provider")),
        _provided,
    ),
    _Method("federated_aws", _by_login("federated_aws"), _aws),
    _Method("federated_k8s", _by_login("federated_k8s"), _kubernetes),
)
