"""brickflow's sensors and operators work in notebooks of the local workspace as on Databricks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.local.api import CLUSTER, Api
from tests.real_clients.client import WORKSPACE, Client

pytestmark = pytest.mark.real_clients

SENSOR = """
from datetime import timedelta
from brickflow_plugins.sensors.workflow_dependency_sensor import WorkflowDependencySensor

WorkflowDependencySensor(
    databricks_host=dbutils.widgets.get("host"),
    databricks_token=dbutils.secrets.get("brickflow", "token"),
    dependency_job_name=dbutils.widgets.get("job"),
    delta=timedelta(minutes=10),
    timeout_seconds=1,
    poke_interval_seconds=1,
).execute()
dbutils.notebook.exit("found")
"""
TASK_SENSOR = """
from datetime import timedelta
from brickflow_plugins.sensors.workflow_dependency_sensor import WorkflowTaskDependencySensor

WorkflowTaskDependencySensor(
    databricks_host=dbutils.widgets.get("host"),
    databricks_token=dbutils.secrets.get("brickflow", "token"),
    dependency_job_name=dbutils.widgets.get("job"),
    dependency_task_name="load",
    delta=timedelta(minutes=10),
    timeout_seconds=1,
    poke_interval_seconds=1,
).execute()
dbutils.notebook.exit("found")
"""
RUN_JOB = """
from brickflow_plugins.operators.run_job import RunJobInRemoteWorkspace

RunJobInRemoteWorkspace(
    databricks_host=dbutils.widgets.get("host"),
    databricks_token=dbutils.secrets.get("brickflow", "token"),
    job_name=dbutils.widgets.get("job"),
).execute()
"""


@pytest.fixture
def api(client_of: Callable[..., Client], workspace_of: Callable[[Client], Api]) -> Api:
    """A workspace in an environment that has brickflow."""
    api = workspace_of(client_of("brickflow", "brickflows==2.0.0", *WORKSPACE))
    url = f"{api.workspace.url}/api/2.0/secrets"
    api.session.post(f"{url}/scopes/create", json={"scope": "brickflow"}, timeout=30)
    secret = {"scope": "brickflow", "key": "token", "string_value": api.workspace.token}
    assert api.session.post(f"{url}/put", json=secret, timeout=30).status_code == 200
    return api


def test_sensors(api: Api) -> None:
    """A sensor finds the run of a job, and the task of one; it times out where there is none."""
    works, fails = api.notebook("1"), api.notebook("raise ValueError")
    tasks = [{"task_key": "load", "notebook_task": {"notebook_path": works}, **CLUSTER}]
    upstream = api.create(name="upstream", version="2.1", tasks=tasks)
    broken = api.create(name="broken", notebook_task={"notebook_path": fails})
    for job_id in (upstream, broken):
        api.wait(api.run_now(job_id), seconds=60)
    sensor, task_sensor = api.notebook(SENSOR), api.notebook(TASK_SENSOR)
    assert result_of(api, sensor, "upstream") == "found"
    assert result_of(api, task_sensor, "upstream") == "found"
    assert "WorkflowDependencySensorTimeOutException" in result_of(api, sensor, "broken")
    assert "No job found with name missing" in result_of(api, sensor, "missing")


def test_run_job_in_remote_workspace(api: Api) -> None:
    """The operator launches a job by its name."""
    job_id = api.create(name="other", notebook_task={"notebook_path": api.notebook("1")})
    result_of(api, api.notebook(RUN_JOB), "other")
    [run] = api.get("runs/list", job_id=job_id).json()["runs"]
    assert api.wait(run["run_id"], seconds=60)["state"]["result_state"] == "SUCCESS"


def result_of(api: Api, notebook: str, job: str) -> str:
    """Run a notebook as brickflow runs its own; return its result or its error."""
    parameters = {
        "host": api.workspace.url,
        "job": job,
        "brickflow_parent_run_id": "{{parent_run_id}}",
    }
    task: dict[str, Any] = {"notebook_path": notebook, "base_parameters": parameters}
    tasks = [{"task_key": "waits", "notebook_task": task, **CLUSTER}]
    run_id = api.run_now(api.create(name="downstream", version="2.1", tasks=tasks))
    api.wait(run_id, seconds=60)
    [child] = api.run(run_id, version="2.1")["tasks"]
    output = api.output(child["run_id"])
    return str(output.get("error") or output["notebook_output"].get("result"))
