"""The answer of ``runs/export`` gives the same, read as it arrives and read whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_jobs_provider.api.export_stream import iter_views
from airflow_jobs_provider.api.responses import (
    InvalidResponseError,
    NotJSONError,
    parse_json_object,
    parse_views,
)


def split(body: bytes, size: int) -> Iterator[bytes]:
    """Yield the body in parts of so many bytes."""
    return (body[start : start + size] for start in range(0, len(body), size))


def views(body: bytes, size: int) -> list[dict[str, Any]]:
    """Read the views from parts of so many bytes."""
    read: list[dict[str, Any]] = []
    parts: list[str] = []
    for event in iter_views(split(body, size)):
        if isinstance(event, str):
            parts.append(event)
            continue
        read.append({**event, "content": "".join(parts)})
        parts = []
    return read


VIEWS = st.lists(
    st.fixed_dictionaries(
        {"content": st.text(st.characters(codec="utf-8"), max_size=40)},
        optional={
            "name": st.text(st.characters(codec="utf-8")),
            "type": st.sampled_from(["NOTEBOOK", "DASHBOARD"]),
            "later": st.recursive(
                st.none() | st.integers() | st.text(st.characters(codec="utf-8")),
                lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("abc"), inner),
            ),
        },
    ),
    max_size=3,
)


def same_views_in_parts_of_any_size(
    data: st.DataObject, exported: list[dict[str, Any]], size: int, ascii_only: bool
) -> None:
    """Be fields in any order, characters escaped or not, and parts cut where they may."""
    shuffled = [
        {name: view[name] for name in data.draw(st.permutations(list(view)))} for view in exported
    ]
    answer = {"before": [1, {"views": []}], "views": shuffled, "after": 2.5}
    body = json.dumps(answer, ensure_ascii=ascii_only, indent=data.draw(st.none() | st.just(1)))
    expected = [{k: v for k, v in view.items() if v is not None} for view in exported]
    assert views(body.encode(), size) == expected


@pytest.mark.parametrize("examples", [20, pytest.param(60, marks=pytest.mark.exhaustive)])
def test_the_same_views_in_parts_of_any_size(examples: int) -> None:
    """The same random exports each time."""
    check = given(st.data(), VIEWS, st.integers(1, 30), st.booleans())(
        same_views_in_parts_of_any_size
    )
    settings(deadline=None, max_examples=examples, derandomize=True)(check)()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{}",
        b'{"views": null}',
        b'{"views": []}',
        b'{"views": [{}]}',
        b'{"views": [{"content": null, "name": null}]}',
        b'{"views": [{"content": "\\ud83d\\ude00 \\ud83d x \\ud83d\\u0041 \\\\u0041 \\"\\/"}]}',
        b'\xef\xbb\xbf{"views": [{"content": "\xc3\xa4"}]}',
    ],
)
def test_answers_that_fit(body: bytes) -> None:
    """What may be missing may be missing."""
    answer = parse_json_object(body)
    assert answer is not None
    expected = [
        {"content": "", **{k: v for k, v in view.items() if v is not None}}
        for view in parse_views(answer)
    ]
    for size in range(1, 20):
        assert views(body, size) == expected


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"[1]", "the JSON is not an object"),
        (b"null", "the JSON is not an object"),
        (b'{"views": 7}', "views is not a list"),
        (b'{"views": {"content": "x"}}', "views is not a list"),
        (b'{"views": [{}, 7]}', "views[1] is not an object"),
        (b'{"views": [{"content": 7}]}', "views[0].content is not text"),
        (b'{"views": [{"content": "x", "name": []}]}', "views[0].name is not text"),
        (b'{"views": [{"content": "x", "content": "y"}]}', "views[0].content comes twice"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "the JSON is nested too deeply"),
        (b'{"a": "' + b"x" * 2_000_000 + b'"}', "a value beside the contents"),
    ],
)
def test_answers_that_do_not_fit(body: bytes, problem: str) -> None:
    """The error tells where."""
    with pytest.raises(InvalidResponseError) as caught:
        views(body, 1000)
    assert caught.value.problem.startswith(problem)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Sign in</html>",
        b"{",
        b'{"views": [{"content": "x',
        b'{"views": [{"content": "x"}]',
        b'{"views": [{"content": "x"}]} {}',
        b'{"views": [{"content": "x"},]}',
        b'{"views": [{"content" "x"}]}',
        b'{"views": [{"content": "\\x"}]}',
        b'{"views": [{"content": "\\u12"}]}',
        b'{"views": [{"content": "\\ud83d\\u12"}]}',
        b'{"views": [{"content": "a\nb"}]}',
        b'{"views": [{"content": "\xff"}]}',
        b'{"views" [',
        b"{7: 8}",
    ],
)
def test_what_is_no_json(body: bytes) -> None:
    """Cut off, broken or a page."""
    assert parse_json_object(body) is None
    for size in (1, 5, 1000):
        with pytest.raises(NotJSONError):
            views(body, size)
