"""The caller of the API (reference: the Current User API, ``/api/2.0/preview/scim/v2/Me``)."""

from __future__ import annotations

from typing import Any

__all__ = ["current_user"]


def current_user(name: str) -> dict[str, Any]:
    """Return the answer of Me.

    :param name: the user, or the client id of the service principal.
    """
    return {
        "id": "1",
        "userName": name,
        "displayName": name,
        "active": True,
        "emails": [{"type": "work", "value": name, "primary": True}],
        "groups": [{"display": "users", "value": "users", "type": "direct"}],
    }
