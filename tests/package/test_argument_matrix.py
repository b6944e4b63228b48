"""Every argument of every operator and of the sensor, given what nobody should give.

Either a clear error comes before anything is sent, or what is sent is right: nothing given is lost,
and no run is left, neither at the task's end nor where it is killed. The arguments are those of the
signatures, so that a new one is in the matrix.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import groupby, takewhile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowException, TaskDeferred
from airflow.triggers.base import BaseTrigger

from airflow_jobs_provider.airflow_compat import deferred_tasks
from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.operators.jobs import (
    DatabricksCancelRunsOperator,
    DatabricksCreateJobsOperator,
    DatabricksDeleteRunOperator,
    DatabricksExportRunOperator,
    DatabricksNotebookOperator,
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
    DatabricksTaskOperator,
)
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor
from airflow_jobs_provider.triggers.polling import rate_limiter
from tests.fakes.scripted_server import ScriptedServer, Step, answer
from tests.helpers.responses import run

NOTEBOOK: dict[str, Any] = {
    "existing_cluster_id": "1201-my-cluster",
    "notebook_task": {"notebook_path": "/etl"},
}
TASKS: dict[Any, dict[str, Any]] = {
    DatabricksSubmitRunOperator: NOTEBOOK,
    DatabricksRunNowOperator: {"job_id": 3},
    DatabricksCreateJobsOperator: {"name": "n", **NOTEBOOK},
    DatabricksCancelRunsOperator: {"run_id": 7},
    DatabricksDeleteRunOperator: {"run_id": 7},
    DatabricksExportRunOperator: {"run_id": 7, "path": "p"},
    DatabricksJobRunSensor: {"run_id": 7},
    DatabricksNotebookOperator: {
        "existing_cluster_id": "1201-my-cluster",
        "notebook_path": "/etl",
    },
    DatabricksTaskOperator: {"task_config": NOTEBOOK},
}
# The operators for one task: only what defines it. They share the other arguments, the wait and the
# kill with the operators above.
ONE_TASK = (DatabricksNotebookOperator, DatabricksTaskOperator)
# A job cluster is a group's, and the metadata is for the task itself.
NOT_SENT_ALONE = ("job_cluster_key", "workflow_run_metadata")
LONGEST_TASK_KEY = 100
LAUNCH = (DatabricksSubmitRunOperator, DatabricksRunNowOperator)
DEFERS = (DatabricksSubmitRunOperator, DatabricksRunNowOperator, DatabricksJobRunSensor)
# As the module of a value may tell that Airflow resolves it.
NO_TYPE: Any = {object()}
VALUES = {
    "None": None,
    "empty text": "",
    "empty list": [],
    "no type": NO_TYPE,
    "huge": 10**400,
    "long": "x" * 20_000,
    "not ASCII": "schön 漢字 🙂",
    "a lone surrogate": "\ud800",
}
RENDERED = {"None": None, "empty text": "", "not ASCII": "schön 漢字 🙂", "a number": 5}
NO_PERMISSIONS: tuple[Any, str, list[Any]] = (
    DatabricksCreateJobsOperator,
    "access_control_list",
    [],
)
FIRST_RUN_ID = 101
LOOK_OF_THE_KILL, MOST_LOOKS = 2, 10
# So many of a matrix' cases must get as far as a wait, or a test of kills proves little.
FEWEST_LAUNCHES = 20
LAUNCHES = ("run-now", "runs/submit", "create", "reset", "runs/delete", "runs/cancel")


def arguments(kind: Any) -> list[str]:
    """Return what a task takes beyond what every operator and sensor of Airflow takes."""
    if kind in ONE_TASK:
        return ["databricks_task_key", *kind.template_fields]
    names: list[str] = []
    for owner in kind.__mro__:
        if owner.__module__.startswith("airflow_jobs_provider."):
            parameters = inspect.signature(owner.__init__).parameters.values()
            names += [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    return list(dict.fromkeys(names))


class Answers(list[Step]):
    """Steps without an end: what a service answers in which every run has succeeded."""

    def __init__(self, server: ScriptedServer) -> None:
        super().__init__()
        self._server = server
        server.steps = self

    def __bool__(self) -> bool:
        return True

    def pop(self, _place: Any = -1) -> Step:
        """Answer the request that came last."""
        path = self._server.requests[-1].path.rpartition("/jobs/")[2]
        request = self._server.requests[-1]
        ended = run("TERMINATED", "SUCCESS", task_key="schön 漢字 🙂")
        ended["run_id"] = int(request.query.get("run_id", 7))
        return answer(
            {
                "create": {"job_id": 3},
                "list": {"jobs": [{"job_id": 3, "settings": {"name": request.query.get("name")}}]},
                "run-now": {"run_id": 7},
                "runs/submit": {"run_id": 7},
                "runs/get": ended,
                "runs/list": {"runs": [ended | {"start_time": int(time.time() * 1000) - 1000}]},
                "runs/get-output": {"notebook_output": {"result": "42"}},
                "runs/export": {"views": []},
            }.get(path, {})
        )


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


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a path that is no good lead nowhere."""
    monkeypatch.chdir(tmp_path)


@dataclass(frozen=True)
class Case:
    """A task with one argument that nobody should give.

    :ivar name: the argument.
    :ivar what: its value, in words.
    :ivar as_sent: its value, as a request may have it.
    :ivar make: makes the task.
    :ivar rendered: what templates see; None for a task without templates.
    """

    name: str
    what: str
    as_sent: Any
    make: Callable[[], Any]
    rendered: dict[str, Any] | None = None

    def __str__(self) -> str:
        return f"{self.name}, {self.what}"


def outcome(
    case: Case,
    context: Any,
    *,
    begun: Callable[[Any], None] = lambda _task: None,
    deferred_to: Callable[[Any], None] = lambda _trigger: None,
) -> str | None:
    """Make a task and execute it; return its error, None where it went well.

    :param begun: is given the task before it is executed.
    :param deferred_to: is given the trigger that it defers to, as a triggerer makes it again.
    """
    try:
        task = case.make()
    except (InvalidRequestError, ValueError, TypeError) as error:
        return str(error)
    begun(task)
    try:
        if case.rendered is not None:
            task.render_template_fields({**case.rendered, **context})
        task.execute(context)
    except TaskDeferred as deferred:
        path, stored = json.loads(json.dumps(deferred.trigger.serialize(), allow_nan=False))
        module, _, name = path.rpartition(".")
        deferred_to(getattr(import_module(module), name)(**stored))
    except AirflowException as error:
        return str(error)
    return None


def sent(server: ScriptedServer) -> dict[str, Any]:
    """Return the fields of what was sent that changes anything."""
    fields: dict[str, Any] = {}
    for request in server.requests:
        if request.path.rpartition("/jobs/")[2] in LAUNCHES:
            fields |= request.body
            fields |= request.body.get("new_settings") or {}
    return fields


def is_right(kind: Any, name: str, value: Any, fields: dict[str, Any]) -> bool:
    """Whether what was sent has what was given."""
    if kind in ONE_TASK:
        return is_in_task(name, value, fields)
    if name not in getattr(kind, "request_fields", ()) or value is None:
        return True
    if name == "job_name" or (kind, name, value) == NO_PERMISSIONS:
        return name not in fields  # its id is sent; an empty list of permissions is none
    if name in ("run_name", "idempotency_token") and value == "":
        return bool(fields[name])  # the default
    if name == "job_id":
        return bool(fields["job_id"] == int(value))
    return bool(fields.get(name) == value)


def is_in_task(name: str, value: Any, fields: dict[str, Any]) -> bool:
    """Whether the one task that was sent has what was given, at any depth."""
    if name in NOT_SENT_ALONE or value in (None, "", []):
        return True
    if name == "databricks_task_key" and len(value) > LONGEST_TASK_KEY:
        return value not in fields.values()  # the default
    if name in ("max_retries", "min_retry_interval_millis"):
        value = int(value)
    return value in values_in(fields)


def values_in(sent_value: Any) -> list[Any]:
    """Return a value with all values in it."""
    inner = sent_value.values() if isinstance(sent_value, dict) else sent_value
    if not isinstance(sent_value, (dict, list)):
        return [sent_value]
    return [sent_value, *(found for one in inner for found in values_in(one))]


def given_in_the_dag_file(kind: Any, **more: Any) -> Iterator[Case]:
    """Yield a case for each argument and each value."""
    for name in arguments(kind):
        for what, value in VALUES.items():
            given = {**TASKS[kind], **more, name: value}
            yield Case(name, what, value, partial(kind, task_id="t", **given))


def given_by_templates(kind: Any, *, native: bool, **more: Any) -> Iterator[Case]:
    """Yield a case for each templated field and each value that its template renders to."""
    for name in kind.template_fields:
        for what, value in RENDERED.items():
            given = {**TASKS[kind], name: "{{ x }}"}
            alone = kind in (DatabricksCancelRunsOperator, DatabricksJobRunSensor)
            if name in ("job_id", "job_name", "run_id") and (
                alone or kind is DatabricksRunNowOperator
            ):
                given = {name: "{{ x }}"}
            if kind is DatabricksJobRunSensor and name == "started_since":
                given = {"job_id": 3, name: "{{ x }}"}
            elif kind is DatabricksJobRunSensor and name in ("job_id", "job_name"):
                given["started_since"] = "2026-01-01"
            dag = DAG("d", schedule=None, render_template_as_native_obj=native)
            make = partial(kind, task_id="t", dag=dag, **given, **more)
            yield Case(name, what, value if native else str(value), make, {"x": value})


def faults(context: Any, server: ScriptedServer, kind: Any, cases: Iterable[Case]) -> list[str]:
    """Carry out each case; return what is wrong."""
    wrong: list[str] = []
    for case in cases:
        server.requests.clear()
        error = outcome(case, context)
        fields = sent(server)
        if error is not None and fields:
            wrong.append(f"{case}: sent, then failed: {error[:200]}")
        elif error is None and not is_right(kind, case.name, case.as_sent, fields):
            wrong.append(f"{case}: not in what was sent: {str(fields)[:200]}")
        elif error is not None and not error.strip():
            wrong.append(f"{case}: an error without words")
    return wrong


@pytest.mark.parametrize("deferrable", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("kind", TASKS)
def test_wrong_values(context: Any, server: ScriptedServer, kind: Any, deferrable: bool) -> None:
    """Given in the DAG file."""
    if deferrable and kind not in DEFERS:
        pytest.skip("it does not defer, or shares the code for it with another operator")
    Answers(server)
    more = {"deferrable": True} if deferrable else {}
    assert faults(context, server, kind, given_in_the_dag_file(kind, **more)) == []


@pytest.mark.parametrize("native", [pytest.param(False, marks=pytest.mark.exhaustive), True])
@pytest.mark.parametrize("kind", TASKS)
def test_what_templates_render_to(
    context: Any, server: ScriptedServer, kind: Any, native: bool
) -> None:
    """With native rendering a template may give any object, else text."""
    Answers(server)
    assert faults(context, server, kind, given_by_templates(kind, native=native)) == []


# -- kills ---------------------------------------------------------------------------------------


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
