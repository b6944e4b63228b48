"""Secret scopes: ``/api/2.0/secrets/...``. Secrets are stored in the workspace's state folder.

Reference: the Secrets API, scopes, put, list, get, delete.
"""

from __future__ import annotations

import base64
import binascii
import re
from http import HTTPStatus
from typing import Any

from airflow_jobs_provider.local.engine.model import now_millis
from airflow_jobs_provider.local.errors import ApiError, invalid
from airflow_jobs_provider.local.http.call import Call, Endpoint

__all__ = ["SECRET_ENDPOINTS"]

_NAME = re.compile(r"[\w@.-]{1,128}", re.ASCII)
_MAX_SECRET_BYTES = 128 * 1024


async def create_scope(call: Call) -> dict[str, Any]:
    """Create a scope."""
    scope = _name(call, "scope")
    if not call.service.store.add_secret_scope(scope):
        raise ApiError(
            HTTPStatus.BAD_REQUEST, "RESOURCE_ALREADY_EXISTS", f"Scope {scope} already exists!"
        )
    return {}


async def list_scopes(call: Call) -> dict[str, Any]:
    """List the scopes."""
    scopes = call.service.store.secret_scopes()
    found = [{"name": scope, "backend_type": "DATABRICKS"} for scope in scopes]
    return {"scopes": found} if found else {}


async def delete_scope(call: Call) -> dict[str, Any]:
    """Delete a scope and its secrets."""
    call.service.store.delete_secret_scope(_known_scope(call))
    return {}


async def put(call: Call) -> dict[str, Any]:
    """Store a secret, as text or as bytes in base64."""
    scope, key = _known_scope(call), _name(call, "key")
    text, encoded = call.data.get("string_value"), call.data.get("bytes_value")
    if (text is None) == (encoded is None):
        raise invalid("Exactly one of string_value and bytes_value must be given")
    try:
        value = str(text).encode() if encoded is None else base64.b64decode(encoded, validate=True)
    except (ValueError, TypeError, binascii.Error):
        raise invalid("bytes_value must be encoded in base64") from None
    if len(value) > _MAX_SECRET_BYTES:
        raise invalid(f"A secret has at most {_MAX_SECRET_BYTES} bytes")
    call.service.store.put_secret(scope, key, value, now_millis())
    return {}


async def list_secrets(call: Call) -> dict[str, Any]:
    """List the keys of a scope; not the values."""
    found = [
        {"key": key, "last_updated_timestamp": updated}
        for key, updated in call.service.store.secrets(_known_scope(call))
    ]
    return {"secrets": found} if found else {}


async def get(call: Call) -> dict[str, Any]:
    """Return a secret in base64."""
    value = call.service.store.secret(_known_scope(call), _name(call, "key"))
    if value is None:
        raise _missing(call)
    return {"key": call.data["key"], "value": base64.b64encode(value).decode()}


async def delete(call: Call) -> dict[str, Any]:
    """Delete a secret."""
    if not call.service.store.delete_secret(_known_scope(call), _name(call, "key")):
        raise _missing(call)
    return {}


SECRET_ENDPOINTS: dict[tuple[str, str], Endpoint] = {
    ("POST", "scopes/create"): create_scope,
    ("GET", "scopes/list"): list_scopes,
    ("POST", "scopes/delete"): delete_scope,
    ("POST", "put"): put,
    ("GET", "list"): list_secrets,
    ("GET", "get"): get,
    ("POST", "delete"): delete,
}


def _name(call: Call, field: str) -> str:
    name = call.data.get(field)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise invalid(
            f"{field} must have 1 to 128 characters: letters, digits, dashes, underscores, @ and "
            "periods"
        )
    return name


def _known_scope(call: Call) -> str:
    scope = _name(call, "scope")
    if scope not in call.service.store.secret_scopes():
        raise ApiError(
            HTTPStatus.NOT_FOUND, "RESOURCE_DOES_NOT_EXIST", f"Scope {scope} does not exist!"
        )
    return scope


def _missing(call: Call) -> ApiError:
    return ApiError(
        HTTPStatus.NOT_FOUND,
        "RESOURCE_DOES_NOT_EXIST",
        f"No secret {call.data['key']} in scope {call.data['scope']}",
    )
