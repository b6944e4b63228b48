"""Every argument of every operator and of the sensor, given what nobody should give.

Either a clear error comes before anything is sent, or what is sent is right: nothing given is lost.
What becomes of a run where its task is killed is in test_argument_matrix_kills.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.operators.jobs import (
    DatabricksCreateJobsOperator,
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor
from tests.fakes.scripted_server import ScriptedServer
from tests.helpers.argument_matrix import (
    ONE_TASK,
    TASKS,
    Answers,
    Case,
    given_by_templates,
    given_in_the_dag_file,
    outcome,
)

# A job cluster is a group's, and the metadata is for the task itself.
NOT_SENT_ALONE = ("job_cluster_key", "workflow_run_metadata")
LONGEST_TASK_KEY = 100
DEFERS = (DatabricksSubmitRunOperator, DatabricksRunNowOperator, DatabricksJobRunSensor)
NO_PERMISSIONS: tuple[Any, str, list[Any]] = (
    DatabricksCreateJobsOperator,
    "access_control_list",
    [],
)
LAUNCHES = ("run-now", "runs/submit", "create", "reset", "runs/delete", "runs/cancel")


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a path that is no good lead nowhere."""
    monkeypatch.chdir(tmp_path)


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
