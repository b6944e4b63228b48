"""DatabricksJobRunTrigger over real HTTP, response by response."""

from __future__ import annotations

import asyncio
import json
import os
import time
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
)

from airflow_jobs_provider.airflow_compat.event_batches import BATCH_SECONDS
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.exceptions import DatabricksRunTimeoutError
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger
from tests.fakes.scripted_server import ScriptedServer, answer
from tests.helpers.responses import (
    FAILED,
    GONE,
    OUTPUT,
    RUNNING,
    SUCCEEDED,
)
from tests.helpers.tasks import (
    events,
    paths,
    submit,
)


def test_a_run_that_cannot_be_followed(context: Any, server: ScriptedServer) -> None:
    """A run deleted while it was waited for fails the task with the service's words."""
    server.will(RUNNING, GONE)
    (event,) = events(DatabricksJobRunTrigger(run_id=7, polling_period_seconds=0.01))
    with pytest.raises(AirflowException, match=r"Run 7 cannot be followed.*does not exist"):
        submit().execute_complete(context, event)


@pytest.mark.parametrize("is_found", [False, True])
@pytest.mark.parametrize("was_used", [True, False])
def test_a_connection_that_a_worker_has_used_is_looked_up_again(
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    was_used: bool,
    is_found: bool,
) -> None:
    """The secrets backend fails while the triggerer starts. Another one has it without a host."""
    known = os.environ["AIRFLOW_CONN_DATABRICKS_DEFAULT"]
    monkeypatch.delenv("AIRFLOW_CONN_DATABRICKS_DEFAULT")
    if is_found:
        without_host = {**json.loads(known), "host": ""}
        monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(without_host))
    server.will(SUCCEEDED)
    trigger = DatabricksJobRunTrigger(
        run_id=7, polling_period_seconds=0.01, reached_by="host" if was_used else None
    )

    async def first_event() -> Any:
        async with asyncio.timeout(60):
            (event,) = [event.payload async for event in trigger.run()]
            return event

    async def come_back() -> Any:
        waiting = asyncio.create_task(first_event())
        await asyncio.wait({waiting}, timeout=0.5)
        assert waiting.done() is not was_used
        monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", known)
        return await waiting

    event = asyncio.run(come_back())
    if was_used:
        assert event["run"]["state"]["result_state"] == "SUCCESS"
    else:
        assert "databricks_default" in event["error"]
        assert not server.requests


def test_the_trigger_polls_to_the_end_and_fires_once(context: Any, server: ScriptedServer) -> None:
    """One request for each look, one event for the run."""
    server.will(*[RUNNING] * 20, SUCCEEDED)
    (event,) = events(DatabricksJobRunTrigger(run_id=7, polling_period_seconds=0.001))
    assert event["run"]["state"]["result_state"] == "SUCCESS"
    assert paths(server) == ["runs/get"] * 21


def test_events_of_a_tenth_of_a_second_are_fired_together(
    context: Any,
    server: ScriptedServer,
) -> None:
    """Airflow takes their log lines together, whenever the runs ended within it."""
    server.will(*[SUCCEEDED] * 8)

    async def fired_at(number: int) -> float:
        await asyncio.sleep(number * 0.037)
        trigger = DatabricksJobRunTrigger(run_id=7, polling_period_seconds=0.001)
        trigger.trigger_id = number
        async for _ in trigger.run():
            return asyncio.get_running_loop().time()
        raise AssertionError("no event")

    async def all_fired() -> list[float]:
        return await asyncio.gather(*map(fired_at, range(8)))

    assert max(moment % BATCH_SECONDS for moment in asyncio.run(all_fired())) < 0.06


def test_the_triggers_stored_form_is_all_text_and_numbers() -> None:
    """What Airflow stores of a trigger is small, and holds no credential."""
    _, arguments = DatabricksJobRunTrigger(run_id=7).serialize()
    assert json.loads(json.dumps(arguments)) == arguments
    assert set(arguments) == {
        "run_id",
        "databricks_conn_id",
        "polling_period_seconds",
        "retry_limit",
        "retry_delay",
        "retry_args",
        "caller",
        "cancel_on_kill",
        "deadline",
        "queued_timeout_seconds",
        "queued_since",
        "follow_attempts",
        "life_cycle_state",
        "end_from_trigger",
        "do_xcom_push",
        "max_output_bytes",
        "fail_on_partial_success",
        "launched_at",
        "multiple_outputs",
        "reached_by",
        "output_in_event",
    }


NO_JOB = answer({"error_code": "PERMISSION_DENIED", "message": "no View on job 3"}, 403)


def test_a_job_that_may_not_be_read_is_not_waited_for(context: Any, server: ScriptedServer) -> None:
    """Whether the service retries the run is then not known; the event comes at once."""
    server.will(FAILED, NO_JOB)
    trigger = DatabricksJobRunTrigger(run_id=7, polling_period_seconds=0.01, follow_attempts=True)
    with no_waiting() as waits:
        (event,) = events(trigger)
    assert event["run"]["state"]["result_state"] == "FAILED"
    assert sum(waits) < 1


def test_a_run_that_is_lost_from_sight_is_given_up_at_the_deadline(
    context: Any, server: ScriptedServer
) -> None:
    """execution_timeout while deferred: the run is canceled, the task fails and says why."""
    server.will(*[RUNNING] * 1000)
    trigger = DatabricksJobRunTrigger(
        run_id=7, polling_period_seconds=0.01, deadline=time.time() + 0.5, cancel_on_kill=True
    )
    (event,) = events(trigger)
    assert paths(server)[-1] == "runs/cancel"
    assert set(paths(server)[:-1]) == {"runs/get"}
    with pytest.raises(DatabricksRunTimeoutError, match="execution_timeout"):
        submit().execute_complete(context, event)


@pytest.mark.parametrize("deadline", [None, 3600.0])
def test_another_time_out_is_no_deadline(
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    deadline: float | None,
) -> None:
    """A secrets backend that does not answer cancels no run, nor is it an execution_timeout."""

    def times_out(_hook: DatabricksJobsHook) -> Any:
        raise TimeoutError("the secrets backend timed out")

    monkeypatch.setattr(DatabricksJobsHook, "async_client", times_out)
    trigger = DatabricksJobRunTrigger(
        run_id=7, deadline=deadline and time.time() + deadline, cancel_on_kill=True
    )
    (event,) = events(trigger)
    assert event == {"run_id": 7, "error": "the secrets backend timed out"}
    assert paths(server) == []


def test_an_end_that_was_seen_before_the_deadline_is_no_timeout(
    context: Any, server: ScriptedServer
) -> None:
    """However late the worker comes to it; and the deadline's own look counts, too."""
    server.will(SUCCEEDED)
    trigger = DatabricksJobRunTrigger(run_id=7, deadline=time.time() + 0.1, cancel_on_kill=True)
    (event,) = events(trigger)
    server.will(OUTPUT)
    operator = submit(execution_timeout=timedelta(seconds=1))
    assert operator.execute_complete(context, event, attempt_index=0) == "42"


STORED = {
    # The first form. What releases store is in tests/data/serialized_triggers.
    "run_id": 7,
    "databricks_conn_id": "databricks_default",
    "polling_period_seconds": 30,
    "retry_limit": None,
    "retry_delay": None,
    "retry_args": None,
    "caller": "DatabricksSubmitRunOperator",
    "cancel_on_kill": True,
    "deadline": None,
    "queued_timeout_seconds": None,
    "follow_attempts": False,
    "life_cycle_state": None,
}


# What it wrote since it can end a task.
STORED_THEN = {
    **STORED,
    "end_from_trigger": False,
    "do_xcom_push": True,
    "max_output_bytes": None,
    "queued_since": None,
}


# What it has written since.
STORED_TODAY = {
    **STORED_THEN,
    "fail_on_partial_success": False,
    "launched_at": None,
    "multiple_outputs": False,
    "reached_by": None,
    "output_in_event": False,
}


def test_stored_triggers_survive_an_upgrade() -> None:
    """Arguments that were once written can be read, and what is not there has its default."""
    for stored in (STORED, STORED_THEN, STORED_TODAY):
        again = DatabricksJobRunTrigger(**stored)  # type: ignore[arg-type]
        assert again.serialize()[1] == STORED_TODAY
    path, arguments = DatabricksJobRunTrigger(run_id=7).serialize()
    assert path == "airflow_jobs_provider.triggers.jobs.DatabricksJobRunTrigger"
    assert arguments == {
        **STORED_TODAY,
        "caller": "DatabricksJobRunTrigger",
        "cancel_on_kill": False,
    }
