"""Reading a request: its body, and the fields that are no settings."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from airflow_jobs_provider.local.errors import ApiError, invalid, malformed

__all__ = [
    "INT32",
    "INT64",
    "MAX_BODY_BYTES",
    "as_flag",
    "as_integer",
    "as_query",
    "check_token",
    "read_body",
    "read_flag",
    "read_integer",
    "read_task_keys",
    "required_integer",
    "too_large",
    "wrong_type",
]

INT32, INT64 = 2**31, 2**63
MAX_BODY_BYTES = 10 * 1024 * 1024
_MAX_TOKEN_CHARS = 64
_SHOWN_CHARS = 100
# Deeper than any payload of the API, and far from Python's own limit: what is read here is checked,
# stored and answered by functions that call themselves.
_MAX_NESTING = 100
# Python makes all of them in one go, during which no other request is answered: millions take
# seconds. A job of 1,000 tasks has some ten thousand.
_MAX_STRUCTURES = 200_000
# Longer integers lie beyond the largest double, which is how most clients read a number.
_MAX_DIGITS = 308
_STRINGS_AND_BRACKETS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]', re.DOTALL)


def read_body(data: bytes) -> dict[str, Any]:
    """Return the JSON object in a request's body; an empty body is an empty object.

    At most 10 MB (reference: "Jobs API 2.0"). The nesting is checked before anything is parsed, so
    that a body that is nested too deeply costs next to nothing.
    """
    if len(data) > MAX_BODY_BYTES:
        raise too_large()
    if not data.strip():
        return {}
    try:
        text = data.decode("utf-8-sig")
        _check_structure(text)
        body = json.loads(
            text, parse_constant=_no_json, parse_float=_read_float, parse_int=_read_int
        )
    except ValueError as error:
        raise malformed(f"Invalid JSON given in the body of the request: {error}") from None
    if "\\u" in text:
        try:
            json.dumps(body, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise malformed("The body of the request has text that is not Unicode") from None
    if not isinstance(body, dict):
        raise malformed(f"The body of the request must be a JSON object, not {_kind(body)}")
    return body


def as_query(body: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters of a GET that came in its body, as text like those of a query."""
    query = {}
    for name, value in body.items():
        if isinstance(value, (list, dict)):
            raise malformed(f"{name} must be text, a number or a boolean, not {_kind(value)}")
        if value is not None:
            query[name] = value if isinstance(value, str) else json.dumps(value)
    return query


def _check_structure(text: str) -> None:
    if text.count("[") + text.count("{") <= _MAX_NESTING:
        return
    depth = structures = 0
    for found in _STRINGS_AND_BRACKETS.finditer(text):
        mark = text[found.start()]
        if mark in "[{":
            depth += 1
            structures += 1
            if depth > _MAX_NESTING:
                raise malformed(
                    "The JSON in the body of the request is nested too deeply: "
                    f"at most {_MAX_NESTING} levels"
                )
            if structures > _MAX_STRUCTURES:
                raise malformed(
                    "The JSON in the body of the request has too many arrays and objects: "
                    f"at most {_MAX_STRUCTURES}"
                )
        elif mark in "]}":
            depth -= 1


def _no_json(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _read_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text[:_SHOWN_CHARS]} is out of range")
    return number


def _read_int(text: str) -> int:
    if len(text.lstrip("-")) > _MAX_DIGITS:
        raise ValueError(f"the number {text[:_SHOWN_CHARS]}... is out of range")
    return int(text)


def too_large() -> ApiError:
    """Return the answer to a request that is larger than the API takes."""
    return malformed("The request is larger than the maximum of 10 MB")


def read_integer(data: Mapping[str, Any], name: str, *, bound: int = INT64) -> int | None:
    """Return an integer field, or None if it is not there."""
    value: Any = data.get(name)
    return None if value is None else as_integer(value, name, bound)


def as_integer(value: Any, place: str, bound: int) -> int:
    """Return an integer; as text it will do, since JSON's numbers end before INT64 does."""
    if isinstance(value, str):
        # Not more digits than fit: int() alone would take its time over a million of them.
        if not re.fullmatch(r"\s*[+-]?[0-9]{1,20}\s*", value):
            raise invalid(f"{place} must be an integer, not {value[:_SHOWN_CHARS]!r}")
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(place, "an integer", value)
    if not -bound <= value < bound:
        raise invalid(f"{place} is out of range: it must fit {bound.bit_length()} bits")
    return value


def required_integer(data: Mapping[str, Any], name: str) -> int:
    """Return an integer field that must be there."""
    value = read_integer(data, name)
    if value is None:
        raise invalid(f"Missing required field: {name}")
    return value


def read_flag(data: Mapping[str, Any], name: str) -> bool:
    """Return a field that is true or false; false if it is not there."""
    value = data.get(name)
    return False if value is None else as_flag(value, name)


def read_task_keys(data: Mapping[str, Any], name: str) -> list[str] | None:
    """Return a field that is an array of task keys, or None if it is not there."""
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(key, str) for key in value):
        raise invalid(f"{name} must be an array of text")
    return value


def as_flag(value: Any, place: str) -> bool:
    """Return true or false; as text, a query has no other, it will do."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    shown = value[:_SHOWN_CHARS] if isinstance(value, str) else value
    raise invalid(f"{place} must be true or false, not {str(shown)[:_SHOWN_CHARS]!r}")


def check_token(data: Mapping[str, Any]) -> str | None:
    """Return the idempotency token, of at most 64 characters ("Run now", "Runs submit")."""
    token = data.get("idempotency_token")
    if token is None:
        return None
    if not isinstance(token, str):
        raise wrong_type("idempotency_token", "text", token)
    if len(token) > _MAX_TOKEN_CHARS:
        raise invalid(
            f"The idempotency_token must have at most {_MAX_TOKEN_CHARS} characters; "
            f"it has {len(token)}"
        )
    return token or None


def wrong_type(place: str, expected: str, value: Any) -> ApiError:
    """Return the answer to a field of another type."""
    return malformed(
        f"Could not parse request object: {place} must be {expected}, not {_kind(value)}"
    )


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", str: "text", list: "an array", dict: "an object"}
    return names.get(type(value), "a number")
