"""Versions 2.1 and 2.2 of the API, with tasks as an array."""

from __future__ import annotations

from typing import Any

import pytest

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
    """Cancelling the whole run cancels its tasks."""
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
        ([{"task_key": "a", "pipeline_task": {"pipeline_id": "p"}}] * 101, "at most 100"),
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
