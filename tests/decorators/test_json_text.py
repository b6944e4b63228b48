"""Arguments and results as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import pytest

from airflow_jobs_provider.decorators.json_text import (
    airflow_json_text,
    as_parameter,
    read_result_text,
)


class Colour(StrEnum):
    """Text that has a name."""

    RED = "red"


class Lazy(Sequence[Any]):
    """A sequence as Airflow gives for the XComs of a mapped task."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: Any) -> Any:
        return ["a", "b"][index]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [1, 2.5, None, True, "é"]}, {"a": [1, 2.5, None, True, "é"]}),
        ((1, (2,)), [1, [2]]),
        (Lazy(), ["a", "b"]),
        (MappingProxyType({"a": Colour.RED}), {"a": "red"}),
        ("\ud800", "\ud800"),
    ],
)
def test_values_of_json(value: Any, expected: Any) -> None:
    """Mappings and sequences of all kinds become objects and arrays, in ASCII."""
    text = airflow_json_text(value, "x")
    assert text.isascii()
    assert json.loads(text) == expected


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": [datetime(2026, 1, 1, tzinfo=UTC)]}, r"x\['a'\]\[0\] is of type datetime.datetime"),
        ({1}, "x is of type builtins.set"),
        (b"secret", "x is of type builtins.bytes"),
        ({1: "secret"}, "a key of type int"),
        ([float("nan")], r"x\[0\] is nan"),
        ([float("-inf")], r"x\[0\] is -inf"),
        (CIRCLE, "nested deeper than 100 levels"),
    ],
)
def test_values_that_json_does_not_have(value: Any, words: str) -> None:
    """The message says where the value is and of what type, and does not quote it."""
    with pytest.raises((TypeError, ValueError), match=words) as refused:
        airflow_json_text(value, "x")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("text", ["{{job.id}}", "{{{x}}}", "{ {", "{{{{", "\\{{", "{"])
def test_text_that_looks_like_a_reference(text: str) -> None:
    """No parameter has two braces in a row, which Databricks would replace."""
    value: Mapping[str, Any] = {"a": {"b": {text: [{}, text]}}}
    parameter = as_parameter(airflow_json_text(value, "x"))
    assert "{{" not in parameter
    assert json.loads(parameter) == value


@pytest.mark.parametrize("text", ["", "hello", "42", "{}", '{"return_value": 1, "b": 2}'])
def test_text_that_is_no_result(text: str) -> None:
    """Only the text that the notebook of a function gives is a result."""
    with pytest.raises(ValueError):  # noqa: PT011
        read_result_text(text)
    assert read_result_text('{"return_value": null}') is None
