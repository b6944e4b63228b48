"""Permissions of a job. A create sends them with the settings, a reset or update cannot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow_jobs_provider.api.calls import Call
from airflow_jobs_provider.api.endpoints import (
    create_job,
    reset_job,
    update_job,
    update_job_permission,
)

__all__ = [
    "create_with_permissions",
    "reset_with_permissions",
    "update_with_permissions",
    "without_permissions",
]

_FIELD = "access_control_list"


def create_with_permissions(settings: Mapping[str, Any]) -> Call[int]:
    """Return the call that creates a job with its permissions. An empty list is left out.

    :param settings: the job's settings, and its ``access_control_list``.
    """
    return create_job(settings if settings.get(_FIELD) else without_permissions(settings))


def reset_with_permissions(job_id: int, settings: Mapping[str, Any]) -> list[Call[Any]]:
    """Return the calls, in order, that add a job's permissions and then reset its settings.

    ``jobs/reset`` does not take permissions. An empty list changes nothing.

    :param job_id: the job.
    :param settings: the settings, and the job's ``access_control_list``.
    """
    calls: list[Call[Any]] = [reset_job(job_id, without_permissions(settings))]
    if permissions := settings.get(_FIELD):
        calls.insert(0, update_job_permission(job_id, {_FIELD: permissions}))
    return calls


def update_with_permissions(
    job_id: int,
    settings: Mapping[str, Any] | None = None,
    fields_to_remove: Iterable[str] | None = None,
) -> list[Call[Any]]:
    """Return the calls, in order, that add a job's permissions and then update its settings.

    :param job_id: the job.
    :param settings: the settings to replace, and the job's ``access_control_list``.
    :param fields_to_remove: the settings to remove.
    """
    rest = None if settings is None else without_permissions(settings)
    calls: list[Call[Any]] = [update_job(job_id, rest, fields_to_remove)]
    if permissions := (settings or {}).get(_FIELD):
        calls.insert(0, update_job_permission(job_id, {_FIELD: permissions}))
    return calls


def without_permissions(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without the ``access_control_list`` among them."""
    return {name: value for name, value in settings.items() if name != _FIELD}
