"""The call that tells who the caller is."""

from __future__ import annotations

from airflow_jobs_provider.api.calls import Call, JSONObject

__all__ = ["current_user"]


def current_user() -> Call[str]:
    """Return the name of the caller (Current User API).

    The result is the name of the user, or the application id of the service principal; empty if the
    service does not say.
    """
    return Call("GET", "scim/v2/Me", {}, True, _name, service="preview")


def _name(answer: JSONObject) -> str:
    name = answer.get("userName")
    return name if isinstance(name, str) else ""
