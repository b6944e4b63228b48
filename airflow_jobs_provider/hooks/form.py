"""The connection form, for both ways in which Airflow asks for it.

Airflow 3.2 and later reads it from the provider's info. Earlier versions call methods of the hook.
Airflow reads the provider's info at every start, so this module imports only the standard library.
:mod:`airflow_jobs_provider.hooks.connection` documents what the fields mean.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = [
    "EXTRA_FIELDS",
    "HIDDEN_FIELDS",
    "PLACEHOLDERS",
    "RELABELING",
    "conn_fields",
    "connection_form_widgets",
    "connection_type",
    "is_official_provider_installed",
    "ui_field_behaviour",
]

HIDDEN_FIELDS = ["schema"]
RELABELING = {
    "host": "Workspace address",
    "login": "User or client id (leave empty for a token)",
    "password": "Token, password or client secret",
}
PLACEHOLDERS = {
    "host": "https://adb-1234567890123456.7.azuredatabricks.net",
    "azure_tenant_id": "00000000-0000-0000-0000-000000000000",
    "azure_resource_id": "/subscriptions/.../providers/Microsoft.Databricks/workspaces/...",
    "azure_managed_identity_client_id": "00000000-0000-0000-0000-000000000000",
    "client_id": "00000000-0000-0000-0000-000000000000",
    "auth_type": "databricks-cli",
    "proxies": '{"https": "http://proxy.example.com:3128"}',
    "api_version": "2.2",
}

# Name in Extra: kind, label, description. A kind is JSON Schema's, or "password".
# "verify" is a text, since an unticked box of a form that knows nothing of an old connection would
# turn the check of certificates off.
EXTRA_FIELDS: dict[str, tuple[str, str, str]] = {
    "token": ("password", "Token", "In place of the one in the password; takes precedence over it"),
    "service_principal_oauth": (
        "boolean",
        "Databricks service principal",
        "OAuth with the client id and client secret above",
    ),
    "azure_tenant_id": (
        "string",
        "Azure tenant id",
        "Service principal of Entra ID, with the client id and client secret above",
    ),
    "azure_resource_id": (
        "string",
        "Azure resource id",
        "Of the workspace; needed if the Azure principal is no user of it",
    ),
    "use_azure_managed_identity": (
        "boolean",
        "Azure managed identity",
        "The identity of the machine or pod that Airflow runs on",
    ),
    "azure_managed_identity_client_id": (
        "string",
        "Client id of the managed identity",
        "If the machine has several; empty for its only one",
    ),
    "use_default_azure_credential": (
        "boolean",
        "Default Azure credential",
        "What azure-identity finds: workload identity, environment, Azure CLI",
    ),
    "federated_k8s": (
        "boolean",
        "Kubernetes service account",
        "Exchange the token of the pod's service account; needs the client id below",
    ),
    "client_id": (
        "string",
        "Client id for a token exchange",
        "Databricks service principal that the federation policy belongs to",
    ),
    "auth_type": (
        "string",
        "Method of databricks-sdk",
        "Any other method, by its name there; empty to choose by the fields above",
    ),
    "verify": (
        "string",
        "TLS certificates",
        "Path of a CA bundle; empty for the usual ones; false to check nothing",
    ),
    "proxies": (
        "string",
        "Proxies",
        'JSON such as {"https": "http://proxy.example.com:3128"}; empty for the environment\'s',
    ),
    "timeout_seconds": (
        "integer",
        "Time-out in seconds",
        "Longest wait for the next bytes of an answer; 60 if empty",
    ),
    "api_version": (
        "string",
        "Jobs API version",
        "2.0, 2.1 or 2.2 for all requests; if empty, the version that each request needs",
    ),
    "allow_http": (
        "boolean",
        "Allow http",
        "Send credentials over plain http to another machine",
    ),
}


def connection_type(name: str, hook_name: str, hook_class: str) -> dict[str, object]:
    """Return a connection type in the form of a provider's info.

    :param name: the connection type.
    :param hook_name: what the form calls it.
    :param hook_class: path of the hook's class.
    """
    return {
        "connection-type": name,
        "hook-class-name": hook_class,
        "hook-name": hook_name,
        "conn-fields": conn_fields(),
        "ui-field-behaviour": {
            "hidden-fields": HIDDEN_FIELDS,
            "relabeling": RELABELING,
            "placeholders": PLACEHOLDERS,
        },
    }


def is_official_provider_installed() -> bool:
    """Return whether the official provider is installed, which has the type ``databricks``."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        distribution("apache-airflow-providers-databricks")
    except PackageNotFoundError:
        return False
    return True


def conn_fields() -> dict[str, object]:
    """Return the extra's fields in the form of a provider's info (Airflow 3.2 and later)."""
    fields: dict[str, object] = {}
    for name, (kind, label, description) in EXTRA_FIELDS.items():
        is_password = kind == "password"
        schema: dict[str, object] = {"type": ["string" if is_password else kind, "null"]}
        if is_password:
            schema["format"] = "password"
        fields[name] = {"label": label, "description": description, "schema": schema}
    return fields


def connection_form_widgets() -> dict[str, Any]:
    """Return the extra's fields as widgets, by name (Airflow before 3.2)."""
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import BooleanField, IntegerField, PasswordField, StringField
    from wtforms.validators import Optional

    kinds: dict[str, Callable[..., Any]] = {
        "password": partial(PasswordField, widget=BS3PasswordFieldWidget()),
        "string": partial(StringField, widget=BS3TextFieldWidget()),
        "integer": partial(IntegerField, widget=BS3TextFieldWidget(), validators=[Optional()]),
        "boolean": partial(BooleanField, default=False),
    }
    return {
        name: kinds[kind](lazy_gettext(label), description=description)
        for name, (kind, label, description) in EXTRA_FIELDS.items()
    }


def ui_field_behaviour() -> dict[str, Any]:
    """Return which standard fields the form hides, and its labels for the others."""
    return {
        "hidden_fields": HIDDEN_FIELDS,
        "relabeling": RELABELING,
        "placeholders": PLACEHOLDERS,
    }
