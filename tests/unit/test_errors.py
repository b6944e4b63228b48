"""The mapping from answers to exceptions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_jobs_provider.api import errors
from airflow_jobs_provider.api.errors import answer_error

bodies = st.one_of(
    st.binary(max_size=200),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda s: st.lists(s) | st.dictionaries(st.text(), s),
    ).map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {},
        optional={
            "error_code": st.text() | st.integers() | st.none(),
            "message": st.text() | st.none(),
        },
    ).map(lambda value: json.dumps(value).encode()),
)


@given(status=st.integers(100, 999), retry_after=st.text(max_size=20), body=bodies)
def test_the_mapping_is_total(status: int, retry_after: str, body: bytes) -> None:
    """Every answer that is not good becomes one exception of the tree."""
    error = answer_error(status, {"retry-after": retry_after}, body)
    assert isinstance(error, errors.ErrorAnswer)
    assert error.status == status
    assert str(status) in str(error)


def error_of(status: int, payload: Any, **headers: str) -> errors.ErrorAnswer:
    """Map an error answer."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return answer_error(status, headers, body)


def test_the_facts_are_attributes() -> None:
    """Status, code, words and request id can be had without reading the text."""
    payload = {"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}
    error = error_of(400, payload, **{"x-databricks-request-id": "abc"})
    facts = (error.status, error.error_code, error.api_message, error.request_id)
    assert facts == (400, "INVALID_PARAMETER_VALUE", "no", "abc")
    assert "[request abc]" in str(error)


def test_a_gateways_page_shows_as_its_title() -> None:
    """HTML is told by its title, not poured into the log."""
    error = error_of(502, b"<html><head><title>502 Bad  Gateway</title></head><body>" + b"x" * 9999)
    assert "'502 Bad Gateway'" in str(error)
    assert len(str(error)) < 400


@pytest.mark.parametrize(
    ("value", "seconds"), [("", None), ("7", 7), ("0.5", 0.5), ("-3", 0), ("soon", None)]
)
def test_retry_after(value: str, seconds: float | None) -> None:
    """Retry-After counts in seconds; what cannot be read counts as absent."""
    error = error_of(429, {}, **{"retry-after": value})
    assert isinstance(error, errors.RateLimited)
    assert error.retry_after == seconds


def test_retry_after_as_a_date() -> None:
    """Retry-After may be an HTTP date."""
    error = error_of(429, {}, **{"retry-after": "Fri, 31 Dec 2999 23:59:59 GMT"})
    assert isinstance(error, errors.RateLimited)
    assert error.retry_after is not None
    assert error.retry_after > 1e9


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """Each exception stands in the module's drawing, under its base."""
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.JobsApiError)
    ]
    lines = (errors.__doc__ or "").splitlines()
    depth = {}
    for line in lines:
        for kind in kinds:
            if kind.__name__ in line.split():
                depth[kind] = line.index(kind.__name__)
    assert (
        set(depth) == set(kinds) == {getattr(errors, n) for n in errors.__all__ if n[0].isupper()}
    )
    for kind in kinds:
        if kind is not errors.JobsApiError:
            assert max(depth.get(base, 0) for base in kind.__bases__) < depth[kind]
