"""Every argument of every operator and of the sensor, given what nobody should give.

Either a clear error comes before anything is sent, or what is sent is right: nothing given is lost,
and no run is left. The arguments are those of the signatures, so that a new one is in the matrix.
"""

from __future__ import annotations

import inspect
import json
import time
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowException, TaskDeferred

from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.operators.jobs import (
    DatabricksCancelRunsOperator,
    DatabricksCreateJobsOperator,
    DatabricksDeleteRunOperator,
    DatabricksExportRunOperator,
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor
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
}
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
LAUNCHES = ("run-now", "runs/submit", "create", "reset", "runs/delete", "runs/cancel")


def arguments(kind: Any) -> list[str]:
    """Return what a task takes beyond what every operator and sensor of Airflow takes."""
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


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a path that is no good lead nowhere."""
    monkeypatch.chdir(tmp_path)


def outcome(make: Any, context: Any, rendered: dict[str, Any] | None = None) -> str | None:
    """Make a task and execute it; return its error, None where it went well."""
    try:
        task = make()
    except (InvalidRequestError, ValueError, TypeError) as error:
        return str(error)
    try:
        if rendered is not None:
            task.render_template_fields(rendered)
        task.execute(context)
    except TaskDeferred as deferred:
        json.dumps(deferred.trigger.serialize(), allow_nan=False)
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
    if name not in getattr(kind, "request_fields", ()) or value is None:
        return True
    if name == "job_name" or (kind, name, value) == NO_PERMISSIONS:
        return name not in fields  # its id is sent; an empty list of permissions is none
    if name in ("run_name", "idempotency_token") and value == "":
        return bool(fields[name])  # the default
    if name == "job_id":
        return bool(fields["job_id"] == int(value))
    return bool(fields.get(name) == value)


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("kind", TASKS)
def test_wrong_values(context: Any, server: ScriptedServer, kind: Any, deferrable: bool) -> None:
    """Given in the DAG file."""
    if deferrable and kind not in DEFERS:
        pytest.skip("it does not defer")
    server.steps = Answers(server)
    wrong: list[str] = []
    for name in arguments(kind):
        for what, value in VALUES.items():
            server.requests.clear()
            more = {"deferrable": True} if deferrable else {}
            given = {**TASKS[kind], **more, name: value}
            error = outcome(lambda given=given: kind(task_id="t", **given), context)
            fields = sent(server)
            if error is not None and fields:
                wrong.append(f"{name}, {what}: sent, then failed: {error[:200]}")
            elif error is None and not is_right(kind, name, value, fields):
                wrong.append(f"{name}, {what}: not in what was sent: {str(fields)[:200]}")
            elif error is not None and not error.strip():
                wrong.append(f"{name}, {what}: an error without words")
    assert wrong == []


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("kind", TASKS)
def test_what_templates_render_to(
    context: Any, server: ScriptedServer, kind: Any, native: bool
) -> None:
    """With native rendering a template may give any object, else text."""
    server.steps = Answers(server)
    wrong: list[str] = []
    for name in kind.template_fields:
        for what, value in RENDERED.items():
            server.requests.clear()
            with DAG("d", schedule=None, render_template_as_native_obj=native) as dag:
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
            error = outcome(
                lambda given=given, dag=dag: kind(task_id="t", dag=dag, **given),
                context,
                {"x": value, **context},
            )
            fields = sent(server)
            as_sent = value if native else str(value)
            if error is not None and fields:
                wrong.append(f"{name}, {what}: sent, then failed: {error[:200]}")
            elif error is None and not is_right(kind, name, as_sent, fields):
                wrong.append(f"{name}, {what}: not in what was sent: {str(fields)[:200]}")
    assert wrong == []
