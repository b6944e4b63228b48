"""The mapping from responses of the service to the exceptions of :mod:`.errors`.

=========================================  ==================================
Response                                   Exception
=========================================  ==================================
2xx, no JSON; 1xx                          ``UnexpectedResponseError`` (``is_page``)
2xx, JSON that does not fit the endpoint   ``UnexpectedResponseError`` (``does_not_fit``)
3xx                                        ``UnexpectedResponseError``
5xx                                        ``ServerError``
429                                        ``RateLimitError``
401, 403; 400 about an expired token       ``AuthenticationError``
4xx about a run or job that does not exist ``NotFoundError``
400 COULD_NOT_ACQUIRE_LOCK                 ``ConflictError``
404 without an error code of the API       ``UnexpectedResponseError``
any other 4xx                              ``BadRequestError``
=========================================  ==================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from airflow_jobs_provider.api.errors import (
    DOES_NOT_EXIST_CODES,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    NotFoundError,
    RateLimitError,
    ServerError,
    UnexpectedResponseError,
)
from airflow_jobs_provider.api.ids import MAX_ID
from airflow_jobs_provider.api.responses import InvalidResponseError, parse_json_object
from airflow_jobs_provider.api.text import printable

__all__ = ["error_from_response", "invalid_response_error"]

# Characters of a response that an error quotes.
_BODY_LENGTH = 500
_PAGE_LENGTH = 200
# Bytes of a page, and characters of a message, that are searched.
_PAGE_BYTES = 4_000
_SEARCHED_LENGTH = 1_000
_REQUEST_ID_HEADERS = ("x-databricks-request-id", "x-request-id")
# Seen: "Run 7 does not exist." and "Run: 7 in job: 3 doesn't exist", likewise for a job.
# Compiled at first use: most tasks meet no error.
_DOES_NOT_EXIST = r"(?i)\b(run|job)\b.*\b(does not|doesn't) exist"
_WHOLE_SECONDS = r"[0-9]{1,15}"
_EXPIRED = r"(?i)\b(token|credential)s?\b.*\bexpired?\b"


def error_from_response(status: int, headers: Mapping[str, str], body: bytes) -> APIStatusError:
    """Return the exception for a response that is not a JSON object with a 2xx status.

    :param status: HTTP status; any number.
    :param headers: headers of the response, as the case-insensitive mapping of the HTTP library.
    :param body: the decoded body.
    """
    try:
        payload = parse_json_object(body)
    except InvalidResponseError:
        payload = None
    facts: dict[str, Any] = {"status": status, "request_id": _request_id(headers)}
    if payload:
        facts["error_code"] = _scalar(payload.get("error_code") or payload.get("error"))
        facts["api_message"] = _scalar(payload.get("message") or payload.get("error_description"))
    if payload is None:
        facts["excerpt"] = _excerpt(body)
    elif payload and not (facts["error_code"] or facts["api_message"]):
        facts["excerpt"] = _begin(body)
    if 300 <= status < 400:
        facts["excerpt"] = "a redirect, which is not followed with credentials"
        return UnexpectedResponseError(**facts)
    if status < 400:
        return UnexpectedResponseError(is_page=True, **facts)
    if status >= 500:
        return ServerError(**facts)
    if status == 429:
        return RateLimitError(retry_after=_retry_after(headers.get("retry-after")), **facts)
    if status in (401, 403):
        return AuthenticationError(**facts)
    error_code, message = facts.get("error_code", ""), facts.get("api_message", "")
    message = message[:_SEARCHED_LENGTH]
    if error_code in DOES_NOT_EXIST_CODES or re.search(_DOES_NOT_EXIST, message):
        return NotFoundError(**facts)
    if error_code == "COULD_NOT_ACQUIRE_LOCK":
        return ConflictError(**facts)
    if re.search(_EXPIRED, message):
        return AuthenticationError(**facts)
    if status == 404 and not error_code:
        # Not the API's own 404, so the URL is wrong, not the id.
        return UnexpectedResponseError(**facts)
    return NotFoundError(**facts) if status == 404 else BadRequestError(**facts)


def invalid_response_error(
    status: int, headers: Mapping[str, str], body: bytes, error: InvalidResponseError
) -> UnexpectedResponseError:
    """Return the exception for a successful response that does not fit the endpoint.

    :param status: HTTP status.
    :param headers: headers of the response.
    :param body: the decoded body, or its beginning.
    :param error: what does not fit.
    """
    return UnexpectedResponseError(
        status=status,
        request_id=_request_id(headers),
        excerpt=f"with what does not fit, {error.problem}: {_begin(body)}",
    )


def _scalar(value: object) -> str:
    """Return a JSON string or number as text; empty for any other value."""
    # Python does not convert a number of thousands of digits.
    is_number = isinstance(value, (int, float)) and abs(value) <= MAX_ID
    return str(value) if value and (is_number or isinstance(value, str)) else ""


def _begin(body: bytes) -> str:
    """Return the beginning of a body, on one line."""
    # A character has at most four bytes.
    text = body.strip()[: 4 * _BODY_LENGTH + 4].decode("utf-8", errors="replace")
    return printable(text, _BODY_LENGTH) or "nothing"


def _request_id(headers: Mapping[str, str]) -> str:
    return next((headers[name] for name in _REQUEST_ID_HEADERS if headers.get(name)), "")


def _excerpt(body: bytes) -> str:
    """Describe a body that is not the API's by its title, or by its beginning."""
    text = body[:_PAGE_BYTES].decode("utf-8", errors="replace")
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    words = " ".join((title.group(1) if title else re.sub(r"<[^>]*>", " ", text)).split())
    return f"with no JSON object but '{printable(words, _PAGE_LENGTH)}'"


def _retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header; None if they are less than one or invalid.

    The header is a whole number of seconds or an HTTP date. An invalid one counts as absent, so
    that the growing waits of the retry policy apply.
    """
    text = (value or "").strip()
    if re.fullmatch(_WHOLE_SECONDS, text):
        return float(text) if int(text) >= 1 else None
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return seconds if seconds >= 1 else None
