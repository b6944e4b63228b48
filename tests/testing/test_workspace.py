"""What tests of DAGs decide on and assert."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.testing import DatabricksWorkspace, no_waiting
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger
from tests.local.api import Api

ETL: dict[str, Any] = {"notebook_task": {"notebook_path": "/Shared/etl"}}


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[DatabricksWorkspace]:
    """A workspace in which runs that were not decided on succeed at once."""
    with DatabricksWorkspace(tmp_path, dry_run=True) as running:
        yield running


def test_parameters_are_those_that_the_notebook_gets(workspace: DatabricksWorkspace) -> None:
    """Those of the run win over those of the job."""
    api = Api(workspace)
    notebook = {"notebook_path": "/Shared/etl", "base_parameters": {"day": "1", "hour": "2"}}
    job_id = api.create(name="nightly", notebook_task=notebook)
    api.wait(api.run_now(job_id, notebook_params={"day": "9"}))
    workspace.assert_launched("/Shared/etl", parameters={"day": "9", "hour": "2"})
    workspace.assert_launched("nightly", parameters={"day": "9"})
    with pytest.raises(AssertionError, match="launched 0 times with the parameters"):
        workspace.assert_launched("nightly", parameters={"day": "1"})


def test_tasks_and_retries_of_one_run_are_one_launch(workspace: DatabricksWorkspace) -> None:
    """Each task run is listed; the run was launched once."""
    workspace.fails("/Shared/etl", times=1)
    api = Api(workspace)
    tasks = [{"task_key": key, "max_retries": 1, "existing_cluster_id": "1", **ETL} for key in "ab"]
    answer = api.post("runs/submit", {"run_name": "both", "tasks": tasks}, version="2.1")
    api.wait(answer.json()["run_id"])
    runs = workspace.runs_of("/Shared/etl")
    assert sorted(run.result_state or "" for run in runs) == ["FAILED", "SUCCESS", "SUCCESS"]
    workspace.assert_launched("/Shared/etl")
    workspace.assert_launched("both")


def test_the_message_has_each_name_of_a_run_once(workspace: DatabricksWorkspace) -> None:
    """A task run's own name is its task key."""
    api = Api(workspace)
    tasks = [{"task_key": "a", "existing_cluster_id": "1", **ETL}]
    answer = api.post("runs/submit", {"run_name": "both", "tasks": tasks}, version="2.1")
    api.wait(answer.json()["run_id"])
    assert [run.names for run in workspace.runs] == [["both"], ["/Shared/etl", "a"]]
    with pytest.raises(AssertionError) as raised:
        workspace.assert_launched("/Shared/elt")
    assert str(raised.value).splitlines() == [
        "/Shared/elt was launched 0 times, not 1. The runs are:",
        "  ['both'] with {}: TERMINATED/SUCCESS",
        "  ['/Shared/etl', 'a'] with {}: TERMINATED/SUCCESS",
    ]


def test_a_loop_and_its_repair_are_one_launch(
    workspace: DatabricksWorkspace, caplog: pytest.LogCaptureFixture
) -> None:
    """Its iterations count once. One that is deleted at its end disturbs nothing."""
    workspace.fails("/Shared/etl", times=1)
    workspace.is_deleted("deleted")
    inner = {"task_key": "step", "existing_cluster_id": "1", **ETL}
    tasks = [
        {"task_key": "loop", "for_each_task": {"inputs": "[1, 2]", "task": inner}},
        {"task_key": "plain", "existing_cluster_id": "1", **ETL},
        {"task_key": "deleted", "existing_cluster_id": "1", **ETL},
    ]
    api = Api(workspace)
    run_id = api.post("runs/submit", {"tasks": tasks}, version="2.1").json()["run_id"]
    api.wait(run_id)
    repair = {"run_id": run_id, "rerun_all_failed_tasks": True}
    assert api.post("runs/repair", repair, version="2.1").ok
    assert api.wait(run_id)["state"]["result_state"] == "SUCCESS"
    workspace.assert_launched("/Shared/etl")
    assert "Cleaning up after run" not in caplog.text


def test_a_deleted_run_was_launched(workspace: DatabricksWorkspace) -> None:
    """It is listed, although the API does not know it."""
    workspace.is_deleted("/Shared/etl")
    api = Api(workspace)
    run_id = api.submit(**ETL)
    deadline = time.monotonic() + 10
    while api.get("runs/get", run_id=run_id).ok and time.monotonic() < deadline:
        time.sleep(0.01)
    assert api.get("runs/get", run_id=run_id).status_code == 400
    workspace.assert_launched("/Shared/etl")


def test_what_was_never_met_is_named(workspace: DatabricksWorkspace) -> None:
    """A misspelled name is found."""
    workspace.returns("/Shared/elt", 1)
    workspace.break_next("runs/delete")
    with pytest.raises(AssertionError, match=r"\['runs/delete'\].*\['/Shared/elt'\]"):
        workspace.assert_nothing_is_left()


def test_a_misspelled_endpoint_is_refused(workspace: DatabricksWorkspace) -> None:
    """The closest endpoint comes first."""
    with pytest.raises(ValueError, match="no endpoint run/get; it has runs/get, "):
        workspace.break_next("run/get")
    workspace.assert_nothing_is_left()


@pytest.mark.parametrize("path", ["/Shared/etl", "Shared/etl"])
def test_a_notebook_is_stored_as_a_source_file(workspace: DatabricksWorkspace, path: str) -> None:
    """With the header that makes it a notebook, and without common spaces."""
    file = workspace.add_notebook(
        path,
        """
        value = 1
        dbutils.notebook.exit(str(value))
        """,
    )
    assert file == workspace.root / "Shared" / "etl.py"
    lines = file.read_text().splitlines()
    assert lines[:2] == ["# Databricks notebook source", "value = 1"]


def test_a_notebook_outside_of_the_workspace(workspace: DatabricksWorkspace) -> None:
    """It is refused."""
    with pytest.raises(ValueError, match="outside of the workspace"):
        workspace.add_notebook("../etl", "1")


async def test_a_deferred_wait_takes_no_time(
    workspace: DatabricksWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the polling period nor an outage, a 429 or its Retry-After is waited out."""
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", workspace.connection)
    run_id = Api(workspace).submit(**ETL)
    workspace.break_next("runs/[gl]*", status=429, retry_after=300)
    workspace.break_next("runs/[gl]*", status=503, times=2)
    trigger = DatabricksJobRunTrigger(run_id=run_id, polling_period_seconds=600)
    began = time.monotonic()
    with no_waiting() as waits:
        events = [event async for event in trigger.run()]
    assert time.monotonic() - began < 20
    assert sum(waits) > 900
    assert events[0].payload["run"]["state"]["result_state"] == "SUCCESS"
    workspace.assert_nothing_is_left()
