"""databricks_repair_reason_new_settings: a repair and new settings of the job for some failures."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, TaskDeferred

from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.local.workspace import LocalWorkspace
from tests.fakes.scripted_server import ScriptedServer, Step, answer
from tests.helpers.responses import (
    LAUNCHED,
    OUTPUT,
    RUNNING,
    SUCCEEDED,
    failed,
    history,
    run,
)
from tests.helpers.tasks import asked, connect, deferred_by, events, run_now

FAILED_RUN = run("INTERNAL_ERROR", "FAILED", "Cluster 7 lost: CLOUD_PROVIDER_LAUNCH_FAILURE on t")
LARGER = {"max_concurrent_runs": 2, "new_cluster": {"spark_version": "15", "node_type_id": "big"}}
LARGER["new_cluster"]["num_workers"] = 8  # type: ignore[index]
REASONS = {"no such reason": {"name": "n"}, "LAUNCH_FAILURE": LARGER, "Cluster": {"name": "m"}}
NO_RETRIES = answer({"job_id": 3, "settings": {}})
REPAIRING = answer({**run("RUNNING"), **history(21, ended=False)})


@pytest.fixture
def context(server: ScriptedServer, context: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The context of a task's only try, and a connection with API 2.2."""
    connect(monkeypatch, server, "2.2")
    context["ti"].try_number, context["ti"].max_tries = 1, 0
    return context


def shown_failed(*repairs: int, **more: Any) -> Step:
    """Answer the failed run with its repairs."""
    step: Step = failed(*repairs, **{**FAILED_RUN, **more})
    return step


def execute(
    context: Any, server: ScriptedServer, *after_the_end: Step, deferrable: bool, **arguments: Any
) -> Any:
    """Run a job whose run fails, on a worker or deferred, until its task ends."""
    arguments = {"job_id": 3, "repair_run": True, "deferrable": deferrable, **arguments}
    if not deferrable:
        server.will(LAUNCHED, RUNNING, answer(FAILED_RUN), NO_RETRIES, *after_the_end)
        return run_now(**arguments).execute(context)
    server.will(LAUNCHED, RUNNING)
    deferred = deferred_by(run_now(**arguments), context)
    server.will(answer(FAILED_RUN), NO_RETRIES)
    trigger: Any = deferred.trigger
    (event,) = events(trigger)
    server.will(*after_the_end)
    return run_now(**arguments).execute_complete(context, event, **deferred.kwargs or {})


@pytest.mark.parametrize("deferrable", [False, True])
def test_the_job_gets_the_settings_of_the_first_reason(
    context: Any, server: ScriptedServer, deferrable: bool
) -> None:
    """It is updated before the repair, and the repair's end is the task's."""
    repair = (shown_failed(), answer({}), answer({"repair_id": 21}))
    ended = answer({**run("TERMINATED", "SUCCESS"), **history(21)})
    steps = (*repair, ended, OUTPUT)
    arguments = {"databricks_repair_reason_new_settings": REASONS}
    assert execute(context, server, *steps, deferrable=deferrable, **arguments) == "42"
    assert asked(server)[-5:] == [
        "runs/get 7",
        "update",
        "runs/repair 7",
        "runs/get 7",
        "runs/get-output 7",
    ]
    assert server.requests[-4].body == {"job_id": 3, "new_settings": LARGER}


@pytest.mark.parametrize("deferrable", [False, True])
def test_another_failure_is_not_repaired(
    context: Any, server: ScriptedServer, deferrable: bool, logged: Callable[[], str]
) -> None:
    """The run's failure is the task's, and the log says why."""
    arguments = {"databricks_repair_reason_new_settings": {"QUOTA": LARGER}}
    with pytest.raises(DatabricksRunFailedError, match="LAUNCH_FAILURE"):
        execute(context, server, OUTPUT, deferrable=deferrable, **arguments)
    assert "runs/repair 7" not in asked(server)
    assert "update" not in asked(server)
    assert "contains none of the texts" in logged()


def test_each_repair_has_its_own_reason(context: Any, server: ScriptedServer) -> None:
    """The state message of the latest end counts."""
    other = {"state": {**FAILED_RUN["state"], "state_message": "no such reason"}}
    steps = [shown_failed(), answer({}), answer({"repair_id": 21}), REPAIRING]
    again = [shown_failed(21, **other), NO_RETRIES, shown_failed(21, **other), answer({})]
    steps += [*again, answer({"repair_id": 22}), REPAIRING, SUCCEEDED, OUTPUT]
    arguments = {"databricks_repair_reason_new_settings": REASONS, "max_repairs": 2}
    assert execute(context, server, *steps, deferrable=False, **arguments) == "42"
    updates = [one.body for one in server.requests if one.path.endswith("/update")]
    assert [one["new_settings"] for one in updates] == [LARGER, {"name": "n"}]
    assert server.requests[-4].body["latest_repair_id"] == 21


def test_permissions_among_the_settings(context: Any, server: ScriptedServer) -> None:
    """They are added to the job's own, as where a job is reset."""
    permissions = [{"user_name": "u", "permission_level": "CAN_VIEW"}]
    settings = {"name": "n", "access_control_list": permissions}
    steps = [shown_failed(), answer({}), answer({}), answer({"repair_id": 21}), REPAIRING]
    steps += [SUCCEEDED, OUTPUT]
    arguments = {"databricks_repair_reason_new_settings": {"Cluster": settings}}
    assert execute(context, server, *steps, deferrable=False, **arguments) == "42"
    permission, update = server.requests[5:7]
    assert permission.path == "/api/2.0/permissions/jobs/3"
    assert permission.body == {"access_control_list": permissions}
    assert update.body == {"job_id": 3, "new_settings": {"name": "n"}}


def test_an_update_that_is_refused(
    context: Any, server: ScriptedServer, logged: Callable[[], str]
) -> None:
    """The run is not repaired, and its own failure is the task's."""
    refusal = answer({"error_code": "PERMISSION_DENIED", "message": "Not your job."}, 403)
    arguments = {"databricks_repair_reason_new_settings": REASONS, "databricks_retry_limit": 1}
    with pytest.raises(DatabricksRunFailedError, match="LAUNCH_FAILURE"):
        execute(context, server, shown_failed(), refusal, OUTPUT, deferrable=False, **arguments)
    assert "runs/repair 7" not in asked(server)
    log = logged()
    assert "Run 7 is not repaired" in log
    assert "Not your job." in log


def test_reasons_without_repair_run(context: Any, server: ScriptedServer) -> None:
    """As with the official provider they say nothing then."""
    with pytest.raises(DatabricksRunFailedError):
        execute(
            context,
            server,
            OUTPUT,
            deferrable=False,
            repair_run=False,
            databricks_repair_reason_new_settings=REASONS,
        )
    assert "update" not in asked(server)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("LAUNCH_FAILURE", "must be a dict"),
        ({"LAUNCH_FAILURE": ["name"]}, "must be a dict of settings"),
        ({7: LARGER}, "must be a dict of settings"),
        ({"LAUNCH_FAILURE": {"max_concurrent_runs": "many"}}, "max_concurrent_runs"),
    ],
)
def test_a_mistake_shows_when_the_dag_is_parsed(value: Any, words: str) -> None:
    """Not when the run has failed."""
    with pytest.raises(InvalidRequestError, match=words):
        run_now(job_id=3, repair_run=True, databricks_repair_reason_new_settings=value)


def test_settings_that_the_pinned_version_lacks(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is launched."""
    connect(monkeypatch, server, "2.1")
    tasks = [{"task_key": f"t{n}", "run_job_task": {"job_id": 4}} for n in range(101)]
    task = run_now(
        job_id=3, repair_run=True, databricks_repair_reason_new_settings={"x": {"tasks": tasks}}
    )
    with pytest.raises((AirflowFailException, AirflowException), match="100"):
        task.execute(context)
    assert server.requests == []


@pytest.mark.slow
@pytest.mark.parametrize("deferrable", [False, True])
def test_a_job_that_its_new_settings_mend(
    tmp_path: Path, context: Any, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    """In the local workspace: the repaired run uses them, and the job keeps them."""
    (tmp_path / "job.py").write_text("import sys\nassert sys.argv[1:] == ['good']")
    task = {"python_file": "/job.py", "parameters": ["bad"]}
    settings = {"existing_cluster_id": "c", "spark_python_task": task}
    mended = {"spark_python_task": {**task, "parameters": ["good"]}}
    with LocalWorkspace(tmp_path) as workspace:
        connection = {"conn_type": "databricks_jobs", "host": workspace.url}
        connection["password"] = workspace.token
        monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))
        hook = DatabricksJobsHook()
        job_id = hook.create_job({"name": "job", **settings})
        arguments = {
            "job_id": job_id,
            "repair_run": True,
            "databricks_repair_reason_new_settings": {"Workload failed": mended},
            "deferrable": deferrable,
        }
        operator = run_now(**arguments)
        step: Callable[[], Any] = partial(operator.execute, context)
        while True:
            try:
                step()
            except TaskDeferred as deferred:
                trigger: Any = deferred.trigger
                (event,) = events(trigger)
                resumed = deferred.kwargs or {}
                operator = run_now(**arguments)
                step = partial(operator.execute_complete, context, event, **resumed)
            else:
                break
        assert operator.run_id is not None
        assert hook.get_latest_repair_id(operator.run_id) is not None
        assert hook.get_job(job_id)["settings"]["spark_python_task"]["parameters"] == ["good"]
