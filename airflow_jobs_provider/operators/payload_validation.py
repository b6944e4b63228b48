"""Validation of a request: when the DAG is parsed if possible, and before it is sent.

It is validated when the DAG is parsed if it has no template, no other task's output and no mapped
value. A process that parses the DAG file to execute a task does not do that: it validates only the
request that it sends, once, after rendering. Nor does a process that parses it to call callbacks.
Validation imports pydantic, which Airflow has imported before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.airflow_compat.parsing import requests_are_validated
from airflow_jobs_provider.operators.templates import has_unrendered

if TYPE_CHECKING:
    from airflow_jobs_provider.api.base_client import BaseClient

__all__ = [
    "check_before_sending",
    "check_known_request",
    "check_new_settings",
    "check_when_parsed",
    "fields_over_json",
    "has_unrendered",
]


def fields_over_json(call_name: str, json: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``json``, overridden by the fields that were given; None counts as not given.

    Where the API takes a structure, a list or a map, text is read as JSON, else as a Python
    literal: ``json`` itself, a field, or a field of a structure. A timedelta in ``timeout_seconds``
    is converted to seconds.

    :param call_name: the endpoint, such as ``runs/submit``.
    :param json: the fields as one dict or as text, or None.
    :param fields: the fields given by name.
    :raises InvalidRequestError: ``json`` is no map of fields, or text cannot be read.
    """
    from airflow_jobs_provider.api.schema.payload_text import parse_nested_text, read_payload

    given = {name: value for name, value in fields.items() if value is not None}
    merged = {**read_payload("json", json), **given}
    if isinstance(merged.get("timeout_seconds"), timedelta):
        # Rounded up: a timeout of 0 is none.
        merged["timeout_seconds"] = math.ceil(merged["timeout_seconds"].total_seconds())
    return parse_nested_text(call_name, merged)


def check_when_parsed(
    call_name: str, json: Any, fields: Mapping[str, Any], *, validate: bool = True
) -> None:
    """Validate a request in an operator's constructor, if all of it is known.

    An empty request is not validated: a subclass may set the fields later. The connection is not
    known, so only what no version of the API takes is refused. Nothing is validated in a task's
    process, which validates what it sends, nor in one that only calls callbacks.

    :param call_name: the endpoint, such as ``runs/submit``.
    :param json: the fields as one dict, or None.
    :param fields: the fields given by name.
    :param validate: the operator's argument; with False nothing is validated.
    :raises InvalidRequestError: the request cannot succeed; all problems are listed.
    """
    if requests_are_validated():
        check_known_request(call_name, json, fields, validate=validate)


def check_known_request(
    call_name: str, json: Any, fields: Mapping[str, Any], *, validate: bool = True
) -> None:
    """Validate a request, if all of it is known; see :func:`check_when_parsed`.

    :param call_name: the endpoint, such as ``runs/submit``.
    :param json: the fields as one dict, or None.
    :param fields: the fields given by name.
    :param validate: the operator's argument; with False nothing is validated.
    :raises InvalidRequestError: the request cannot succeed; all problems are listed.
    """
    if not validate or has_unrendered(json) or has_unrendered(fields):
        return
    request = fields_over_json(call_name, json, fields)
    if request:
        check_before_sending(call_name, request)


def check_new_settings(
    settings_by_reason: Any, *, validate: bool = True, client: BaseClient | None = None
) -> None:
    """Validate the argument ``databricks_repair_reason_new_settings``.

    :param settings_by_reason: the argument: settings of a job by text, or None.
    :param validate: the operator's argument; with False only the types are checked.
    :param client: as for :func:`check_before_sending`; with it also the version is checked that the
        update of the job is sent to.
    :raises InvalidRequestError: it is something else, or the settings cannot be sent.
    """
    if settings_by_reason is None:
        return
    from airflow_jobs_provider.api.errors import InvalidRequestError
    from airflow_jobs_provider.api.problems import Problem, describe_value
    from airflow_jobs_provider.api.workflows.permissions import update_with_permissions

    name = "databricks_repair_reason_new_settings"
    if not isinstance(settings_by_reason, Mapping):
        found = describe_value(settings_by_reason)
        raise InvalidRequestError("", [Problem(name, "must be a dict", found)])
    for reason, settings in settings_by_reason.items():
        if not isinstance(reason, str) or not isinstance(settings, Mapping):
            rule = "must be a dict of settings, under a key that is text"
            found = describe_value(settings if isinstance(reason, str) else reason)
            raise InvalidRequestError("", [Problem(f"{name}[{reason!r}]", rule, found)])
        if client is None and not requests_are_validated():
            continue
        call = update_with_permissions(1, settings)[-1]
        check_before_sending(call.path, call.parameters, validate=validate, client=client)
        if client is not None:
            client.version_of(call)


def check_before_sending(
    call_name: str,
    request: Mapping[str, Any],
    *,
    validate: bool = True,
    client: BaseClient | None = None,
) -> None:
    """Validate a rendered request.

    :param call_name: the endpoint, such as ``runs/submit``.
    :param request: the request.
    :param validate: the operator's argument; with False nothing is validated.
    :param client: the client that will send it. It knows the connection's ``api_version`` and
        whether the workspace is on Azure. Default None: only what no version of the API and no
        workspace takes is refused.
    :raises InvalidRequestError: the request cannot succeed; all problems are listed.
    """
    if validate:
        from airflow_jobs_provider.api.schema import validation

        if client is None:
            validation.validate(call_name, request)
        else:
            client.validate(call_name, request)
