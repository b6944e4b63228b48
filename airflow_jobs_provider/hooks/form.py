"""The connection form, once, for both ways in which Airflow asks for it.

From 3.2 on Airflow reads it from the provider's info, before that from methods of the hook. Airflow
reads the provider's info at every start, so this module imports nothing but the standard library.
What the fields mean is documented in :mod:`airflow_jobs_provider.hooks.connection`.
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
    "ui_field_behaviour",
]

HIDDEN_FIELDS = ["schema"]
RELABELING = {
    "host": "Workspace address",
    "login": "User (leave empty for a token)",
    "password": "Token or password",
}
PLACEHOLDERS = {"host": "https://adb-1234567890123456.7.azuredatabricks.net"}

# Name in Extra: kind, label, description. A kind is JSON Schema's, or "password".
# "verify" is a text, since an unticked box of a form that knows nothing of an old connection would
# turn the check of certificates off.
EXTRA_FIELDS: dict[str, tuple[str, str, str]] = {
    "token": ("password", "Token", "In place of the one in the password; wins over it"),
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
