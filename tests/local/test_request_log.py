"""The log of requests and the recording stay small."""

from __future__ import annotations

import gc
import json
import logging
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.local.http import recording
from airflow_jobs_provider.local.http.recording import Recording
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


def _lines_of(file: Path) -> list[str]:
    return file.read_text().splitlines()


def test_recording_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last lines are kept, in two files, also those of a workspace that ran before."""
    monkeypatch.setattr(recording, "MAX_FILE_BYTES", 100)
    for begin in (0, 50):
        made = Recording(tmp_path)
        for number in range(begin, begin + 50):
            made.add(f"line {number:02}")
        made.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["requests.1.jsonl", "requests.jsonl"]
    assert all(file.stat().st_size <= 104 for file in files)
    assert all(file.stat().st_mode & 0o77 == 0 for file in files)
    lines = _lines_of(files[0]) + _lines_of(files[1])
    assert lines == [f"line {number:02}" for number in range(100 - len(lines), 100)]
    assert len(lines) >= 13


def test_refused_requests_do_not_fill_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first ones are recorded, with a short path. A warning tells once that no more are."""
    monkeypatch.setattr(recording, "MAX_REFUSED", 3)
    log = RequestLog(tmp_path)
    with caplog.at_level(logging.WARNING, logger=recording.__name__):
        for _ in range(10):
            _log_refused(log, "/" + "x" * 5000)
    log.close()
    lines = [json.loads(line) for line in _lines_of(tmp_path / "requests.jsonl")]
    assert [(line["status"], len(line["path"])) for line in lines] == [(403, 200)] * 3
    assert [record.message for record in caplog.records] == [
        "3 requests were refused (401, 403): no more of them are recorded"
    ]


@pytest.mark.parametrize("step", ["write", "rotate"])
def test_recording_that_cannot_be_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    step: str,
) -> None:
    """A disk is full, or the folder is gone. The requests are answered; one warning says why."""
    if step == "write":
        if not Path("/dev/full").exists():
            pytest.skip("this system has no /dev/full")
        (tmp_path / "requests.jsonl").symlink_to("/dev/full")
    else:
        monkeypatch.setattr(recording, "MAX_FILE_BYTES", 1)
    made = Recording(tmp_path)
    if step == "rotate":
        (tmp_path / "requests.jsonl").unlink()
    with caplog.at_level(logging.WARNING, logger=recording.__name__):
        made.add("a request")
        made.add("another one")
    made.close()
    (record,) = caplog.records
    assert record.message.startswith("Requests are no longer recorded: [Errno")
