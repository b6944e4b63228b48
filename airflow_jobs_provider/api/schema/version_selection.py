"""Selects the version of the Jobs API that a request is sent to.

Without ``api_version`` in the connection a request is sent to 2.0 if the 2.0 reference can express
it, else to 2.2. Sent to 2.2 are:

* a request with a field that the 2.0 reference does not list, at any depth;
* a request that only a rule of the 2.0 reference forbids;
* an endpoint that came later (``min_api_version`` of the call);
* a job's creation and reset. 2.2 turns queueing on unless ``queue`` says otherwise. Through 2.0 it
  would be off, and runs would be skipped.

A connection's ``api_version`` sends all requests to that version. If it lacks a field or the
endpoint, an :class:`~airflow_jobs_provider.api.errors.InvalidRequestError` is raised, and nothing
is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from airflow_jobs_provider.api.problems import Problem, field_path
from airflow_jobs_provider.api.versions import LATEST_API_VERSION, OLDEST_API_VERSION

__all__ = ["choose_api_version", "find_version_problems"]

# A field that :mod:`.types` does not list came with this version or later.
_AFTER_2_0 = "2.1"
_WITH_QUEUE_SETTING = ("create", "reset")


def choose_api_version(call_name: str, parameters: Mapping[str, Any]) -> str:
    """Return the version for a request of a connection without ``api_version``.

    :param call_name: the endpoint, such as ``runs/submit``.
    :param parameters: the body of a POST, or the query of a GET.
    """
    if call_name in _WITH_QUEUE_SETTING:
        return LATEST_API_VERSION
    from airflow_jobs_provider.api.schema.request_types import ENDPOINTS

    endpoint = ENDPOINTS.get(call_name)
    if endpoint is None:
        return OLDEST_API_VERSION
    from airflow_jobs_provider.api.schema.rules import find_violations

    try:
        if next(_later_fields(parameters, endpoint.request, ()), None) is not None:
            return LATEST_API_VERSION
        for rule, _ in find_violations(parameters, endpoint.request):
            if OLDEST_API_VERSION in rule.versions and LATEST_API_VERSION not in rule.versions:
                return LATEST_API_VERSION
    except RecursionError:
        pass  # a recursive request is never sent
    return OLDEST_API_VERSION


def find_version_problems(
    call_name: str,
    parameters: Mapping[str, Any],
    api_version: str,
    min_api_version: str = OLDEST_API_VERSION,
) -> list[Problem]:
    """Return the fields that a version lacks, or the endpoint if it lacks that.

    :param call_name: the endpoint, such as ``runs/submit``.
    :param parameters: the body of a POST, or the query of a GET.
    :param api_version: the connection's ``api_version``.
    :param min_api_version: lowest version that has the endpoint; default 2.0.
    """
    if min_api_version > api_version:
        return [_too_low(call_name, min_api_version, api_version)]
    if api_version == LATEST_API_VERSION:
        return []
    from airflow_jobs_provider.api.schema.request_types import ENDPOINTS

    endpoint = ENDPOINTS.get(call_name)
    if endpoint is None:
        return []
    return [
        _too_low(field_path(path), min_version, api_version)
        for path, min_version in _later_fields(parameters, endpoint.request, ())
        if min_version > api_version
    ]


def _too_low(what: str, min_version: str, api_version: str) -> Problem:
    return Problem(
        what,
        f"needs version {min_version} or later of the Jobs API",
        f"the connection's api_version is {api_version}. "
        f'Put "api_version": "{LATEST_API_VERSION}" into its extra, or leave it out',
    )


def _later_fields(
    node: Mapping[Any, Any], structure: Any, path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the fields that the 2.0 reference does not list, and nothing below them.

    Yields the path of a field in the request, and the lowest version that takes it; that is 2.0 for
    a field that 2.0 is known to take all the same.
    """
    from airflow_jobs_provider.api.schema.introspection import belongs_to_clusters_api, fields_of

    fields = fields_of(structure)
    for name, value in node.items():
        if value is None:
            continue
        field = fields.get(name)
        if field is None:
            taken_by_2_0 = belongs_to_clusters_api(structure)
            version = OLDEST_API_VERSION if taken_by_2_0 else _AFTER_2_0
            yield (*path, str(name)), version
        elif field.is_later:
            yield (*path, name), field.min_version
        elif field.structure is None:
            continue
        elif isinstance(value, Mapping):
            yield from _later_fields(value, field.structure, (*path, name))
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                if isinstance(item, Mapping):
                    yield from _later_fields(item, field.structure, (*path, name, index))
