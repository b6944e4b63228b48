"""Validates a payload before it is sent: types and rules, with all problems in one error.

::

    validate("runs/submit", {"notebook_task": {"notebook_path": "etl"}})

raises :class:`~airflow_jobs_provider.api.errors.InvalidRequestError`, whose message has a sentence
for each problem. Pydantic is imported at first use. The validator of a field of a request is built
when the field is given for the first time: those of all fields take 14 ms, of which a task needs
little.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
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
from airflow_jobs_provider.api.schema.introspection import (
    Field,
    fields_of,
    structure_fields,
    structures,
)
from airflow_jobs_provider.api.schema.parameters import stringify_parameters
from airflow_jobs_provider.api.schema.request_types import ENDPOINTS
from airflow_jobs_provider.api.schema.rules import find_violations, request_size
from airflow_jobs_provider.api.schema.version_selection import (
    choose_api_version,
    find_version_problems,
)
from airflow_jobs_provider.api.versions import LATEST_API_VERSION

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["build_validators", "find_problems", "find_type_problems", "validate"]


def validate(
    call_name: str,
    payload: Mapping[str, Any],
    *,
    api_version: str | None = None,
    is_azure: bool = False,
) -> None:
    """Check a payload against the rules of the API version that it is sent to.

    Numbers and booleans in parameters count as text, as they are sent. Fields and endpoints that
    the reference does not list are not checked.

    :param call_name: the endpoint, such as ``runs/submit``.
    :param payload: the body of a POST, or the query of a GET.
    :param api_version: the connection's ``api_version``; None (default): the payload selects the
        version, so that only what no version takes is refused.
    :param is_azure: whether the workspace is known to be on Azure, which has stricter rules for
        tags; default False.
    :raises InvalidRequestError: the payload breaks rules; the error lists all problems.
    """
    problems = find_problems(call_name, payload, api_version=api_version, is_azure=is_azure)
    if problems:
        raise InvalidRequestError(call_name, problems)


def build_validators() -> None:
    """Build what :func:`validate` builds at first use, so that processes forked later have it."""
    for endpoint in ENDPOINTS.values():
        for field in fields_of(endpoint.request).values():
            _validator(field.hint)
    for structure in structures().values():
        structure_fields(structure)


def find_problems(
    call_name: str, payload: Any, *, api_version: str | None = None, is_azure: bool = False
) -> list[Problem]:
    """Return all problems of a payload; the arguments are those of :func:`validate`."""
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
    # A field that JSON cannot express is reported once, not again for its type.
    told = {problem.field for problem in no_json}
    return no_json + list(dict.fromkeys(problem for problem in found if problem.field not in told))


def _version_problems(
    call_name: str, sent: Mapping[str, Any], pinned: str | None, *, is_azure: bool
) -> Iterator[Problem]:
    """Yield the problems with the version that a request is sent to."""
    if pinned is not None:
        yield from find_version_problems(call_name, sent, pinned)
    broken = find_violations(sent, ENDPOINTS[call_name].request)
    if not broken:
        return
    version = pinned or choose_api_version(call_name, sent)
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
                else problem._replace(found=f"{problem.found}. {_LATER_ALLOWS_IT}")
            )


_LATER_ALLOWS_IT = (
    f"Version {LATEST_API_VERSION} of the Jobs API allows it: put "
    f'"api_version": "{LATEST_API_VERSION}" into the connection\'s extra, or leave it out'
)


def find_type_problems(structure: Any, value: Mapping[Any, Any]) -> list[Problem]:
    """Return the fields of a value that do not have the types of a structure.

    :param structure: the structure, of :mod:`.types`.
    :param value: the value.
    """
    found: list[Problem] = []
    for field in fields_of(structure).values():
        part = value.get(field.name)
        if part is not None:
            found += _find_field_problems(structure, field, part)
        elif field.required:
            found.append(_missing((field.name,)))
    return found + [
        Problem(
            field_path((key if isinstance(key, int) else str(key),)),
            _MESSAGES["invalid_key"],
            describe_value(key),
        )
        for key in value
        if not isinstance(key, str)
    ]


def _find_field_problems(structure: Any, field: Field, value: Any) -> Iterator[Problem]:
    from pydantic import ValidationError

    try:
        _validator(field.hint).validate_python(value)
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            path = (field.name, *fault["loc"])
            if not _is_an_absent_field(structure, path, fault):
                yield _problem(structure, path, fault)


@cache
def _validator(hint: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(hint)


def _as_sent(payload: Mapping[str, Any]) -> dict[str, Any]:
    sent = stringify_parameters(payload)
    if isinstance(sent.get("new_settings"), Mapping):
        sent["new_settings"] = stringify_parameters(sent["new_settings"])
    return sent


# Messages by pydantic's error types.
_MESSAGES = {
    "missing": "must be given",
    "dict_type": "must be a map of fields",
    "list_type": "must be a list",
    "string_type": "must be text",
    "string_unicode": "must be text that UTF-8 can hold",
    "invalid_key": "must have text as keys",
}


def _problem(structure: Any, path: tuple[str | int, ...], fault: Mapping[str, Any]) -> Problem:
    kind, value = fault["type"], fault["input"]
    if path[-1] == "[key]":
        found = describe_value(value).replace("it is", "one is", 1)
        return Problem(field_path(path[:-2]), _MESSAGES["invalid_key"], found)
    if kind == "missing" or (value is None and _field(structure, path) is not None):
        return _missing(path)
    if kind == "literal_error":
        rule = f"must be {fault['ctx']['expected']}".replace("'", "")
    else:
        rule = _MESSAGES.get(kind, fault["msg"])
    return Problem(field_path(path), rule, describe_value(value))


def _missing(path: tuple[str | int, ...]) -> Problem:
    return Problem(field_path(path), "must be given", "it is missing")


def _is_an_absent_field(
    structure: Any, path: tuple[str | int, ...], fault: Mapping[str, Any]
) -> bool:
    """Whether the error is only that an optional field is null, which counts as absent."""
    if fault["input"] is not None or fault["type"] == "missing":
        return False
    field = _field(structure, path)
    return field is not None and not field.required


def _field(structure: Any, path: tuple[str | int, ...]) -> Field | None:
    """Return the field at the end of a path; None for a list element or map entry."""
    field: Field | None = None
    for part in path:
        field = fields_of(structure).get(str(part)) if structure is not None else None
        if isinstance(part, int):
            field = None  # an element, of the structure that its list's field holds
        else:
            structure = field.structure if field is not None else None
    return field
