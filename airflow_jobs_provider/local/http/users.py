"""The user of the workspace (reference: the Current User API, ``/api/2.0/preview/scim/v2/Me``)."""

from __future__ import annotations

from typing import Any

from airflow_jobs_provider.local.http.call import Call

__all__ = ["current_user"]


async def current_user(call: Call) -> dict[str, Any]:
    """Me: who sends the requests, which is always the same one here."""
    name = call.service.user
    return {
        "id": "1",
        "userName": name,
        "displayName": name,
        "active": True,
        "emails": [{"type": "work", "value": name, "primary": True}],
        "groups": [{"display": "users", "value": "users", "type": "direct"}],
    }
