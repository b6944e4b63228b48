"""A task's process that is killed: has a user ended the task, or does its next try take over?

Airflow's answers are chosen here, at the connection between a task and its supervisor. Airflow 2
has a database in its place, see test_run_successor_airflow_2.py; for all of it together, see
tests/end_to_end.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from threading import Event
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowTaskTimeout,
)

from airflow_jobs_provider.airflow_compat import run_successor
from airflow_jobs_provider.airflow_compat.lines import airflow_3_0, airflow_version
from airflow_jobs_provider.operators.execution_state import KillState
from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator
from tests.fakes.scripted_server import TOKEN, ScriptedServer, Step, answer
from tests.helpers.tasks import TaskInstanceWithId

task_runner: Any = pytest.importorskip(
    "airflow.sdk.execution_time.task_runner", reason="Airflow 2 asks its database"
)
comms: Any = pytest.importorskip("airflow.sdk.execution_time.comms")
errors: Any = pytest.importorskip("airflow.sdk.exceptions")

RUNNING = answer({"run_id": 7, "state": {"life_cycle_state": "RUNNING"}})
DELETED = "deleted"
# The status by which Airflow's API tells that a task instance is, or is no more, the try's own.
OWN, GONE, MOVED = 200, 404, 410
BEFORE_A_TRY = [None, "scheduled", "queued", "up_for_retry"]
ENDED = ["failed", "success", "skipped", "removed", "upstream_failed", "restarting", DELETED]
_LATEST_TRY_NUMBER = "latest_try_number"
# Whether Airflow tells attempts apart by ids and counts clears.
KNOWS_CLEARS = airflow_version() >= (3, 2)

Kill = Callable[..., bool]


class Supervisor:
    """Answers what a task's process asks about its task.

    :param ti: its task instance.
    :param state: the task's state, as Airflow knows it.
    :param status: of the answer about the task instance.
    :param followed_by: the XCom that a later try pushes.
    :param clears: how often a user has cleared the task.
    """

    def __init__(
        self,
        ti: TaskInstanceWithId,
        state: str | None,
        status: int,
        followed_by: int | None,
        clears: int,
    ) -> None:
        self.ti = ti
        self.states = {} if state == DELETED else {"a_run": {"etl": state}}
        self.status = status
        self.followed_by = followed_by
        self.clear_number = 3 + clears
        self.asked: list[str] = []

    def send(self, msg: Any) -> Any:
        """Answer as Airflow's API does."""
        kind = type(msg).__name__
        self.asked.append(kind)
        return getattr(self, kind)(msg)

    def GetTaskStates(self, _msg: Any) -> Any:  # noqa: N802 - Airflow's names
        """Tell the state."""
        return SimpleNamespace(task_states=self.states)

    def GetDagRun(self, _msg: Any) -> Any:  # noqa: N802
        """Tell of clears."""
        return SimpleNamespace(clear_number=self.clear_number)

    def GetXCom(self, msg: Any) -> Any:  # noqa: N802
        """Tell what a later try has pushed, at the second look."""
        assert msg.key == "latest_try_number"
        told = self.followed_by if self.asked.count("GetXCom") > 1 else None
        return comms.XComResult(key=msg.key, value=told)

    def ValidateInletsAndOutlets(self, msg: Any) -> Any:  # noqa: N802
        """Tell whether the task instance is there."""
        assert msg.ti_id == self.ti.id
        if self.status == OWN:
            return SimpleNamespace(inactive_assets=[])
        raise refusal(self.status)


class Refusing(Supervisor):
    """Passes on an error of Airflow's API, or of what stands before it."""

    def GetTaskStates(self, _msg: Any) -> Any:  # noqa: N802
        """Refuse."""
        raise refusal(self.status)


class Dead(Supervisor):
    """Has ended, and with it the connection."""

    def send(self, msg: Any) -> Any:
        """Break off."""
        raise EOFError(f"no supervisor for {msg}")


class Silent(Supervisor):
    """Does not answer until the test is over."""

    over = Event()

    def send(self, msg: Any) -> Any:
        """Wait."""
        self.over.wait(10)
        return super().send(msg)


def refusal(status: int) -> Exception:
    """Make the error of a question that Airflow's API has answered with a status."""
    error = errors.ErrorType.API_SERVER_ERROR
    detail = {"status_code": status, "message": "no"}
    refused: Exception = errors.AirflowRuntimeError(comms.ErrorResponse(error=error, detail=detail))
    return refused


@pytest.fixture
def waiting(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Make an operator that waits for run 7, and its context."""
    connection = {"conn_type": "databricks_jobs", "host": server.url, "password": TOKEN}
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))

    def make(try_number: int = 1, max_tries: int = 1, **arguments: Any) -> tuple[Any, Any]:
        operator = DatabricksSubmitRunOperator(
            task_id="etl",
            notebook_task={"notebook_path": "/etl"},
            existing_cluster_id="1201-my-cluster",
            polling_period_seconds=0.01,
            **arguments,
        )
        context: Any = {
            "ti": TaskInstanceWithId(try_number, max_tries),
            "dag_run": SimpleNamespace(start_date=None, clear_number=3),
            "task": operator,
        }
        server.will(answer({"run_id": 7}), RUNNING, answer({}, 400))
        with pytest.raises(Exception, match="400"):
            operator.execute(context)
        return operator, context

    return make


def canceled(server: ScriptedServer) -> list[Any]:
    """Return the runs that were canceled."""
    return [one.body["run_id"] for one in server.requests if one.path.endswith("/runs/cancel")]


@pytest.fixture
def kill(
    server: ScriptedServer, waiting: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Kill:
    """Kill a task that waits for its run; tell whether the service saw a cancel."""
    monkeypatch.setattr(airflow_3_0, "SECONDS_UNTIL_XCOM", 0.1)

    def kill(
        state: str | None,
        status: int,
        *,
        followed_by: int | None = None,
        clears: int = 0,
        supervised_by: type[Supervisor] = Supervisor,
        **arguments: Any,
    ) -> bool:
        operator, context = waiting(**arguments)
        supervisor = supervised_by(context["ti"], state, status, followed_by, clears)
        before = len(canceled(server))
        with monkeypatch.context() as patched:
            patched.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
            operator.on_kill()
        seen = canceled(server)
        assert seen[before:] in ([], [7])
        # What Airflow does in a task's process that fails for good. That is no retry's process.
        for callback in operator.on_failure_callback:
            callback(context)
        waits_for_retry = operator._state.kill is KillState.LEFT_TO_RETRY
        assert canceled(server) == ([*seen, 7] if waits_for_retry else seen)
        return bool(seen[before:])

    return kill


@pytest.mark.parametrize("state", BEFORE_A_TRY)
def test_a_scheduled_attempt_is_the_successor(kill: Kill, state: str | None) -> None:
    """No process is at work in these states: the next one will be another, and follows the run."""
    assert not kill(state, OWN)


def test_a_retry_after_a_failure_is_the_successor(kill: Kill) -> None:
    """Airflow takes the task for dead, and will begin another try."""
    assert not kill("up_for_retry", GONE)
    assert kill("up_for_retry", GONE, clears=2) is KNOWS_CLEARS


@pytest.mark.parametrize("status", [GONE, MOVED])
@pytest.mark.parametrize("state", [None, "scheduled", "queued", "running"])
def test_a_new_id_is_another_attempt_from_airflow_3_2_on(
    kill: Kill, state: str | None, status: int
) -> None:
    """From Airflow 3.2 on it is known not to be there because of a user."""
    assert kill(state, status) is not KNOWS_CLEARS


@pytest.mark.skipif(KNOWS_CLEARS, reason="before Airflow 3.2")
def test_a_running_attempt_with_the_same_id_is_the_successor(kill: Kill) -> None:
    """It has told its number; earlier tries have told theirs, too."""
    assert not kill("running", OWN, followed_by=2)
    assert kill("running", OWN, followed_by=2, try_number=2)


def test_the_trigger_of_a_deferred_task_is_the_successor(kill: Kill) -> None:
    """The trigger waits for the run, and cancels it if need be."""
    assert not kill("deferred", OWN)
    assert kill("deferred", GONE) is not KNOWS_CLEARS


@pytest.mark.parametrize("status", [OWN, GONE])
@pytest.mark.parametrize("state", ENDED)
def test_a_user_has_ended_the_task(kill: Kill, state: str, status: int) -> None:
    """Cleared, marked, deleted, its DAG run over time: even if another try was at work."""
    assert kill(state, status)


@pytest.mark.parametrize("clears", [0, 1])
@pytest.mark.parametrize(("try_number", "is_canceled"), [(1, False), (2, False), (3, True)])
def test_a_signal_from_outside(kill: Kill, try_number: int, is_canceled: bool, clears: int) -> None:
    """The task is the process's own: a retry follows the run, if one is left.

    Whether other tasks of the DAG run were cleared does not matter.
    """
    assert kill("running", OWN, try_number=try_number, max_tries=2, clears=clears) is is_canceled


@pytest.mark.parametrize("state", [None, "scheduled", "queued", "running", "deferred"])
def test_a_user_has_cleared_the_task_twice(kill: Kill, state: str | None) -> None:
    """The task's state does not tell of it any more."""
    assert kill(state, GONE, clears=2)


def test_without_reattach_there_is_no_successor(kill: Kill) -> None:
    """Without reattach each try has a run of its own, unless the user gave the token."""
    assert kill("queued", OWN, reattach=False)


def test_a_users_token_reattaches_without_reattach(kill: Kill) -> None:
    """The next try sends the same one, so it finds the run."""
    assert not kill("queued", OWN, reattach=False, idempotency_token="mine")


@pytest.mark.parametrize("supervised_by", [Dead, Silent])
@pytest.mark.parametrize("retries_left", [0, 1])
def test_no_answer_leaves_the_run_to_a_retry_that_is_left(
    kill: Kill,
    monkeypatch: pytest.MonkeyPatch,
    supervised_by: type[Supervisor],
    retries_left: int,
) -> None:
    """It will miss the task and begin the next try, which follows the run, if one is left."""
    monkeypatch.setattr(run_successor, "_LOOK_UP_SECONDS", 0.1)
    Silent.over.clear()
    is_canceled = kill("running", OWN, supervised_by=supervised_by, max_tries=retries_left)
    Silent.over.set()
    assert is_canceled is (retries_left == 0)


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("retries_left", [0, 1])
def test_a_5xx_of_the_api_server_is_no_answer(kill: Kill, status: int, retries_left: int) -> None:
    """That is no answer either."""
    is_canceled = kill("running", status, supervised_by=Refusing, max_tries=retries_left)
    assert is_canceled is (retries_left == 0)


@pytest.mark.parametrize("status", [400, 403])
def test_a_4xx_of_the_api_server_means_no_successor(kill: Kill, status: int) -> None:
    """It is there, so a user may have told it anything."""
    assert kill("queued", status, supervised_by=Refusing)


def test_execution_timeout_asks_nothing_and_cancels(
    server: ScriptedServer, waiting: Callable[..., Any]
) -> None:
    """The process knows by itself why it is to end, and asks nobody."""
    operator, _ = waiting()

    def time_out() -> None:
        raise AirflowTaskTimeout

    try:
        time_out()
    except AirflowTaskTimeout:
        operator.on_kill()
    assert canceled(server) == [7]


@pytest.fixture
def supervisors_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The other end of a task's real connection to its supervisor."""
    here, there = socket.socketpair()
    with here, there:
        decoder = comms.CommsDecoder(socket=here)
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", decoder, raising=False)
        yield there


class Asking(TaskInstanceWithId):
    """Asks Airflow when the run's id is pushed, as pushing does."""

    def xcom_push(self, key: str, value: Any) -> None:
        """Ask, and remember."""
        if key == "run_id":
            whose = {"dag_id": "sales", "task_id": "up", "run_id": "a_run", "map_index": -1}
            assert task_runner.SUPERVISOR_COMMS.send(comms.GetXCom(key="a", **whose)).value == 42
        super().xcom_push(key, value)


ANSWERS: dict[str, dict[str, Any]] = {
    "GetXCom": {"type": "XComResult", "key": "a", "value": 42},
    "ValidateInletsAndOutlets": {"type": "InactiveAssetsResult", "inactive_assets": []},
}


@pytest.mark.parametrize(
    ("state", "max_tries", "is_canceled"),
    [("running", 1, False), ("running", 0, True), ("failed", 1, True)],
)
def test_a_kill_during_a_request_to_airflow_is_decided_after_it(
    server: ScriptedServer,
    operator: DatabricksSubmitRunOperator,
    supervisors_end: socket.socket,
    signalled: Event,
    state: str,
    max_tries: int,
    is_canceled: bool,
) -> None:
    """Another one cannot be asked yet: it is asked when the first one has its answer."""
    task_states = {"type": "TaskStatesResult", "task_states": {"a_run": {"etl": state}}}
    asked: list[str] = []

    def supervise() -> None:
        while size := int.from_bytes(supervisors_end.recv(4, socket.MSG_WAITALL), "big"):
            number, body, *_ = msgspec.msgpack.decode(
                supervisors_end.recv(size, socket.MSG_WAITALL)
            )
            asked.append(body["type"])
            if len(asked) == 1:
                os.kill(os.getpid(), signal.SIGUSR1)
                signalled.wait(10)
            told = ANSWERS.get(body["type"], task_states)
            if _LATEST_TRY_NUMBER in body.values():
                told = {"type": "XComResult", "key": _LATEST_TRY_NUMBER, "value": None}
            supervisors_end.sendall(comms._ResponseFrame(id=number, body=told).as_bytes())

    supervisor = threading.Thread(target=supervise, daemon=True)
    supervisor.start()
    canceled_state = {"life_cycle_state": "TERMINATED", "result_state": "CANCELED"}
    server.will(
        answer({"run_id": 7}), RUNNING, answer({}), answer({"run_id": 7, "state": canceled_state})
    )
    try:
        with pytest.raises(AirflowException, match="killed" if is_canceled else "Run 7 goes on"):
            operator.execute(context_of(operator, Asking(1, max_tries)))
    finally:
        supervisors_end.shutdown(socket.SHUT_RDWR)  # so that the thread reads the end
        supervisor.join(10)
    assert asked[0] == "GetXCom"
    assert canceled(server) == ([7] if is_canceled else [])


@pytest.fixture
def operator(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An operator that looks at its run once a minute."""
    monkeypatch.setattr(airflow_3_0, "SECONDS_UNTIL_XCOM", 0.1)
    connection = {"conn_type": "databricks_jobs", "host": server.url, "password": TOKEN}
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))
    operator = DatabricksSubmitRunOperator(
        task_id="etl",
        notebook_task={"notebook_path": "/etl"},
        existing_cluster_id="1201-my-cluster",
        polling_period_seconds=60,
    )
    assert operator.hook.client  # Before there is a supervisor, who would be told its token.
    return operator


def context_of(operator: Any, ti: TaskInstanceWithId) -> Any:
    """Make the context of a task of a DAG run whose tasks were cleared three times."""
    dag_run = SimpleNamespace(start_date=None, clear_number=3)
    return {"ti": ti, "dag_run": dag_run, "task": operator}


@pytest.fixture
def signalled(operator: Any) -> Iterator[Event]:
    """A signal runs ``on_kill``, and lets the process go on, as in Airflow 3."""
    handled = Event()

    def on_signal(_number: int, _frame: Any) -> None:
        operator.on_kill()
        handled.set()

    before = signal.signal(signal.SIGUSR1, on_signal)
    yield handled
    signal.signal(signal.SIGUSR1, before)


def then_signal(step: Step) -> Step:
    """Take a step, and send the signal."""

    def take(connection: socket.socket) -> None:
        step(connection)
        os.kill(os.getpid(), signal.SIGUSR1)

    return take


@pytest.mark.parametrize("moment", ["before the launch is answered", "while the run goes on"])
def test_a_signal_ends_the_attempt_within_seconds(
    server: ScriptedServer,
    operator: Any,
    signalled: Event,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    """A signal from outside, with a retry left: the process ends, and the run goes on."""
    context = context_of(operator, TaskInstanceWithId(1, 1))
    supervisor = Supervisor(context["ti"], "running", OWN, None, 0)
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    if moment == "while the run goes on":
        server.will(answer({"run_id": 7}), then_signal(RUNNING))
    else:
        server.will(then_signal(answer({"run_id": 7})), RUNNING)
    began = time.monotonic()
    with pytest.raises(AirflowException, match="goes on, and the next try follows it") as caught:
        operator.execute(context)
    assert not isinstance(caught.value, AirflowFailException)
    assert time.monotonic() - began < 10
    assert signalled.is_set()
    assert canceled(server) == []


def test_a_retry_pushes_its_number_before_airflow_3_2(waiting: Callable[..., Any]) -> None:
    """Where Airflow tells it apart by nothing else, and only if another one may be there."""
    for number in (1, 2):
        _, context = waiting(try_number=number)
        told = context["ti"].xcoms.get("latest_try_number")
        assert told == (number if not KNOWS_CLEARS and number > 1 else None)
