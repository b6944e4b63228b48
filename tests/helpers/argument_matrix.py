"""Tasks with one argument that nobody should give: every argument of every operator and sensor.

The arguments are those of the signatures, so that a new one is in the matrix.
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from airflow.providers.common.compat.sdk import DAG, AirflowException, TaskDeferred

from airflow_jobs_provider.api.errors import InvalidRequestError
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
from tests.fakes.scripted_server import ScriptedServer, Step, answer
from tests.helpers.responses import run

__all__ = [
    "ONE_TASK",
    "TASKS",
    "Answers",
    "Case",
    "given_by_templates",
    "given_in_the_dag_file",
    "outcome",
]

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
