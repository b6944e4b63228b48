"""Permissions of a job. They are stored and returned, but not enforced: there is one user.

Reference: the Permissions API, ``/api/2.0/permissions/jobs/<job_id>``. They can also be given when
the job is created ("Create", ``access_control_list``).
"""

from __future__ import annotations

from typing import Any

from airflow_jobs_provider.local.checks.request_fields import wrong_type
from airflow_jobs_provider.local.engine.model import Job
from airflow_jobs_provider.local.errors import invalid
from airflow_jobs_provider.local.http.call import Call, Endpoint

__all__ = ["PERMISSION_ENDPOINTS", "read_access_control_list"]

_FIELD = "access_control_list"
_OWNER = "IS_OWNER"
_LEVELS = ("CAN_VIEW", "CAN_MANAGE_RUN", "CAN_MANAGE", _OWNER)
_PRINCIPALS = ("user_name", "group_name", "service_principal_name")


def read_access_control_list(data: Any, field: str = _FIELD) -> list[dict[str, str]]:
    """Validate an ``access_control_list`` and return its entries.

    :param data: the list as it was sent; None for an empty one.
    :raises ApiError: an entry names nobody, several, or a level that is none.
    """
    if data is None:
        return []
    if not isinstance(data, list):
        raise wrong_type(field, "an array", data)
    entries: list[dict[str, str]] = []
    for index, given in enumerate(data):
        place = f"{field}[{index}]"
        if not isinstance(given, dict):
            raise wrong_type(place, "an object", given)
        named = [name for name in _PRINCIPALS if given.get(name) not in (None, "")]
        if len(named) != 1:
            raise invalid(f"{place} must have exactly one of {', '.join(_PRINCIPALS)}")
        [principal] = named
        if not isinstance(given[principal], str):
            raise wrong_type(f"{place}.{principal}", "text", given[principal])
        level = given.get("permission_level")
        if level not in _LEVELS:
            raise invalid(f"{place}.permission_level must be one of {', '.join(_LEVELS)}")
        if level == _OWNER and principal == "group_name":
            raise invalid(f"{place}: a group cannot own a job")
        entries.append({principal: given[principal], "permission_level": level})
    if sum(entry["permission_level"] == _OWNER for entry in entries) > 1:
        raise invalid("A job must have exactly one owner")
    return entries


def _who(entry: dict[str, str]) -> tuple[str, str]:
    [principal] = [name for name in _PRINCIPALS if name in entry]
    return principal, entry[principal]


def _merged(entries: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the entries, the last one of each principal, and of owners only the last."""
    last = {_who(entry): entry for entry in entries}
    owners = [entry for entry in last.values() if entry["permission_level"] == _OWNER]
    return [entry for entry in last.values() if entry not in owners[:-1]]


def _answer(job: Job) -> dict[str, Any]:
    entries = job.access_control_list
    if all(entry["permission_level"] != _OWNER for entry in entries):
        # The creator owns the job until another owner is set.
        owner = {"user_name": job.creator_user_name, "permission_level": _OWNER}
        entries = _merged([*entries, owner])
    return {
        "object_id": f"/jobs/{job.job_id}",
        "object_type": "job",
        _FIELD: [
            {
                **{name: text for name, text in entry.items() if name in _PRINCIPALS},
                "all_permissions": [
                    {"permission_level": entry["permission_level"], "inherited": False}
                ],
            }
            for entry in entries
        ],
    }


async def get_permissions(call: Call) -> dict[str, Any]:
    """Get: a job's permissions."""
    return _answer(call.job())


async def set_permissions(call: Call) -> dict[str, Any]:
    """Set: replace a job's permissions."""
    return _store(call, keep=False)


async def update_permissions(call: Call) -> dict[str, Any]:
    """Update: add to a job's permissions; principals that are not named keep theirs."""
    return _store(call, keep=True)


def _store(call: Call, *, keep: bool) -> dict[str, Any]:
    entries = read_access_control_list(call.data.get(_FIELD))
    job = call.job()
    job.access_control_list = _merged([*(job.access_control_list if keep else []), *entries])
    call.service.store.save_job(job)
    return _answer(job)


PERMISSION_ENDPOINTS: dict[str, Endpoint] = {
    "GET": get_permissions,
    "PUT": set_permissions,
    "PATCH": update_permissions,
}
