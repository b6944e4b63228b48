"""What a task of a workflow group does where its run cannot be repaired, or not now."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_jobs_provider.api.errors import ConflictError
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.operators.workflow_launch import DEFINITION_KEY
from tests.fakes.scripted_server import ScriptedServer, Step, answer
from tests.helpers.responses import OUTPUT, run
from tests.helpers.workflow_group import (
    CLUSTER,
    FAILED,
    Airflow,
    sent,
    whole,
)


def change_of_the_job(airflow: Airflow) -> list[Step]:
    """Answer a job that somebody has changed."""
    airflow.settings["tasks"][0]["notebook_task"]["notebook_path"] = "/other"
    return [whole("TERMINATED", *FAILED), airflow.job]


def change_of_the_group(airflow: Airflow) -> list[Step]:
    """Let the run have been launched with another definition."""
    airflow.xcoms["etl.launch", DEFINITION_KEY] = "0123456789abcdef"
    return []


def refusal(airflow: Airflow) -> list[Step]:
    """Refuse the repair, with the run as it was."""
    error = {"error_code": "INVALID_PARAMETER_VALUE", "message": "The run is too old."}
    before = whole("TERMINATED", *FAILED)
    return [before, airflow.job, answer(error, 400), before, before, before]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_of_the_job, "job 3 was changed"),
        (change_of_the_group, "definition has changed"),
        (refusal, "The run is too old"),
    ],
)
def test_a_run_that_cannot_be_repaired(
    change: Any, reason: str, cleared: Airflow, server: ScriptedServer, logged: Any
) -> None:
    """The task runs alone, on the group's cluster; so does its next try, at once."""
    answers = change(cleared)
    alone = [answer({"run_id": 9}), answer({**run("TERMINATED", "SUCCESS"), "run_id": 9}), OUTPUT]
    server.will(whole("TERMINATED", *FAILED), *answers, *alone)
    assert cleared.execute(2, 1) == "42"
    assert reason in logged()
    (submitted,) = sent(server, "runs/submit")
    (one,) = submitted["tasks"]
    assert one["new_cluster"] == CLUSTER
    assert one["notebook_task"] == {"notebook_path": "/a"}
    assert "depends_on" not in one
    assert cleared.recorded("a")["is_alone"] is True
    requests = len(server.requests)
    server.will(*alone)
    assert cleared.execute(3, 2) == "42"
    assert len(server.requests) == requests + 3


def test_a_run_that_stays_locked(cleared: Airflow, server: ScriptedServer) -> None:
    """The try fails, and the task does not run alone: the next try repairs the run."""
    locked = answer({"error_code": "COULD_NOT_ACQUIRE_LOCK", "message": "Run 7 is locked."}, 400)
    responses = {"repair": locked, "get": whole("TERMINATED", *FAILED)}

    def respond(connection: Any) -> None:
        server.will(respond)
        path = server.requests[-1].path
        step = cleared.job if "/jobs/get" in path else responses[path.rpartition("/")[2]]
        step(connection)

    server.will(respond)
    with no_waiting(), pytest.raises(ConflictError, match="Run 7 is locked"):
        cleared.execute(2, 1)
    assert sent(server, "runs/submit") == []
