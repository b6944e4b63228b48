"""What the launching task of a workflow group sends."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from airflow_jobs_provider.airflow_compat.run_successor import Successor
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.api.workflows.job_definitions import definition_digest
from airflow_jobs_provider.operators import cancel_on_kill
from airflow_jobs_provider.operators.workflow_launch import WAS_CLEARED_KEY
from tests.fakes.scripted_server import ScriptedServer, answer, lose
from tests.helpers.fault_bench import KilledError, killed_by_signal
from tests.helpers.responses import run
from tests.helpers.workflow_group import Airflow, claimed, other_job, sent, task, with_permissions


@pytest.mark.parametrize(("max_tries", "is_told"), [(1, True), (0, False)])
def test_the_launching_task_tells_that_it_was_cleared(
    max_tries: int, is_told: bool, cleared: Airflow, server: ScriptedServer
) -> None:
    """Its own retries are no clear."""
    server.will(cleared.jobs, cleared.job, answer({"run_id": 7}), answer(run("PENDING")))
    server.will(*([] if is_told else [cleared.job]))
    assert cleared.launch(2, max_tries)["run_id"] == 7
    assert (("etl.launch", WAS_CLEARED_KEY) in cleared.xcoms) is is_told


def test_a_job_with_permissions_is_reset(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    """The permissions are added, then the settings are replaced, and the run is launched."""
    airflow, no_runs = with_permissions(monkeypatch), answer({"runs": []})
    server.will(other_job(airflow), no_runs, answer({}), claimed(airflow, server), no_runs)
    server.will(answer({"object_id": "/jobs/3"}), answer({}))
    settings = {**airflow.settings}
    rights = settings.pop("access_control_list")
    digest = definition_digest(airflow.settings)
    job = {"job_id": 3, "settings": {**settings, "description": f"[airflow definition {digest}]"}}
    server.will(answer({"jobs": [job]}), answer(job), answer({"run_id": 7}), answer(run("PENDING")))
    with no_waiting():
        assert airflow.launch(1, 0)["run_id"] == 7
    assert sent(server, "permissions/jobs/3") == [{"access_control_list": rights}]
    (reset,) = sent(server, "reset")
    assert reset["job_id"] == 3
    assert "access_control_list" not in reset["new_settings"]


def test_a_launch_whose_response_is_lost(cleared: Airflow, server: ScriptedServer) -> None:
    """It is repeated with the same token, and launches nothing more."""
    server.will(cleared.jobs, cleared.job, lose, answer({"run_id": 7}), answer(run("PENDING")))
    with no_waiting():
        assert cleared.launch(1, 0)["run_id"] == 7
    first, second = sent(server, "run-now")
    assert first == second


@pytest.mark.parametrize("successor", [Successor.NONE, Successor.RETRY])
def test_a_launch_that_is_killed_before_its_response(
    successor: Successor,
    cleared: Airflow,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A user's kill cancels the run. If a retry follows, it takes the run over."""
    monkeypatch.setattr(cancel_on_kill, "find_successor", lambda _attempt: successor)

    def kill_and_answer(connection: Any) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        answer({"run_id": 7})(connection)

    server.will(cleared.jobs, cleared.job, kill_and_answer)
    if successor is Successor.NONE:
        server.will(answer({"run_id": 7}), answer({}))
    with killed_by_signal(cleared.group.launch_task), pytest.raises(KilledError):
        cleared.launch(1, 0)
    if successor is Successor.NONE:
        assert sent(server, "runs/cancel") == [{"run_id": 7}]
    else:
        found = answer({**run("RUNNING"), "run_id": 7})
        server.will(cleared.jobs, cleared.job, answer({"run_id": 7}), found, cleared.job)
        assert Airflow(monkeypatch).launch(2, 0)["run_id"] == 7  # in another process
        assert sent(server, "runs/cancel") == []
    first, second = sent(server, "run-now")
    assert first["idempotency_token"] == second["idempotency_token"]


OTHER_JOB = answer({"job_id": 3, "settings": {"name": "sales.etl", "tasks": []}})


def test_a_launch_that_died_before_its_run_failed(cleared: Airflow, server: ScriptedServer) -> None:
    """The retry takes over the failed run, which belongs to the group's tasks."""
    failed = {**run("TERMINATED", "FAILED"), "run_id": 7}
    server.will(cleared.jobs, cleared.job, answer({"run_id": 7}), answer(failed), cleared.job)
    assert cleared.launch(2, 0)["run_id"] == 7
    assert len(sent(server, "run-now")) == 1


@pytest.mark.parametrize("result", ["FAILED", None])
def test_a_launch_that_died_before_it_could_check_its_run(
    result: str | None, cleared: Airflow, server: ScriptedServer
) -> None:
    """The job was reset for another DAG run before the launch: that run is not taken over."""
    found = {**run("TERMINATED" if result else "RUNNING", result), "run_id": 6}
    others = [{**task("a", 90, "RUNNING"), **cleared.defined("a", "/other")}]
    server.will(cleared.jobs, cleared.job, answer({"run_id": 6}), answer(found), OTHER_JOB)
    server.will(answer({**found, "tasks": others}))
    if result is None:
        server.will(answer({}))
    server.will(cleared.jobs, cleared.job, answer({"run_id": 7}), answer(run("PENDING")))
    assert cleared.launch(2, 0)["run_id"] == 7
    assert sent(server, "runs/cancel") == ([] if result else [{"run_id": 6}])
    tokens = [one["idempotency_token"] for one in sent(server, "run-now")]
    assert len(set(tokens)) == 2
