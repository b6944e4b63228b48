"""What the log says while a run is waited for."""

from __future__ import annotations

import logging

import pytest

from airflow_jobs_provider.api.workflows.progress import RunProgress


class Watched:
    """A run that is polled, on a clock of the test's own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.progress = RunProgress(7, logging.getLogger("task"), clock=lambda: self.now)

    def poll(self, seconds: float, life: str, result: str | None = None) -> None:
        """Let time pass and look."""
        self.now += seconds
        self.progress.observe({"state": {"life_cycle_state": life, "result_state": result}})


def test_a_line_for_each_change_with_the_time_it_took(caplog: pytest.LogCaptureFixture) -> None:
    """Polls that bring nothing new say nothing."""
    caplog.set_level("INFO")
    watched = Watched()
    watched.poll(0, "PENDING")
    for _ in range(10):
        watched.poll(10, "PENDING")
    for _ in range(13):
        watched.poll(10, "RUNNING")
    watched.poll(8000, "TERMINATED", "SUCCESS")
    assert caplog.messages == [
        "Run 7 is PENDING",
        "Run 7 is RUNNING after 1 min 50 s PENDING",
        "Run 7 is TERMINATED/SUCCESS after 2 h 15 min RUNNING",
    ]


def test_a_sign_of_life_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    """A run that stays in one state for half an hour is mentioned three times."""
    caplog.set_level("INFO")
    watched = Watched()
    for _ in range(182):
        watched.poll(10, "RUNNING")
    assert caplog.messages == [
        "Run 7 is RUNNING",
        "Run 7 is still RUNNING, for 10 min 0 s",
        "Run 7 is still RUNNING, for 20 min 0 s",
        "Run 7 is still RUNNING, for 30 min 0 s",
    ]


def test_an_unknown_state_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """It counts as active, and the log says so one time."""
    watched = Watched()
    for _ in range(5):
        watched.poll(1, "HIBERNATING")
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "HIBERNATING" in warning
    assert "active" in warning


def test_what_the_log_has_already(caplog: pytest.LogCaptureFixture) -> None:
    """A state that was told before the wait moved to the triggerer is not told again."""
    caplog.set_level("INFO")
    progress = RunProgress(7, logging.getLogger("task"), known_life_cycle_state="PENDING")
    progress.observe({"state": {"life_cycle_state": "PENDING"}})
    progress.observe({"state": {"life_cycle_state": "RUNNING"}})
    assert caplog.messages == ["Run 7 is RUNNING after 0 s PENDING"]
