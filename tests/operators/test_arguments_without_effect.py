"""Arguments that have no effect beside others: the task's log names each of them, with the reason.

Not the parse: a default of the DAG or of a deployment may give an argument to tasks of all kinds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from tenacity import stop_after_attempt, wait_fixed

from airflow_jobs_provider.airflow_compat.start_in_triggerer import renders_in_triggerer
from airflow_jobs_provider.operators.jobs import (
    DatabricksCancelRunsOperator,
    DatabricksCreateJobsOperator,
    DatabricksNotebookOperator,
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from tests.fakes.scripted_server import ScriptedServer, answer
from tests.helpers.responses import LAUNCHED, OUTPUT, RUNNING, SUCCEEDED, run
from tests.helpers.workflow_group import Airflow, task

Logged = Callable[[], str]

NOT_DEFERRABLE = "it needs deferrable=True"
NO_WAIT = "the task does not wait for the run's end"
NO_XCOM = "do_xcom_push is False"
TOKEN = "idempotency_token decides which run a try gets"
NO_REPAIR = "repair_run is False"
IN_GROUP = "the task is in a workflow group"


def without_effect(log: str) -> dict[str, str]:
    """Return the arguments that the log names, with the reasons."""
    found = re.findall(r"(?:^|[\s\]>])([\w=]+) has no effect: (.*?)\.(?:\s|$)", log, re.MULTILINE)
    assert len(found) == log.count("has no effect"), log
    return dict(found)  # each version of Airflow logs in its own way, the older ones twice


def submit(**arguments: Any) -> DatabricksSubmitRunOperator:
    """Make an operator that submits a run."""
    arguments.setdefault("polling_period_seconds", 0.01)
    return DatabricksSubmitRunOperator(
        task_id="etl",
        existing_cluster_id="c",
        notebook_task={"notebook_path": "/x"},
        **arguments,
    )


def run_now(**arguments: Any) -> DatabricksRunNowOperator:
    """Make an operator that runs a job."""
    return DatabricksRunNowOperator(
        task_id="etl", job_id=3, polling_period_seconds=0.01, **arguments
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, {}),
        ({"end_from_trigger": True}, {"end_from_trigger": NOT_DEFERRABLE}),
        (
            {"end_from_trigger": True, "deferrable": False},
            {"end_from_trigger": NOT_DEFERRABLE},
        ),
        (
            {"do_xcom_push": False, "multiple_outputs": True, "max_output_bytes": 10},
            {"multiple_outputs": NO_XCOM, "max_output_bytes": NO_XCOM},
        ),
        ({"do_xcom_push": False}, {}),
        ({"reattach": False}, {}),
        ({"idempotency_token": "t"}, {}),
        ({"reattach": False, "idempotency_token": "t"}, {"reattach=False": TOKEN}),
        ({"durable": False, "json": {"idempotency_token": "t"}}, {"reattach=False": TOKEN}),
        (
            {"databricks_retry_limit": 2, "databricks_retry_args": {"stop": stop_after_attempt(2)}},
            {"databricks_retry_limit": "databricks_retry_args has stop"},
        ),
        (
            {"databricks_retry_delay": 0, "databricks_retry_args": {"wait": wait_fixed(0)}},
            {"databricks_retry_delay": "databricks_retry_args has wait"},
        ),
        ({"databricks_retry_limit": 2, "databricks_retry_args": {"reraise": True}}, {}),
    ],
)
def test_a_task_that_waits_on_a_worker(
    arguments: dict[str, Any],
    expected: dict[str, str],
    context: Any,
    server: ScriptedServer,
    logged: Logged,
) -> None:
    """One line for each argument; the run is launched all the same."""
    server.will(LAUNCHED, RUNNING, SUCCEEDED, OUTPUT)
    operator = submit(**arguments)
    assert "has no effect" not in logged()
    operator.execute(context)
    assert without_effect(logged()) == expected


@pytest.mark.parametrize(
    "arguments", [{}, {"end_from_trigger": True}, {"end_from_trigger": True, "deferrable": None}]
)
def test_a_deferrable_task(
    arguments: dict[str, Any],
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    logged: Logged,
) -> None:
    """Nothing is to be told, also where Airflow's configuration makes it deferrable."""
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    server.will(LAUNCHED, RUNNING)
    with pytest.raises(TaskDeferred):
        submit(**arguments).execute(context)
    assert without_effect(logged()) == {}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, set()),
        ({"cancel_on_kill": False, "fail_on_partial_success": False}, set()),
        ({"deferrable": True}, {"deferrable"}),
        ({"deferrable": True, "end_from_trigger": True}, {"deferrable", "end_from_trigger"}),
        ({"queued_timeout_seconds": 60}, {"queued_timeout_seconds"}),
        (
            {"max_output_bytes": 10, "multiple_outputs": True, "do_xcom_push": False},
            {"max_output_bytes", "multiple_outputs"},
        ),
    ],
)
def test_a_task_that_does_not_wait(
    arguments: dict[str, Any],
    expected: set[str],
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    logged: Logged,
) -> None:
    """What is about the wait or the output has no effect, unless a default gave it."""
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    server.will(LAUNCHED, RUNNING)
    assert submit(wait_for_termination=False, **arguments).execute(context) is None
    assert without_effect(logged()) == dict.fromkeys(expected, NO_WAIT)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"max_repairs": 2}, {"max_repairs": NO_REPAIR}),
        (
            {"databricks_repair_reason_new_settings": {"quota": {"max_retries": 1}}},
            {"databricks_repair_reason_new_settings": NO_REPAIR},
        ),
        ({"repair_run": True, "max_repairs": 2, "wait_for_termination": True}, {}),
        (
            {"repair_run": True, "max_repairs": 2, "wait_for_termination": False},
            {"repair_run": NO_WAIT},
        ),
    ],
)
def test_repairs(
    arguments: dict[str, Any],
    expected: dict[str, str],
    context: Any,
    server: ScriptedServer,
    logged: Logged,
) -> None:
    """What is about repairs needs repair_run."""
    server.will(LAUNCHED, RUNNING, SUCCEEDED, OUTPUT)
    run_now(**arguments).execute(context)
    assert without_effect(logged()) == expected


def test_a_start_in_the_triggerer_is_deferrable(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    """It implies deferrable: where a worker starts the task, its log names deferrable=False."""
    if not renders_in_triggerer():
        pytest.skip("a worker launches every run")
    server.will(LAUNCHED, RUNNING)
    operator = submit(
        deferrable=False, start_from_trigger=True, end_from_trigger=True, pre_execute=print
    )
    with pytest.raises(TaskDeferred):
        operator.execute(context)
    assert without_effect(logged()) == {
        "deferrable=False": "start_from_trigger waits in the triggerer"
    }


def test_a_deployment_that_starts_tasks_in_the_triggerer_where_it_can(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    """A task that needs a worker waits there, as its deferrable=False says."""
    monkeypatch.setenv("AIRFLOW__DATABRICKS_JOBS__START_FROM_TRIGGER", "auto")
    server.will(LAUNCHED, RUNNING, SUCCEEDED, OUTPUT)
    submit(deferrable=False, pre_execute=print).execute(context)
    assert without_effect(logged()) == {}


def test_a_task_alone_has_no_cluster_of_a_group(
    context: Any, server: ScriptedServer, logged: Logged
) -> None:
    """The task is serverless then."""
    server.will(LAUNCHED, RUNNING, SUCCEEDED, OUTPUT)
    DatabricksNotebookOperator(
        task_id="etl", notebook_path="/x", job_cluster_key="small", polling_period_seconds=0.01
    ).execute(context)
    assert without_effect(logged()) == {"job_cluster_key": "the task is in no workflow group"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, {}),
        ({"reattach": False}, {"reattach=False": IN_GROUP}),
        ({"queued_timeout_seconds": 60}, {"queued_timeout_seconds": IN_GROUP}),
        (
            {"new_cluster": {"num_workers": 1}},
            {"new_cluster": "job_cluster_key selects the cluster in a workflow group"},
        ),
        ({"end_from_trigger": True}, {"end_from_trigger": NOT_DEFERRABLE}),
        (
            {"wait_for_termination": False, "queued_timeout_seconds": 60, "deferrable": True},
            {"deferrable": NO_WAIT, "queued_timeout_seconds": NO_WAIT},
        ),
    ],
)
def test_a_task_of_a_group(
    arguments: dict[str, Any],
    expected: dict[str, str],
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    logged: Logged,
) -> None:
    """The group launches the run, and has the clusters."""
    airflow = Airflow(monkeypatch, **arguments)
    ended = [task("a", 100, "TERMINATED", "SUCCESS")]
    server.will(answer({**run("TERMINATED", "SUCCESS"), "tasks": ended}), OUTPUT)
    airflow.execute()
    assert without_effect(logged()) == expected


def test_existing_clusters_of_a_group(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    """The official provider's group takes them, too, and uses them for nothing."""
    airflow = Airflow(monkeypatch, group={"existing_clusters": ["c"]})
    server.will(airflow.jobs, airflow.job, LAUNCHED, RUNNING)
    airflow.launch(1, 0)
    reason = "the existing_cluster_id of a task selects its cluster"
    assert without_effect(logged()) == {"existing_clusters": reason}


def test_a_cancel_that_does_not_wait(context: Any, server: ScriptedServer, logged: Logged) -> None:
    """It reads nothing."""
    server.will(answer({}))
    DatabricksCancelRunsOperator(
        task_id="cancel", run_id=7, wait_for_termination=False, polling_period_seconds=1
    ).execute(context)
    reason = "the task does not wait for the end of the runs"
    assert without_effect(logged()) == {"polling_period_seconds": reason}


def test_a_task_that_creates_a_job_waits_for_nothing(
    context: Any, server: ScriptedServer, logged: Logged
) -> None:
    """The official provider's operator takes the argument, too."""
    server.will(answer({"jobs": []}), answer({"job_id": 3}))
    DatabricksCreateJobsOperator(
        task_id="define",
        name="nightly",
        existing_cluster_id="c",
        notebook_task={"notebook_path": "/x"},
        polling_period_seconds=30,
    ).execute(context)
    assert without_effect(logged()) == {"polling_period_seconds": "this task waits for nothing"}
