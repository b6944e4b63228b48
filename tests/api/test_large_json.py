"""Parsing a large JSON object piece by piece: the same result, and no long hold of the GIL."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_jobs_provider.api import large_json
from airflow_jobs_provider.api.large_json import PIECE_CHARACTERS, parse_large_object
from airflow_jobs_provider.api.responses import InvalidResponseError, parse_json_object
from tests.fakes.many_runs import Run
from tests.helpers.fuzz import examples

RUNS = 1000
PAGE = json.dumps(
    {"runs": [Run(n + 1, 1e9 + n, 2e9).as_json(1.5e9) for n in range(RUNS)], "has_more": True}
)
VALUE = {
    "": {},
    "a": [],
    "b": {"c": [1, {"d": [2.5, [None]]}], "é": '\u2028\\"/\ud83d\x7f'},
    "e": [True, False, {}, [], "", "x,]}", {"f": {"g": "}"}}, -0.0, 10**300, 1e-7, float("inf")],
    "h": None,
    "run_id": 2**64,
}


def outcome(parse: Callable[[str], Any], text: str) -> str:
    """Return the parsed value as text, or the error. The text tells 1 from 1.0."""
    try:
        return repr(parse(text))
    except (ValueError, RecursionError) as error:
        return repr(error)


@pytest.mark.parametrize("indent", [None, 0, 3, "\r\n\t"])
@pytest.mark.parametrize("separators", [(",", ":"), (" , ", " : "), ("\n,", "\t:")])
def test_an_object_is_parsed_as_by_the_json_module(
    indent: int | str | None, separators: tuple[str, str]
) -> None:
    """Whatever is in it, with whitespace or without."""
    for is_ascii in (True, False):
        text = json.dumps(VALUE, indent=indent, separators=separators, ensure_ascii=is_ascii)
        assert parse_large_object(text) == VALUE
        assert outcome(parse_large_object, text) == repr(VALUE)


@given(st.text(alphabet='{}[]":,0-.eE+ntrufalsNI \n\t\x0b\\\x00é', max_size=25))
@example("")
@example(" ")
@example("[1]")
@example("7")
@example('{"a": 1, "b": [2], "a": [3, 4], "b": 5}')
@example('{"a": [1,]}')
@example('{"a": [,1]}')
@example('{"a": 1,}')
@example('{"a" 1}')
@example('{"a": [1 2]}')
@example("{'a': 1}")
@example("{1: 1}")
@example('{"a": 1} x')
@example('{"a": 1}{}')
@example('{"a": 1')
@example('{"a": [1')
@example('{"a": ')
@example('{"a')
@example('\ufeff{"a": 1}')
@example('{"a":\u00a01}')
@example('{"a": [NaN, -Infinity, 1E400]}')
@example('{"a": ["\\ud83d"]}')
@example('{"a": [' + 5000 * "1" + "]}")
@example('{"a": [' + 100_000 * "[" + "]}")
@example(100_000 * '{"a":')
@examples(300)
def test_any_text_is_parsed_as_by_the_json_module(text: str) -> None:
    """An error is the same one."""
    assert outcome(parse_large_object, text) == outcome(json.loads, text)


@pytest.mark.parametrize("cut", [1, 7, 1000, len(PAGE) // 2, len(PAGE) - 1])
def test_a_large_response_that_is_cut_off_is_not_json(cut: int) -> None:
    """As a small one."""
    assert parse_json_object(PAGE[:cut].encode() + 200_000 * b" ") is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-le"])
def test_a_large_response_in_another_encoding(encoding: str) -> None:
    """The json module detects it."""
    value = {"runs": [{"run_id": 7, "run_name": "é" + 200_000 * "x"}]}
    body = json.dumps(value, ensure_ascii=False).encode(encoding)
    assert parse_json_object(body) == json.loads(body) == value


def test_a_large_response_that_is_no_object() -> None:
    """It is refused in the same words as a small one."""
    for body in (b"[1]", b"[" + 200_000 * b" " + b"1]"):
        with pytest.raises(InvalidResponseError, match="the JSON is not an object"):
            parse_json_object(body)


@pytest.mark.parametrize("more", [0, 200_000])
def test_the_hook_gets_the_items_of_all_lists(more: int) -> None:
    """Those of lists that are values of the object, whatever they are; no others."""
    items = [1, None, {"a": [2]}, [3], "x"]
    body = json.dumps({"runs": items, "one": 4, "of": {"b": [5]}, "none": [], "others": [6]})
    seen: list[Any] = []

    def hook(item: Any) -> int:
        seen.append(item)
        return len(seen)

    assert parse_json_object(body.encode() + more * b" ", hook) == {
        "runs": [1, 2, 3, 4, 5],
        "one": 4,
        "of": {"b": [5]},
        "none": [],
        "others": [6],
    }
    assert seen == [*items, 6]


def test_other_threads_run_while_a_page_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """They get the GIL after each piece: so many characters, and the rest of a run."""
    parsed: list[int] = []
    at_pauses: list[int] = []
    clock = SimpleNamespace(sleep=lambda _seconds: at_pauses.append(len(parsed)))
    monkeypatch.setattr(large_json, "time", clock)
    page = parse_large_object(PAGE, lambda run: parsed.append(run["run_id"]))
    assert page["has_more"]
    assert parsed == list(range(1, RUNS + 1))
    runs_in_piece = -(-PIECE_CHARACTERS * RUNS // len(PAGE)) + 1
    gaps = [after - before for before, after in zip([0, *at_pauses], at_pauses, strict=False)]
    assert max(gaps) <= runs_in_piece
    assert RUNS - at_pauses[-1] <= runs_in_piece
