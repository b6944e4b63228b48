"""A problem of a payload, told in one sentence: the field, the rule, and what was found.

What was found is told by kind and size, not quoted, unless it can be no secret: parameters,
environment variables and the like often are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

__all__ = ["TOO_DEEP", "Problem", "describe_value", "field_path", "find_non_json"]

_LONG_NUMBER_BITS = 128


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that the reference forbids.

    :ivar field: the field's path, such as ``tasks[3].new_cluster.autoscale``.
    :ivar rule: what it must or must not be.
    :ivar found: what it is.
    """

    field: str
    rule: str
    found: str

    def __str__(self) -> str:
        return f"{self.field} {self.rule}; {self.found}"


TOO_DEEP = Problem("the request", "must end somewhere", "it holds itself, or is nested too deep")


def find_non_json(value: Any) -> list[Problem]:
    """Return what JSON cannot express in a request, each with its place; empty for none."""
    try:
        return list(_not_json(value, ()))
    except RecursionError:
        return [TOO_DEEP]


def _not_json(value: Any, path: tuple[str | int, ...]) -> Iterator[Problem]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, (str, int, float, type(None))):
                yield Problem(field_path(path), "must have text as keys", describe_value(key))
            yield from _not_json(item, (*path, str(key)))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _not_json(item, (*path, index))
    elif isinstance(value, float) and not math.isfinite(value):
        yield Problem(field_path(path), "must be a number that JSON knows", f"it is {value}")
    elif not isinstance(value, (str, int, float, type(None))) or (
        isinstance(value, int) and value.bit_length() > _LONG_NUMBER_BITS
    ):
        yield Problem(field_path(path), "must be something that JSON knows", describe_value(value))


def field_path(parts: Iterable[str | int]) -> str:
    """Write a path as Python and JSON users do: ``tasks[3].custom_tags['cost center']``."""
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
    """Tell a value by kind and size; only numbers, true, false and null are quoted."""
    if value is None:
        return "it is null"
    if isinstance(value, bool):
        return f"it is {str(value).lower()}"
    if isinstance(value, (int, float)):
        # Not written out where Python itself would refuse to.
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
    """Count: ``1 element``, ``3 elements``."""
    number = value if isinstance(value, int) else len(value)
    return f"{number} {one if number == 1 else many or one + 's'}"
