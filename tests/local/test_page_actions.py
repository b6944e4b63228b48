"""What a page does with the key: its buttons, and the requests of clients."""

from __future__ import annotations

from typing import Any

import requests

from airflow_jobs_provider.local.engine.scripted_results import ScriptedEnd, ScriptedResult
from airflow_jobs_provider.local.workspace import LocalWorkspace
from tests.local.api import Api
from tests.local.pages import EVIL, NOTEBOOK, TWO_TASKS, key_of, listed, read


def press(api: Api, path: str, key: str | None = None, **headers: str) -> requests.Response:
    """Send what a button sends."""
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return requests.post(f"{api.workspace.url}/actions/{path}", headers=headers, timeout=60)


def test_buttons_need_the_key(dry: Api) -> None:
    """Without the key, with the access token, or from a page of another origin nothing happens."""
    key, url = key_of(dry), dry.workspace.url
    job_id = dry.create(name="guarded", **NOTEBOOK)
    run_id = dry.run_now(job_id)
    dry.wait(run_id)
    for path in (f"runs/{run_id}/run-again", f"jobs/{job_id}/run-now", f"runs/{run_id}/repair"):
        assert press(dry, path).status_code == 401
        assert press(dry, path, dry.workspace.token).status_code == 401
        assert press(dry, path, f"{key}0").status_code == 401
        for origin in ("http://127.0.0.1:1", "https://example.org", "null"):
            assert press(dry, path, key, Origin=origin).status_code == 403
    assert dry.get("runs/list", job_id=job_id).json()["runs"][0]["run_id"] == run_id
    answer = press(dry, f"jobs/{job_id}/run-now", key, Origin=url)
    assert answer.status_code == 200
    # The key is for these pages only.
    bearer = {"Authorization": f"Bearer {key}"}
    assert requests.get(f"{url}/api/2.0/jobs/list", headers=bearer, timeout=60).status_code == 403
    # A browser asks before it sends a foreign page's header: it is not allowed to.
    asked = requests.options(f"{url}/actions/jobs/{job_id}/run-now", timeout=60)
    assert "Access-Control-Allow-Origin" not in asked.headers
    assert asked.status_code == 404


def test_the_key_is_given_for_the_token(dry: Api) -> None:
    """Whoever has the access token gets the key."""
    assert press(dry, "key", dry.workspace.token).json() == {"key": key_of(dry)}
    assert press(dry, "key", key_of(dry)).status_code == 403
    assert press(dry, "key").status_code == 403
    assert dry.workspace.token not in key_of(dry)


def test_run_now_and_run_again(dry: Api) -> None:
    """A run is launched again as it was: a one-time run, and a job's with its parameters."""
    job_id = dry.create(name="again", **NOTEBOOK)
    first = dry.run_now(job_id, notebook_params={"day": "1"})
    dry.wait(first)
    second = _launched(dry, f"runs/{first}/run-again")
    assert second["overriding_parameters"] == {"notebook_params": {"day": "1"}}
    assert second["job_id"] == job_id
    assert "overriding_parameters" not in _launched(dry, f"jobs/{job_id}/run-now")
    settings = {"tasks": TWO_TASKS, "run_name": "once", "timeout_seconds": 60}
    once = dry.post("runs/submit", settings, version="2.1").json()["run_id"]
    dry.wait(once)
    again = _launched(dry, f"runs/{once}/run-again")
    assert again["run_name"] == "once"
    tasks = [{**task, "depends_on": task.get("depends_on", [])} for task in again["tasks"]]
    assert [(task["task_key"], task["depends_on"], task["notebook_task"]) for task in tasks] == [
        ("load", [], NOTEBOOK["notebook_task"]),
        ("report", [{"task_key": "load"}], NOTEBOOK["notebook_task"]),
    ]
    assert press(dry, "runs/987654/run-again", key_of(dry)).status_code == 400


def test_run_again_with_some_tasks(dry: Api) -> None:
    """A run of some of a job's tasks is retried, and launched again, with the same ones."""
    assert isinstance(dry.workspace, LocalWorkspace)
    dry.workspace.simulation.results.add(ScriptedResult("report", ScriptedEnd.FAILED, times=1))
    job_id = dry.create(name="some", version="2.1", max_retries=1, tasks=TWO_TASKS)
    body = {"job_id": job_id, "only": ["report"]}
    first = dry.post("run-now", body, "2.1").json()["run_id"]
    dry.wait(first)
    retry = dry.get("runs/list", version="2.1", job_id=job_id).json()["runs"][0]["run_id"]
    assert retry != first
    assert [task["task_key"] for task in dry.run(retry, version="2.1")["tasks"]] == ["report"]
    again = _launched(dry, f"runs/{first}/run-again")
    assert [task["task_key"] for task in again["tasks"]] == ["report"]
    bearer = {"Authorization": f"Bearer {key_of(dry)}"}
    url = f"{dry.workspace.url}/runs/{first}/request"
    page = requests.get(url, headers=bearer, timeout=60).text
    assert "&#39;only&#39;: [&#39;report&#39;]" in page


def _launched(api: Api, path: str) -> dict[str, Any]:
    answer = press(api, path, key_of(api))
    assert answer.status_code == 200, answer.text
    run_id = int(answer.json()["location"].removeprefix("/runs/"))
    api.wait(run_id)
    return api.run(run_id, version="2.1")


def test_cancel_and_repair(dry: Api) -> None:
    """A run is canceled, then repaired twice; each repair is on the page."""
    assert isinstance(dry.workspace, LocalWorkspace)
    never = ScriptedResult("stuck", ScriptedEnd.NEVER)
    dry.workspace.simulation.results.add(never)
    run_id = dry.submit(run_name="stuck", **NOTEBOOK)
    dry.wait(run_id, "RUNNING")
    assert f'data-action="/actions/runs/{run_id}/cancel"' in read(dry, f"/runs/{run_id}")
    for repairs in range(3):
        assert press(dry, f"runs/{run_id}/cancel", key_of(dry)).status_code == 200
        assert dry.wait(run_id)["state"]["result_state"] == "CANCELED"
        page = read(dry, f"/runs/{run_id}")
        assert page.count('"What">repair ') == repairs
        assert "/cancel" not in page
        if repairs < 2:
            assert press(dry, f"runs/{run_id}/repair", key_of(dry)).status_code == 200
            dry.wait(run_id, "RUNNING")
    dry.workspace.simulation.results.clear()
    done = dry.submit(run_name="done", **NOTEBOOK)
    dry.wait(done)
    assert "/repair" not in read(dry, f"/runs/{done}")
    refused = press(dry, f"runs/{done}/repair", key_of(dry))
    assert "no failed task" in refused.json()["message"]


def test_settings_and_requests_need_the_key(dry: Api) -> None:
    """Whoever has no token sees no cluster's environment; with the key a request can be copied."""
    cluster = {
        "spark_version": "15",
        "node_type_id": "n",
        "num_workers": 1,
        "spark_env_vars": {"PASSWORD": "pa55"},
    }
    loads = {"task_key": "a", "notebook_task": NOTEBOOK["notebook_task"], "new_cluster": cluster}
    task = {"task_key": "each", "for_each_task": {"inputs": "[1]", "task": loads}}
    job_id = dry.create(name="hides", version="2.1", tasks=[task])
    run_id = dry.wait(dry.run_now(job_id))["run_id"]
    once = dry.post("runs/submit", {"run_name": "hides", "tasks": [task]}, "2.1").json()["run_id"]
    dry.wait(once)
    [task_run] = dry.run(once, version="2.1")["tasks"]
    shown = ("/", "/jobs", f"/jobs/{job_id}", f"/runs/{run_id}", f"/runs/{once}", "/requests")
    for path in (*shown, f"/runs/{task_run['run_id']}"):
        assert "pa55" not in read(dry, path)
    # Nor can it be found out by searching.
    assert listed(read(dry, "/?text=pa55")) == []
    assert listed(read(dry, "/?text=hides"))[:2] == [once, run_id]
    bearer = {"Authorization": f"Bearer {key_of(dry)}"}
    for path in (f"/jobs/{job_id}/settings", f"/runs/{once}/request"):
        url = dry.workspace.url + path
        assert requests.get(url, timeout=60).status_code == 401
        page = requests.get(url, headers=bearer, timeout=60).text
        assert "&#34;PASSWORD&#34;: &#34;pa55&#34;" in page
    of_job = f"{dry.workspace.url}/runs/{run_id}/request"
    page = requests.get(of_job, headers=bearer, timeout=60).text
    assert "DatabricksRunNowOperator" in page
    for path in ("/jobs/987654/settings", "/runs/987654/request"):
        missing = requests.get(dry.workspace.url + path, headers=bearer, timeout=60)
        assert missing.status_code == 404


def test_list_of_requests(dry: Api) -> None:
    """The list needs the key; it has each request as a curl command, and launches as a DAG."""
    dry.submit(run_name=f"listed {EVIL}", **NOTEBOOK)
    for _ in range(3):
        dry.get("runs/get", run_id=987654)
    read(dry, "/requests")
    url = f"{dry.workspace.url}/requests/list"
    assert requests.get(url, timeout=60).status_code == 401
    bearer = {"Authorization": f"Bearer {key_of(dry)}"}
    assert requests.get(url, headers=bearer | {"Origin": "null"}, timeout=60).status_code == 403
    page = requests.get(url, headers=bearer, timeout=60).text
    assert EVIL not in page
    assert "listed &lt;script&gt;" in page
    assert "DatabricksSubmitRunOperator" in page
    assert dry.workspace.token not in page
    failed = requests.get(url, params={"failed": "1", "text": "987654"}, headers=bearer, timeout=60)
    assert failed.text.count("<summary>") == 1
    assert ", 3 times" in failed.text
    assert "runs/get?run_id=987654" in failed.text
    none = requests.get(url, params={"text": "no such text"}, headers=bearer, timeout=60)
    assert "No request matches" in none.text
