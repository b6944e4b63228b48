"""Each endpoint answers as the reference says, good requests and bad ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from tests.local.api import CLUSTER, Api

TASK = {"spark_python_task": {"python_file": "dbfs:/ok.py"}}
NEW = {"spark_version": "v", "node_type_id": "n", "num_workers": 1}


@pytest.fixture(scope="module", autouse=True)
def _ok_file(api: Api) -> None:
    (api.root / "ok.py").write_text("print('ok')")


def test_create_get_list_delete(api: Api) -> None:
    """A job is kept as it was given, listed, and gone with its runs once deleted."""
    job_id = api.create(name="Nightly", **TASK, max_retries=1)
    job = api.get("get", job_id=job_id).json()
    assert job["job_id"] == job_id
    assert job["settings"] == {"name": "Nightly", **TASK, **CLUSTER, "max_retries": 1}
    assert job["created_time"] > 1_600_000_000_000
    assert job["creator_user_name"]
    assert job in api.get("list").json()["jobs"]
    run_id = api.run_now(job_id)
    api.wait(run_id)
    assert api.post("delete", {"job_id": job_id}).json() == {}
    assert api.post("delete", {"job_id": job_id}).json() == {}
    for answer in (api.get("get", job_id=job_id), api.post("run-now", {"job_id": job_id})):
        assert answer.status_code == 400
        assert answer.json() == {
            "error_code": "INVALID_PARAMETER_VALUE",
            "message": f"Job {job_id} does not exist.",
        }
    assert api.get("runs/get", run_id=run_id).status_code == 400
    assert job_id not in [job["job_id"] for job in api.get("list").json().get("jobs", [])]


def test_reset_and_update(api: Api) -> None:
    """Reset replaces all settings; update replaces, adds and removes single ones."""
    job_id = api.create(name="a", **TASK, libraries=[{"pypi": {"package": "x"}}])
    new = {"name": "b", **TASK, **CLUSTER}
    assert api.post("reset", {"job_id": job_id, "new_settings": new}).json() == {}
    assert api.get("get", job_id=job_id).json()["settings"] == new
    notebook = {"notebook_task": {"notebook_path": "/n"}}
    change = {
        "job_id": job_id,
        "new_settings": {**notebook, "timeout_seconds": 5},
        "fields_to_remove": ["name", "nothing"],
    }
    assert api.post("update", change).json() == {}
    settings = api.get("get", job_id=job_id).json()["settings"]
    assert settings == {"name": "Untitled", **CLUSTER, **notebook, "timeout_seconds": 5}
    refused = api.post("update", {"job_id": job_id, "fields_to_remove": ["notebook_task"]})
    assert refused.status_code == 400
    assert api.post("reset", {"job_id": job_id}).status_code == 400


def test_parameters_of_run_now(api: Api) -> None:
    """Run-now's notebook parameters merge over the job's; positional ones take their place."""
    path = api.notebook("import json; dbutils.notebook.exit(json.dumps(dbutils.widgets.getAll()))")
    base = {"notebook_path": path, "base_parameters": {"a": "1", "b": "2"}}
    job_id = api.create(notebook_task=base)
    given = {"b": "3", "c": "4"}
    run_id = api.run_now(job_id, notebook_params=given)
    run = api.wait(run_id)
    assert run["overriding_parameters"] == {"notebook_params": given}
    result = json.loads(api.output(run_id)["notebook_output"]["result"])
    assert result == {"a": "1", "b": "3", "c": "4"}
    file = api.python("import sys; print(sys.argv[1:])")
    job_id = api.create(spark_python_task={"python_file": file, "parameters": ["x", "y"]})
    for fields, expected in (({}, "['x', 'y']\n"), ({"python_params": ["z"]}, "['z']\n")):
        run_id = api.run_now(job_id, **fields)
        api.wait(run_id)
        later = api.get("runs/get-output", version="2.1", run_id=run_id).json()
        assert later["logs"] == expected


def test_numbers_in_job(api: Api) -> None:
    """A job's runs are numbered from 1, whatever other jobs do."""
    job_id = api.create(**TASK, max_concurrent_runs=5)
    api.run_now(api.create(**TASK))
    answers = [api.post("run-now", {"job_id": job_id}).json() for _ in range(2)]
    assert [answer["number_in_job"] for answer in answers] == [1, 2]
    for answer in answers:
        api.wait(answer["run_id"])


def test_pages_of_runs(narrow: Api) -> None:
    """Runs are listed from the newest, in pages by offset and limit, filtered as asked."""
    (narrow.root / "ok.py").write_text("")
    assert narrow.get("runs/list").json() == {"has_more": False}
    ids = [narrow.submit(**TASK) for _ in range(22)]
    for run_id in ids:
        narrow.wait(run_id)
    newest_first = ids[::-1]

    def page(**query: Any) -> tuple[list[int], bool]:
        answer = narrow.get("runs/list", **query).json()
        return [run["run_id"] for run in answer.get("runs", [])], answer["has_more"]

    assert page() == (newest_first[:20], True)
    assert page(offset=20) == (newest_first[20:], False)
    assert page(limit=2, offset=1) == (newest_first[1:3], True)
    assert page(limit=0) == (newest_first, False)
    assert page(limit=1000, run_type="JOB_RUN") == ([], False)
    assert page(active_only="true") == ([], False)
    assert page(completed_only="true", limit=5) == (newest_first[:5], True)
    job_id = narrow.run(ids[3])["job_id"]
    assert page(job_id=job_id) == ([ids[3]], False)
    assert page(offset=10_000) == ([], False)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": 1001}, "limit"),
        ({"limit": -1}, "limit"),
        ({"offset": 10_001}, "offset"),
        ({"offset": -1}, "offset"),
        ({"limit": "many"}, "limit"),
        ({"job_id": "x"}, "job_id"),
        ({"job_id": str(2**63)}, "job_id"),
        ({"active_only": "true", "completed_only": "true"}, "completed_only"),
        ({"active_only": "yes"}, "active_only"),
        ({"run_type": "OTHER"}, "run_type"),
    ],
)
def test_bad_queries_of_runs(api: Api, query: dict[str, Any], field: str) -> None:
    """A query that breaks a rule is a 400 that names the field."""
    answer = api.get("runs/list", **query)
    assert answer.status_code == 400
    assert answer.json()["error_code"] == "INVALID_PARAMETER_VALUE"
    assert field in answer.json()["message"]


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"spark_python_task": None}, "INVALID_PARAMETER_VALUE", "notebook_task"),
        ({"notebook_task": {"notebook_path": "/n"}}, "INVALID_PARAMETER_VALUE", "Only one task"),
        ({"existing_cluster_id": None}, "INVALID_PARAMETER_VALUE", "new_cluster"),
        ({"new_cluster": NEW}, "INVALID_PARAMETER_VALUE", "existing_cluster_id"),
        ({"spark_python_task": {}}, "INVALID_PARAMETER_VALUE", "spark_python_task.python_file"),
        ({"spark_python_task": []}, "MALFORMED_REQUEST", "spark_python_task must be an object"),
        (
            {"spark_python_task": {"python_file": 7}},
            "MALFORMED_REQUEST",
            "spark_python_task.python_file must be text",
        ),
        (
            {"spark_python_task": {"python_file": "x", "parameters": [1]}},
            "MALFORMED_REQUEST",
            "spark_python_task.parameters[0] must be text",
        ),
        ({"timeout_seconds": []}, "MALFORMED_REQUEST", "timeout_seconds must be an integer"),
        ({"timeout_seconds": "s"}, "INVALID_PARAMETER_VALUE", "timeout_seconds must be an integer"),
        ({"timeout_seconds": -5}, "INVALID_PARAMETER_VALUE", "timeout_seconds"),
        ({"timeout_seconds": 2**31}, "INVALID_PARAMETER_VALUE", "timeout_seconds"),
        ({"run_name": "x" * 4097}, "INVALID_PARAMETER_VALUE", "run_name"),
        ({"libraries": {}}, "MALFORMED_REQUEST", "libraries must be an array"),
        ({"idempotency_token": "x" * 65}, "INVALID_PARAMETER_VALUE", "it has 65"),
        ({"idempotency_token": 5}, "MALFORMED_REQUEST", "idempotency_token must be text"),
        ({"tasks": [{"task_key": "a", **TASK}]}, "INVALID_PARAMETER_VALUE", "tasks"),
    ],
)
def test_bad_submits(api: Api, change: dict[str, Any], code: str, words: str) -> None:
    """A launch that breaks a rule is a 400 that names the field, and starts nothing."""
    before = api.get("runs/list", limit=1).json().get("runs")
    answer = api.post("runs/submit", {**CLUSTER, **TASK, **change})
    assert answer.status_code == 400
    assert answer.json()["error_code"] == code
    assert words in answer.json()["message"]
    assert api.get("runs/list", limit=1).json().get("runs") == before


@pytest.mark.parametrize(
    "task",
    [
        {"notebook_task": {"notebook_path": "relative"}},
        {"notebook_task": {"notebook_path": "/n", "base_parameters": {"a": 1}}},
        {"notebook_task": {"notebook_path": "/n", "base_parameters": ["a"]}},
        {"run_job_task": {}},
        {"run_job_task": {"job_id": "x"}},
        {"spark_submit_task": {"parameters": []}},
        {"spark_jar_task": {}},
        {"pipeline_task": {}},
    ],
)
def test_bad_tasks(api: Api, task: dict[str, Any]) -> None:
    """Each kind of task is checked for what it needs."""
    answer = api.post("runs/submit", {**CLUSTER, **task})
    assert answer.status_code == 400
    assert next(iter(task)) in answer.json()["message"]


def test_bad_run_now(api: Api) -> None:
    """Run-now refuses parameters of two kinds of task, and more than 10,000 bytes of them."""
    job_id = api.create(**TASK)
    for fields in (
        {"notebook_params": {"a": "1"}, "jar_params": ["b"]},
        {"python_params": ["x" * 10_000]},
        {"notebook_params": ["a"]},
        {"jar_params": {"a": "b"}},
    ):
        answer = api.post("run-now", {"job_id": job_id, **fields})
        assert answer.status_code == 400
        assert next(iter(fields)) in answer.json()["message"]
    assert "job_id" in api.post("run-now", {}).json()["message"]


def test_bad_jobs(api: Api) -> None:
    """Settings of a job are checked for their bounds."""
    for field, value in (
        ("max_concurrent_runs", 1001),
        ("max_retries", -2),
        ("retry_on_timeout", "yes"),
    ):
        answer = api.post("create", {**CLUSTER, **TASK, field: value})
        assert answer.status_code == 400
        assert field in answer.json()["message"]


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "runs/get"),
        ("GET", "runs/get-output"),
        ("GET", "runs/export"),
        ("POST", "runs/cancel"),
        ("POST", "runs/delete"),
    ],
)
def test_run_that_does_not_exist(api: Api, verb: str, path: str) -> None:
    """A run that is not there is a 400 with the service's words; no run_id is one, too."""
    ask = api.get if verb == "GET" else lambda path, **data: api.post(path, data)
    answer = ask(path, run_id=987_654)
    assert answer.status_code == 400
    assert answer.json() == {
        "error_code": "INVALID_PARAMETER_VALUE",
        "message": "Run 987654 does not exist.",
    }
    answer = ask(path)
    assert answer.status_code == 400
    assert "run_id" in answer.json()["message"]


def test_cancel_all_of_no_job(api: Api) -> None:
    """Cancel-all wants a job that exists."""
    answer = api.post("runs/cancel-all", {"job_id": 987_654})
    assert answer.json()["message"] == "Job 987654 does not exist."


def test_delete_run(api: Api) -> None:
    """A run is deleted once it has ended, not before."""
    run_id = api.submit_python("import time; time.sleep(600)")
    answer = api.post("runs/delete", {"run_id": run_id})
    assert answer.status_code == 400
    assert "active" in answer.json()["message"]
    api.post("runs/cancel", {"run_id": run_id})
    api.wait(run_id)
    assert api.post("runs/delete", {"run_id": run_id}).json() == {}
    assert api.get("runs/get", run_id=run_id).status_code == 400


def test_export(api: Api) -> None:
    """Only notebook runs can be exported, in the views that the reference knows."""
    run_id = api.submit(**TASK)
    api.wait(run_id)
    assert "notebook" in api.get("runs/export", run_id=run_id).json()["message"]
    run, _ = api.run_notebook("1 + 1")
    assert api.get("runs/export", run_id=run["run_id"], views_to_export="X").status_code == 400
    [view] = api.get("runs/export", run_id=run["run_id"], views_to_export="ALL").json()["views"]
    assert view["type"] == "NOTEBOOK"


def test_ids_as_text(api: Api) -> None:
    """An id may be given as text, since JSON's numbers end before INT64 does."""
    run_id = api.submit(**TASK)
    assert api.post("runs/cancel", {"run_id": str(run_id)}).json() == {}
    assert api.post("runs/cancel", {"run_id": [1]}).json()["error_code"] == "MALFORMED_REQUEST"
    assert api.post("runs/cancel", {"run_id": True}).json()["error_code"] == "MALFORMED_REQUEST"


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff\xfe", b'"text"', b"null"])
def test_body_that_is_no_object(api: Api, body: bytes) -> None:
    """A body that is no JSON object is MALFORMED_REQUEST."""
    url = f"{api.workspace.url}/api/2.0/jobs/create"
    answer = api.session.post(url, data=body, timeout=10)
    assert answer.status_code == 400
    assert answer.json()["error_code"] == "MALFORMED_REQUEST"


def test_body_over_ten_megabytes(api: Api) -> None:
    """A body over 10 MB is refused."""
    url = f"{api.workspace.url}/api/2.0/jobs/create"
    answer = api.session.post(url, data=b" " * (10 * 1024 * 1024 + 1), timeout=30)
    assert answer.status_code == 400
    assert "10 MB" in answer.json()["message"]


def test_unknown_endpoint(api: Api) -> None:
    """An endpoint or a verb that is not there answers ENDPOINT_NOT_FOUND as JSON."""
    for answer in (api.get("nothing"), api.get("create"), api.get("list", version="1.0")):
        assert answer.status_code == 404
        assert answer.json()["error_code"] == "ENDPOINT_NOT_FOUND"
        message = answer.json()["message"]
        assert message.startswith("No API found for")
        assert "local workspace" in message
        assert "workspace/" in message


def test_get_with_its_parameters_in_the_body(api: Api) -> None:
    """The parameters of a GET are taken from a JSON body, too; those of the query win."""
    run_id = api.submit_python("print(1)")
    url = f"{api.workspace.url}/api/2.2/jobs/runs/get"
    assert api.session.get(url, json={"run_id": run_id}, timeout=30).json()["run_id"] == run_id
    query = {"run_id": run_id}
    answer = api.session.get(url, json={"run_id": 1}, params=query, timeout=30)
    assert answer.json()["run_id"] == run_id


def test_current_user(api: Api) -> None:
    """The workspace's user is the creator of its jobs."""
    job_id = api.create(notebook_task={"notebook_path": "/n"})
    url = f"{api.workspace.url}/api/2.0/preview/scim/v2/Me"
    me = api.session.get(url, timeout=30).json()
    assert me["userName"] == api.get("get", job_id=job_id).json()["creator_user_name"]
    assert me["active"] is True
    assert requests.get(url, timeout=30).status_code == 401


def test_cancel_of_all_queued_runs(narrow: Api) -> None:
    """``all_queued_runs`` cancels the runs that wait, and no run that works."""
    working = narrow.submit_python("import time; time.sleep(600)")
    narrow.wait(working, "RUNNING")
    waiting = [narrow.submit_python("print(1)") for _ in range(2)]
    for run_id in waiting:
        narrow.wait(run_id, "QUEUED")
    body = {"all_queued_runs": True}
    assert narrow.post("runs/cancel-all", body, version="2.2").json() == {}
    for run_id in waiting:
        assert narrow.wait(run_id)["state"]["result_state"] == "CANCELED"
    assert narrow.run(working)["state"]["life_cycle_state"] == "RUNNING"


def test_token_is_asked_for(api: Api) -> None:
    """Without a credential it is 401, with a wrong one 403, in the service's words."""
    url = f"{api.workspace.url}/api/2.0/jobs/list"
    for headers in ({}, {"Authorization": "Digest x"}, {"Authorization": "Basic %"}):
        answer = requests.get(url, headers=headers, timeout=10)
        assert answer.status_code == 401
        assert answer.json()["error_code"] == 401
    for auth in (("token", "wrong"), ("token", "")):
        answer = requests.get(url, auth=auth, timeout=10)
        assert answer.status_code == 403
        assert answer.json() == {"error_code": 403, "message": "Invalid access token."}
    wrong = {"Authorization": "Bearer wrong"}
    assert requests.get(url, headers=wrong, timeout=10).status_code == 403
    assert requests.get(url, auth=("token", api.workspace.token), timeout=10).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1:1", "127.0.0.1@evil:{port}", ""]
)
def test_foreign_hosts_are_refused(api: Api, host: str) -> None:
    """A Host that is not this machine is refused even with the token, pages too."""
    port = api.workspace.url.rpartition(":")[2]
    for path in ("/api/2.0/jobs/list", "/", "/runs/1"):
        answer = api.session.get(
            api.workspace.url + path, headers={"Host": host.format(port=port)}, timeout=10
        )
        assert answer.status_code in {400, 403}
        assert "jobs" not in answer.json() if answer.status_code == 403 else True


def test_this_machines_names_are_let_in(api: Api) -> None:
    """Localhost and the loopback addresses with the port are this machine."""
    port = api.workspace.url.rpartition(":")[2]
    for host in (f"localhost:{port}", f"[::1]:{port}", f"127.0.0.1:{port}"):
        url = f"{api.workspace.url}/api/2.0/jobs/list"
        assert api.session.get(url, headers={"Host": host}, timeout=10).status_code == 200


@pytest.mark.parametrize("version", ["2.0", "2.1", "2.2"])
def test_parameters_of_a_get_in_its_body(api: Api, version: str) -> None:
    """They count as those of the query, which win; the official provider's triggers send them."""
    ids = [api.submit(**TASK) for _ in range(2)]
    for run_id in ids:
        api.wait(run_id)

    def get(path: str, body: Any, **query: Any) -> requests.Response:
        url = f"{api.workspace.url}/api/{version}/jobs/{path}"
        return api.session.get(url, json=body, params=query, timeout=30)

    assert get("runs/get", {"run_id": ids[0]}).json()["run_id"] == ids[0]
    assert get("runs/get", {"run_id": str(ids[0]), "include_history": None}).status_code == 200
    assert get("runs/get", {"run_id": ids[0]}, run_id=ids[1]).json()["run_id"] == ids[1]
    listed = get("runs/list", {"limit": 1, "completed_only": True, "active_only": False}).json()
    assert len(listed["runs"]) == 1
    refused: tuple[Any, ...] = ({"run_id": [ids[0]]}, [ids[0]], {"run_id": {}})
    for wrong in refused:
        answer = get("runs/get", wrong)
        assert (answer.status_code, answer.json()["error_code"]) == (400, "MALFORMED_REQUEST")
    assert get("runs/list", {"run_type": 7}).status_code == 400
