"""The requests that clients sent, as a part of a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from airflow_jobs_provider.local.http.request_log import LoggedRequest
from airflow_jobs_provider.local.pages import snippets
from airflow_jobs_provider.local.pages.render import render

__all__ = ["render_requests"]

_SHOWN = 100
_MAX_TEXT = 200
_FAILED = 400


def render_requests(
    requests: Sequence[LoggedRequest], query: Mapping[str, str], base_url: str
) -> str:
    """Return the latest requests that a query selects.

    :param query: ``text``, in the path or the data; ``failed``, if not empty, for those that were
        answered with an error or not at all.
    """
    text = query.get("text", "").strip()[:_MAX_TEXT].lower()
    found: list[tuple[LoggedRequest, int]] = []
    for one in reversed(requests):
        is_failed = one.status is None or one.status >= _FAILED
        if query.get("failed") and not is_failed:
            continue
        if text and text not in f"{one.method} {one.path} {_text(one)}".lower():
            continue
        if found and _is_repeated(one, found[-1][0]):
            # A client that waits sends the same request again and again.
            found[-1] = found[-1][0], found[-1][1] + 1
            continue
        if len(found) > _SHOWN:
            break
        found.append((one, 1))
    return render(
        "request_list.html",
        requests=[
            (
                one,
                count,
                snippets.curl(one.method, base_url + one.path, one.data),
                snippets.dag_of(one.endpoint, one.data),
            )
            for one, count in found[:_SHOWN]
        ],
        has_more=len(found) > _SHOWN,
        failed=_FAILED,
    )


def _is_repeated(one: LoggedRequest, other: LoggedRequest) -> bool:
    return (one.method, one.path, one.status, one.data) == (
        other.method,
        other.path,
        other.status,
        other.data,
    )


def _text(request: LoggedRequest) -> str:
    return json.dumps(request.data, ensure_ascii=False)
