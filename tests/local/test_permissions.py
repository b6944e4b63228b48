"""A job's permissions are kept and answered (the Permissions API), though nothing asks for them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.operators.create_job import DatabricksCreateJobsOperator
from tests.local.api import CLUSTER, Api

NOTEBOOK = {"notebook_task": {"notebook_path": "/n"}}
ANN = {"user_name": "ann@example.com", "permission_level": "CAN_MANAGE"}
TEAM = {"group_name": "team", "permission_level": "CAN_VIEW"}
ROBOT = {"service_principal_name": "robot", "permission_level": "CAN_MANAGE_RUN"}


def send(api: Api, verb: str, job_id: object, body: Any = None) -> requests.Response:
    """Ask for a job's permissions, or change them."""
    url = f"{api.workspace.url}/api/2.0/permissions/jobs/{job_id}"
    return api.session.request(verb, url, json=body, timeout=10)


def levels(permissions: Any) -> dict[str, str]:
    """Return the level of each principal in an answer."""
    found = {}
    for entry in permissions["access_control_list"]:
        [permission] = entry.pop("all_permissions")
        assert permission["inherited"] is False
        [name] = entry.values()
        found[name] = permission["permission_level"]
    return found


def owner_of(api: Api, job_id: int) -> str:
    """Return who created a job."""
    return str(api.get("get", job_id=job_id).json()["creator_user_name"])


def test_update_set_and_get(api: Api) -> None:
    """PATCH adds, PUT replaces, GET shows; whoever created the job owns it."""
    job_id = api.create(**NOTEBOOK, access_control_list=[ANN])
    me = owner_of(api, job_id)
    first = send(api, "GET", job_id).json()
    assert (first["object_id"], first["object_type"]) == (f"/jobs/{job_id}", "job")
    assert levels(first) == {ANN["user_name"]: "CAN_MANAGE", me: "IS_OWNER"}
    lower = {**ANN, "permission_level": "CAN_VIEW"}
    answer = send(api, "PATCH", job_id, {"access_control_list": [TEAM, lower]})
    wanted = {ANN["user_name"]: "CAN_VIEW", "team": "CAN_VIEW", me: "IS_OWNER"}
    assert levels(answer.json()) == wanted
    assert levels(send(api, "GET", job_id).json()) == wanted
    answer = send(api, "PUT", job_id, {"access_control_list": [ROBOT]})
    assert levels(answer.json()) == {"robot": "CAN_MANAGE_RUN", me: "IS_OWNER"}
    new_owner = {**ANN, "permission_level": "IS_OWNER"}
    answer = send(api, "PATCH", job_id, {"access_control_list": [new_owner]})
    assert levels(answer.json()) == {"robot": "CAN_MANAGE_RUN", ANN["user_name"]: "IS_OWNER"}
    # They are no settings.
    assert "access_control_list" not in json.dumps(api.get("get", job_id=job_id).json())


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ({}, "MALFORMED_REQUEST"),
        (["x"], "MALFORMED_REQUEST"),
        ([{"permission_level": "CAN_VIEW"}], "INVALID_PARAMETER_VALUE"),
        ([{**ANN, "group_name": "team"}], "INVALID_PARAMETER_VALUE"),
        ([{**ANN, "permission_level": "CAN_FLY"}], "INVALID_PARAMETER_VALUE"),
        ([{**ANN, "permission_level": []}], "INVALID_PARAMETER_VALUE"),
        ([{**ANN, "user_name": 5}], "MALFORMED_REQUEST"),
        ([{**TEAM, "permission_level": "IS_OWNER"}], "INVALID_PARAMETER_VALUE"),
        (
            [{**ANN, "permission_level": "IS_OWNER"}, {**ROBOT, "permission_level": "IS_OWNER"}],
            "INVALID_PARAMETER_VALUE",
        ),
    ],
)
def test_wrong_permissions(api: Api, entries: Any, code: str) -> None:
    """Permissions that name nobody or no level are refused, and change nothing."""
    body = {"access_control_list": entries}
    job_id = api.create(**NOTEBOOK)
    before = send(api, "GET", job_id).json()
    for verb in ("PUT", "PATCH"):
        answer = send(api, verb, job_id, body)
        assert (answer.status_code, answer.json()["error_code"]) == (400, code)
    assert send(api, "GET", job_id).json() == before
    answer = api.post("create", {**CLUSTER, **NOTEBOOK, **body})
    assert (answer.status_code, answer.json()["error_code"]) == (400, code)


def test_permissions_of_no_job(api: Api) -> None:
    """A job that is not there has none, whatever the body says."""
    job_id = api.create(**NOTEBOOK)
    api.post("delete", {"job_id": job_id})
    other = api.create(**NOTEBOOK)
    for verb in ("PUT", "PATCH"):
        body = {"job_id": other, "access_control_list": [ANN]}
        assert "does not exist" in send(api, verb, job_id, body).json()["message"]
    for wrong in (job_id, 987_654_321, "x", "1.5", "9" * 30):
        assert send(api, "GET", wrong).status_code == 400
    assert levels(send(api, "GET", other).json()) == {owner_of(api, other): "IS_OWNER"}
    url = f"{api.workspace.url}/api/2.0/permissions/jobs/{other}"
    assert requests.get(url, timeout=10).status_code == 401
    assert requests.get(url.replace("jobs", "clusters"), timeout=10).status_code == 401


def test_the_operator_sets_them(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator gives a job its permissions when it creates it, and when it resets it."""
    connection = {
        "conn_type": "databricks_jobs",
        "host": api.workspace.url,
        "password": api.workspace.token,
    }
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))

    def create(*entries: dict[str, str]) -> int:
        operator = DatabricksCreateJobsOperator(
            task_id="t",
            name="with permissions",
            json={**CLUSTER, **NOTEBOOK},
            access_control_list=list(entries),
        )
        context: Any = {"ti": SimpleNamespace(dag_id="d", task_id="t")}
        return int(operator.execute(context))

    job_id = create(ANN)
    me = owner_of(api, job_id)
    assert levels(send(api, "GET", job_id).json()) == {
        "ann@example.com": "CAN_MANAGE",
        me: "IS_OWNER",
    }
    assert create(TEAM) == job_id
    wanted = {"ann@example.com": "CAN_MANAGE", "team": "CAN_VIEW", me: "IS_OWNER"}
    assert levels(send(api, "GET", job_id).json()) == wanted
    answer = DatabricksJobsHook().update_job_permission(job_id, {"access_control_list": [ROBOT]})
    assert levels(answer) == {**wanted, "robot": "CAN_MANAGE_RUN"}
