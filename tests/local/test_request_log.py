"""The log of requests stays small."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

from airflow_jobs_provider.local.http.request_log import RequestLog


class _Request:
    method = "GET"

    def __init__(self, path: str) -> None:
        self.path = path


class _Response:
    status = 403


def _log_refused(log: RequestLog, path: str) -> None:
    request: Any = _Request(path)
    response: Any = _Response()
    log.add_refused(request, response)


def test_forgotten_requests_take_no_memory() -> None:
    """The paths of requests are forgotten with them, on each version of Python."""
    log = RequestLog()
    tracemalloc.start()
    try:
        for number in range(3_000):
            _log_refused(log, f"/api/2.1/{number}/{'x' * 190}")
        log.clear()
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A thousand paths may be shared.
    assert kept < 500_000


def test_equal_paths_are_one_object() -> None:
    """A poller asks for the same path again and again."""
    log = RequestLog()
    for number in range(3):
        _log_refused(log, "/".join(["", "api", "2.1", "jobs", "runs", "list"][: 6 + number]))
    assert len({id(one.path) for one in log._requests}) == 1
