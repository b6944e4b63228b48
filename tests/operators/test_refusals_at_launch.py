"""Refused credentials before a launch fail the try at once, whichever request they are met at.

Only reads of a run that is known to exist are patient: maintenance has answered 403 for minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from airflow_jobs_provider.api.endpoints import get_job, get_run
from airflow_jobs_provider.api.errors import AuthenticationError
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.api.workflows.base import Workflow, within_deadline
from airflow_jobs_provider.operators.jobs import DatabricksRunNowOperator
from tests.fakes.scripted_server import ScriptedServer, Step, answer
from tests.helpers.client_face import Face
from tests.helpers.responses import OUTPUT, run
from tests.helpers.workflow_group import (
    FAILED,
    Airflow,
    claimed,
    other_job,
    task,
    whole,
    with_permissions,
)

FORBIDDEN = answer({"error_code": "PERMISSION_DENIED", "message": "no more"}, 403)
UNAUTHORIZED = answer({"error_code": "UNAUTHENTICATED", "message": "no more"}, 401)
REFUSALS = [pytest.param(FORBIDDEN, id="403"), pytest.param(UNAUTHORIZED, id="401")]


# By the request that is refused, what is answered before it.
BEFORE: dict[str, Callable[[Airflow, ScriptedServer], list[Step]]] = {
    "list": lambda _airflow, _server: [],
    "get": lambda airflow, _server: [airflow.jobs],
    "create": lambda _airflow, _server: [answer({"jobs": []})],
    "runs/list": lambda airflow, _server: [other_job(airflow)],
    "update": lambda airflow, _server: [other_job(airflow), answer({"runs": []})],
    "permissions/jobs/3": lambda airflow, server: [
        other_job(airflow),
        answer({"runs": []}),
        answer({}),
        claimed(airflow, server),
        answer({"runs": []}),
    ],
    "reset": lambda airflow, server: [
        *BEFORE["permissions/jobs/3"](airflow, server),
        answer({}),
    ],
    "run-now": lambda airflow, _server: [airflow.jobs, airflow.job],
}


@pytest.mark.parametrize("endpoint", BEFORE)
@pytest.mark.parametrize("refusal", REFUSALS)
def test_launch_of_a_group(
    endpoint: str,
    refusal: Step,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    context: Any,
) -> None:
    """Each request of the launching task."""
    airflow = with_permissions(monkeypatch)
    server.will(*BEFORE[endpoint](airflow, server), refusal)
    before_claim = endpoint in ("permissions/jobs/3", "reset")
    with no_waiting() as waits, pytest.raises(AirflowException, match="no more"):
        airflow.launch(1, 0)
    assert waits == ([2.0] if before_claim else [])  # the time in which the claim has to stand
    assert server.requests[-1].path.endswith(f"/{endpoint}")


@pytest.mark.parametrize("refused", ["get", "runs/repair"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_repair(refused: str, refusal: Step, cleared: Airflow, server: ScriptedServer) -> None:
    """A cleared task fails; it does not run alone, since the run may still be repaired."""
    ended = whole("TERMINATED", *FAILED)
    server.will(ended, ended, *([cleared.job] if refused == "runs/repair" else []), refusal)
    with no_waiting() as waits, pytest.raises(AirflowException, match="no more"):
        cleared.execute(2, 1)
    assert waits == []
    assert server.requests[-1].path.endswith(f"/jobs/{refused}")
    assert cleared.recorded("a").get("is_alone") in (None, False)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_previous_runs(refusal: Step, context: Any, server: ScriptedServer) -> None:
    """The list of the runs that are to be canceled before the launch."""
    operator = DatabricksRunNowOperator(task_id="etl", job_id=3, cancel_previous_runs=True)
    server.will(refusal)
    with no_waiting() as waits, pytest.raises(AirflowException, match="no more"):
        operator.execute(context)
    assert waits == []


def test_a_known_run_is_waited_for(cleared: Airflow, server: ScriptedServer) -> None:
    """The first read of a task of a group is patient."""
    ended = whole("TERMINATED", task("a", 100, "TERMINATED", "SUCCESS"))
    server.will(FORBIDDEN, ended, OUTPUT)
    with no_waiting() as waits:
        assert cleared.execute() == "42"
    assert waits[0] >= 30


def reads() -> Workflow[list[Any]]:
    """Read a job and then a run; an error of the first is part of the result."""
    seen: list[Any] = []
    try:
        yield get_job(3)
    except AuthenticationError as error:
        seen.append(error.status)
    seen.append((yield get_run(7))["run_id"])
    return seen


@pytest.mark.parametrize("has_deadline", [False, True])
def test_both_clients(has_deadline: bool, face: Face, server: ScriptedServer) -> None:
    """A workflow handles the error that it is resumed with, and goes on."""
    face.connect(server.url)
    server.will(FORBIDDEN, *([] if has_deadline else [answer({"job_id": 3, "settings": {}})]))
    server.will(answer(run("RUNNING")))
    assert face.run(within_deadline(reads()) if has_deadline else reads()) == (
        [403, 7] if has_deadline else [7]
    )
    assert bool(face.waits) is not has_deadline
