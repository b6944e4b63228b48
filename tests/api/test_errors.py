"""The mapping from answers to exceptions."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_jobs_provider.api import errors
from airflow_jobs_provider.api.error_mapping import error_from_response

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


@pytest.mark.exhaustive
@given(status=st.integers(100, 999), retry_after=st.text(max_size=20), body=bodies)
def test_the_mapping_is_total(status: int, retry_after: str, body: bytes) -> None:
    """Every answer that is not good becomes one exception of the tree."""
    error = error_from_response(status, {"retry-after": retry_after}, body)
    assert isinstance(error, errors.APIStatusError)
    assert error.status == status
    assert str(status) in str(error)


def error_of(status: int, payload: Any, **headers: str) -> errors.APIStatusError:
    """Map an error answer."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return error_from_response(status, headers, body)


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


def retry_after(value: str) -> float | None:
    """Map a 429 with this Retry-After."""
    error = error_of(429, {}, **{"retry-after": value})
    assert isinstance(error, errors.RateLimitError)
    return error.retry_after


@pytest.mark.parametrize(("value", "seconds"), [("1", 1), (" 7 ", 7), ("99999999", 99999999)])
def test_retry_after_in_seconds(value: str, seconds: float) -> None:
    """Retry-After counts in whole seconds."""
    assert retry_after(value) == seconds


def test_retry_after_as_a_date() -> None:
    """Retry-After may be an HTTP date in the future."""
    seconds = retry_after("Fri, 31 Dec 2999 23:59:59 GMT")
    assert seconds is not None
    assert seconds > 1e9
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 55 < (retry_after(soon) or 0) <= 60


@pytest.mark.parametrize(
    "value",
    [
        *("", "0", "00", "-3", "0.5", "1.5", "nan", "inf", "-inf", "1e3", "1_0", "\u0661", "soon"),
        "9" * 5000,
        "Wed, 21 Oct 2015 07:28:00 GMT",
        "Wed, 21 Oct 2015 07:28:00 +99999999999999",
        "Wed, 21 Oct 99999 07:28:00 GMT",
        "Wed, 99 Oct 2055 77:28:00 GMT",
    ],
)
def test_a_retry_after_that_asks_for_no_wait_is_absent(value: str) -> None:
    """Less than a second, a past date and what cannot be read: the policy's own waits count."""
    assert retry_after(value) is None


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """Each exception stands in the module's drawing, under its base."""
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.JobsAPIError)
    ]
    lines = (errors.__doc__ or "").splitlines()
    depth = {}
    for line in lines:
        for kind in kinds:
            if kind.__name__ in line.split():
                depth[kind] = line.index(kind.__name__)
    exported = [getattr(errors, name) for name in errors.__all__]
    assert set(depth) == set(kinds) == {kind for kind in exported if isinstance(kind, type)}
    for kind in kinds:
        if kind is not errors.JobsAPIError:
            assert max(depth.get(base, 0) for base in kind.__bases__) < depth[kind]
