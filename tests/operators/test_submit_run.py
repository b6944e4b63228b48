"""The submit operator over real HTTP, response by response.

Airflow's own part in it (scheduler, triggerer, XCom storage) is real in tests/end_to_end; here the
task instance is a note pad, so that each answer of the service can be chosen.
"""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    TaskDeferred,
)

from airflow_jobs_provider.exceptions import DatabricksRunFailedError, DatabricksRunTimeoutError
from airflow_jobs_provider.operators.jobs import (
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger
from tests.fakes.scripted_server import ScriptedServer, answer, lose
from tests.helpers.responses import (
    FAILED,
    FAILED_OUTPUT,
    GONE,
    LAUNCHED,
    OUTPUT,
    RUNNING,
    SUCCEEDED,
    run,
)
from tests.helpers.tasks import (
    XCOMS,
    deferred_by,
    events,
    paths,
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
    server.will(RUNNING, SUCCEEDED, OUTPUT)
    trigger = deferred.value.trigger
    assert isinstance(trigger, DatabricksJobRunTrigger)
    (event,) = events(trigger)
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


def test_a_lost_launch_answer_launches_once(context: Any, server: ScriptedServer) -> None:
    """The repeated request carries the same token, so the service starts no second run."""
    server.will(lose, LAUNCHED, SUCCEEDED, OUTPUT)
    submit(databricks_retry_delay=0).execute(context)
    tokens = [r.body["idempotency_token"] for r in server.requests if r.path.endswith("submit")]
    assert len(tokens) == 2
    assert len(set(tokens)) == 1


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


@pytest.mark.parametrize("deferrable", [False, True])
def test_the_time_in_the_queue_does_not_depend_on_the_clock_of_the_service(
    context: Any, server: ScriptedServer, deferrable: bool
) -> None:
    """The clock of this machine is five minutes ahead of it."""
    pending = answer(run("PENDING", start_time=int((time.time() - 300) * 1000)))
    server.will(LAUNCHED, pending)
    operator = submit(queued_timeout_seconds=60, deferrable=deferrable)
    if not deferrable:
        server.will(pending, SUCCEEDED, OUTPUT)
        assert operator.execute(context) == "42"
    else:
        deferral = deferred_by(operator, context)
        server.will(pending, SUCCEEDED, OUTPUT)
        (event,) = events(deferral.trigger)
        assert operator.execute_complete(context, event, **deferral.kwargs or {}) == "42"
    assert "runs/cancel" not in paths(server)


def test_execution_timeout_bounds_the_run_too(context: Any, server: ScriptedServer) -> None:
    """timeout_seconds of a submitted run is the task's execution_timeout unless given."""
    sent = []
    for given in (None, 60):
        server.will(LAUNCHED, SUCCEEDED, OUTPUT)
        operator = submit(timeout_seconds=given, execution_timeout=timedelta(seconds=90.5))
        operator.execute(context)
        sent.append(server.requests[-3].body["timeout_seconds"])
    assert sent == [91, 60]


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


def test_a_truncated_output_is_given_with_a_warning(context: Any, server: ScriptedServer) -> None:
    """What the API gave is returned."""
    output = {"result": "4", "truncated": True}
    server.will(LAUNCHED, SUCCEEDED, answer({"notebook_output": output}))
    assert submit().execute(context) == "4"
