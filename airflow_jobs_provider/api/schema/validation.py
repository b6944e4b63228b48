"""Checks a payload before it is sent: types, then rules, all problems together.

::

    validate("runs/submit", {"notebook_task": {"notebook_path": "etl"}})

raises :class:`~airflow_jobs_provider.api.errors.InvalidRequestError`, whose text has one sentence
for each problem. Pydantic is imported, and its checkers are made, when they are first needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.api.problems import (
    TOO_DEEP,
    Problem,
    describe_value,
    field_path,
    find_non_json,
)
from airflow_jobs_provider.api.schema.parameters import stringify_parameters
from airflow_jobs_provider.api.schema.rules import find_violations, request_size
from airflow_jobs_provider.api.schema.structures import Field, fields_of
from airflow_jobs_provider.api.schema.types import ENDPOINTS
from airflow_jobs_provider.api.schema.version_selection import (
    choose_api_version,
    find_version_problems,
)
from airflow_jobs_provider.api.versions import LATEST_API_VERSION

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["find_problems", "find_type_problems", "validate"]


def validate(
    call_name: str,
    payload: Mapping[str, Any],
    *,
    api_version: str | None = None,
    is_azure: bool = False,
) -> None:
    """Raise unless the payload obeys all rules of the version of the API that it is sent to.

    Numbers and booleans among the parameters count as the text that they are sent as. Fields and
    endpoints that the reference does not know are not checked.

    :param call_name: the endpoint, as :attr:`.endpoints.Call.path` names it: ``runs/submit``.
    :param payload: what is to be sent: the body of a POST, the query of a GET.
    :param api_version: version that the connection pins; None, the default, lets the request choose
        (see :mod:`.versions`), so that only what no version takes is refused.
    :param is_azure: whether the workspace is known to be on Azure, whose rules for tags are
        stricter; default False.
    :raises InvalidRequestError: with all problems, each naming the field, the rule and what was
        found.
    """
    problems = find_problems(call_name, payload, api_version=api_version, is_azure=is_azure)
    if problems:
        raise InvalidRequestError(call_name, problems)


def find_problems(
    call_name: str, payload: Any, *, api_version: str | None = None, is_azure: bool = False
) -> list[Problem]:
    """Return what :func:`validate` would raise for; empty for a good payload."""
    endpoint = ENDPOINTS.get(call_name)
    if endpoint is None:
        return find_version_problems(call_name, {}, api_version or LATEST_API_VERSION)
    if not isinstance(payload, Mapping):
        return [Problem("the request", "must be a map of fields", describe_value(payload))]
    try:
        text = json.dumps(payload, allow_nan=False)
    except RecursionError:
        return [TOO_DEEP]
    except (TypeError, ValueError):
        text = ""
        no_json = find_non_json(payload)
        if TOO_DEEP in no_json:
            return no_json
    else:
        no_json = []
    sent = _as_sent(payload)
    found = [
        *request_size(sent, text),
        *find_type_problems(endpoint.request, sent),
        *_version_problems(call_name, sent, api_version, is_azure=is_azure),
    ]
    # What is no JSON is told once, not again as what it should have been.
    told = {problem.field for problem in no_json}
    return no_json + list(dict.fromkeys(problem for problem in found if problem.field not in told))


def _version_problems(
    call_name: str, sent: Mapping[str, Any], pinned: str | None, *, is_azure: bool
) -> Iterator[Problem]:
    """Yield what the version that a request is sent to does not know or take."""
    version = pinned or choose_api_version(call_name, sent)
    if pinned is not None:
        yield from find_version_problems(call_name, sent, pinned)
    broken = find_violations(sent, ENDPOINTS[call_name].request)
    lasting = {
        problem.field
        for rule, problem in broken
        if rule.applies_to(LATEST_API_VERSION, is_azure=True)
    }
    for rule, problem in broken:
        if rule.applies_to(version, is_azure=is_azure):
            yield (
                problem
                if problem.field in lasting
                else replace(problem, found=f"{problem.found}. {_LATER_ALLOWS_IT}")
            )


_LATER_ALLOWS_IT = (
    f"Version {LATEST_API_VERSION} of the Jobs API allows it: put "
    f'"api_version": "{LATEST_API_VERSION}" into the connection\'s extra, or leave it out'
)


def find_type_problems(structure: Any, value: Any) -> list[Problem]:
    """Return where a value does not have the types of a structure of :mod:`.types`."""
    from pydantic import ValidationError

    try:
        _adapter(structure).validate_python(value)
    except ValidationError as error:
        return [
            _problem(structure, fault)
            for fault in error.errors(include_url=False)
            if not _is_an_absent_field(structure, fault)
        ]
    return []


@cache
def _adapter(structure: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(structure)


def _as_sent(payload: Mapping[str, Any]) -> dict[str, Any]:
    sent = stringify_parameters(payload)
    if isinstance(sent.get("new_settings"), Mapping):
        sent["new_settings"] = stringify_parameters(sent["new_settings"])
    return sent


# Pydantic's names of what can be wrong with a structure, in our words.
_SAID = {
    "missing": "must be given",
    "dict_type": "must be a map of fields",
    "list_type": "must be a list",
    "string_type": "must be text",
    "string_unicode": "must be text that UTF-8 can hold",
    "invalid_key": "must have text as keys",
}


def _problem(structure: Any, fault: Mapping[str, Any]) -> Problem:
    kind, path, value = fault["type"], fault["loc"], fault["input"]
    if path and path[-1] == "[key]":
        return Problem(
            field_path(path[:-2]),
            "must have text as keys",
            describe_value(value).replace("it is", "one is", 1),
        )
    if kind == "missing" or (value is None and _field(structure, path) is not None):
        return Problem(field_path(path), "must be given", "it is missing")
    if kind == "literal_error":
        rule = f"must be {fault['ctx']['expected']}".replace("'", "")
    else:
        rule = _SAID.get(kind, fault["msg"])
    return Problem(field_path(path), rule, describe_value(value))


def _is_an_absent_field(structure: Any, fault: Mapping[str, Any]) -> bool:
    """Whether the fault is only that an optional field is null, which is to be absent."""
    if fault["input"] is not None or fault["type"] == "missing":
        return False
    field = _field(structure, fault["loc"])
    return field is not None and not field.required


def _field(structure: Any, path: tuple[str | int, ...]) -> Field | None:
    """Return the field of a structure at the end of a path; None for an element or map entry."""
    field: Field | None = None
    for part in path:
        field = fields_of(structure).get(str(part)) if structure is not None else None
        if isinstance(part, int):
            field = None  # an element, of the structure that its list's field holds
        else:
            structure = field.structure if field is not None else None
    return field


_LONG_NUMBER_BITS = 10_000
