"""Problems of a payload, as one sentence each: the field, the rule, and what was found.

A value that was found is described by type and size, not quoted, since parameters and environment
variables may be secret.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, NamedTuple

__all__ = ["TOO_DEEP", "Problem", "describe_value", "field_path", "find_non_json", "pluralize"]

_LONG_NUMBER_BITS = 128


class Problem(NamedTuple):
    """A field that breaks a rule.

    :ivar field: path of the field, such as ``tasks[3].new_cluster.autoscale``.
    :ivar rule: what it must be, such as ``must be text``.
    :ivar found: what it is, such as ``it is null``.
    """

    field: str
    rule: str
    found: str

    def __str__(self) -> str:
        return f"{self.field} {self.rule}; {self.found}"


TOO_DEEP = Problem(
    "the request", "must not be nested too deeply", "it contains itself, or is nested too deeply"
)
"""The problem of a recursive payload."""


def find_non_json(value: Any) -> list[Problem]:
    """Return a problem for each value that JSON cannot express.

    :param value: the request.
    """
    try:
        return list(_find_non_json(value, ()))
    except RecursionError:
        return [TOO_DEEP]


def _find_non_json(value: Any, path: tuple[str | int, ...]) -> Iterator[Problem]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, (str, int, float, type(None))):
                yield Problem(field_path(path), "must have text as keys", describe_value(key))
            yield from _find_non_json(item, (*path, str(key)))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _find_non_json(item, (*path, index))
    elif isinstance(value, float) and not math.isfinite(value):
        yield Problem(field_path(path), "must be a finite number", f"it is {value}")
    elif not isinstance(value, (str, int, float, type(None))) or (
        isinstance(value, int) and value.bit_length() > _LONG_NUMBER_BITS
    ):
        yield Problem(field_path(path), "must be a JSON value", describe_value(value))


def field_path(parts: Iterable[str | int]) -> str:
    """Return a path as text: ``tasks[3].custom_tags['cost center']``.

    :param parts: names and indices.
    """
    path = ""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier():
            path += f".{part}" if path else part
        else:
            path += f"[{part!r}]"
    return path


def describe_value(value: Any) -> str:
    """Describe a value by type and size; only numbers, true, false and null are quoted.

    :param value: the value.
    """
    if value is None:
        return "it is null"
    if isinstance(value, bool):
        return f"it is {str(value).lower()}"
    if isinstance(value, (int, float)):
        # Python refuses to convert a very long number to text.
        is_long = isinstance(value, int) and value.bit_length() > _LONG_NUMBER_BITS
        return "it is a very long number" if is_long else f"it is the number {value}"
    if isinstance(value, str):
        return f"it is text of {pluralize(value, 'character')}"
    if isinstance(value, Mapping):
        return f"it is a map of {pluralize(value, 'entry', 'entries')}"
    if isinstance(value, (list, tuple)):
        return f"it is a list of {pluralize(value, 'element')}"
    return f"it is a {type(value).__name__}"


def pluralize(value: Sized | int, one: str, many: str = "") -> str:
    """Return a count with its noun: ``1 element``, ``3 elements``."""
    number = value if isinstance(value, int) else len(value)
    return f"{number} {one if number == 1 else many or one + 's'}"
