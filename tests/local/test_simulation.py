"""Faults on demand, scripted results and the log of requests, over HTTP."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_jobs_provider.local.__main__ import main
from airflow_jobs_provider.local.workspace import LocalWorkspace
from tests.local.api import Api

NOTEBOOK = {"notebook_path": "/Shared/etl"}


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[Api]:
    """A workspace of one test only, which keeps a recording."""
    root = tmp_path / "root"
    root.mkdir()
    with LocalWorkspace(root, dry_run=True, record=tmp_path / "recording") as workspace:
        yield Api(workspace)


def control(api: Api, method: str, path: str, body: Any = None) -> requests.Response:
    """Send a request to ``/_local/``."""
    return api.session.request(method, f"{api.workspace.url}/_local/{path}", json=body, timeout=30)


def add(api: Api, path: str, **fields: Any) -> None:
    """Add a fault or a result."""
    answer = control(api, "POST", path, fields)
    assert answer.status_code == 200, answer.text


def test_a_fault_concerns_a_number_of_requests(simulated: Api) -> None:
    """Two of three requests get the status; Retry-After is sent."""
    add(simulated, "faults", endpoint="runs/list", status=429, retry_after=7, times=2)
    answers = [simulated.get("runs/list") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["Retry-After"] == "7"
    assert answers[0].json()["error_code"] == "REQUEST_LIMIT_EXCEEDED"


def test_a_fault_of_another_endpoint_or_version(simulated: Api) -> None:
    """A pattern matches all versions of its endpoints, and no others."""
    add(simulated, "faults", endpoint="runs/*", status=503)
    assert simulated.get("list").status_code == 200
    assert simulated.get("runs/list", version="2.1").status_code == 503


def test_faults_of_one_endpoint_come_one_after_another(simulated: Api) -> None:
    """They apply in the order in which they were added."""
    add(simulated, "faults", endpoint="list", status=500)
    add(simulated, "faults", endpoint="list", kind="html", status=502)
    add(simulated, "faults", endpoint="list", kind="expired_token")
    answers = [simulated.get("list") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [500, 502, 403, 200]
    assert "<html>" in answers[1].text
    assert answers[2].json()["message"] == "JWT has expired"


@pytest.mark.parametrize(("kind", "launched"), [("connection_reset", 0), ("response_lost", 1)])
def test_a_broken_connection(simulated: Api, kind: str, launched: int) -> None:
    """Only a request whose response is lost was carried out."""
    add(simulated, "faults", endpoint="runs/submit", kind=kind)
    with pytest.raises(requests.ConnectionError):
        simulated.submit(notebook_task=NOTEBOOK)
    assert len(simulated.get("runs/list").json().get("runs", [])) == launched


def test_no_response(simulated: Api) -> None:
    """The run is launched, and the client gets nothing."""
    add(simulated, "faults", endpoint="runs/submit", kind="no_response")
    url = f"{simulated.workspace.url}/api/2.0/jobs/runs/submit"
    settings = {"existing_cluster_id": "1", "notebook_task": NOTEBOOK}
    with pytest.raises(requests.ReadTimeout):
        simulated.session.post(url, json=settings, timeout=0.2)
    assert len(simulated.get("runs/list").json()["runs"]) == 1


def test_the_last_result_that_fits_decides(simulated: Api) -> None:
    """When it is used up, the one before applies again."""
    add(simulated, "results", name="/Shared/*", result={"rows": 3}, seconds=90)
    add(simulated, "results", name="/Shared/etl", end="failed", error="boom", times=1)
    first, second = (simulated.submit(notebook_task=NOTEBOOK) for _ in range(2))
    assert simulated.wait(first)["state"]["result_state"] == "FAILED"
    assert simulated.get("runs/get-output", run_id=first).json()["error"] == "boom"
    run = simulated.wait(second)
    assert run["state"]["result_state"] == "SUCCESS"
    assert run["execution_duration"] == 90_000
    assert run["end_time"] >= run["start_time"] + 90_000
    output = simulated.get("runs/get-output", run_id=second).json()
    assert json.loads(output["notebook_output"]["result"]) == {"rows": 3}


def test_results_by_the_name_of_a_job_or_task(simulated: Api) -> None:
    """Runs are named by their job and their task key, too."""
    add(simulated, "results", name="nightly", result="by job")
    add(simulated, "results", name="load", result="by task")
    run_id = simulated.run_now(simulated.create(name="nightly", notebook_task=NOTEBOOK))
    simulated.wait(run_id)
    task = {"task_key": "load", "existing_cluster_id": "1", "notebook_task": NOTEBOOK}
    parent = simulated.post("runs/submit", {"tasks": [task]}, version="2.1").json()["run_id"]
    simulated.wait(parent)
    (child,) = simulated.get("runs/get", version="2.1", run_id=parent).json()["tasks"]
    results = [
        simulated.get("runs/get-output", run_id=one).json()["notebook_output"]["result"]
        for one in (run_id, child["run_id"])
    ]
    assert results == ["by job", "by task"]


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("my_package", {"python_wheel_task": {"package_name": "my_package", "entry_point": "go"}}),
        ("go", {"python_wheel_task": {"package_name": "my_package", "entry_point": "go"}}),
        ("/q.sql", {"sql_task": {"file": {"path": "/q.sql"}, "warehouse_id": "w"}}),
        ("/models", {"dbt_task": {"commands": ["dbt run"], "project_directory": "/models"}}),
        ("p-1", {"pipeline_task": {"pipeline_id": "p-1"}}),
    ],
)
def test_results_by_what_a_task_runs(simulated: Api, name: str, task: dict[str, Any]) -> None:
    """Tasks of every kind that runs something are named by it."""
    add(simulated, "results", name=name, end="failed", error="as told")
    settings = {"tasks": [{"task_key": "only", "existing_cluster_id": "1", **task}]}
    run_id = simulated.post("runs/submit", settings, version="2.1").json()["run_id"]
    simulated.wait(run_id)
    [child] = simulated.run(run_id, version="2.1")["tasks"]
    assert simulated.output(child["run_id"])["error"] == "as told"


def test_a_run_that_never_ends_can_be_canceled(simulated: Api) -> None:
    """It is RUNNING until then."""
    add(simulated, "results", name="/Shared/etl", end="never")
    run_id = simulated.submit(notebook_task=NOTEBOOK)
    simulated.wait(run_id, "RUNNING")
    simulated.post("runs/cancel", {"run_id": run_id})
    assert simulated.wait(run_id)["state"]["result_state"] == "CANCELED"


def test_runs_that_never_end_keep_no_place(narrow: Api) -> None:
    """Others start, although one run is executed at a time."""
    add(narrow, "results", name="/never", end="never")
    add(narrow, "results", name="/Shared/etl")
    never = [narrow.submit(notebook_task={"notebook_path": "/never"}) for _ in range(3)]
    assert narrow.wait(narrow.submit(notebook_task=NOTEBOOK))["state"]["result_state"] == "SUCCESS"
    states = {narrow.run(run_id)["state"]["life_cycle_state"] for run_id in never}
    assert states == {"RUNNING"}


def test_a_name_with_brackets(simulated: Api) -> None:
    """It is taken as it is, too."""
    add(simulated, "results", name="[dev me] nightly", result="here")
    run_id = simulated.submit(run_name="[dev me] nightly", notebook_task=NOTEBOOK)
    simulated.wait(run_id)
    assert simulated.output(run_id)["notebook_output"]["result"] == "here"


def test_a_run_that_is_deleted(simulated: Api) -> None:
    """The API does not know it, but the list of all runs does."""
    add(simulated, "results", name="/Shared/etl", end="deleted")
    run_id = simulated.submit(notebook_task=NOTEBOOK)
    deadline = time.monotonic() + 10
    while (answer := simulated.get("runs/get", run_id=run_id)).ok and time.monotonic() < deadline:
        time.sleep(0.01)
    assert answer.json()["message"] == f"Run {run_id} does not exist."
    (run,) = control(simulated, "GET", "runs").json()["runs"]
    assert (run["run_id"], run["result_state"]) == (run_id, "SUCCESS")


@pytest.mark.parametrize(
    ("path", "fields", "words"),
    [
        ("faults", {"endpoint": "list", "kind": "slow"}, "kind: Input should be 'error', 'html'"),
        ("faults", {"endpoint": "list", "times": 0}, "times must be at least 1"),
        ("faults", {"endpoint": "list", "count": 2}, "Unknown field 'count'"),
        ("faults", {"endpoint": "list", "status": 99}, "status must be an HTTP status"),
        (
            "faults",
            {"endpoint": "list", "status": "high"},
            "status: Input should be a valid int",
        ),
        ("results", {}, "name: Field required"),
        ("results", {"name": "a", "end": "maybe"}, "end: Input should be 'success', 'failed'"),
        ("results", {"name": "a", "seconds": -1}, "seconds must not be negative"),
    ],
)
def test_what_is_wrong_is_refused(
    simulated: Api, path: str, fields: dict[str, Any], words: str
) -> None:
    """The message names the field."""
    answer = control(simulated, "POST", path, fields)
    assert answer.status_code == 400
    assert words in answer.json()["message"]


def test_faults_and_results_need_the_token(tmp_path: Path) -> None:
    """Also where the API accepts OAuth tokens only."""
    with LocalWorkspace(tmp_path, oauth=True) as workspace:
        url = f"{workspace.url}/_local/faults"
        assert requests.get(url, timeout=30).status_code == 401
        wrong = {"Authorization": "Bearer wrong"}
        assert requests.get(url, headers=wrong, timeout=30).status_code == 403
        right = {"Authorization": f"Bearer {workspace.token}"}
        assert requests.get(url, headers=right, timeout=30).json() == {"faults": []}


def test_requests_are_logged(simulated: Api) -> None:
    """Also one that got no response."""
    add(simulated, "faults", endpoint="runs/list", kind="connection_reset")
    simulated.submit(notebook_task=NOTEBOOK)
    with pytest.raises(requests.ConnectionError):
        simulated.get("runs/list", limit=5)
    logged = control(simulated, "GET", "requests").json()["requests"]
    assert [(one["method"], one["endpoint"], one["status"]) for one in logged] == [
        ("POST", "runs/submit", 200),
        ("GET", "runs/list", None),
    ]
    assert logged[0]["data"]["notebook_task"] == NOTEBOOK
    assert logged[1]["data"] == {"limit": "5"}


def test_refused_requests_are_logged(simulated: Api) -> None:
    """Those without a token, with a wrong one and for another host, without what they sent."""
    url = f"{simulated.workspace.url}/api/2.1/jobs/runs/submit"
    sent: list[dict[str, str]] = [
        {},
        {"Authorization": "Bearer wrong"},
        {"Host": "elsewhere:80", "Authorization": f"Bearer {simulated.workspace.token}"},
    ]
    for headers in sent:
        body = {"notebook_task": NOTEBOOK}
        requests.post(url, params={"a": "1"}, json=body, headers=headers, timeout=30)
    requests.get(f"{simulated.workspace.url}/api/{'x' * 5000}", timeout=30)
    logged = control(simulated, "GET", "requests").json()["requests"]
    assert [one["status"] for one in logged] == [401, 403, 403, 401]
    assert [one["endpoint"] for one in logged[:3]] == ["runs/submit"] * 3
    assert [one["data"] for one in logged] == [{}] * 4
    assert len(logged[3]["path"]) == 200
    add(simulated, "faults", endpoint="*", status=503)
    assert requests.get(url, timeout=30).status_code == 401, "a fault is not for a refused request"


def test_a_recording_has_no_token(tmp_path: Path) -> None:
    """Neither the access token nor an issued one."""
    with LocalWorkspace(tmp_path, token="secret-token", record=tmp_path / "record") as workspace:
        api = Api(workspace)
        api.submit(notebook_task={**NOTEBOOK, "base_parameters": {"key": "secret-token"}})
        issued = requests.post(
            f"{workspace.url}/oidc/v1/token",
            data={"grant_type": "client_credentials", "scope": "all-apis"},
            auth=(workspace.client_id, "secret-token"),
            timeout=30,
        ).json()["access_token"]
        text = (tmp_path / "record" / "requests.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["path"] for line in lines] == ["/api/2.0/jobs/runs/submit", "/oidc/v1/token"]
    assert lines[0]["body"]["notebook_task"]["base_parameters"] == {"key": "***"}
    assert lines[0]["response"]["run_id"]
    assert issued not in text
    assert "secret-token" not in text


def test_a_recording_has_no_secret(simulated: Api, tmp_path: Path) -> None:
    """Neither of secrets/put nor of secrets/get; only its owner can read it."""
    url = f"{simulated.workspace.url}/api/2.0/secrets"
    simulated.session.post(f"{url}/scopes/create", json={"scope": "a"}, timeout=30)
    secret = {"scope": "a", "key": "k", "string_value": "hunter2"}
    simulated.session.post(f"{url}/put", json=secret, timeout=30)
    got = simulated.session.get(f"{url}/get", params={"scope": "a", "key": "k"}, timeout=30)
    assert base64.b64decode(got.json()["value"]) == b"hunter2"
    file = tmp_path / "recording" / "requests.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines[1]["body"]["string_value"] == "***"
    assert lines[2]["response"] == {"key": "k", "value": "***"}
    simulated.session.post(
        f"{url}/put",
        data='{"string_value": "hunter2"',
        headers={"Content-Type": "application/json"},
        timeout=30,
    )
    assert "hunter2" not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


def test_a_recording_has_no_credentials_of_a_lineage_receiver(
    simulated: Api, tmp_path: Path
) -> None:
    """Neither in a request or a response, nor in what tests and pages get of the requests."""
    prefix = "spark.openlineage.transport."
    secret = {
        f"{prefix}auth.apiKey": "hunter2",
        f"{prefix}transports.a.auth.apiKey": "hunter2",
        f"{prefix}headers.Authorization": "hunter2",
    }
    plain = {f"{prefix}auth.type": "api_key", f"{prefix}url": "http://127.0.0.1", "a": "b"}
    cluster = {
        "spark_version": "15.4.x-scala2.12",
        "node_type_id": "i3.xlarge",
        "num_workers": 1,
        "spark_conf": {**secret, **plain},
    }
    body = {"name": "j", "new_cluster": cluster, "notebook_task": NOTEBOOK}
    job_id = simulated.post("create", body).json()["job_id"]
    settings = simulated.get("get", job_id=job_id).json()["settings"]
    assert settings["new_cluster"]["spark_conf"] == {**secret, **plain}
    text = (tmp_path / "recording" / "requests.jsonl").read_text()
    assert "hunter2" not in text
    masked = {**dict.fromkeys(secret, "***"), **plain}
    assert json.loads(text.splitlines()[0])["body"]["new_cluster"]["spark_conf"] == masked
    (logged, _) = control(simulated, "GET", "requests").json()["requests"]
    assert logged["data"]["new_cluster"]["spark_conf"] == masked


def token_file(api: Api) -> Path:
    """Return a new file with the workspace's token."""
    file = api.workspace.root.parent / "token"
    file.write_text(api.workspace.token)
    file.chmod(0o600)
    return file


def test_the_commands(simulated: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands send what the control requests do."""
    where = ["--port", simulated.workspace.url.rpartition(":")[2]]
    where += ["--token-file", str(token_file(simulated))]
    assert main(["break", "list", "--status", "500", *where]) == 0
    assert main(["result", "/Shared/etl", "--fails", "boom", "--times", "1", *where]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "The next request of list: kind error, status 500",
        "The next runs (1) of /Shared/etl fail",
    ]
    assert simulated.get("list").status_code == 500
    run_id = simulated.submit(notebook_task=NOTEBOOK)
    simulated.wait(run_id)
    assert simulated.get("runs/get-output", run_id=run_id).json()["error"] == "boom"
    capsys.readouterr()
    assert main(["requests", *where]) == 0
    logged = json.loads(capsys.readouterr().out)["requests"]
    assert logged[0]["endpoint"] == "list"
    assert main(["clear", *where]) == 0
    assert control(simulated, "GET", "results").json() == {"results": []}
    assert main(["break", "list", "--times", "0", *where]) == 1
    assert capsys.readouterr().err == "error: times must be at least 1, not 0\n"
    assert main(["requests", "--token-file", str(tmp_path / "none")]) == 1
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("endpoint", "closest"),
    [
        ("run/get", "runs/get"),
        ("runs/got", "runs/get"),
        ("/api/2.1/jobs/runs/submit", "runs/submit"),
        ("jobs/run-now", "run-now"),
        ("runs/RePair*", "runs/repair"),
        ("oidc/token", "oidc/v1/token"),
        ("permission/jobs/7", "permissions/jobs/{job_id}"),
    ],
)
def test_a_misspelled_endpoint_is_refused(
    simulated: Api, capsys: pytest.CaptureFixture[str], endpoint: str, closest: str
) -> None:
    """The endpoints are listed, the closest first; nothing waits for a request."""
    where = ["--port", simulated.workspace.url.rpartition(":")[2]]
    where += ["--token-file", str(token_file(simulated))]
    assert main(["break", endpoint, *where]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: The workspace has no endpoint {endpoint}; it has {closest}, ")
    listed = told.partition("; it has ")[2].strip().split(", ")
    assert len(listed) == len(set(listed))
    assert {"create", "run-now", "runs/list", "runs/repair", "clusters/get"} <= {*listed}
    assert not any(name.startswith(("_local", "local/")) for name in listed)
    assert control(simulated, "GET", "faults").json() == {"faults": []}


@pytest.mark.parametrize(
    "endpoint",
    [
        *("*", "runs/[gl]*", "runs/repair", "get", "permissions/jobs/7", "permissions/*"),
        *("fs/files/Volumes/a", "fs/*/b", "oidc/v1/token", "oidc/*", "preview/scim/v2/Me"),
        ".well-known/databricks-config",
    ],
)
def test_an_endpoint_that_exists_is_broken(simulated: Api, endpoint: str) -> None:
    """Of each API that the workspace has, and with wildcards."""
    add(simulated, "faults", endpoint=endpoint)


def test_a_command_with_the_token_of_the_environment(
    simulated: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token is in the environment for all requests of a command."""
    monkeypatch.setenv("AIRFLOW_JOBS_PROVIDER_LOCAL_TOKEN", simulated.workspace.token)
    assert main(["clear", "--port", simulated.workspace.url.rpartition(":")[2]]) == 0


def test_a_command_with_another_token(
    simulated: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message says how to give the workspace's token."""
    monkeypatch.setenv("AIRFLOW_JOBS_PROVIDER_LOCAL_TOKEN", "another")
    assert main(["clear", "--port", simulated.workspace.url.rpartition(":")[2]]) == 1
    told = capsys.readouterr().err
    assert "Invalid access token. Set AIRFLOW_JOBS_PROVIDER_LOCAL_TOKEN to" in told


def test_a_command_without_a_workspace(capsys: pytest.CaptureFixture[str]) -> None:
    """The message says what to do."""
    assert main(["requests", "--port", "9"]) == 1
    assert capsys.readouterr().err == (
        "error: No local workspace answers on port 9; start one, or give --port\n"
    )
