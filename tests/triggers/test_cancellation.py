"""A trigger that is canceled: a user's action, or a triggerer that stops or hands over?

Airflow's answers are chosen here, at the connection between a trigger and its supervisor. Airflow 2
has a database in its place; there, and for all of it together, see tests/end_to_end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from airflow_jobs_provider.airflow_compat import deferred_tasks
from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.airflow_compat.trigger_cancellation import calls_on_kill
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.triggers import cancel_on_kill
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger
from airflow_jobs_provider.triggers.polling import rate_limiter
from tests.fakes.scripted_server import TOKEN, ScriptedServer, answer
from tests.helpers.responses import GONE
from tests.helpers.trigger_supervisor import Row, Supervisor, cancel, on_kill, task_runner

# Airflow 3.0 reads a connection in a roundabout way that imports much else.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

End = Callable[..., None]


ENDS = [*([on_kill] if calls_on_kill() else []), cancel]


@pytest.fixture(params=ENDS)
def end(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> End:
    """Both ways in which Airflow ends a trigger."""
    if request.param is cancel:
        monkeypatch.setattr(airflow_line(), "calls_on_kill", False)
    chosen: End = request.param
    return chosen


# How many triggers there are makes no difference to the way.
first_end_is_enough = pytest.mark.parametrize(
    "end",
    [ENDS[0], *(pytest.param(one, marks=pytest.mark.exhaustive) for one in ENDS[1:])],
    indirect=True,
)


class Look:
    """Ends triggers, and returns which runs were canceled.

    :ivar supervisor: the last one that was asked.
    """

    def __init__(self, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, end: End) -> None:
        self._server = server
        self._monkeypatch = monkeypatch
        self._end = end

    def __call__(self, state: str, launched: Any = 7, **arguments: Any) -> bool:
        """Return whether the run of one task is canceled."""
        row = Row(state, launched)
        self.ask(Supervisor(row), row.trigger(7, **arguments))
        return self.canceled == [7]

    def ask(self, supervisor: Supervisor, *triggers: DatabricksJobRunTrigger) -> None:
        """End triggers, all at once."""
        self.supervisor = supervisor
        self._monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
        self._end(*triggers)

    @property
    def canceled(self) -> list[int]:
        """The runs that were canceled."""
        return sorted(
            request.body["run_id"]
            for request in self._server.requests
            if request.path.endswith("/runs/cancel")
        )


@pytest.fixture
def canceled(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, end: End) -> Look:
    """Which cancels the service sees when triggers end."""
    connection = {"conn_type": "databricks_jobs", "host": server.url, "password": TOKEN}
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))
    monkeypatch.setattr(deferred_tasks, "COLLECT_SECONDS", 0.01)
    # The pace is for a service that others use, too.
    monkeypatch.setattr(rate_limiter, "REQUESTS_PER_SECOND", 1000.0)
    return Look(server, monkeypatch, end)


@pytest.mark.parametrize("state", ["failed", "success", "queued", "running", "None"])
def test_a_task_that_is_no_longer_deferred(canceled: Look, state: str) -> None:
    """The task was marked or cleared, or its next try has started: the run is canceled."""
    assert canceled(state)


def test_a_task_that_is_deferred_with_another_run(canceled: Look) -> None:
    """The task was cleared and is deferred again: the earlier run is canceled."""
    assert canceled("deferred", launched=8)


def test_a_cancel_looks_for_the_connection_again(
    canceled: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The secrets backend fails at the moment when a user acts."""
    name = "AIRFLOW_CONN_DATABRICKS_DEFAULT"
    known = os.environ[name]
    monkeypatch.delenv(name)
    threading.Timer(0.5, os.environ.__setitem__, (name, known)).start()
    assert canceled("failed", reached_by="host")


@pytest.mark.parametrize("launched", [7, None])
def test_a_task_that_is_still_deferred(canceled: Look, launched: int | None) -> None:
    """The triggerer stops, or another one has taken over: the run is not canceled."""
    assert not canceled("deferred", launched=launched)


def test_cancel_on_kill_is_off(canceled: Look) -> None:
    """The run is not canceled, whatever a user does, and Airflow is not asked."""
    trigger = Row("failed").trigger(7)
    trigger.cancel_on_kill = False
    canceled.ask(Supervisor(Row("failed")), trigger)
    assert canceled.canceled == []
    assert canceled.supervisor.asked("GetTaskStates") == 0


@pytest.fixture
def slow_poll(server: ScriptedServer, end: End) -> Iterator[None]:
    """The service does not answer the first poll of a trigger that is running, for the whole test.

    Without waits the trigger would poll again and again.
    """
    kept: list[socket.socket] = []
    if end is cancel:  # The other way is for a trigger that polls nothing.
        server.will(lambda connection: kept.append(connection.dup()))
    yield
    for connection in kept:
        connection.close()


@pytest.mark.parametrize(("state", "cancels"), [("failed", [7]), ("deferred", [])])
@pytest.mark.usefixtures("slow_poll")
def test_airflow_is_asked_again(canceled: Look, state: str, cancels: list[int]) -> None:
    """After an error the task's state is not known, so Airflow is asked again."""
    row = Row(state)
    supervisor = Supervisor(row, errors=5)
    with no_waiting():
        canceled.ask(supervisor, row.trigger(7))
    assert canceled.canceled == cancels
    assert supervisor.asked("GetTaskStates") == 6


def test_a_question_without_an_answer(canceled: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent again after a while, and never canceled: Airflow 3.0 reads the answer there."""
    monkeypatch.setattr(deferred_tasks, "ANSWER_SECONDS", 0.3)
    row = Row("failed")
    supervisor = Supervisor(row, unanswered=1)
    canceled.ask(supervisor, row.trigger(7))
    assert canceled.canceled == [7]
    assert supervisor.asked("GetTaskStates") == 2
    assert supervisor.canceled_early == 0


def test_an_answer_after_the_trigger_has_ended(
    canceled: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow ends a trigger after 30 s; the run of its ended task is canceled all the same."""
    monkeypatch.setattr(cancel_on_kill, "_ON_KILL_SECONDS", 0.05)
    row = Row("failed")
    supervisor = Supervisor(row, seconds=1)
    canceled.ask(supervisor, row.trigger(7))
    assert supervisor.answered_after_the_end
    assert canceled.canceled == [7]


@pytest.mark.usefixtures("slow_poll")
def test_a_task_whose_state_is_never_known(
    canceled: Look, caplog: pytest.LogCaptureFixture
) -> None:
    """After ten minutes the run is not canceled, and a warning names it."""
    row = Row("failed")
    trigger = row.trigger(7, polling_period_seconds=1)
    trigger._log = logging.getLogger("task")  # type: ignore[assignment, unused-ignore]
    with no_waiting() as waits:
        canceled.ask(Supervisor(row, errors=float("inf"), seconds=0), trigger)
    assert canceled.canceled == []
    assert 600 <= sum(waits) <= 660
    (warning,) = (r.getMessage() for r in caplog.records if r.name == "task" and r.levelno >= 30)
    assert warning == (
        "Run 7 is not canceled, since the state of its task is not known: the API does not answer"
    )


def test_an_xcom_that_is_no_run_id(canceled: Look) -> None:
    """The run is not canceled, since the XCom does not tell which run the task waits for."""
    assert not canceled("deferred", launched="none of ours")


def test_a_terminating_run_is_not_canceled_again(canceled: Look, end: End) -> None:
    """The trigger has read the state TERMINATING: another triggerer may have canceled the run."""
    assert canceled("failed", life_cycle_state="TERMINATING") is (end is on_kill)


@pytest.mark.parametrize("result_state", ["SUCCESS", "FAILED"])
def test_a_run_that_has_ended_is_not_canceled(
    canceled: Look, end: End, server: ScriptedServer, result_state: str
) -> None:
    """Another triggerer, which took the trigger over, has resumed the task with the ended run."""
    state = {"life_cycle_state": "TERMINATED", "result_state": result_state}
    server.will(answer({"run_id": 7, "state": state}))
    row = Row("queued")
    if end is on_kill:
        canceled.ask(Supervisor(row), row.trigger(7))
        assert canceled.canceled == []


@pytest.mark.parametrize("status", [400, 503])
def test_a_run_that_cannot_be_read_is_canceled(
    canceled: Look, end: End, server: ScriptedServer, status: int
) -> None:
    """One failed read is not repeated: the cancel is sent next."""
    server.will(answer({"error_code": "INVALID_STATE", "message": "not now"}, status))
    row = Row("queued")
    if end is on_kill:
        canceled.ask(Supervisor(row), row.trigger(7))
        assert canceled.canceled == [7]
        assert len(server.requests) == 2


def test_a_run_whose_read_is_not_answered_is_canceled_soon(
    canceled: Look, end: End, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cancel waits for the response for some seconds only."""
    monkeypatch.setattr(cancel_on_kill, "_RESPONSE_BEFORE_CANCEL_SECONDS", 0.2)
    kept: list[socket.socket] = []
    server.will(lambda connection: kept.append(connection.dup()))
    row = Row("queued")
    if end is on_kill:
        began = time.monotonic()
        canceled.ask(Supervisor(row, seconds=0), row.trigger(7))
        assert canceled.canceled == [7]
        assert time.monotonic() - began < 5
    for connection in kept:
        connection.close()


def test_a_run_that_is_gone_may_not_still_run(
    canceled: Look, end: End, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A cleared task's run was deleted: no user is asked to cancel it by hand."""
    caplog.set_level("INFO")
    server.will(*[GONE] * 2)
    row = Row("queued")
    trigger = row.trigger(7)
    trigger._log = logging.getLogger("task")  # type: ignore[assignment, unused-ignore]
    canceled.ask(Supervisor(row), trigger)
    assert "Run 7 does not exist any more and is not canceled." in caplog.text
    assert "may still run" not in caplog.text


# Many at once.


@first_end_is_enough
def test_three_hundred_triggers_are_taken_over(canceled: Look) -> None:
    """All their tasks are still deferred: a few questions are asked, and no run is canceled."""
    rows = [
        Row("deferred", launched=100 * run + number, run_id=f"run_{run}", task_id=f"etl_{number}")
        for run in range(3)
        for number in range(100)
    ]
    supervisor = Supervisor(*rows, seconds=0.001)
    canceled.ask(supervisor, *(row.trigger(row.launched) for row in rows))
    assert canceled.canceled == []
    # One more prepares the triggerer, where the triggers have begun.
    assert supervisor.asked("GetTaskStates") <= 2
    assert supervisor.asked("GetXCom") == 300


@first_end_is_enough
def test_a_hundred_of_two_hundred_are_marked(canceled: Look) -> None:
    """Each of their runs is canceled once, and no other run is."""
    rows = [
        Row(
            "failed" if run else "deferred", 100 * run + number, "sales", f"run_{run}", f"t{number}"
        )
        for run in range(2)
        for number in range(100)
    ]
    supervisor = Supervisor(*rows, seconds=0.001)
    canceled.ask(supervisor, *(row.trigger(row.launched) for row in rows))
    assert canceled.canceled == list(range(100, 200))
    assert supervisor.asked("GetTaskStates") <= 2


@pytest.mark.slow
@pytest.mark.usefixtures("slow_poll")
def test_a_limit_of_requests_at_the_cancels(canceled: Look, server: ScriptedServer) -> None:
    """Each run is canceled, whatever the task's own retry arguments are."""
    rows = [Row("failed", number, run_id=f"run_{number}") for number in range(30)]
    slower = {"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "Slow down"}
    server.will(*[answer(slower, 429, {"Retry-After": "1"})] * 5)
    with no_waiting():
        canceled.ask(Supervisor(*rows), *(row.trigger(row.launched, retry_limit=1) for row in rows))
    assert set(canceled.canceled) == set(range(30))


def test_tasks_with_ambiguous_keys(canceled: Look) -> None:
    """Airflow's key of the first of mapped tasks may be another task's name: each is told apart."""
    rows = [
        Row("deferred", 1, task_id="etl", map_index=0),
        Row("failed", 2, task_id="etl_0"),
        Row("failed", 3, task_id="etl", map_index=1),
        Row("deferred", 4, task_id="etl_1"),
        Row("failed", 5, task_id="etl", map_index=2),
        Row("deferred", 6, task_id="etl", map_index=2, dag_id="costs"),
        Row("deferred", 7, task_id="etl", map_index=2, run_id="another_run"),
    ]
    canceled.ask(Supervisor(*rows), *(row.trigger(row.launched) for row in rows))
    assert canceled.canceled == [2, 3, 5]


@first_end_is_enough
def test_many_long_names(canceled: Look) -> None:
    """A question is no longer than Airflow takes, and asks for few rows that nobody wants."""
    rows = [
        Row("deferred", number, run_id=f"scheduled__2026-01-01T00:00:00+00:00_{number:0180}")
        for number in range(400)
    ]
    rows += [
        Row("deferred", number, "apart", f"run_{number}", f"task_{number}")
        for number in range(400, 500)
    ]
    supervisor = Supervisor(*rows, seconds=0.001)
    canceled.ask(supervisor, *(row.trigger(row.launched) for row in rows))
    assert canceled.canceled == []
    questions = [question for question in supervisor.questions if hasattr(question, "task_ids")]
    assert len(questions) <= 10
    for question in questions:
        query = urlencode([("run_ids", text) for text in question.run_ids])
        assert len(query) < 65_536 / 2
        assert len(question.run_ids) * len(question.task_ids) <= 1_000


def test_the_triggerer_is_prepared_once(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first trigger has Airflow build what answers questions; the others need not."""
    connection = {"conn_type": "databricks_jobs", "host": server.url, "password": TOKEN}
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))
    ended = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}
    server.will(*[answer({"run_id": 7, "state": ended})] * 3)
    row = Row("deferred")
    supervisor = Supervisor(row, seconds=0)
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)

    async def run() -> None:
        for trigger_id in (1, 2, 3):
            trigger = row.trigger(7, polling_period_seconds=0.3)
            trigger.trigger_id = trigger_id
            assert [event async for event in trigger.run()]

    asyncio.run(run())
    assert supervisor.asked("GetTaskStates") == 1
