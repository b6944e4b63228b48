"""How a failed run fails its task: over real HTTP, response by response."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from tests.fakes.scripted_server import ScriptedServer, answer
from tests.helpers.responses import (
    FAILED,
    FAILED_OUTPUT,
    FAILED_RUN,
    GONE,
    LAUNCHED,
    RUNNING,
    run,
)
from tests.helpers.tasks import (
    submit,
)


def test_a_failure_says_why(context: Any, server: ScriptedServer) -> None:
    """State, message, the run's own error and the page's URL; the trace is an attribute."""
    server.will(LAUNCHED, RUNNING, FAILED, FAILED_OUTPUT)
    operator = submit()
    with pytest.raises(DatabricksRunFailedError) as caught:
        operator.execute(context)
    error = caught.value
    assert str(error).splitlines() == [
        "Run 7 failed (INTERNAL_ERROR/FAILED: Workload failed, see run output for details)",
        "ValueError: no rows",
        "See http://w/7",
    ]
    assert (error.run_id, error.state.result_state) == (7, "FAILED")
    assert error.outputs[0].error_trace == "Traceback: line 1"


def test_the_services_text_cannot_pose_as_lines_of_the_log(
    context: Any,
    server: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Line breaks and control characters are shown as escapes, in the log and in the exception."""
    forged = "no rows\n[2026-01-01] ERROR - forged\x1b[2J\r"
    failed = run("INTERNAL_ERROR", "FAILED", forged)
    output = {"metadata": failed, "error": forged + "!", "error_trace": forged}
    server.will(LAUNCHED, answer(run("RUNNING", None, forged)), answer(failed), answer(output))
    caplog.set_level("INFO")
    with pytest.raises(DatabricksRunFailedError) as caught:
        submit().execute(context)
    for text in (str(caught.value), caplog.text + capsys.readouterr().out):
        assert r"no rows\n[2026-01-01] ERROR - forged\x1b[2J\r" in text
        assert not any(line.startswith("[2026-01-01]") for line in text.splitlines())
        assert "\x1b" not in text
    # The object keeps what the service said.
    assert caught.value.state.state_message == forged
    assert caught.value.outputs[0].error_trace == forged


@pytest.mark.parametrize("url", ["javascript:alert(1)", "http://w/7\nforged", "/job/3", ""])
def test_a_page_that_no_browser_should_open(
    url: str,
    context: Any,
    server: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It counts as missing: in the log, the XCom behind the link, and the exception."""
    running = {**run("RUNNING"), "run_page_url": url}
    failed = {**FAILED_RUN, "run_page_url": url}
    server.will(LAUNCHED, answer(running), answer(failed), FAILED_OUTPUT)
    caplog.set_level("INFO")
    with pytest.raises(DatabricksRunFailedError) as caught:
        submit().execute(context)
    assert not context["ti"].xcoms.get("run_page_url")
    assert "See" not in str(caught.value)
    log = caplog.text + capsys.readouterr().out
    assert "see the workspace" in log
    assert url == "" or url not in log


def test_a_failure_says_nothing_twice(context: Any, server: ScriptedServer) -> None:
    """Where the run's own error is the state message already, it stands there alone."""
    words = 'Unable to access the notebook "/etl"'
    lost = run("INTERNAL_ERROR", "FAILED", words)
    server.will(LAUNCHED, answer(lost), answer({"metadata": lost, "error": words}))
    with pytest.raises(DatabricksRunFailedError) as caught:
        submit().execute(context)
    assert str(caught.value).count(words) == 1


def test_a_failure_names_every_failed_task(context: Any, server: ScriptedServer) -> None:
    """A run of several tasks tells which failed, each with its own error."""
    good, bad = run("TERMINATED", "SUCCESS"), run("TERMINATED", "FAILED")
    tasks = [
        {**good, "task_key": "a", "run_id": 8},
        {**bad, "task_key": "b", "run_id": 9},
        {**bad, "task_key": "c", "run_id": 10},
    ]
    server.will(
        LAUNCHED,
        answer(run("TERMINATED", "FAILED", tasks=tasks)),
        answer({"metadata": tasks[1], "error": "ValueError: no rows"}),
        answer({"error_code": "INVALID_PARAMETER_VALUE", "message": "No output."}, 400),
    )
    with pytest.raises(DatabricksRunFailedError) as caught:
        submit().execute(context)
    assert str(caught.value).splitlines()[1:] == [
        "Task 'b': ValueError: no rows",
        "Task 'c': TERMINATED/FAILED",
        "See http://w/7",
    ]


def test_unreadable_output_does_not_hide_a_failure(context: Any, server: ScriptedServer) -> None:
    """The state and the page are told even if the error cannot be read."""
    server.will(LAUNCHED, FAILED, GONE)
    with pytest.raises(DatabricksRunFailedError, match="Workload failed"):
        submit().execute(context)


@pytest.mark.parametrize(
    "connection",
    [None, {"host": "w.net"}, {"host": "a b", "password": "t"}],
    ids=["deleted", "without a token", "with an invalid host"],
)
def test_a_connection_that_was_changed_meanwhile_does_not_change_the_result(
    connection: dict[str, str] | None, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that succeeded while the task was deferred did so; a failure is told as it is."""
    name = "AIRFLOW_CONN_DATABRICKS_DEFAULT"
    monkeypatch.delenv(name)
    if connection is not None:
        monkeypatch.setenv(name, json.dumps({"conn_type": "databricks_jobs", **connection}))
    state = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}
    event = {"run": {"run_id": 7, "job_id": 1, "state": state}}
    assert submit(deferrable=True).execute_complete(context, event) is None
    state |= {"result_state": "FAILED", "state_message": "Workload failed"}
    with pytest.raises(DatabricksRunFailedError, match="Workload failed"):
        submit(deferrable=True).execute_complete(context, event)
