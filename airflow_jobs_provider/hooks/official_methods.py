"""The authentication methods of the official provider, each chosen by a field of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.api import auth
from airflow_jobs_provider.api.errors import CredentialsError
from airflow_jobs_provider.hooks.connection_fields import (
    ConnectionFields,
    transport_settings,
    unified_credentials,
)

if TYPE_CHECKING:
    from airflow_jobs_provider.api.auth import Credentials
    from airflow_jobs_provider.api.auth.sdk.subject_tokens import SubjectToken

__all__ = ["OFFICIAL_METHODS", "OfficialMethod"]

_LOGIN_ADVICE = (
    "Check client id and secret in Login and Password of the connection. The secret may be wrong, "
    "deleted or expired"
)
_FEDERATION_ADVICE = (
    "Check the federation policy of the service principal (issuer, subject and audience of the "
    "token), and client_id in the connection's extra"
)


@dataclass(frozen=True)
class OfficialMethod:
    """A method of the official provider.

    :ivar field: the field that chooses it.
    :ivar is_chosen: whether it is set.
    :ivar make: makes the credentials.
    """

    field: str
    is_chosen: Callable[[ConnectionFields], bool]
    make: Callable[[ConnectionFields], Credentials]


def _login_and_password(fields: ConnectionFields, method: str) -> tuple[str, str]:
    missing = [name for name in ("login", "password") if not getattr(fields, name)]
    if missing:
        raise CredentialsError(
            f"connection {fields.name!r} authenticates by {method}, which takes the client id from "
            f"its Login and the secret from its Password. It has no {' and no '.join(missing)}"
        )
    return fields.login, fields.password


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
    return unified_credentials(fields, description, values, advice=_LOGIN_ADVICE)


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
    return unified_credentials(
        fields, f"Azure service principal {login}", values, advice=_LOGIN_ADVICE
    )


def _resource_id(fields: ConnectionFields) -> str:
    return fields.text("azure_resource_id") or fields.text("azure_workspace_resource_id")


def _azure_identity(kind: str) -> Callable[[ConnectionFields], Credentials]:
    def make(fields: ConnectionFields) -> Credentials:
        from airflow_jobs_provider.api.auth.sdk.azure_identity import AzureIdentityCredentials

        own = {
            "client_id": fields.text("azure_managed_identity_client_id"),
            "resource_id": _resource_id(fields),
        }
        settings = {"kind": kind, **own, "transport": transport_settings(fields)}
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
    return unified_credentials(
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
    # As in the official provider: null names no AWS connection.
    aws_conn_id = fields.text("aws_conn_id") if "aws_conn_id" in fields.extra else None
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


#: The first one that is chosen counts.
OFFICIAL_METHODS = (
    OfficialMethod(
        "use_azure_managed_identity",
        lambda fields: fields.is_set("use_azure_managed_identity"),
        _azure_identity("managed"),
    ),
    OfficialMethod(
        "azure_tenant_id",
        lambda fields: bool(fields.text("azure_tenant_id")),
        _azure_service_principal,
    ),
    OfficialMethod(
        "use_default_azure_credential",
        lambda fields: fields.is_set("use_default_azure_credential"),
        _azure_identity("default"),
    ),
    OfficialMethod(
        "service_principal_oauth", lambda fields: fields.is_set("service_principal_oauth"), _oauth
    ),
    OfficialMethod(
        "federated_token_provider",
        lambda fields: bool(fields.text("federated_token_provider")),
        _provided,
    ),
    OfficialMethod("federated_aws", _by_login("federated_aws"), _aws),
    OfficialMethod("federated_k8s", _by_login("federated_k8s"), _kubernetes),
)
