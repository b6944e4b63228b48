"""Versions 2.1 and 2.2 of the API, with tasks as an array."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.local.engine.store import Store
from airflow_jobs_provider.local.workspace import LocalWorkspace
from tests.local.api import CLUSTER, Api

MULTIPLE = (
    "Retrieving the output of runs with multiple tasks is not supported. "
    "Please retrieve the output of each individual task run instead."
)


def _submit(api: Api, *tasks: dict[str, Any], version: str = "2.2", **fields: Any) -> int:
    answer = api.post("runs/submit", {"tasks": list(tasks), **fields}, version=version)
    assert answer.status_code == 200, answer.text
    run_id: int = answer.json()["run_id"]
    return run_id


@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_run_of_one_task(api: Api, version: str) -> None:
    """The output of a run of the tasks form is its task run's, not its own."""
    path = api.notebook("dbutils.notebook.exit('out')")
    run_id = _submit(
        api, {"task_key": "t", "notebook_task": {"notebook_path": path}}, version=version
    )
    api.wait(run_id)
    run = api.run(run_id, version=version)
    assert run["state"]["result_state"] == "SUCCESS"
    assert run["format"] == "MULTI_TASK"
    assert run["setup_duration"] == run["execution_duration"] == 0
    assert run["run_duration"] > 0
    [task] = run["tasks"]
    assert task["task_key"] == "t"
    assert task["run_id"] != run_id
    answer = api.get("runs/get-output", version=version, run_id=run_id)
    assert answer.status_code == 400
    assert answer.json() == {"error_code": "INVALID_PARAMETER_VALUE", "message": MULTIPLE}
    output = api.get("runs/get-output", version=version, run_id=task["run_id"]).json()
    assert output["notebook_output"]["result"] == "out"
    listed = api.get("runs/list", version=version).json()["runs"]
    assert task["run_id"] not in [run["run_id"] for run in listed]


def test_tasks_run_after_what_they_depend_on(api: Api) -> None:
    """Tasks run in their order; one that fails takes those after it along, not its siblings."""
    good, bad = api.python("print(1)"), api.python("raise KeyError('k')")

    def task(key: str, file: str, *needs: str) -> dict[str, Any]:
        depends_on = [{"task_key": need} for need in needs]
        return {
            "task_key": key,
            "spark_python_task": {"python_file": file},
            **CLUSTER,
            "depends_on": depends_on,
        }

    run_id = _submit(
        api,
        task("last", good, "good"),
        task("good", good),
        task("bad", bad),
        task("after_bad", good, "bad"),
    )
    state = api.wait(run_id)["state"]
    assert (state["life_cycle_state"], state["result_state"]) == ("INTERNAL_ERROR", "FAILED")
    tasks = {task["task_key"]: task for task in api.run(run_id, version="2.2")["tasks"]}
    results = {key: task["state"]["result_state"] for key, task in tasks.items()}
    assert results == {
        "last": "SUCCESS",
        "good": "SUCCESS",
        "bad": "FAILED",
        "after_bad": "UPSTREAM_FAILED",
    }
    assert tasks["last"]["start_time"] >= tasks["good"]["end_time"]
    assert tasks["last"]["depends_on"] == [{"task_key": "good"}]


def test_cancel_of_one_task(api: Api) -> None:
    """Canceling the whole run cancels its tasks."""
    task = {"python_file": api.python("import time; time.sleep(600)")}
    sleep = {"spark_python_task": task, **CLUSTER}
    run_id = _submit(api, {"task_key": "a", **sleep}, {"task_key": "b", **sleep})
    first, second = (task["run_id"] for task in api.run(run_id)["tasks"])
    api.wait(first, "RUNNING")
    api.wait(second, "RUNNING")
    api.post("runs/cancel", {"run_id": first})
    assert api.wait(first)["state"]["result_state"] == "CANCELED"
    assert api.run(second)["state"]["life_cycle_state"] == "RUNNING"
    api.post("runs/cancel", {"run_id": run_id})
    assert api.wait(run_id)["state"]["result_state"] == "CANCELED"
    assert api.run(second)["state"]["result_state"] == "CANCELED"


def test_job_of_the_single_form_seen_later(api: Api) -> None:
    """A job and a run of 2.0 are answered by 2.2 with one task, whose run is the run itself."""
    job_id = api.create(name="One job", spark_python_task={"python_file": api.python("print(1)")})
    settings = api.get("get", version="2.2", job_id=job_id).json()["settings"]
    assert settings["tasks"][0]["task_key"] == "One_job"
    assert settings["tasks"][0]["existing_cluster_id"] == "1201-my-cluster"
    assert "spark_python_task" not in settings
    run_id = api.run_now(job_id)
    api.wait(run_id)
    run = api.run(run_id, version="2.2")
    assert [task["run_id"] for task in run["tasks"]] == [run_id]
    assert api.get("runs/get-output", version="2.2", run_id=run_id).status_code == 200


def test_job_of_the_tasks_form(api: Api) -> None:
    """A job of the tasks form is created, changed by task, listed by name, and run."""
    file = api.python("import sys; print(sys.argv[1:])")
    task = {"task_key": "t", "spark_python_task": {"python_file": file}, **CLUSTER}
    created = api.post("create", {"name": "of tasks", "tasks": [task]}, version="2.2")
    job_id = created.json()["job_id"]
    listed = api.get("list", version="2.2", name="OF TASKS").json()["jobs"]
    assert [job["job_id"] for job in listed] == [job_id]
    assert "tasks" not in listed[0]["settings"]
    other = {**task, "timeout_seconds": 60}
    change = {"new_settings": {"tasks": [other, {**task, "task_key": "u"}]}, "job_id": job_id}
    assert api.post("update", change, version="2.2").json() == {}
    remove = {"job_id": job_id, "fields_to_remove": ["tasks/u"]}
    assert api.post("update", remove, version="2.2").json() == {}
    settings = api.get("get", version="2.2", job_id=job_id).json()["settings"]
    assert settings["tasks"] == [other]
    answer = api.post("run-now", {"job_id": job_id, "python_params": ["p"]}, version="2.2")
    run_id = answer.json()["run_id"]
    assert api.wait(run_id)["state"]["result_state"] == "SUCCESS"
    [task_run] = api.run(run_id, version="2.2")["tasks"]
    output = api.get("runs/get-output", version="2.2", run_id=task_run["run_id"]).json()
    assert output["logs"] == "['p']\n"


def test_pages_by_token(api: Api) -> None:
    """From 2.1 on pages hold 25 at most and have tokens; 2.2 leaves has_more out."""
    path = api.python("print(1)")
    for _ in range(4):
        api.wait(api.submit(spark_python_task={"python_file": path}))
    first = api.get("runs/list", version="2.2", limit=3).json()
    assert "has_more" not in first
    assert "prev_page_token" not in first
    token = first["next_page_token"]
    second = api.get("runs/list", version="2.2", limit=3, page_token=token).json()
    ids = [run["run_id"] for answer in (first, second) for run in answer["runs"]]
    assert ids == [run["run_id"] for run in api.get("runs/list", limit=len(ids)).json()["runs"]]
    assert second["prev_page_token"]
    assert api.get("runs/list", version="2.1", limit=3).json()["has_more"] is True
    assert api.get("runs/list", version="2.2", limit=26).status_code == 400
    for bad in ("x", "%%%", token + "AAAA"):
        assert api.get("runs/list", version="2.2", page_token=bad).status_code == 400


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ([{"spark_python_task": {"python_file": "x"}}], "tasks[0].task_key"),
        ([{"task_key": "a"}], "tasks[0].notebook_task"),
        (["a"], "tasks[0] must be an object"),
        ("a", "tasks must be an array"),
        ([{"task_key": "a", "pipeline_task": {"pipeline_id": "p"}}] * 2, "of its own"),
        ([{"task_key": "a", "pipeline_task": {"pipeline_id": "p"}}] * 1001, "at most 1000"),
        (
            [
                {
                    "task_key": "a",
                    "pipeline_task": {"pipeline_id": "p"},
                    "depends_on": [{"task_key": "a"}],
                }
            ],
            "circle",
        ),
        (
            [
                {
                    "task_key": "a",
                    "pipeline_task": {"pipeline_id": "p"},
                    "depends_on": [{"task_key": "b"}],
                }
            ],
            "unknown task b",
        ),
    ],
)
def test_bad_tasks(api: Api, tasks: Any, words: str) -> None:
    """Tasks that cannot be run as given are refused, with the place named."""
    answer = api.post("runs/submit", {"tasks": tasks}, version="2.2")
    assert answer.status_code == 400
    assert words in answer.json()["message"]


def _python_task(key: str, file: str, *needs: str, **fields: Any) -> dict[str, Any]:
    return {
        "task_key": key,
        "spark_python_task": {"python_file": file},
        "depends_on": [{"task_key": need} for need in needs],
        **CLUSTER,
        **fields,
    }


@pytest.mark.parametrize(
    ("run_if", "after_good", "after_both", "after_bad"),
    [
        ("ALL_SUCCESS", "SUCCESS", "UPSTREAM_FAILED", "UPSTREAM_FAILED"),
        ("NONE_FAILED", "SUCCESS", "UPSTREAM_FAILED", "UPSTREAM_FAILED"),
        ("AT_LEAST_ONE_SUCCESS", "SUCCESS", "SUCCESS", "UPSTREAM_FAILED"),
        ("ALL_DONE", "SUCCESS", "SUCCESS", "SUCCESS"),
        ("AT_LEAST_ONE_FAILED", "EXCLUDED", "SUCCESS", "SUCCESS"),
        ("ALL_FAILED", "EXCLUDED", "UPSTREAM_FAILED", "SUCCESS"),
    ],
)
def test_run_if(api: Api, run_if: str, after_good: str, after_both: str, after_bad: str) -> None:
    """A task runs if those it depends on ended as its run_if says."""
    good, bad = api.python("print(1)"), api.python("raise KeyError('k')")
    run_id = _submit(
        api,
        _python_task("good", good),
        _python_task("bad", bad),
        _python_task("after_good", good, "good", run_if=run_if),
        _python_task("after_both", good, "good", "bad", run_if=run_if),
        _python_task("after_bad", good, "bad", run_if=run_if),
    )
    state = api.wait(run_id)["state"]
    tasks = {task["task_key"]: task["state"] for task in api.run(run_id)["tasks"]}
    assert tasks["after_good"]["result_state"] == after_good
    assert tasks["after_both"]["result_state"] == after_both
    assert tasks["after_bad"]["result_state"] == after_bad
    last = {after_good, after_both, after_bad}
    expected = "FAILED" if "UPSTREAM_FAILED" in last else "SUCCESS_WITH_FAILURES"
    assert state["result_state"] == expected


def test_what_depends_on_excluded_tasks_only(api: Api) -> None:
    """A task is excluded with all that it depends on; that is no failure of the run."""
    good = api.python("print(1)")
    run_id = _submit(
        api,
        _python_task("good", good),
        _python_task("on_failure", good, "good", run_if="AT_LEAST_ONE_FAILED"),
        _python_task("after", good, "on_failure", run_if="ALL_DONE"),
    )
    assert api.wait(run_id)["state"]["result_state"] == "SUCCESS"
    states = [task["state"]["result_state"] for task in api.run(run_id)["tasks"]]
    assert states == ["SUCCESS", "EXCLUDED", "EXCLUDED"]


def test_answer_of_a_task(api: Api) -> None:
    """From 2.1 on a run shows its job clusters, and each task its compute, condition and status."""
    good, bad = api.python("print(1)"), api.python("raise KeyError('k')")
    own = {"new_cluster": {"spark_version": "15.4.x", "node_type_id": "n", "num_workers": 1}}
    clusters = [{"job_cluster_key": "small", **own}]
    python = {"spark_python_task": {"python_file": good}}
    body = {
        "job_clusters": clusters,
        "environments": [{"environment_key": "env", "spec": {"client": "1"}}],
        "tasks": [
            {"task_key": "on_cluster", **python, "job_cluster_key": "small"},
            {"task_key": "serverless", **python, "environment_key": "env"},
            _python_task("bad", bad),
            _python_task("after", good, "bad", run_if="ALL_DONE", description="d"),
            _python_task("never", good, "bad"),
        ],
    }
    job_id = api.post("create", body, version="2.2").json()["job_id"]
    run_id = api.run_now(job_id)
    api.wait(run_id)
    run = api.run(run_id, version="2.2")
    assert run["job_clusters"] == clusters
    assert run["status"]["state"] == "TERMINATED"
    tasks = {task["task_key"]: task for task in run["tasks"]}
    assert tasks["on_cluster"]["job_cluster_key"] == "small"
    assert tasks["serverless"]["environment_key"] == "env"
    assert tasks["bad"]["run_if"] == "ALL_SUCCESS"
    assert (tasks["after"]["run_if"], tasks["after"]["description"]) == ("ALL_DONE", "d")
    codes = {
        key: (details["code"], details["type"])
        for key, task in tasks.items()
        if (details := task["status"]["termination_details"])
    }
    assert codes == {
        "on_cluster": ("SUCCESS", "SUCCESS"),
        "serverless": ("SUCCESS", "SUCCESS"),
        "bad": ("RUN_EXECUTION_ERROR", "CLIENT_ERROR"),
        "after": ("SUCCESS", "SUCCESS"),
        "never": ("SKIPPED", "CLIENT_ERROR"),
    }
    assert "status" not in api.run(run_id)
    missing = {"tasks": [{"task_key": "t", **python, "environment_key": "other"}]}
    refused = api.post("create", missing, version="2.2")
    assert (refused.status_code, "'other'" in refused.json()["message"]) == (400, True)


def test_only_some_tasks(api: Api) -> None:
    """``only`` runs the tasks that it names; they do not wait for the others."""
    good = api.python("print(1)")
    tasks = [
        _python_task("first", good),
        _python_task("second", good, "first"),
        _python_task("third", good, "second"),
    ]
    job_id = api.post("create", {"tasks": tasks}, version="2.2").json()["job_id"]
    body = {"job_id": job_id, "only": ["second", "third"]}
    run_id = api.post("run-now", body, version="2.2").json()["run_id"]
    assert api.wait(run_id)["state"]["result_state"] == "SUCCESS"
    run = api.run(run_id, version="2.2")
    assert [(task["task_key"], task.get("depends_on")) for task in run["tasks"]] == [
        ("second", None),
        ("third", [{"task_key": "second"}]),
    ]
    refused = api.post("run-now", {**body, "only": ["fourth"]}, version="2.2")
    assert (refused.status_code, "'fourth'" in refused.json()["message"]) == (400, True)
    assert api.post("run-now", {**body, "only": "second"}, version="2.2").status_code == 400


def test_runs_of_tasks_are_found_by_an_index(tmp_path: Path) -> None:
    """The runs of tasks are not looked for among all runs."""
    store = Store(tmp_path / "store.sqlite")
    plan = store._db.execute(
        "EXPLAIN QUERY PLAN SELECT record FROM runs WHERE parent_run_id IN (1, 2) ORDER BY run_id"
    ).fetchall()
    store.close()
    assert "USING INDEX runs_by_parent" in plan[0][3]


@pytest.mark.parametrize(("version", "pages"), [("2.0", [103]), ("2.1", [103]), ("2.2", [100, 3])])
def test_pages_of_tasks(tmp_path: Path, version: str, pages: list[int]) -> None:
    """2.2 answers the tasks of a run by the hundred; the others answer all of them."""
    with LocalWorkspace(tmp_path, dry_run=True) as workspace:
        api = Api(workspace)
        tasks = [_python_task(f"t{number}", "dbfs:/x.py") for number in range(100)]
        run_id = _submit(api, *tasks)
        api.wait(run_id)
        again = {"run_id": run_id, "rerun_tasks": ["t0", "t1", "t2"]}
        assert api.post("runs/repair", again, version="2.2").status_code == 200
        api.wait(run_id)
        sizes, ids = [], []
        query: dict[str, str] = {}
        while True:
            run = api.get("runs/get", version=version, run_id=run_id, **query).json()
            sizes.append(len(run["tasks"]))
            ids += [task["run_id"] for task in run["tasks"]]
            assert run["state"]["result_state"] == "SUCCESS"
            if "next_page_token" not in run:
                break
            query = {"page_token": run["next_page_token"]}
        assert sizes == pages
        assert len(set(ids)) == 103
        [listed] = api.get("runs/list", version=version, expand_tasks="true").json()["runs"]
        assert len(listed["tasks"]) == pages[0]
        assert listed.get("has_more", False) is (len(pages) > 1)
        assert "next_page_token" not in listed
        if version == "2.2":
            bad = api.get("runs/get", version=version, run_id=run_id, page_token="x")
            assert bad.status_code == 400
            assert "page_token" in bad.json()["message"]


def test_pages_of_jobs(tmp_path: Path) -> None:
    """From 2.1 on jobs come in pages with tokens, up to 100 of them at once."""
    with LocalWorkspace(tmp_path, dry_run=True) as workspace:
        api = Api(workspace)
        ids = [api.create(spark_python_task={"python_file": "dbfs:/x.py"}) for _ in range(23)]
        for version in ("2.1", "2.2"):
            first = api.get("list", version=version).json()
            assert len(first["jobs"]) == 20
            token = first["next_page_token"]
            second = api.get("list", version=version, page_token=token).json()
            found = [job["job_id"] for page in (first, second) for job in page["jobs"]]
            assert found == ids[::-1]
            assert "next_page_token" not in second
            assert len(api.get("list", version=version, limit=100).json()["jobs"]) == 23
            assert api.get("list", version=version, limit=101).status_code == 400
        assert len(api.get("list").json()["jobs"]) == 23


@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_job_parameters(api: Api, version: str) -> None:
    """A job's parameters come to its notebooks, before their own, and wherever they are named."""
    notebook = api.notebook(
        "import json; dbutils.notebook.exit(json.dumps(dbutils.widgets.getAll()))"
    )
    file = api.python("import sys; print(sys.argv[1:])")
    task = {"notebook_path": notebook, "base_parameters": {"a": "task", "c": "task"}}
    python = {"python_file": file, "parameters": ["{{job.parameters.a}}", "{{job.parameters.x}}"]}
    body = {
        "parameters": [{"name": "a", "default": "job"}, {"name": "b", "default": "job"}],
        "tasks": [
            {"task_key": "n", "notebook_task": task, **CLUSTER},
            {"task_key": "p", "spark_python_task": python, **CLUSTER},
        ],
    }
    job_id = api.post("create", body, version=version).json()["job_id"]
    given = {"job_id": job_id, "job_parameters": {"b": "run"}}
    run_id = api.post("run-now", given, version=version).json()["run_id"]
    assert api.wait(run_id)["state"]["result_state"] == "SUCCESS"
    run = api.run(run_id, version=version)
    assert run["job_parameters"] == [
        {"name": "a", "default": "job", "value": "job"},
        {"name": "b", "default": "job", "value": "run"},
    ]
    ids = {task["task_key"]: task["run_id"] for task in run["tasks"]}
    result = json.loads(api.output(ids["n"])["notebook_output"]["result"])
    assert result == {"a": "job", "b": "run", "c": "task"}
    output = api.get("runs/get-output", version=version, run_id=ids["p"]).json()
    # What is not known stays as it is, for everyone to see.
    assert output["logs"] == "['job', '{{job.parameters.x}}']\n"


def test_retries_of_a_task(api: Api) -> None:
    """A task with max_retries is tried again within the run; what depends on it waits for that."""
    counter = api.root / "counter_of_tasks"
    flaky = api.python(
        f"""
        import pathlib
        counter = pathlib.Path({str(counter)!r})
        tries = int(counter.read_text()) if counter.exists() else 0
        counter.write_text(str(tries + 1))
        assert tries == 2
        """
    )
    good, bad = api.python("print(1)"), api.python("raise KeyError('k')")
    run_id = _submit(
        api,
        _python_task("flaky", flaky, max_retries=-1, min_retry_interval_millis=300),
        _python_task("after", good, "flaky"),
        _python_task("bad", bad, max_retries=1),
        _python_task("below", good, "bad", max_retries=3),
    )
    assert api.wait(run_id)["state"]["result_state"] == "FAILED"
    attempts: dict[str, list[dict[str, Any]]] = {}
    for task in api.run(run_id, version="2.2")["tasks"]:
        attempts.setdefault(task["task_key"], []).append(task)
    results = {
        key: [(one["attempt_number"], one["state"]["result_state"]) for one in runs]
        for key, runs in attempts.items()
    }
    assert results == {
        "flaky": [(0, "FAILED"), (1, "FAILED"), (2, "SUCCESS")],
        "after": [(0, "SUCCESS")],
        "bad": [(0, "FAILED"), (1, "FAILED")],
        "below": [(0, "UPSTREAM_FAILED")],
    }
    first, second, last = attempts["flaky"]
    assert second["start_time"] - first["start_time"] >= 290
    assert attempts["after"][0]["start_time"] >= last["end_time"]
    answer = api.get("runs/get", version="2.2", run_id=run_id, include_history="true").json()
    [item] = answer["repair_history"]
    assert set(item["task_run_ids"]) == {task["run_id"] for task in answer["tasks"]}
    originals = {api.run(one["run_id"])["original_attempt_run_id"] for one in attempts["flaky"]}
    assert originals == {first["run_id"]}


def test_task_that_is_canceled_is_not_retried(api: Api) -> None:
    """Neither a canceled task nor one that timed out is tried again, unless it says so."""
    slow = api.python("import time; time.sleep(600)")
    run_id = _submit(
        api,
        _python_task("canceled", slow, max_retries=-1),
        _python_task("timed_out", slow, max_retries=-1, timeout_seconds=1),
        _python_task("again", slow, max_retries=1, timeout_seconds=1, retry_on_timeout=True),
    )
    first = api.run(run_id)["tasks"][0]["run_id"]
    api.wait(first, "RUNNING")
    api.post("runs/cancel", {"run_id": first})
    api.wait(run_id)
    keys = [task["task_key"] for task in api.run(run_id)["tasks"]]
    assert sorted(keys) == ["again", "again", "canceled", "timed_out"]
