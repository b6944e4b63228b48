"""Operators, trigger and sensor over real HTTP, answer by answer.

Airflow's own part in it (scheduler, triggerer, XCom storage) is real in tests/end_to_end; here the
task instance is a note pad, so that each answer of the service can be chosen.
"""

from __future__ import annotations

import copy
import json
import os
import socket
import sys
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    PokeReturnValue,
    TaskDeferred,
)

from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.airflow_compat.lines.airflow_3_0 import Airflow30
from airflow_jobs_provider.api.errors import InvalidRequestError, ResponseLostError
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.exceptions import DatabricksRunFailedError, DatabricksRunTimeoutError
from airflow_jobs_provider.operators.jobs import (
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger
from airflow_jobs_provider.triggers.sensor import DatabricksJobRunSensorTrigger
from tests.fakes.scripted_server import TOKEN, ScriptedServer, answer, lose
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
    XCOMS,
    canceled_after,
    events,
    fail_for_good,
    keep_xcoms,
    paths,
    retrying,
    run_now,
    sensor,
    submit,
)


def test_blocking(context: Any, server: ScriptedServer) -> None:
    """Launch, look until it has ended, read the output: the exit value is returned."""
    server.will(LAUNCHED, RUNNING, RUNNING, SUCCEEDED, OUTPUT)
    assert submit().execute(context) == "42"
    assert context["ti"].xcoms == XCOMS
    assert paths(server) == ["runs/submit", *["runs/get"] * 3, "runs/get-output"]


def test_deferrable(context: Any, server: ScriptedServer) -> None:
    """One launch and one read before deferring; the trigger's event brings the output home."""
    server.will(LAUNCHED, RUNNING)
    operator = submit(deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    assert paths(server) == ["runs/submit", "runs/get"]
    assert context["ti"].xcoms == XCOMS
    server.will(RUNNING, SUCCEEDED)
    trigger = deferred.value.trigger
    assert isinstance(trigger, DatabricksJobRunTrigger)
    (event,) = events(trigger)
    server.will(OUTPUT)
    resumed = getattr(submit(deferrable=True), deferred.value.method_name)
    assert resumed(context, json.loads(json.dumps(event))) == "42"


def test_a_run_that_ended_before_the_first_look_is_not_deferred(
    context: Any, server: ScriptedServer
) -> None:
    """Ended well: the output, at once. Ended badly: the task fails, at once."""
    server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    assert submit(deferrable=True).execute(context) == "42"
    server.will(LAUNCHED, FAILED, FAILED_OUTPUT)
    with pytest.raises(DatabricksRunFailedError):
        submit(deferrable=True).execute(context)


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


def test_several_tasks_return_a_dict(context: Any, server: ScriptedServer) -> None:
    """Deferred or not, the outputs come by task key; the event carries what is needed for it."""
    good = run("TERMINATED", "SUCCESS")
    tasks = [{**good, "task_key": key, "run_id": 8 + n} for n, key in enumerate("ab")]
    server.will(LAUNCHED, RUNNING)
    with pytest.raises(TaskDeferred) as deferred:
        submit(deferrable=True).execute(context)
    server.will(answer({**good, "tasks": tasks, "cluster_spec": {"big": "x" * 9999}}))
    trigger = deferred.value.trigger
    assert isinstance(trigger, DatabricksJobRunTrigger)
    (event,) = events(trigger)
    assert len(json.dumps(event)) < 2000
    server.will(*(answer({"metadata": good, "notebook_output": {"result": r}}) for r in "12"))
    assert submit().execute_complete(context, event) == {"a": "1", "b": "2"}
    assert [r.query["run_id"] for r in server.requests[-2:]] == ["8", "9"]


def test_not_waiting(context: Any, server: ScriptedServer) -> None:
    """wait_for_termination=False launches, and tells the ids and the page."""
    server.will(LAUNCHED, RUNNING)
    assert submit(wait_for_termination=False, deferrable=True).execute(context) is None
    assert context["ti"].xcoms == XCOMS
    assert paths(server) == ["runs/submit", "runs/get"]


def test_no_xcoms_where_none_are_wanted(context: Any, server: ScriptedServer) -> None:
    """do_xcom_push=False pushes nothing and does not read the output; a failure still says why."""
    server.will(LAUNCHED, SUCCEEDED)
    assert submit(do_xcom_push=False).execute(context) is None
    assert context["ti"].xcoms == {}
    assert paths(server) == ["runs/submit", "runs/get"]
    server.will(LAUNCHED, FAILED, FAILED_OUTPUT)
    with pytest.raises(DatabricksRunFailedError, match="no rows"):
        submit(do_xcom_push=False).execute(context)


def test_unreadable_output_does_not_spoil_a_good_run(context: Any, server: ScriptedServer) -> None:
    """The run succeeded, so the task does; its XCom is None."""
    server.will(LAUNCHED, SUCCEEDED, GONE)
    assert submit().execute(context) is None


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


def test_a_lost_launch_answer_launches_once(context: Any, server: ScriptedServer) -> None:
    """The repeated request carries the same token, so the service starts no second run."""
    server.will(lose, LAUNCHED, SUCCEEDED, OUTPUT)
    submit(databricks_retry_delay=0).execute(context)
    tokens = [r.body["idempotency_token"] for r in server.requests if r.path.endswith("submit")]
    assert len(tokens) == 2
    assert len(set(tokens)) == 1


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


def test_the_default_run_name(context: Any, server: ScriptedServer) -> None:
    """It tells DAG, task, DAG run and try, and the map index; a given name is kept."""
    names = []
    for index, given in ((-1, None), (3, None), (-1, "mine")):
        context["ti"].map_index = index
        server.will(LAUNCHED, SUCCEEDED, OUTPUT)
        submit(run_name=given).execute(context)
        names.append(server.requests[-3].body["run_name"])
    assert names == [
        "sales.etl scheduled__2026-01-01 try 2",
        "sales.etl[3] scheduled__2026-01-01 try 2",
        "mine",
    ]


def test_what_is_sent(context: Any, server: ScriptedServer) -> None:
    """Fields win over json, numbers among the parameters are text, no DAG params are sent."""
    server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    submit(
        json={"existing_cluster_id": "a", "timeout_seconds": 60, "run_name": "r"},
        existing_cluster_id="b",
        notebook_task={"notebook_path": "/etl", "base_parameters": {"n": 1, "dry": True}},
        idempotency_token="t",
    ).execute(context)
    assert server.requests[0].body == {
        "existing_cluster_id": "b",
        "timeout_seconds": 60,
        "run_name": "r",
        "notebook_task": {"notebook_path": "/etl", "base_parameters": {"n": "1", "dry": "true"}},
        "idempotency_token": "t",
    }


def test_run_now(context: Any, server: ScriptedServer) -> None:
    """An id from a template is text; the API gets a number, and no run_name."""
    server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    operator = run_now(job_id="3", notebook_params={"n": 1}, idempotency_token="t")
    assert operator.execute(context) == "42"
    assert server.requests[0].path.endswith("/run-now")
    assert server.requests[0].body == {
        "job_id": 3,
        "notebook_params": {"n": "1"},
        "idempotency_token": "t",
    }


def test_run_now_by_name(context: Any, server: ScriptedServer) -> None:
    """The job's name stands for its id."""
    jobs = {"jobs": [{"job_id": 5, "settings": {"name": "train"}}]}
    server.will(answer(jobs), LAUNCHED, SUCCEEDED, OUTPUT)
    run_now(job_name="train").execute(context)
    assert server.requests[1].body["job_id"] == 5
    assert "job_name" not in server.requests[1].body
    server.will(answer(jobs))
    with pytest.raises(AirflowException, match="'score'"):
        run_now(job_name="score").execute(context)
    twice = {"jobs": [{"job_id": n, "settings": {"name": "train"}} for n in (5, 6)]}
    server.will(answer(twice))
    with pytest.raises(AirflowException, match="job_id 5, 6"):
        run_now(job_name="train").execute(context)


@pytest.mark.parametrize("arguments", [{}, {"job_id": "{{ 3 }}", "job_name": "train"}])
def test_run_now_wants_a_job(
    arguments: dict[str, Any], context: Any, server: ScriptedServer
) -> None:
    """Either the id or the name; nothing is sent else."""
    operator = run_now(**arguments)
    operator.render_template_fields({})
    with pytest.raises(AirflowFailException, match="exactly one of job_id and job_name"):
        operator.execute(context)
    assert server.requests == []


@pytest.mark.parametrize(
    "arguments",
    [{"job_id": 3, "job_name": "train"}, {"job_name": "train", "json": {"job_id": 3}}],
)
def test_both_the_id_and_the_name_of_a_job_are_refused_when_parsed(
    arguments: dict[str, Any],
) -> None:
    """As by the official provider."""
    with pytest.raises(InvalidRequestError, match="exactly one of job_id and job_name"):
        run_now(**arguments)


@pytest.mark.parametrize("kind", [DatabricksSubmitRunOperator, DatabricksRunNowOperator])
def test_every_field_is_templated_and_takes_xcomargs(kind: Any) -> None:
    """A template is rendered wherever it stands; an XComArg makes its task upstream."""
    with DAG("d", schedule=None) as dag:
        first = submit()
        for name in kind.request_fields:
            operator = kind(task_id=f"t_{name}", **{name: "{{ x }}"})
            operator.render_template_fields({"x": "rendered"})
            assert getattr(operator, name) == "rendered"
            kind(task_id=f"x_{name}", **{name: {"deep": [first.output]}})
            assert dag.get_task(f"x_{name}").upstream_task_ids == {"etl"}


NO_JOB = answer({"error_code": "PERMISSION_DENIED", "message": "no View on job 3"}, 403)


def test_a_job_that_may_not_be_read_is_not_waited_for(context: Any, server: ScriptedServer) -> None:
    """Whether the service retries the run is then not known; the task fails at once, as it did."""
    server.will(LAUNCHED, FAILED, NO_JOB, FAILED_OUTPUT)
    operator = DatabricksRunNowOperator(task_id="etl", job_id=3, polling_period_seconds=0.01)
    with no_waiting() as waits, pytest.raises(DatabricksRunFailedError, match="no rows"):
        operator.execute(context)
    assert sum(waits) < 1
    assert paths(server) == ["run-now", "runs/get", "get", "runs/get-output"]


def test_credentials_that_ran_out_are_waited_for_at_the_job_too(
    context: Any, server: ScriptedServer
) -> None:
    """A 401 is not about the job, so the service's own retry is found."""
    job = {"job_id": 3, "settings": {"max_retries": 1}}
    server.will(LAUNCHED, FAILED, answer({}, 401), answer(job))
    second = run("TERMINATED", "SUCCESS", run_id=8, original_attempt_run_id=7, attempt_number=1)
    server.will(answer({"runs": [{**second, "run_id": 8}]}), OUTPUT)
    operator = DatabricksRunNowOperator(task_id="etl", job_id=3, polling_period_seconds=0.01)
    with no_waiting():
        assert operator.execute(context) == "42"


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_list_of_attempts_that_does_not_advance(
    context: Any, server: ScriptedServer, deferrable: bool
) -> None:
    """It is no proof that there is no further attempt: the list is read again."""
    job = {"job_id": 3, "settings": {"max_retries": 1}}
    stuck = answer({"runs": [{"run_id": 7}], "next_page_token": "a"})
    operator = DatabricksRunNowOperator(
        task_id="etl", job_id=3, polling_period_seconds=0.01, deferrable=deferrable
    )
    second = run("TERMINATED", "SUCCESS", run_id=8, original_attempt_run_id=7, attempt_number=1)
    found = [stuck, stuck, answer({"runs": [{**second, "run_id": 8}]}), OUTPUT]
    if not deferrable:
        server.will(LAUNCHED, FAILED, answer(job), *found)
        assert operator.execute(context) == "42"
        return
    server.will(LAUNCHED, RUNNING)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    server.will(FAILED, answer(job), *found)
    trigger = deferred.value.trigger
    assert isinstance(trigger, DatabricksJobRunTrigger)
    (event,) = events(trigger)
    kwargs = deferred.value.kwargs or {}
    assert operator.execute_complete(context, event, **kwargs) == "42"


def test_a_run_that_does_not_begin_is_canceled(context: Any, server: ScriptedServer) -> None:
    """queued_timeout_seconds, on the worker and while deferred."""
    pending = answer(run("PENDING"))
    server.will(LAUNCHED, *[pending] * 1000)
    with pytest.raises(DatabricksRunTimeoutError, match="queued_timeout_seconds"):
        submit(queued_timeout_seconds=0.05).execute(context)
    assert paths(server)[-1] == "runs/cancel"
    trigger = DatabricksJobRunTrigger(
        run_id=7, polling_period_seconds=0.01, queued_timeout_seconds=0.05, cancel_on_kill=True
    )
    (event,) = events(trigger)
    assert event["timed_out"] == "queued_timeout_seconds"
    assert paths(server)[-1] == "runs/cancel"


def test_execution_timeout_bounds_the_run_too(context: Any, server: ScriptedServer) -> None:
    """timeout_seconds of a submitted run is the task's execution_timeout unless given."""
    sent = []
    for given in (None, 60):
        server.will(LAUNCHED, SUCCEEDED, OUTPUT)
        operator = submit(timeout_seconds=given, execution_timeout=timedelta(seconds=90.5))
        operator.execute(context)
        sent.append(server.requests[-3].body["timeout_seconds"])
    assert sent == [91, 60]


def test_a_retry_follows_the_run_of_the_try_before(context: Any, server: ScriptedServer) -> None:
    """The token of the first try finds its run; the exit value is that run's."""
    retrying(context)
    server.will(LAUNCHED, RUNNING, SUCCEEDED, OUTPUT)
    assert submit().execute(context) == "42"
    assert paths(server) == ["runs/submit", "runs/get", "runs/get", "runs/get-output"]
    (first_token,) = (r.body["idempotency_token"] for r in server.requests if r.body)
    context["ti"].try_number = 1
    server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    submit().execute(context)
    assert server.requests[4].body["idempotency_token"] == first_token


def test_a_failed_run_is_followed_by_one_new_run(context: Any, server: ScriptedServer) -> None:
    """The retry's walk: the first token's run failed, so the second token launches."""
    retrying(context)
    new = answer({**run("TERMINATED", "SUCCESS"), "run_id": 8})
    server.will(LAUNCHED, FAILED, answer({"run_id": 8}), new, OUTPUT)
    assert submit().execute(context) == "42"
    assert context["ti"].xcoms["run_id"] == 8
    tokens = [r.body["idempotency_token"] for r in server.requests if r.path.endswith("submit")]
    assert len(set(tokens)) == 2


CANCELED = answer(run("TERMINATED", "CANCELED"))
NEW = answer({**run("TERMINATED", "SUCCESS"), "run_id": 8})


def test_an_adopted_run_that_the_kill_cancels_is_replaced(
    context: Any, server: ScriptedServer
) -> None:
    """A task cleared while it runs: its next try may still see the run active, then canceled."""
    retrying(context)
    server.will(LAUNCHED, RUNNING, CANCELED, answer({"run_id": 8}), NEW, OUTPUT)
    assert submit().execute(context) == "42"


def test_an_adopted_run_that_is_canceled_while_deferred_is_replaced(
    context: Any, server: ScriptedServer
) -> None:
    """The same with the wait in the triggerer; the walk goes on where it stopped."""
    retrying(context)
    server.will(LAUNCHED, RUNNING)
    with pytest.raises(TaskDeferred) as deferred:
        submit(deferrable=True).execute(context)
    assert deferred.value.kwargs == {
        "attempt_index": 0,
        "try_number": 2,
        "deadline": None,
        "execution": 0,
    }
    server.will(CANCELED)
    trigger = deferred.value.trigger
    assert isinstance(trigger, DatabricksJobRunTrigger)
    (event,) = events(trigger)
    server.will(answer({"run_id": 8}), NEW, OUTPUT)
    operator = submit(deferrable=True)
    assert operator.execute_complete(context, event, **deferred.value.kwargs) == "42"


def test_its_own_run_canceled_fails_the_try(context: Any, server: ScriptedServer) -> None:
    """A user who cancels the run in the workspace gets a failed task, not a new run."""
    retrying(context)
    ends = [
        answer({**run(life, result), "run_id": 8})
        for life, result in (("RUNNING", None), ("TERMINATED", "CANCELED"))
    ]
    server.will(LAUNCHED, FAILED, answer({"run_id": 8}), *ends)
    with pytest.raises(DatabricksRunFailedError, match="canceled"):
        submit().execute(context)


def test_a_token_of_the_users_own(context: Any, server: ScriptedServer) -> None:
    """It is used as it is at every try; a run that ended badly then fails the task."""
    retrying(context)
    server.will(LAUNCHED, FAILED, FAILED_OUTPUT)
    with pytest.raises(DatabricksRunFailedError):
        submit(idempotency_token="mine").execute(context)
    assert server.requests[0].body["idempotency_token"] == "mine"


def test_no_reattaching(context: Any, server: ScriptedServer) -> None:
    """reattach=False launches a fresh run at every try, still safe against lost answers."""
    retrying(context)
    for _ in range(2):
        server.will(lose, LAUNCHED, SUCCEEDED, OUTPUT)
        submit(reattach=False, databricks_retry_delay=0).execute(context)
    tokens = [r.body["idempotency_token"] for r in server.requests if r.path.endswith("submit")]
    assert len(tokens) == 4
    assert tokens[0] == tokens[1] != tokens[2] == tokens[3]


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


def test_output_over_the_cap(context: Any, server: ScriptedServer) -> None:
    """max_output_bytes cuts the XCom, at a whole character, and a flag says so."""
    output = answer({"notebook_output": {"result": "häuser"}})
    server.will(LAUNCHED, SUCCEEDED, output)
    assert submit(max_output_bytes=2).execute(context) == "h"
    assert context["ti"].xcoms["output_truncated"] is True
    context["ti"].xcoms.clear()
    server.will(LAUNCHED, SUCCEEDED, output)
    assert submit(max_output_bytes=7).execute(context) == "häuser"
    assert "output_truncated" not in context["ti"].xcoms


def test_refused_credentials_while_polling_have_patience(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 403 in the middle of a wait gets the connection read afresh before the next look."""
    refused = answer({"error_code": 403, "message": "Invalid access token."}, 403)
    operator = submit(databricks_retry_delay=0.01)

    def rotate(connection: socket.socket) -> None:
        fresh = {"conn_type": "databricks_jobs", "host": server.url, "password": "fresh"}
        monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(fresh))
        refused(connection)

    server.will(LAUNCHED, RUNNING, rotate, SUCCEEDED, OUTPUT)
    assert operator.execute(context) == "42"
    assert [r.headers["authorization"] for r in server.requests] == [
        *[f"Bearer {TOKEN}"] * 3,
        *["Bearer fresh"] * 2,
    ]


def test_a_retry_that_begins_with_the_event_of_the_try_before(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 3.0 begins a retry so: it launches anew all the same, with all its time before it.

    Airflow deletes no XCom of the try before then.
    """
    event = {"run": FAILED_RUN}
    context["ti"].start_date = datetime(2026, 1, 1, tzinfo=UTC)
    second = answer({**run("RUNNING"), "run_id": 8})
    server.will(LAUNCHED, FAILED, answer({"run_id": 8}), second)
    operator = submit(deferrable=True, execution_timeout=timedelta(hours=1))
    context["task"] = SimpleNamespace(retries=1)
    xcoms = keep_xcoms(monkeypatch, context["ti"])
    xcoms["task_run_ids"] = {"load": 71, "report": 72}
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute_complete(context, event, attempt_index=0, try_number=1)
    assert xcoms["run_id"] == 8
    assert "task_run_ids" not in xcoms
    assert paths(server) == ["runs/submit", "runs/get"] * 2
    trigger = deferred.value.trigger
    assert isinstance(trigger, DatabricksJobRunTrigger)
    assert trigger.deadline == pytest.approx(time.time() + 3600, abs=60)


def test_sensor_poke(context: Any, server: ScriptedServer) -> None:
    """Not yet, not yet, done; the run's output is the sensor's XCom."""
    server.will(RUNNING, SUCCEEDED, OUTPUT)
    one = sensor()
    assert one.poke(context) is False
    outcome = one.poke(context)
    assert isinstance(outcome, PokeReturnValue)
    assert (outcome.is_done, outcome.xcom_value) == (True, "42")


def test_sensor_deferrable(context: Any, server: ScriptedServer) -> None:
    """One look, then the triggerer, within the sensor's own timeout."""
    server.will(RUNNING)
    with pytest.raises(TaskDeferred) as deferred:
        sensor(deferrable=True, timeout=60).execute(context)
    assert deferred.value.timeout == timedelta(seconds=60)
    server.will(SUCCEEDED)
    trigger = deferred.value.trigger
    assert isinstance(trigger, DatabricksJobRunSensorTrigger)
    assert trigger.polling_period_seconds == 0.01
    (event,) = events(trigger)
    server.will(OUTPUT)
    assert sensor().execute_complete(context, event) == "42"


def test_sensor_deferrable_of_a_run_that_has_ended(context: Any, server: ScriptedServer) -> None:
    """Nothing to wait for, nothing deferred."""
    server.will(SUCCEEDED, OUTPUT)
    assert sensor(deferrable=True).execute(context) == "42"


def test_sensor_of_a_failed_run(context: Any, server: ScriptedServer) -> None:
    """The sensor fails with the run's reason, or is skipped with soft_fail."""
    server.will(FAILED, FAILED_OUTPUT)
    with pytest.raises(DatabricksRunFailedError, match="no rows"):
        sensor().poke(context)
    server.will(FAILED, FAILED_OUTPUT)
    with pytest.raises(AirflowSkipException, match="no rows"):
        sensor(soft_fail=True).poke(context)


def test_a_truncated_output_is_given_with_a_warning(context: Any, server: ScriptedServer) -> None:
    """What the API gave is returned."""
    output = {"result": "4", "truncated": True}
    server.will(LAUNCHED, SUCCEEDED, answer({"notebook_output": output}))
    assert submit().execute(context) == "4"
