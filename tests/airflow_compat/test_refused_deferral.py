"""A task whose deferral Airflow 3 refuses, because a user has ended the task meanwhile.

Airflow's answers are chosen here; the process ends as Airflow lets it end. For all of it together,
see tests/end_to_end/test_refused_deferrals.py.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import sys
from contextlib import suppress
from typing import Any, NoReturn

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.airflow_compat.lines.airflow_3_2 import Airflow32
from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator
from tests.fakes.scripted_server import TOKEN, ScriptedServer, answer
from tests.helpers.tasks import TaskInstanceWithId

task_runner: Any = pytest.importorskip(
    "airflow.sdk.execution_time.task_runner", reason="Airflow 2 refuses no deferral"
)
comms: Any = pytest.importorskip("airflow.sdk.execution_time.comms")
errors: Any = pytest.importorskip("airflow.sdk.exceptions")

PAGE = "http://w/7"
RUNNING = answer({"run_id": 7, "run_page_url": PAGE, "state": {"life_cycle_state": "RUNNING"}})
DELETED = "deleted"
ENDED_BY_USER = ["failed", "success", "skipped", "removed", "restarting", DELETED]
WAITED_FOR = ["deferred", "running", "queued", "scheduled", "up_for_retry", None]


class Supervisor:
    """Tells the state of the task.

    :param state: the state.
    """

    def __init__(self, state: str | None) -> None:
        self.states = {} if state == DELETED else {"a_run": {"etl": state}}
        self.asked: list[str] = []
        self.refuses = False

    def send(self, msg: Any) -> Any:
        """Answer the one question that is expected, or refuse a deferral."""
        self.asked.append(type(msg).__name__)
        if self.refuses and type(msg).__name__ == "DeferTask":
            refuse(409, "failed")
        return comms.TaskStatesResult(task_states=self.states)


class Broken(Supervisor):
    """Gives no answer."""

    def send(self, msg: Any) -> Any:
        """Break off."""
        raise EOFError(f"no supervisor for {msg}")


@pytest.fixture
def operator(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An operator that will defer with run 7."""
    connection = {"conn_type": "databricks_jobs", "host": server.url, "password": TOKEN}
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))
    operator = DatabricksSubmitRunOperator(
        task_id="etl",
        notebook_task={"notebook_path": "/etl"},
        existing_cluster_id="1201-my-cluster",
        deferrable=True,
    )
    server.will(answer({"run_id": 7}), RUNNING)
    return operator


@pytest.fixture
def supervised(
    operator: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Supervisor:
    """The supervisor of the task's process, who tells the state that the test names."""
    assert operator.hook.client  # Before there is a supervisor, who would be told its token.
    kind = Broken if request.param == "no answer" else Supervisor
    supervisor: Supervisor = kind(request.param)
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    return supervisor


def supervised_by(*states: str | None) -> pytest.MarkDecorator:
    """Name the states that the supervisor tells."""
    return pytest.mark.parametrize("supervised", states, indirect=True)


def defer(operator: Any) -> Any:
    """Execute the task until it defers; return its task instance."""
    ti = TaskInstanceWithId(1, 0)
    with pytest.raises(TaskDeferred):
        operator.execute({"ti": ti, "dag_run": None, "task": operator})
    return ti


def finish(operator: Any, ti: Any) -> list[str]:
    """Do what Airflow does with the operator's links at the end of a process."""
    return [link.get_link(operator=operator, ti_key=ti) for link in operator.operator_extra_links]


def canceled(server: ScriptedServer) -> list[Any]:
    """Return the runs that were canceled."""
    return [one.body["run_id"] for one in server.requests if one.path.endswith("/runs/cancel")]


def send_deferral() -> None:
    """Send the deferral as Airflow does, which only logs a refusal."""
    with suppress(errors.AirflowRuntimeError):
        task_runner.SUPERVISOR_COMMS.send(msg=comms.DeferTask.model_construct())


@pytest.mark.skipif(
    not isinstance(airflow_line(), Airflow32), reason="a refused deferral ends the process"
)
@pytest.mark.parametrize("is_refused", [False, True])
@supervised_by("failed")
def test_an_accepted_deferral_takes_no_request(
    is_refused: bool,
    server: ScriptedServer,
    operator: Any,
    supervised: Supervisor,
) -> None:
    """What a user does after it is told to the trigger."""
    ti = defer(operator)
    supervised.refuses = is_refused
    send_deferral()
    assert finish(operator, ti) == []
    assert supervised.asked == (["DeferTask", "GetTaskStates"] if is_refused else ["DeferTask"])
    assert canceled(server) == ([7] if is_refused else [])


@supervised_by(*ENDED_BY_USER)
def test_a_user_has_ended_the_task(
    server: ScriptedServer, operator: Any, supervised: Supervisor
) -> None:
    """The process finds out as it finishes, by one question, and cancels the run."""
    ti = defer(operator)
    assert supervised.asked == []
    assert finish(operator, ti) == []
    assert canceled(server) == [7]
    assert finish(operator, ti) == []
    assert supervised.asked == ["GetTaskStates"]
    assert canceled(server) == [7]


@supervised_by(*WAITED_FOR, "no answer")
def test_an_accepted_deferral_cancels_nothing(
    server: ScriptedServer, operator: Any, supervised: Supervisor
) -> None:
    """The trigger waits for it, or another try; in doubt it goes on."""
    assert finish(operator, defer(operator)) == []
    assert len(supervised.asked) <= 1
    assert canceled(server) == []


@supervised_by("failed")
@pytest.mark.usefixtures("supervised")
def test_cancel_on_kill_false_cancels_nothing(server: ScriptedServer, operator: Any) -> None:
    """With cancel_on_kill=False it goes on."""
    operator.cancel_on_kill = False
    assert finish(operator, defer(operator)) == []
    assert canceled(server) == []


@supervised_by("failed")
@pytest.mark.usefixtures("supervised")
def test_a_cancel_that_fails_lets_airflow_finish(
    operator: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Airflow calls listeners and callbacks after it has asked for the links."""

    def fail(_reason: str) -> None:
        raise RuntimeError("no client")

    ti = defer(operator)
    monkeypatch.setattr(operator, "_cancel", fail)
    assert finish(operator, ti) == []
    assert "no client" in caplog.text


@supervised_by("failed")
@pytest.mark.usefixtures("supervised")
def test_a_run_canceled_by_on_kill_is_canceled_once(server: ScriptedServer, operator: Any) -> None:
    """It is canceled once."""
    ti = defer(operator)
    operator.on_kill()
    finish(operator, ti)
    assert canceled(server) == [7]


def refuse(status: int, state: str | None) -> NoReturn:
    """Raise what a task's process gets whose news Airflow's API has refused."""
    detail = {"status_code": status, "detail": {"detail": {"previous_state": state}}}
    kind = errors.ErrorType.API_SERVER_ERROR
    raise errors.AirflowRuntimeError(comms.ErrorResponse(error=kind, detail=detail))


def end_with(operator: Any, status: int, state: str | None) -> None:
    """End a process as Airflow 3.0 does whose news Airflow's API has refused.

    :param status: of the API's answer.
    :param state: that the answer tells.
    """
    pid = os.fork()
    if pid == 0:
        try:
            atexit._clear()
            defer(operator)
            try:
                refuse(status, state)
            except errors.AirflowRuntimeError:
                sys.exit(1)
        except SystemExit:
            atexit._run_exitfuncs()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


@supervised_by("no answer")
@pytest.mark.usefixtures("supervised")
@pytest.mark.parametrize(
    ("status", "state", "runs"),
    [(409, state, [7]) for state in ENDED_BY_USER[:-1]]
    + [(409, state, []) for state in WAITED_FOR]
    + [(404, None, [7]), (410, None, [7]), (500, None, [])],
)
def test_the_refusal_at_exit_cancels_the_run(
    server: ScriptedServer, operator: Any, status: int, state: str | None, runs: list[int]
) -> None:
    """Airflow 3.0 does not get as far as to the links."""
    end_with(operator, status, state)
    assert canceled(server) == runs


def test_nothing_is_asked_without_a_supervisor(server: ScriptedServer, operator: Any) -> None:
    """As in ``dag.test()``: nobody is asked."""
    assert finish(operator, defer(operator)) == []
    assert canceled(server) == []


@pytest.mark.skipif(
    not isinstance(airflow_line(), Airflow32), reason="a refused deferral ends the process"
)
def test_airflows_own_object_can_be_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this fails, each deferral takes one more request to Airflow's API."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        supervisor = comms.CommsDecoder(socket=ours)
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
        monkeypatch.setattr(comms.CommsDecoder, "send", lambda _supervisor, msg: msg)
        is_accepted = airflow_line().watch_deferral()
        message = comms.DeferTask.model_construct()
        assert not is_accepted()
        assert task_runner.SUPERVISOR_COMMS is supervisor
        assert supervisor.send(msg=message) is message
        assert is_accepted()
