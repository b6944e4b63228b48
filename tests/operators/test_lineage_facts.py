"""What a task tells OpenLineage of its run. ``tests/real_clients`` has the events themselves."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from tests.fakes.scripted_server import ScriptedServer, answer
from tests.helpers.responses import LAUNCHED, OUTPUT, RUNNING, SUCCEEDED
from tests.helpers.tasks import deferred_by, run_now, sensor, submit

FACETS = "airflow_jobs_provider.airflow_compat.openlineage_facets"


@pytest.fixture(autouse=True)
def _facets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show what the facets are made of, since OpenLineage's provider is not here."""
    made = SimpleNamespace(lineage_of=lambda run, **more: {"run": dict(run), **more})
    monkeypatch.setitem(sys.modules, FACETS, made)


def test_a_run_that_succeeded(context: Any, server: ScriptedServer) -> None:
    """The run as last read, and the workspace that the process has connected to."""
    server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    task = submit()
    assert task.get_openlineage_facets_on_start()["run"] == {}
    task.execute(context)
    found = task.get_openlineage_facets_on_complete(context["ti"])
    assert (found["run"]["run_id"], found["run"]["job_id"]) == (7, 3)
    assert found["run"]["state"]["result_state"] == "SUCCESS"
    assert found["workspace_url"] == server.url
    assert found["has_job"] is False
    assert found["job_run_id"] is None


def test_a_task_that_does_not_wait(context: Any, server: ScriptedServer) -> None:
    """The run as it was after the launch."""
    server.will(LAUNCHED, RUNNING)
    task = submit(wait_for_termination=False)
    task.execute(context)
    found = task.get_openlineage_facets_on_complete(context["ti"])["run"]
    assert (found["run_id"], found["state"]["life_cycle_state"]) == (7, "RUNNING")


def test_a_launch_that_is_refused(context: Any, server: ScriptedServer) -> None:
    """There is no run; the job that is in the arguments is known all the same."""
    server.will(answer({"error_code": "PERMISSION_DENIED", "message": "No."}, 403))
    task = run_now(job_id=3)
    with pytest.raises(AirflowException):
        task.execute(context)
    found = task.get_openlineage_facets_on_failure(context["ti"])
    assert found["run"] == {"job_id": 3}
    assert found["has_job"] is True


def test_a_deferred_task_whose_time_is_over(context: Any, server: ScriptedServer) -> None:
    """Another process resumes it, and connects to nothing: it knows what the event says."""
    server.will(LAUNCHED, RUNNING)
    deferred = deferred_by(run_now(job_id=3, deferrable=True), context)
    kwargs: Any = deferred.kwargs
    event = {"run": {"run_id": 7, "run_page_url": "http://w/7"}, "timed_out": "execution_timeout"}
    task = run_now(job_id=3, deferrable=True)
    with pytest.raises(AirflowException):
        task.execute_complete(context, event, **kwargs)
    found = task.get_openlineage_facets_on_failure(context["ti"])
    assert found["run"] == {"job_id": 3, "run_id": 7, "run_page_url": "http://w/7"}
    assert found["workspace_url"] is None


def test_a_sensor(context: Any, server: ScriptedServer) -> None:
    """Its arguments name the run from the start."""
    server.will(SUCCEEDED, OUTPUT)
    task = sensor()
    assert task.get_openlineage_facets_on_start()["run"] == {"run_id": "7", "job_id": None}
    task.execute(context)
    assert task.get_openlineage_facets_on_complete(context["ti"])["run"]["job_id"] == 3
