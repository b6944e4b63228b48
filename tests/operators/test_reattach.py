"""Which run a retry follows, and when it launches a new one: over real HTTP."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    TaskDeferred,
)

from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger
from tests.fakes.scripted_server import ScriptedServer, answer, lose
from tests.helpers.responses import (
    FAILED,
    FAILED_OUTPUT,
    FAILED_RUN,
    LAUNCHED,
    OUTPUT,
    RUNNING,
    SUCCEEDED,
    run,
)
from tests.helpers.tasks import (
    events,
    keep_xcoms,
    paths,
    retrying,
    submit,
)


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


@pytest.mark.parametrize("try_number", [1, 2])
def test_its_own_run_canceled_fails_the_try_also_if_retries_were_raised(
    context: Any, server: ScriptedServer, try_number: int
) -> None:
    """In the DAG file, since the DAG run began. Airflow keeps ``max_tries``."""
    retrying(context)
    context["ti"].try_number = try_number
    context["task"].retries += 3
    if try_number == 2:
        server.will(LAUNCHED, FAILED)
    server.will(answer({"run_id": 8}), answer({**run("RUNNING"), "run_id": 8}))
    server.will(answer({**run("TERMINATED", "CANCELED"), "run_id": 8}), FAILED_OUTPUT)
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
