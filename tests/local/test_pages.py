"""The pages: readable without the token, harmless whatever a notebook prints, and up to date."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from airflow_jobs_provider.local.engine.scripted_results import ScriptedEnd, ScriptedResult
from airflow_jobs_provider.local.workspace import LocalWorkspace
from tests.helpers.html_checks import problems_of
from tests.local.api import Api
from tests.local.pages import EVIL, NOTEBOOK, TWO_TASKS, listed, read, version_of


def test_run_page(api: Api) -> None:
    """A run's page shows its state, parameters, result and notebook, all of it escaped."""
    cell = f"print('printed')\ndisplayHTML('''{EVIL}''')\ndbutils.notebook.exit('''{EVIL}''')"
    run, _ = api.run_notebook(cell, evil=EVIL)
    path = f"/runs/{run['run_id']}"
    assert run["run_page_url"] == api.workspace.url + path
    page = read(api, path)
    assert EVIL not in page
    assert page.count("&lt;script&gt;") >= 2
    assert "TERMINATED / SUCCESS" in page
    headers = requests.get(run["run_page_url"], timeout=60).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "Access-Control-Allow-Origin" not in headers
    assert f'<iframe sandbox="allow-same-origin" src="{path}/notebook' in page
    notebook = requests.get(run["run_page_url"] + "/notebook", timeout=60)
    assert "printed" in notebook.text
    policy = notebook.headers["Content-Security-Policy"]
    assert policy.startswith("sandbox allow-same-origin; default-src 'none'")
    assert "script" not in policy


def test_page_of_a_failed_run(api: Api) -> None:
    """A failed run's page shows its error and where it came from."""
    run, _ = api.run_notebook(f"raise ValueError('''{EVIL}''')")
    page = read(api, f"/runs/{run['run_id']}")
    assert EVIL not in page
    assert "ValueError: &lt;script&gt;" in page
    assert "Trace" in page
    assert "INTERNAL_ERROR / FAILED" in page


def test_message_is_shown_once(dry: Api) -> None:
    """A failed run of several tasks has no section for an error that is its state's message."""
    assert isinstance(dry.workspace, LocalWorkspace)
    dry.workspace.simulation.results.add(ScriptedResult("breaks_once", ScriptedEnd.FAILED, times=1))
    tasks = [{"task_key": "breaks_once", **NOTEBOOK}, {"task_key": "works", **NOTEBOOK}]
    run_id = dry.post("runs/submit", {"tasks": tasks}, "2.1").json()["run_id"]
    state = dry.wait(run_id)["state"]
    assert state["result_state"] == "FAILED"
    page = read(dry, f"/runs/{run_id}")
    assert page.count(state["state_message"]) == 1
    assert "error-title" not in page
    [failed, _] = dry.run(run_id, version="2.1")["tasks"]
    assert "error-title" in read(dry, f"/runs/{failed['run_id']}")


def test_skipped_task_took_no_time(dry: Api) -> None:
    """The list of task runs says that it did not run."""
    assert isinstance(dry.workspace, LocalWorkspace)
    dry.workspace.simulation.results.add(ScriptedResult("breaks_now", ScriptedEnd.FAILED, times=1))
    first = {"task_key": "breaks_now", **NOTEBOOK}
    second = {"task_key": "later", "depends_on": [{"task_key": "breaks_now"}], **NOTEBOOK}
    run_id = dry.post("runs/submit", {"tasks": [first, second]}, "2.1").json()["run_id"]
    dry.wait(run_id)
    assert read(dry, f"/runs/{run_id}").count("did not run") == 1


def test_notebook_for_pages_of_this_workspace_only(api: Api) -> None:
    """A page of another site makes the workspace export nothing."""
    assert isinstance(api.workspace, LocalWorkspace)
    run, _ = api.run_notebook("print('seen')")
    url = run["run_page_url"] + "/notebook"
    html = api.workspace.state_dir / "runs" / f"{run['run_id']}.html"
    for site in ("cross-site", "same-site"):
        answer = requests.get(url, headers={"Sec-Fetch-Site": site}, timeout=60)
        assert answer.status_code == 403
        assert f'<a href="/runs/{run["run_id"]}">' in answer.text
        assert problems_of(answer.text) == []
    assert not html.exists()
    for site in ("same-origin", "none"):
        answer = requests.get(url, headers={"Sec-Fetch-Site": site}, timeout=60)
        assert answer.status_code == 200
    made = html.stat()
    exported = api.get("runs/export", run_id=run["run_id"]).json()["views"][0]["content"]
    assert exported == answer.text
    assert html.stat().st_ino == made.st_ino, "the notebook is exported once"


def test_notebook_that_cannot_be_exported(api: Api) -> None:
    """The response and the page say why; the next export makes the page."""
    assert isinstance(api.workspace, LocalWorkspace)
    run, _ = api.run_notebook("print('seen')")
    file = api.workspace.state_dir / "runs" / f"{run['run_id']}.ipynb"
    whole = file.read_text()
    file.write_text(whole[:100])
    answer = api.get("runs/export", run_id=run["run_id"])
    assert (answer.status_code, answer.json()["error_code"]) == (500, "INTERNAL_ERROR")
    message = answer.json()["message"]
    assert "was not exported: nbformat.reader.NotJSONError: " in message
    assert "Traceback" not in message
    shown = requests.get(run["run_page_url"] + "/notebook", timeout=30)
    assert (shown.status_code, shown.headers["Content-Type"]) == (500, "text/html; charset=utf-8")
    # It is shown in the frame of the run's page.
    assert "frame-ancestors 'self'" in shown.headers["Content-Security-Policy"]
    assert "NotJSONError" in shown.text
    assert str(file) in shown.text
    assert problems_of(shown.text) == []
    file.write_text(whole)
    assert "seen" in api.get("runs/export", run_id=run["run_id"]).text
    left = {one.name for one in file.parent.glob(f"{run['run_id']}.*")}
    assert left == {f"{run['run_id']}.ipynb", f"{run['run_id']}.html"}


def test_page_of_a_python_run(api: Api) -> None:
    """A Python file's page shows what it wrote."""
    run_id = api.submit_python(f"print('''{EVIL}''')", "first")
    api.wait(run_id)
    page = read(api, f"/runs/{run_id}")
    assert EVIL not in page
    assert "&lt;script&gt;" in page
    assert "first" in page
    read(api, f"/runs/{run_id}/notebook", 404)


def test_lists_are_escaped(dry: Api) -> None:
    """Names are shown as they are, in the lists and on the pages."""
    job_id = dry.create(name=EVIL, version="2.1", tasks=TWO_TASKS)
    run_id = dry.run_now(job_id, notebook_params={"evil": EVIL})
    dry.wait(run_id)
    for path in ("/", "/jobs", f"/jobs/{job_id}", f"/runs/{run_id}", f"/?text={EVIL}"):
        page = read(dry, path)
        assert EVIL not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_what_utf_8_cannot_hold(dry: Api) -> None:
    """Half a surrogate pair in a result breaks no page."""
    assert isinstance(dry.workspace, LocalWorkspace)
    dry.workspace.simulation.results.add(ScriptedResult("half", result="<\ud83d>"))
    run_id = dry.submit(run_name="half", **NOTEBOOK)
    dry.wait(run_id)
    assert "&lt;?&gt;" in read(dry, f"/runs/{run_id}")


def test_runs_are_filtered(dry: Api) -> None:
    """The list has the runs of a state, of a job, and those with a text in name or task."""
    job_id = dry.create(name="filtered", version="2.1", tasks=TWO_TASKS)
    of_job = dry.run_now(job_id)
    named = dry.submit(run_name="Ärger 100%_a", **NOTEBOOK)
    given = dry.submit(run_name="other", notebook_task={"notebook_path": "/Shared/Ähre"})
    assert isinstance(dry.workspace, LocalWorkspace)
    dry.workspace.simulation.results.add(ScriptedResult("breaks", ScriptedEnd.FAILED))
    failed = dry.submit(run_name="breaks", **NOTEBOOK)
    for run_id in (of_job, named, given, failed):
        dry.wait(run_id)
    assert listed(read(dry, f"/?job={job_id}")) == [of_job]
    assert listed(read(dry, "/?text=äRGER")) == [named]
    assert listed(read(dry, "/?text=100%25_a")) == [named]
    assert listed(read(dry, "/?text=100_")) == []
    assert listed(read(dry, "/?text=Ähre")) == [given]
    assert listed(read(dry, "/?text=Ähre&state=succeeded")) == [given]
    assert listed(read(dry, "/?text=Ähre&state=failed")) == []
    assert listed(read(dry, f"/?job={job_id}&state=active")) == []
    # The number may be in the text of another run, too.
    assert listed(read(dry, f"/?text={failed}&state=failed"))[0] == failed
    assert "No run matches" in read(dry, "/?text=nothing-like-it")
    # What is not understood is ignored.
    assert of_job in listed(read(dry, "/?state=x&job=y&before=z&after=-1"))


def test_runs_are_paged(dry: Api) -> None:
    """A page has 50 runs and leads to older and newer ones."""
    job_id = dry.create(name="paged", max_concurrent_runs=1000, **NOTEBOOK)
    run_ids = [dry.run_now(job_id) for _ in range(103)][::-1]

    def link(page: str, name: str) -> str:
        found = re.search(rf'<a href="([^"]+)"[^>]*>{name}</a>', page)
        assert found, page
        return found[1].replace("&amp;", "&")

    first = read(dry, f"/?job={job_id}")
    second = read(dry, link(first, "Older"))
    third = read(dry, link(second, "Older"))
    assert listed(first) + listed(second) + listed(third) == run_ids
    assert ">Older<" not in third
    assert ">Newer<" not in first
    assert listed(read(dry, link(third, "Newer"))) == listed(second)
    assert listed(read(dry, link(third, "Newest"))) == listed(first)


def test_page_of_a_job(dry: Api) -> None:
    """A job's page has a row for each task and a column for each run."""
    job_id = dry.create(name="matrix", version="2.1", tasks=TWO_TASKS)
    assert "No runs yet" in read(dry, f"/jobs/{job_id}")
    run_ids = [dry.wait(dry.run_now(job_id))["run_id"] for _ in range(2)]
    page = read(dry, f"/jobs/{job_id}")
    assert page.count('aria-label="report: Succeeded"') == 2
    for run_id in run_ids:
        assert f'href="/runs/{run_id}"' in page
    assert f'href="/jobs/{job_id}">matrix' in read(dry, "/jobs?text=MATR")
    assert "matrix" not in read(dry, "/jobs?text=other")
    read(dry, "/jobs/987654", 404)


def test_page_of_a_run_of_tasks(dry: Api) -> None:
    """The graph and the timeline lead to the runs of the tasks."""
    job_id = dry.create(name="tasks", version="2.1", tasks=TWO_TASKS)
    run_id = dry.run_now(job_id)
    dry.wait(run_id)
    page = read(dry, f"/runs/{run_id}")
    tasks = dry.run(run_id, version="2.1")["tasks"]
    for task in tasks:
        link = f'<a href="/runs/{task["run_id"]}" aria-label="{task["task_key"]}: Succeeded">'
        assert link in page
        assert f'<a class="label" href="/runs/{task["run_id"]}">{task["task_key"]}</a>' in page
    assert f'<a href="/jobs/{job_id}">tasks</a>' in page
    assert f'<a href="/runs/{run_id}">' in read(dry, f"/runs/{tasks[0]['run_id']}")


def test_page_of_no_run(api: Api) -> None:
    """A run that is not there has a page that says so; a page takes GET only."""
    read(api, "/runs/987654", 404)
    assert requests.get(f"{api.workspace.url}/runs/x", timeout=60).status_code == 404
    assert requests.get(f"{api.workspace.url}/runs/987654/events", timeout=60).status_code == 404
    assert requests.post(f"{api.workspace.url}/runs/1", timeout=60).status_code == 404


def test_static_files(dry: Api) -> None:
    """Scripts and style sheet have their types; nothing else of this machine is served."""
    types = {"pages.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}
    for name, content_type in types.items():
        answer = requests.get(f"{dry.workspace.url}/static/{name}", timeout=60)
        assert answer.headers["Content-Type"].startswith(content_type)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for name in ("other.js", "..%2froutes.py", "%2e%2e/__init__.py", "pages.css/.."):
        assert requests.get(f"{dry.workspace.url}/static/{name}", timeout=60).status_code == 404


def events_of(answer: requests.Response) -> Iterator[tuple[str, Any]]:
    """Yield the events of a stream."""
    name = ""
    for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def test_log_is_followed(api: Api, tmp_path: Path) -> None:
    """A page gets what a run writes while it writes it, then that its state has changed."""
    go_on = tmp_path / "go-on"
    run_id = api.submit_python(
        "import sys, time, os\n"
        "print('früh', flush=True)\n"
        "while not os.path.exists(sys.argv[1]): time.sleep(0.02)\n"
        "print('late')",
        str(go_on),
    )
    api.wait(run_id, "RUNNING")
    version = version_of(read(api, f"/runs/{run_id}"))
    url = f"{api.workspace.url}/runs/{run_id}/events?log=0"
    with requests.get(url, stream=True, timeout=30) as answer:
        answer.encoding = "utf-8"
        assert answer.headers["Content-Type"] == "text/event-stream"
        events = events_of(answer)
        log, states = "", []
        for name, data in events:
            if name == "log":
                log += data["text"]
                if log == "früh\n":
                    go_on.touch()
            else:
                states.append(data)
            if len(set(states)) > 1 and "late" in log:
                break
        assert log == "früh\nlate\n"
        assert states[0] == version
    api.wait(run_id)
    assert version_of(read(api, f"/runs/{run_id}")) != version


def test_list_is_followed(dry: Api) -> None:
    """The list learns of a new run."""
    version = version_of(read(dry, "/"))
    with requests.get(f"{dry.workspace.url}/events", stream=True, timeout=30) as answer:
        answer.encoding = "utf-8"
        events = events_of(answer)
        assert next(events) == ("state", version)
        dry.submit(run_name="new", **NOTEBOOK)
        name, changed = next(events)
        assert name == "state"
        assert int(changed) > int(version)
