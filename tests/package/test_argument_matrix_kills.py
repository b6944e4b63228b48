"""Every argument of the tasks that wait for a run, given what nobody should give: they are killed.

The run that such a task has launched is canceled, once; the run that a sensor waits for is not.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, takewhile
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

from airflow_jobs_provider.airflow_compat import deferred_tasks
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.operators.jobs import (
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor
from airflow_jobs_provider.triggers.polling import rate_limiter
from tests.fakes.scripted_server import ScriptedServer, Step, answer
from tests.helpers.argument_matrix import (
    Answers,
    Case,
    given_by_templates,
    given_in_the_dag_file,
    outcome,
)
from tests.helpers.responses import run

LAUNCH = (DatabricksSubmitRunOperator, DatabricksRunNowOperator)
FIRST_RUN_ID = 101
LOOK_OF_THE_KILL, MOST_LOOKS = 2, 10
# So many of a matrix' cases must get as far as a wait, or a test of kills proves little.
FEWEST_LAUNCHES = 20


@dataclass
class Life:
    """A run that goes on until it is canceled.

    :ivar most_looks: it also ends when its state was asked for so often.
    :ivar looks: how often that was.
    :ivar cancels: how often it was canceled.
    """

    most_looks: float
    looks: int = 0
    cancels: int = 0

    @property
    def state(self) -> tuple[str, ...]:
        """Its life cycle state and its result."""
        if self.cancels:
            return "TERMINATED", "CANCELED"
        return ("RUNNING",) if self.looks < self.most_looks else ("TERMINATED", "SUCCESS")


class GoingOn(Answers):
    """What a service answers in which runs go on.

    :param on_look: called when a run was looked at for the second time. With it each run ends after
        some more looks, for the process goes on after a kill.
    :ivar runs: what was launched, by id.
    """

    def __init__(self, server: ScriptedServer, on_look: Callable[[], None] | None = None) -> None:
        super().__init__(server)
        self._on_look = on_look
        self.runs: dict[int, Life] = {}

    @property
    def next_run_id(self) -> int:
        """The id of the run that is launched next."""
        return FIRST_RUN_ID + len(self.runs)

    def pop(self, _place: Any = -1) -> Step:
        """Answer the request that came last."""
        request = self._server.requests[-1]
        path = request.path.rpartition("/jobs/")[2]
        if path in ("run-now", "runs/submit"):
            run_id = self.next_run_id
            self._life(run_id)
            return answer({"run_id": run_id})
        if path == "runs/get":
            life = self._life(int(request.query["run_id"]))
            life.looks += 1
            step = answer(run(*life.state) | {"run_id": int(request.query["run_id"])})
            return self._then_call(step) if life.looks == LOOK_OF_THE_KILL else step
        if path == "runs/list":
            found = run(*self._life(7).state, start_time=int(time.time() * 1000))
            return answer({"runs": [found]})
        if path == "runs/cancel":
            self.runs[request.body["run_id"]].cancels += 1
        return super().pop()

    def _life(self, run_id: int) -> Life:
        most_looks = math.inf if self._on_look is None else MOST_LOOKS
        return self.runs.setdefault(run_id, Life(most_looks))

    def _then_call(self, step: Step) -> Step:
        def take(connection: socket.socket) -> None:
            step(connection)
            if self._on_look is not None:
                self._on_look()

        return take


@dataclass
class Signalled:
    """What a signal to this process kills."""

    task: Any = None
    kills: int = 0

    def aim(self, task: Any) -> None:
        """Choose the task that the next signal kills."""
        self.task = task

    def signal(self) -> None:
        """Send the signal."""
        os.kill(os.getpid(), signal.SIGUSR1)

    def handle(self, *_signal: Any) -> None:
        """Do as Airflow 3 does: the process goes on after this."""
        self.kills += 1
        self.task.on_kill()


@pytest.fixture
def signalled() -> Iterator[Signalled]:
    """A signal kills the task, as Airflow does."""
    target = Signalled()
    before = signal.signal(signal.SIGUSR1, target.handle)
    yield target
    signal.signal(signal.SIGUSR1, before)


def all_cases(kind: Any, *, deferrable: bool, **more: Any) -> Iterator[Case]:
    """Yield all cases of a task that waits in one of the two ways."""
    for case in given_in_the_dag_file(kind, deferrable=deferrable, **more):
        if case.name != "deferrable":
            yield case
    for native in (False, True):
        yield from given_by_templates(kind, native=native, deferrable=deferrable, **more)


def until_one_waits(cases: Iterable[Case], waits: Callable[[], int]) -> Iterator[Case]:
    """Yield the cases of each argument up to the first one that gets as far as a wait.

    :param waits: returns how many have got so far.
    """
    for _, of_argument in groupby(cases, key=lambda case: case.name):
        before = waits()
        yield from takewhile(lambda _case: waits() == before, of_argument)  # noqa: B023


def left_running(runs: dict[int, Life], of_case: dict[int, Case]) -> list[str]:
    """Return the cases whose run was not canceled, or more than once."""
    return [f"{of_case[n]}: {run.cancels} cancels" for n, run in runs.items() if run.cancels != 1]


# A kill is the same whatever an argument is given: the quick tests have one value of each argument.
whole_matrix = pytest.mark.parametrize(
    "whole", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["one value", "all values"]
)


@whole_matrix
@pytest.mark.parametrize("kind", [LAUNCH[0], pytest.param(LAUNCH[1], marks=pytest.mark.exhaustive)])
def test_killed_on_a_worker(
    context: Any, server: ScriptedServer, kind: Any, signalled: Signalled, whole: bool
) -> None:
    """Whatever was given, the run that was launched is canceled, once."""
    service, of_case = GoingOn(server, signalled.signal), {}
    cases = all_cases(kind, deferrable=False)
    with no_waiting():
        for case in cases if whole else until_one_waits(cases, lambda: len(service.runs)):
            of_case[service.next_run_id] = case
            outcome(case, context, begun=signalled.aim)
    assert len(service.runs) >= FEWEST_LAUNCHES
    assert signalled.kills == len(service.runs)
    assert left_running(service.runs, of_case) == []


@whole_matrix
@pytest.mark.parametrize("kind", [LAUNCH[0], pytest.param(LAUNCH[1], marks=pytest.mark.exhaustive)])
def test_killed_while_deferred(
    context: Any, server: ScriptedServer, kind: Any, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """The same in the triggerer, once a user has marked all tasks failed."""
    service, of_case = GoingOn(server), {}
    triggers: list[Any] = []
    cases = all_cases(kind, deferrable=True)
    for case in cases if whole else until_one_waits(cases, lambda: len(triggers)):
        of_case[service.next_run_id] = case
        outcome(case, context, deferred_to=triggers.append)
    assert len(triggers) == len(service.runs) >= FEWEST_LAUNCHES
    mark_failed(triggers, monkeypatch)
    assert left_running(service.runs, of_case) == []


@pytest.mark.parametrize("deferrable", [False, True])
def test_sensor_killed(
    context: Any,
    server: ScriptedServer,
    signalled: Signalled,
    monkeypatch: pytest.MonkeyPatch,
    deferrable: bool,
) -> None:
    """The run that a sensor waits for is not its own: nobody cancels it."""
    service = GoingOn(server, None if deferrable else signalled.signal)
    triggers: list[Any] = []
    with no_waiting():
        for case in all_cases(DatabricksJobRunSensor, deferrable=deferrable, poke_interval=0.01):
            service.runs.clear()
            outcome(case, context, begun=signalled.aim, deferred_to=triggers.append)
    if deferrable:
        mark_failed(triggers, monkeypatch)
    assert len(triggers) + signalled.kills >= FEWEST_LAUNCHES
    assert not any(request.path.endswith("/runs/cancel") for request in server.requests)


def mark_failed(triggers: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """End triggers as a triggerer does whose tasks a user has marked failed."""
    # Not on Airflow 2, which has a database in the place of what answers here.
    from tests.helpers.trigger_supervisor import Row, Supervisor, cancel, on_kill, task_runner

    rows = [Row("failed", task_id=f"t{number}") for number in range(len(triggers))]
    for row, trigger in zip(rows, triggers, strict=True):
        trigger.task_instance = SimpleNamespace(
            dag_id=row.dag_id, run_id=row.run_id, task_id=row.task_id, map_index=row.map_index
        )
    supervisor = Supervisor(*rows)
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    monkeypatch.setattr(deferred_tasks, "COLLECT_SECONDS", 0.01)
    monkeypatch.setattr(rate_limiter, "REQUESTS_PER_SECOND", 1000.0)
    end = on_kill if hasattr(BaseTrigger, "on_kill") else cancel
    end(*triggers)
