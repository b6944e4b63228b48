"""A launch is repeated to learn its run's id only where its answer may have been lost."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from airflow_jobs_provider.api.retry import no_waiting
from tests.fakes.scripted_server import (
    ScriptedServer,
    answer,
    half_a_body,
    lose,
    never_answer,
    reset,
)
from tests.helpers.fault_bench import KilledError, killed_by_signal
from tests.helpers.responses import LAUNCHED, RUNNING
from tests.helpers.tasks import fail_for_good, operator_of, paths, retrying

PAGE = "<html><title>Bad Gateway</title></html>"
# The service has answered that it launches nothing.
REFUSALS: dict[str, Any] = {
    "403": answer({"error_code": 403, "message": "Invalid access token."}, 403),
    "400 final": answer({"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}, 400),
    "400 quota": answer({"error_code": "QUOTA_EXCEEDED", "message": "no"}, 400),
    "404": answer({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no job"}, 404),
    "409": answer({"error_code": "RESOURCE_CONFLICT", "message": "no"}, 409),
    "429": answer({"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "slow down"}, 429),
    "302": answer("", 302, {"Location": "http://login.invalid/"}),
    "404 page": answer(PAGE, 404),
}
# It may have launched a run.
LOST: dict[str, Any] = {
    "connection closed": lose,
    "connection reset": reset,
    "half a body": half_a_body,
    "no answer": never_answer,
    "500": answer({"error_code": "INTERNAL_ERROR", "message": "Try again"}, 500),
    "502 page": answer(PAGE, 502),
    "200 page": answer(PAGE),
    "200 without a run_id": answer({}),
}
KINDS = ["runs/submit", "run-now"]


@pytest.fixture
def short_timeout(context: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The context of a task whose connection waits a quarter of a second for an answer."""
    import json

    connection = json.loads(os.environ["AIRFLOW_CONN_DATABRICKS_DEFAULT"])
    connection["extra"] = json.dumps({"timeout_seconds": 0.25})
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))
    return context


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("refused", REFUSALS)
def test_a_refused_launch_is_not_sent_again_after_the_task_has_failed(
    context: Any,
    server: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
    refused: str,
    kind: str,
) -> None:
    """No run starts for a failed task, though the service would launch it by then."""
    operator = operator_of(kind, databricks_retry_limit=1)
    server.will(REFUSALS[refused], LAUNCHED, answer({}))
    with pytest.raises(AirflowException):
        operator.execute(context)
    fail_for_good(operator, context)
    operator.on_kill()
    assert paths(server) == [kind]
    assert "may still run" not in caplog.text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lost", LOST)
def test_a_launch_whose_answer_may_be_lost_is_repeated_and_its_run_canceled(
    short_timeout: Any, server: ScriptedServer, lost: str, kind: str
) -> None:
    """The same token brings the id of the run that may have started."""
    operator = operator_of(kind, databricks_retry_limit=1)
    server.will(LOST[lost])
    with pytest.raises(AirflowException):
        operator.execute(short_timeout)
    server.will(LAUNCHED)
    fail_for_good(operator, short_timeout)
    assert paths(server) == [kind, kind, "runs/cancel"]
    first, again = (request.body["idempotency_token"] for request in server.requests[:2])
    assert first == again
    assert server.requests[2].body == {"run_id": 7}


def test_a_refusal_after_a_lost_answer_leaves_the_answer_lost(
    context: Any, server: ScriptedServer
) -> None:
    """The try before the refused one may have started a run."""
    operator = operator_of("runs/submit", databricks_retry_delay=0)
    server.will(lose, REFUSALS["403"])
    with pytest.raises(AirflowException, match="2 attempts in") as caught:
        operator.execute(context)
    assert getattr(caught.value, "outcome_unknown", None) is True
    server.will(LAUNCHED)
    fail_for_good(operator, context)
    assert paths(server) == ["runs/submit"] * 3 + ["runs/cancel"]


@pytest.mark.parametrize(
    ("step", "repeated"), [(REFUSALS["429"], False), (LOST["500"], True)], ids=["429", "500"]
)
def test_killed_between_two_tries_of_the_launch(
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    step: Any,
    repeated: bool,
) -> None:
    """After a 429 there is no run to be looked for; after a 500 there may be one."""
    operator = operator_of("runs/submit")
    server.will(step)

    def kill_instead_of_waiting(_seconds: float) -> None:
        server.will(LAUNCHED)
        os.kill(os.getpid(), signal.SIGUSR1)

    # Before the client is made: it keeps what it waits with.
    monkeypatch.setattr(
        "airflow_jobs_provider.api.client.JobsClient._default_sleep",
        staticmethod(kill_instead_of_waiting),
    )
    with killed_by_signal(operator), pytest.raises(KilledError):
        operator.execute(context)
    again = ["runs/submit", "runs/cancel"] if repeated else []
    assert paths(server) == ["runs/submit", *again]


def test_killed_while_the_launch_is_on_its_way(context: Any, server: ScriptedServer) -> None:
    """The service has got it and not answered: the run is looked for, and canceled."""
    operator = operator_of("runs/submit")

    def kill(_connection: socket.socket) -> None:
        server.will(LAUNCHED)
        os.kill(os.getpid(), signal.SIGUSR1)

    server.will(kill)
    with killed_by_signal(operator), pytest.raises(KilledError):
        operator.execute(context)
    assert paths(server) == ["runs/submit", "runs/submit", "runs/cancel"]


def test_a_refused_launch_of_a_retry_leaves_the_ended_run_alone(
    context: Any, server: ScriptedServer
) -> None:
    """The run of the try before has ended; that of this try was refused."""
    retrying(context)
    operator = operator_of("runs/submit")
    ended = {"run_id": 7, "state": {"life_cycle_state": "TERMINATED", "result_state": "FAILED"}}
    server.will(LAUNCHED, answer(ended), REFUSALS["403"])
    with pytest.raises(AirflowException, match="Invalid access token"):
        operator.execute(context)
    fail_for_good(operator, context)
    assert paths(server) == ["runs/submit", "runs/get", "runs/submit"]


def test_a_try_knows_nothing_of_another_tries_run(context: Any, server: ScriptedServer) -> None:
    """Where one process executes both, as dag.test() does: the second has launched nothing yet."""
    operator = operator_of("runs/submit", databricks_retry_limit=1)
    server.will(LAUNCHED, RUNNING, answer({}, 400))
    with pytest.raises(AirflowException):
        operator.execute(context)
    server.will(REFUSALS["403"])
    with no_waiting(), pytest.raises(AirflowException):
        operator.execute(context)
    operator.on_kill()
    assert "runs/cancel" not in paths(server)
