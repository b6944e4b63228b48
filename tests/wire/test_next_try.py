"""A task's process that is killed: has a user ended the task, or does its next try take over?

Airflow's answers are chosen here, at the connection between a task and its supervisor. Airflow 2
has a database in its place; there, and for all of it together, see tests/end_to_end.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from threading import Event
from types import SimpleNamespace
from typing import Any

import airflow
import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_jobs_provider.operators import next_try
from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator

from .conftest import TOKEN, ScriptedServer, answer

task_runner: Any = pytest.importorskip(
    "airflow.sdk.execution_time.task_runner", reason="Airflow 2 asks its database"
)
comms: Any = pytest.importorskip("airflow.sdk.execution_time.comms")
errors: Any = pytest.importorskip("airflow.sdk.exceptions")

RUNNING = answer({"run_id": 7, "state": {"life_cycle_state": "RUNNING"}})
DELETED = "deleted"
# The states of a task that Airflow has taken from the process, and gives or gave to another one.
HANDED_OVER = [None, "scheduled", "queued", "running", "up_for_retry", "deferred", "success"]

Kill = Callable[..., bool]


class TaskInstance:
    """A try of a task, with retries left or not."""

    dag_id, task_id, run_id = "sales", "etl", "a_run"
    map_index = -1

    def __init__(self, try_number: int, max_tries: int) -> None:
        self.id = uuid.uuid4()
        self.try_number = try_number
        self.max_tries = max_tries
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        """Remember."""
        self.xcoms[key] = value


class Supervisor:
    """Answers what a task's process asks about its task instance."""

    def __init__(
        self, ti: TaskInstance, state: str | None, status: int, marked: int | None
    ) -> None:
        self.ti = ti
        self.marked = marked
        self.state = state
        self.status = status
        self.asked = 0

    def send(self, msg: Any) -> Any:
        """Answer as Airflow's API does."""
        self.asked += 1
        kind = type(msg).__name__
        if kind == "GetXCom":
            assert msg.key == "try_number"
            return comms.XComResult(key=msg.key, value=self.marked)
        if kind == "GetTaskStates":
            states = {} if self.state == DELETED else {"a_run": {"etl": self.state}}
            return SimpleNamespace(task_states=states)
        assert msg.ti_id == self.ti.id
        return self.look_up()

    def look_up(self) -> Any:
        """Answer whether the task instance of the process is there."""
        if self.status == 200:
            return SimpleNamespace(inactive_assets=[])
        error = errors.ErrorType.API_SERVER_ERROR
        detail = {"status_code": self.status, "message": "no"}
        raise errors.AirflowRuntimeError(comms.ErrorResponse(error=error, detail=detail))


class Silent(Supervisor):
    """Does not answer until the test is over."""

    def look_up(self) -> Any:
        """Wait."""
        over.wait(10)
        return super().look_up()


over = Event()


@pytest.fixture
def kill(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> Kill:
    """Kill a task that waits for its run; tell whether the service saw a cancel."""
    connection = {"conn_type": "databricks_jobs", "host": server.url, "password": TOKEN}
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))

    def kill(
        state: str | None,
        status: int = 404,
        *,
        marked: int | None = None,
        supervised_by: type[Supervisor] = Supervisor,
        try_number: int = 1,
        max_tries: int = 1,
        by: BaseException | None = None,
        **arguments: Any,
    ) -> bool:
        ti = TaskInstance(try_number, max_tries)
        operator = DatabricksSubmitRunOperator(
            task_id="etl",
            notebook_task={"notebook_path": "/etl"},
            existing_cluster_id="1201-my-cluster",
            polling_period_seconds=0.01,
            **arguments,
        )
        server.will(answer({"run_id": 7}), RUNNING, answer({}, 400))
        context: Any = {"ti": ti, "dag_run": None, "task": operator}
        with pytest.raises(Exception, match="400"):
            operator.execute(context)
        supervisor = supervised_by(ti, state, status, marked)
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
        try:
            if by is not None:
                raise by
        except AirflowTaskTimeout:
            operator.on_kill()
            assert supervisor.asked == 0
        else:
            operator.on_kill()
        monkeypatch.delattr(task_runner, "SUPERVISOR_COMMS")
        cancelled = [one.body for one in server.requests if one.path.endswith("/runs/cancel")]
        # What Airflow does in a task's process when no retry is left; it cancels nothing more.
        for callback in operator.on_failure_callback:
            callback(context)
        again = [one.body for one in server.requests if one.path.endswith("/runs/cancel")]
        assert again == cancelled
        assert cancelled in ([], [{"run_id": 7}])
        return bool(cancelled)

    return kill


@pytest.mark.parametrize("state", HANDED_OVER)
def test_the_next_try_takes_over(kill: Kill, state: str | None) -> None:
    """The try is history, and no user made it so: the run goes on for the next one."""
    assert not kill(state)
    assert not kill(state, status=410)


@pytest.mark.parametrize("state", [None, "scheduled", "queued", "up_for_retry"])
def test_the_next_try_is_to_begin(kill: Kill, state: str | None) -> None:
    """No process is at work in these states: the next one will be another."""
    assert not kill(state, status=200)


def test_the_next_try_has_the_same_id(kill: Kill) -> None:
    """Airflow 3.0 gives it none of its own, but the try has told its number."""
    assert not kill("running", status=200, marked=2)
    assert kill("running", status=200, marked=2, try_number=2)


def test_a_try_tells_its_number() -> None:
    """Where Airflow tells it apart by nothing else, and only if another one may be there."""
    is_needed = tuple(map(int, airflow.__version__.split(".")[:2])) < (3, 3)
    for number, told in ((1, {}), (2, {"try_number": 2} if is_needed else {})):
        assert next_try.xcoms_of_try(TaskInstance(number, 1)) == told


@pytest.mark.parametrize("state", ["restarting", DELETED])
def test_a_user_has_cleared_or_deleted_the_task(kill: Kill, state: str) -> None:
    """The try is history as well, but nobody wants its run."""
    assert kill(state)


@pytest.mark.parametrize("state", ["running", "failed", "success", "skipped"])
def test_the_try_is_still_the_tasks(kill: Kill, state: str) -> None:
    """A user has marked the task, its DAG run is over time, or the process was told to stop."""
    assert kill(state, status=200)


def test_a_run_that_no_other_try_would_find(kill: Kill) -> None:
    """Without reattach each try has a run of its own, unless the user gave the token."""
    assert kill("queued", reattach=False)


def test_a_run_that_is_found_by_the_users_token(kill: Kill) -> None:
    """The next try sends the same one, so it finds the run."""
    assert not kill("queued", reattach=False, idempotency_token="mine")


def test_a_passed_execution_timeout(kill: Kill) -> None:
    """The process knows by itself why it is to end, and asks nobody."""
    assert kill("queued", by=AirflowTaskTimeout("over"))


@pytest.mark.parametrize("supervised_by", [Supervisor, Silent])
@pytest.mark.parametrize("retries_left", [0, 1])
def test_airflow_does_not_answer(
    kill: Kill,
    monkeypatch: pytest.MonkeyPatch,
    supervised_by: type[Supervisor],
    retries_left: int,
) -> None:
    """It will miss the task and begin the next try, which follows the run, if one is left."""
    monkeypatch.setattr(next_try, "_LOOK_UP_SECONDS", 0.1)
    over.clear()
    cancelled = kill("running", 500, supervised_by=supervised_by, max_tries=retries_left)
    over.set()
    assert cancelled is (retries_left == 0)
