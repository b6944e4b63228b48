"""The connection form, once, for every way in which an Airflow version asks for it.

From 3.2 on Airflow reads it from the provider's info, before that from methods of the hook. Plain
data, since Airflow reads the provider's info at every start. What the fields mean is settled in
:mod:`airflow_jobs_provider.hooks.connection`.
"""

from __future__ import annotations

__all__ = ["EXTRA_FIELDS", "HIDDEN_FIELDS", "PLACEHOLDERS", "RELABELING", "conn_fields"]

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
    """Return the extra's fields in the form of a provider's info."""
    fields: dict[str, object] = {}
    for name, (kind, label, description) in EXTRA_FIELDS.items():
        is_password = kind == "password"
        schema: dict[str, object] = {"type": ["string" if is_password else kind, "null"]}
        if is_password:
            schema["format"] = "password"
        fields[name] = {"label": label, "description": description, "schema": schema}
    return fields
