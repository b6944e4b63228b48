"""When the run of a task is canceled, and when not: over real HTTP, response by response."""

from __future__ import annotations

import copy
import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
)

from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.airflow_compat.lines.airflow_3_0 import Airflow30
from airflow_jobs_provider.api.errors import ResponseLostError
from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from tests.fakes.scripted_server import ScriptedServer, answer, lose
from tests.helpers.responses import (
    FAILED,
    FAILED_OUTPUT,
    FAILED_RUN,
    GONE,
    LAUNCHED,
    OUTPUT,
    RUNNING,
    SUCCEEDED,
    run,
)
from tests.helpers.tasks import (
    canceled_after,
    fail_for_good,
    paths,
    submit,
)


def test_killed_while_waiting(context: Any, server: ScriptedServer) -> None:
    """on_kill cancels the run; before the launch and after the end there is nothing to cancel."""
    submit().on_kill()
    assert server.requests == []
    operator = submit()
    server.will(LAUNCHED, RUNNING, answer({}, 400))
    with pytest.raises(Exception, match="400"):
        operator.execute(context)
    operator.on_kill()
    assert (paths(server)[-1], server.requests[-1].body) == ("runs/cancel", {"run_id": 7})


def test_not_killed_after_the_end(context: Any, server: ScriptedServer) -> None:
    """A run that has ended is not canceled."""
    server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    operator = submit()
    operator.execute(context)
    operator.on_kill()
    assert "runs/cancel" not in paths(server)


def test_not_killed_when_resumed_after_the_end(context: Any, server: ScriptedServer) -> None:
    """A run whose end the trigger has brought is not canceled either."""
    server.will(OUTPUT)
    operator = submit(deferrable=True)
    ended = run("TERMINATED", "SUCCESS")
    assert operator.execute_complete(context, {"run_id": 7, "run": ended}) == "42"
    operator.on_kill()
    assert paths(server) == ["runs/get-output"]


def test_a_cancel_that_fails_does_not_raise(context: Any, server: ScriptedServer) -> None:
    """A kill never fails because of the cancel."""
    server.will(LAUNCHED, RUNNING, answer({}, 400), GONE)
    operator = submit()
    with pytest.raises(Exception, match="400"):
        operator.execute(context)
    operator.on_kill()
    assert paths(server)[-1] == "runs/cancel"


def test_killed_before_the_launch_was_answered(context: Any, server: ScriptedServer) -> None:
    """The run may be there already: the same token brings its id, and it is canceled."""
    operator = submit(databricks_retry_limit=1)
    server.will(lose)
    with pytest.raises(ResponseLostError):
        operator.execute(context)
    server.will(LAUNCHED)
    operator.on_kill()
    assert paths(server) == ["runs/submit", "runs/submit", "runs/cancel"]
    tokens = [r.body["idempotency_token"] for r in server.requests[:2]]
    assert tokens[0] == tokens[1]
    with pytest.raises(AirflowException, match="was killed"):
        operator.execute(context)
    assert len(server.requests) == 3


def test_a_kill_that_cancels_nothing(context: Any, server: ScriptedServer) -> None:
    """cancel_on_kill=False leaves the run alone."""
    server.will(LAUNCHED, RUNNING, answer({}, 400))
    operator = submit(cancel_on_kill=False)
    with pytest.raises(Exception, match="400"):
        operator.execute(context)
    operator.on_kill()
    assert "runs/cancel" not in paths(server)


def test_a_task_that_died_without_a_word_leaves_no_run(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that never ran the task cancels the run that the task's XCom names."""
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", os.environ["AIRFLOW_CONN_DATABRICKS_DEFAULT"])
    monkeypatch.delenv("AIRFLOW_CONN_DATABRICKS_DEFAULT")
    context["name"] = "other"
    context["ti"].xcoms["run_id"] = 7
    operator = submit(databricks_conn_id="{{ name }}")
    fail_for_good(operator, context)
    assert canceled_after(0, server) == [7]
    assert operator.databricks_conn_id == "{{ name }}"


def test_a_task_that_died_before_its_launch_leaves_no_run(
    context: Any, server: ScriptedServer
) -> None:
    """Without the XCom there is nothing to cancel."""
    fail_for_good(submit(), context)
    assert server.requests == []


def test_no_xcom_is_asked_for_where_that_would_end_airflows_processor(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of Airflow 3.0: it speaks to its manager, but not about XComs."""
    context["ti"].xcoms["run_id"] = 7
    monkeypatch.setattr(airflow_line(), "can_read_xcoms", Airflow30().can_read_xcoms)
    processor = SimpleNamespace(ToManager=object)
    monkeypatch.setitem(sys.modules, "airflow.dag_processing.processor", processor)
    fail_for_good(submit(), context)
    assert server.requests == []
    processor.GetXCom = object
    fail_for_good(submit(), context)
    assert canceled_after(0, server) == [7]


def test_a_run_that_can_be_followed_no_more_is_canceled(
    context: Any, server: ScriptedServer
) -> None:
    """A task that fails for good because it cannot read its run does not leave it going on."""
    refused = answer({"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}, 400)
    server.will(LAUNCHED, RUNNING, refused)
    operator = submit()
    with pytest.raises(Exception, match="no"):
        operator.execute(context)
    asked = len(server.requests)
    fail_for_good(operator, context)
    assert canceled_after(asked, server) == [7]
    resumed = submit(deferrable=True)
    with pytest.raises(AirflowException, match="cannot be followed"):
        resumed.execute_complete(context, {"run_id": 8, "error": "no"})
    fail_for_good(resumed, context)
    assert canceled_after(asked + 1, server) == [8]


def test_a_run_that_has_ended_is_not_canceled(context: Any, server: ScriptedServer) -> None:
    """A task whose run failed, timed out or was killed with it cancels nothing any more."""
    server.will(LAUNCHED, RUNNING, FAILED, FAILED_OUTPUT, FAILED_OUTPUT)
    operator, resumed, killed = submit(), submit(deferrable=True), submit()
    with pytest.raises(DatabricksRunFailedError):
        operator.execute(context)
    with pytest.raises(DatabricksRunFailedError):
        resumed.execute_complete(context, {"run": FAILED_RUN})
    killed.on_kill()
    asked = len(server.requests)
    context["ti"].xcoms["run_id"] = 7
    for one in (operator, resumed, killed):
        fail_for_good(one, context)
    assert canceled_after(asked, server) == []


def test_what_the_executed_task_knows_counts(context: Any, server: ScriptedServer) -> None:
    """Airflow 3.0 executes a copy and calls back with what it was copied from."""
    server.will(LAUNCHED, RUNNING, FAILED, FAILED_OUTPUT)
    original = submit()
    context["ti"].task = executed = copy.copy(original)
    with pytest.raises(DatabricksRunFailedError):
        executed.execute(context)
    asked = len(server.requests)
    fail_for_good(original, context)
    assert canceled_after(asked, server) == []


def test_a_failure_callback_of_the_users_own_is_kept() -> None:
    """One, several or none; and where no run is to be canceled there is only theirs."""

    def theirs(context: Any) -> None: ...

    for given, kept in ((None, []), (theirs, [theirs]), ([theirs, theirs], [theirs, theirs])):
        callbacks: Any = submit(on_failure_callback=given).on_failure_callback
        assert callbacks[1:] == kept
        for arguments in ({"cancel_on_kill": False}, {"wait_for_termination": False}):
            left: Any = submit(on_failure_callback=given, **arguments).on_failure_callback or []
            assert (left if isinstance(left, list) else [left]) == kept
