"""What the log says while a run is waited for."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from airflow_jobs_provider.api.workflows.progress import (
    REPEAT_SECONDS,
    SECONDS_BETWEEN_TASK_READS,
    RunProgress,
    run_log,
)


class Watched:
    """A run that is polled, on a clock of the test's own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.progress = RunProgress(7, logging.getLogger("task"), clock=lambda: self.now)

    def poll(
        self,
        seconds: float,
        life: str,
        result: str | None = None,
        *,
        message: str = "",
        **fields: Any,
    ) -> None:
        """Let time pass and look."""
        self.now += seconds
        state = {"life_cycle_state": life, "result_state": result, "state_message": message}
        self.progress.observe({"state": state, **fields})


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


def test_the_service_s_message_comes_after_the_time(caplog: pytest.LogCaptureFixture) -> None:
    """The time in the state before does not read as a part of the message."""
    caplog.set_level("INFO")
    watched = Watched()
    watched.poll(0, "PENDING", message="Waiting for cluster")
    watched.poll(4, "INTERNAL_ERROR", "FAILED", message="Workload failed", setup_duration=1_000)
    assert caplog.messages == [
        "Run 7 is PENDING: Waiting for cluster",
        "Run 7 is INTERNAL_ERROR/FAILED after 4 s PENDING: Workload failed; setup 1 s",
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


def tasks(**states: str) -> list[dict[str, Any]]:
    """Return tasks by key: RUNNING, BLOCKED, or the result of one that has ended."""
    active = ("RUNNING", "BLOCKED")
    return [
        {
            "task_key": key,
            "state": {"life_cycle_state": state}
            if state in active
            else {"life_cycle_state": "TERMINATED", "result_state": state},
        }
        for key, state in states.items()
    ]


def test_a_line_when_tasks_have_ended(caplog: pytest.LogCaptureFixture) -> None:
    """At most one a minute; none for a task that only starts, and none at the end of the run."""
    caplog.set_level("INFO")
    watched = Watched()
    watched.poll(0, "RUNNING", tasks=tasks(a="RUNNING", b="RUNNING", c="BLOCKED"))
    watched.poll(5, "RUNNING", tasks=tasks(a="SUCCESS", b="RUNNING", c="BLOCKED"))
    for _ in range(11):
        watched.poll(5, "RUNNING", tasks=tasks(a="SUCCESS", b="FAILED", c="BLOCKED"))
    assert len(caplog.messages) == 2
    watched.poll(5, "RUNNING", tasks=tasks(a="SUCCESS", b="FAILED", c="RUNNING"))
    watched.poll(120, "RUNNING", tasks=tasks(a="SUCCESS", b="FAILED", c="RUNNING"))
    watched.poll(60, "TERMINATED", "FAILED", tasks=tasks(a="SUCCESS", b="FAILED", c="SUCCESS"))
    assert caplog.messages == [
        "Run 7 is RUNNING",
        "Run 7: 1 of 3 tasks ended (33 %): succeeded: a; running: b",
        "Run 7: 2 of 3 tasks ended (66 %): failed: b; succeeded: a; running: c",
        "Run 7 is TERMINATED/FAILED after 4 min 5 s RUNNING",
    ]


def test_the_line_of_an_ended_run_tells_its_cost(caplog: pytest.LogCaptureFixture) -> None:
    """A run that has not ended has no such times yet."""
    caplog.set_level("INFO")
    watched = Watched()
    times: dict[str, Any] = {"setup_duration": 60_000, "execution_duration": 35_000}
    watched.poll(0, "RUNNING", **times)
    watched.poll(100, "TERMINATED", "SUCCESS", **times)
    assert caplog.messages == [
        "Run 7 is RUNNING",
        "Run 7 is TERMINATED/SUCCESS after 1 min 40 s RUNNING; setup 1 min 0 s, execution 35 s",
    ]


@pytest.mark.parametrize(
    "fields",
    [{"tasks": [1, 2]}, {"tasks": 3}, {"cluster_instance": "c"}, {"setup_duration": "long"}],
)
def test_what_only_the_log_needs_does_not_end_the_wait(
    fields: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A field of another type is left out."""
    caplog.set_level("INFO")
    watched = Watched()
    watched.poll(0, "RUNNING", **fields)
    watched.poll(1, "TERMINATED", "SUCCESS", **fields)
    assert caplog.messages == ["Run 7 is RUNNING", "Run 7 is TERMINATED/SUCCESS after 1 s RUNNING"]


OF_TASKS = {"format": "MULTI_TASK"}


def test_tasks_are_read_for_the_log_every_ten_minutes() -> None:
    """Only of a run of several tasks whose tasks no poll reads."""
    watched = Watched()
    due = watched.progress.tasks_are_due
    assert not due(OF_TASKS)
    watched.now = REPEAT_SECONDS
    assert not due({})
    assert not due({"format": "SINGLE_TASK"})
    assert not due({**OF_TASKS, "tasks": tasks(a="RUNNING")})
    assert due(OF_TASKS)
    watched.now += REPEAT_SECONDS - 1
    assert not due(OF_TASKS)
    watched.now += 1
    assert due(OF_TASKS)
    # Version 2.0 has no tasks. They are not asked for again.
    watched.progress.observe_tasks(OF_TASKS)
    watched.now += 10 * REPEAT_SECONDS
    assert not due(OF_TASKS)


def test_all_runs_share_a_limit_of_reads_for_the_log() -> None:
    """A thousand runs do not send a thousand requests at once."""
    watched = [Watched() for _ in range(1000)]
    reads = 0
    for second in range(60):
        for one in watched:
            one.now = 5_000.0 + REPEAT_SECONDS + second
            reads += one.progress.tasks_are_due(OF_TASKS)
    assert reads == 60 / SECONDS_BETWEEN_TASK_READS


class StructuredLog:
    """A logger that takes fields, as those of structlog do."""

    def __init__(self, lines: list[tuple[str, dict[str, Any]]], fields: dict[str, Any]) -> None:
        self.lines = lines
        self.fields = fields

    def bind(self, **fields: Any) -> StructuredLog:
        """Return a logger with more fields."""
        return StructuredLog(self.lines, {**self.fields, **fields})

    def info(self, msg: str, /, *args: Any) -> None:
        """Log a line."""
        self.lines.append((msg % args, self.fields))

    warning = error = info


def test_lines_carry_the_ids_where_the_log_is_structured() -> None:
    """Each line those of the run that it is about, which a retry of the service replaces."""
    log = StructuredLog([], {"dag_id": "d"})
    progress = RunProgress(7, log)
    progress.observe({"job_id": 11, "state": {"life_cycle_state": "RUNNING"}})
    progress.next_attempt(8)
    progress.observe({"job_id": 11, "state": {"life_cycle_state": "STRANGE"}})
    ids = [(f.pop("databricks_run_id"), f.pop("databricks_job_id")) for _, f in log.lines]
    assert ids == [(7, 11), (7, 11), (8, 11), (8, 11)]
    assert [fields for _, fields in log.lines] == 4 * [{"dag_id": "d"}]


def test_a_plain_log_stays_as_it_is() -> None:
    """It has no fields; and without an id there is none to add."""
    plain, structured = logging.getLogger("task"), StructuredLog([], {})
    assert run_log(plain, 7, 11) is plain
    assert run_log(structured, None) is structured


@pytest.mark.parametrize("more", [{"next_page_token": "b"}, {"has_more": True}])
def test_a_share_is_one_of_all_tasks(
    more: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll reads the first hundred tasks of a run. So all of them are read for the log."""
    caplog.set_level("INFO")
    watched = Watched()
    monkeypatch.setattr(RunProgress, "_tasks_read_at", float("-inf"))
    page = {**OF_TASKS, **more, "tasks": tasks(a="SUCCESS", b="RUNNING")}
    watched.poll(0, "RUNNING", **page)
    watched.now = REPEAT_SECONDS
    assert watched.progress.tasks_are_due(page)
    watched.progress.observe_tasks({"tasks": tasks(a="SUCCESS", b="RUNNING", c="RUNNING")})
    assert caplog.messages == [
        "Run 7 is RUNNING",
        "Run 7: 1 of 3 tasks ended (33 %): succeeded: a; running: b, c",
    ]


def test_the_task_of_a_run_of_one_task_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most runs have one task, and there is no progress to tell of it."""
    monkeypatch.setattr(RunProgress, "_tasks_read_at", float("-inf"))
    watched = Watched()
    watched.now = REPEAT_SECONDS
    assert watched.progress.tasks_are_due(OF_TASKS)
    watched.progress.observe_tasks({**OF_TASKS, "tasks": tasks(a="RUNNING")})
    watched.now += 10 * REPEAT_SECONDS
    assert not watched.progress.tasks_are_due(OF_TASKS)
