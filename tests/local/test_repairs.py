"""Repairing runs: ``runs/repair`` of versions 2.1 and 2.2."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.local.api import CLUSTER, Api

LATER = pytest.mark.parametrize("version", ["2.1", "2.2"])
NEEDED = "The latest repair ID needs to be provided in order to create a new repair"
# Fails unless there is a file of the name it is given.
FAILS_WITHOUT = "import os, sys\nassert os.path.exists(sys.argv[1]), sys.argv[2:]"


class Graph:
    """A run of tasks, one of which fails until it is mended."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.good = api.python("print(1)")
        self.bad = api.python(FAILS_WITHOUT)
        self.mended = api.root / f"mended_by_{self.bad.rpartition('/')[2]}"

    def tasks(self) -> list[dict[str, Any]]:
        """Return the tasks: first <- bad <- below <- last, and one that stands alone."""
        mended = str(self.mended)
        return [
            _task("first", self.good),
            _task("bad", self.bad, "first", parameters=[mended]),
            _task("below", self.good, "bad"),
            _task("last", self.good, "below"),
            _task("alone", self.good),
        ]

    def launch(self, version: str = "2.2") -> int:
        """Launch the run, and see it fail."""
        answer = self.api.post("runs/submit", {"tasks": self.tasks()}, version=version)
        run_id: int = answer.json()["run_id"]
        assert self.api.wait(run_id)["state"]["result_state"] == "FAILED"
        return run_id

    def repair(self, run_id: int, version: str = "2.2", **fields: Any) -> int:
        """Repair the run."""
        answer = self.api.post("runs/repair", {"run_id": run_id, **fields}, version=version)
        assert answer.status_code == 200, answer.text
        assert list(answer.json()) == ["repair_id"]
        repair_id: int = answer.json()["repair_id"]
        return repair_id

    def attempts(self, run_id: int, version: str = "2.2") -> dict[str, list[dict[str, Any]]]:
        """Return the task runs of a run by task key, the latest last."""
        found: dict[str, list[dict[str, Any]]] = {}
        for task in self.api.run(run_id, version=version)["tasks"]:
            found.setdefault(task["task_key"], []).append(task)
        return found


def _task(key: str, file: str, *needs: str, parameters: list[str] | None = None) -> dict[str, Any]:
    return {
        "task_key": key,
        "spark_python_task": {"python_file": file, "parameters": parameters or []},
        **CLUSTER,
        "depends_on": [{"task_key": need} for need in needs],
    }


def _history(api: Api, run_id: int, version: str = "2.2") -> list[dict[str, Any]]:
    answer = api.get("runs/get", version=version, run_id=run_id, include_history="true")
    history: list[dict[str, Any]] = answer.json()["repair_history"]
    return history


@LATER
def test_repair_of_what_failed(api: Api, version: str) -> None:
    """Failed tasks and those that never began for it run again; the run ends anew, and well."""
    graph = Graph(api)
    run_id = graph.launch(version)
    before = api.run(run_id, version=version)
    first = {key: runs[0] for key, runs in graph.attempts(run_id, version).items()}
    assert first["below"]["state"]["result_state"] == "UPSTREAM_FAILED"
    graph.mended.touch()
    repair_id = graph.repair(run_id, version, rerun_all_failed_tasks=True)
    assert api.run(run_id)["state"]["life_cycle_state"] not in ("TERMINATED", "INTERNAL_ERROR")
    run = api.wait(run_id)
    assert (run["state"]["life_cycle_state"], run["state"]["result_state"]) == (
        "TERMINATED",
        "SUCCESS",
    )
    assert run["start_time"] == before["start_time"]
    assert run["end_time"] >= before["end_time"]
    attempts = graph.attempts(run_id, version)
    assert {key: [one["attempt_number"] for one in runs] for key, runs in attempts.items()} == {
        "first": [0],
        "bad": [0, 1],
        "below": [0, 1],
        "last": [0, 1],
        "alone": [0],
    }
    for key, runs in attempts.items():
        assert runs[0] == first[key]
        assert runs[-1]["state"]["result_state"] == "SUCCESS"
        assert len({one["run_id"] for one in runs}) == len(runs)
    assert attempts["last"][1]["start_time"] >= attempts["below"][1]["end_time"]
    original, repair = _history(api, run_id, version)
    assert original["type"] == "ORIGINAL"
    assert "id" not in original
    assert original["state"] == before["state"]
    assert original["end_time"] == before["end_time"]
    assert original["task_run_ids"] == [first[key]["run_id"] for key in first]
    assert repair["type"] == "REPAIR"
    assert repair["id"] == repair_id
    assert repair["state"] == run["state"]
    assert repair["task_run_ids"] == [
        attempts[key][1]["run_id"] for key in ("bad", "below", "last")
    ]
    spans = [item["end_time"] - item["start_time"] for item in (original, repair)]
    assert api.run(run_id, version=version)["run_duration"] == sum(spans)
    output = api.get("runs/get-output", version=version, run_id=first["bad"]["run_id"]).json()
    assert output["error"].startswith("AssertionError")


@LATER
def test_history_of_a_run_never_repaired(api: Api, version: str) -> None:
    """A run has one item of history from the start, and it is told only where it is asked for."""
    run_id = api.submit_python("print(1)")
    run = api.wait(run_id)
    assert "repair_history" not in api.run(run_id, version=version)
    [item] = _history(api, run_id, version)
    assert item == {
        "type": "ORIGINAL",
        "start_time": run["start_time"],
        "end_time": run["end_time"],
        "state": run["state"],
        "task_run_ids": [run_id],
    }
    answer = api.get("runs/get", run_id=run_id, include_history="true")
    assert "repair_history" not in answer.json()


def test_repairs_follow_each_other(api: Api) -> None:
    """A second repair must name the first one, and no other; a refused one changes nothing."""
    graph = Graph(api)
    run_id = graph.launch()
    early = api.post(
        "runs/repair",
        {"run_id": run_id, "rerun_tasks": ["bad"], "latest_repair_id": 1},
        version="2.2",
    )
    assert early.status_code == 400
    first = graph.repair(run_id, rerun_all_failed_tasks=True)
    failed = api.wait(run_id)
    assert failed["state"]["result_state"] == "FAILED"
    for wrong, words in (({}, NEEDED), ({"latest_repair_id": first + 1000}, "latest_repair_id")):
        body = {"run_id": run_id, "rerun_all_failed_tasks": True, **wrong}
        answer = api.post("runs/repair", body, version="2.2")
        assert answer.status_code == 400
        assert answer.json()["error_code"] == "INVALID_PARAMETER_VALUE"
        assert words in answer.json()["message"]
    assert api.run(run_id) == failed
    graph.mended.touch()
    second = graph.repair(run_id, rerun_all_failed_tasks=True, latest_repair_id=first)
    assert api.wait(run_id)["state"]["result_state"] == "SUCCESS"
    assert second != first
    history = _history(api, run_id)
    assert [item.get("id") for item in history] == [None, first, second]
    assert [item["state"]["result_state"] for item in history] == ["FAILED", "FAILED", "SUCCESS"]
    assert [one["attempt_number"] for one in graph.attempts(run_id)["bad"]] == [0, 1, 2]


def test_named_tasks(api: Api) -> None:
    """Named tasks run again though they succeeded; those below them only if that is asked for."""
    graph = Graph(api)
    graph.mended.touch()
    answer = api.post("runs/submit", {"tasks": graph.tasks()}, version="2.2")
    run_id = answer.json()["run_id"]
    assert api.wait(run_id)["state"]["result_state"] == "SUCCESS"
    repair_id = graph.repair(run_id, rerun_tasks=["bad"])
    api.wait(run_id)
    counts = {key: len(runs) for key, runs in graph.attempts(run_id).items()}
    assert counts == {"first": 1, "bad": 2, "below": 1, "last": 1, "alone": 1}
    graph.repair(
        run_id, rerun_tasks=["bad"], rerun_dependent_tasks=True, latest_repair_id=repair_id
    )
    api.wait(run_id)
    counts = {key: len(runs) for key, runs in graph.attempts(run_id).items()}
    assert counts == {"first": 1, "bad": 3, "below": 2, "last": 2, "alone": 1}


def test_named_task_that_others_waited_for(api: Api) -> None:
    """What never began because a named task had failed runs too."""
    graph = Graph(api)
    run_id = graph.launch()
    graph.mended.touch()
    graph.repair(run_id, rerun_tasks=["bad"])
    assert api.wait(run_id)["state"]["result_state"] == "SUCCESS"
    assert len(graph.attempts(run_id)["last"]) == 2


def test_repair_that_fails_again(api: Api) -> None:
    """A run whose repair fails has failed, and a task that succeeded before stays as it was."""
    graph = Graph(api)
    run_id = graph.launch()
    graph.repair(run_id, rerun_tasks=["alone"])
    state = api.wait(run_id)["state"]
    assert (state["life_cycle_state"], state["result_state"]) == ("INTERNAL_ERROR", "FAILED")
    assert [len(graph.attempts(run_id)[key]) for key in ("alone", "bad")] == [2, 1]


def test_retries_in_a_repair(api: Api) -> None:
    """A task has all its retries in a repair again; one that is left as it was has none."""
    bad, good = api.python("raise KeyError('k')"), api.python("print(1)")
    tasks = [
        {**_task("bad", bad), "max_retries": 1},
        {**_task("other", bad), "max_retries": 1},
        _task("good", good),
    ]
    run_id = api.post("runs/submit", {"tasks": tasks}, version="2.2").json()["run_id"]
    api.wait(run_id)
    graph = Graph(api)
    graph.repair(run_id, rerun_tasks=["bad"])
    assert api.wait(run_id)["state"]["result_state"] == "FAILED"
    attempts = graph.attempts(run_id)
    counts = {key: [one["attempt_number"] for one in runs] for key, runs in attempts.items()}
    assert counts == {"bad": [0, 1, 2, 3], "other": [0, 1], "good": [0]}
    original, repair = _history(api, run_id)
    assert repair["task_run_ids"] == [one["run_id"] for one in attempts["bad"][2:]]
    assert len(original["task_run_ids"]) == 5


def test_cancel_of_a_repair(api: Api) -> None:
    """A repair can be canceled as any run, and repaired again."""
    wait = api.python("import sys, time\ntime.sleep(float(sys.argv[1]))")
    job_id = api.post(
        "create", {"tasks": [_task("t", wait, parameters=["600"])]}, version="2.2"
    ).json()["job_id"]
    run_id = api.run_now(job_id)
    api.wait(run_id, "RUNNING")
    api.post("runs/cancel", {"run_id": run_id})
    assert api.wait(run_id)["state"]["result_state"] == "CANCELED"
    graph = Graph(api)
    first = graph.repair(run_id, rerun_all_failed_tasks=True)
    api.wait(run_id, "RUNNING")
    api.post("runs/cancel", {"run_id": run_id})
    assert api.wait(run_id)["state"]["user_cancelled_or_timedout"] is True
    graph.repair(run_id, rerun_all_failed_tasks=True, latest_repair_id=first, python_params=["0"])
    run = api.wait(run_id)
    assert run["state"]["result_state"] == "SUCCESS"
    assert run["state"]["user_cancelled_or_timedout"] is False
    assert [item["state"]["result_state"] for item in _history(api, run_id)] == [
        "CANCELED",
        "CANCELED",
        "SUCCESS",
    ]


@pytest.mark.slow
def test_timeout_of_a_repair(api: Api) -> None:
    """A repair has the run's whole time-out for itself."""
    slow = api.python("import sys, time\ntime.sleep(float(sys.argv[1]))")
    body = {"tasks": [_task("t", slow)], "timeout_seconds": 2}
    job_id = api.post("create", body, version="2.2").json()["job_id"]
    run_id = api.run_now(job_id, python_params=["600"])
    assert api.wait(run_id)["state"]["result_state"] == "TIMEDOUT"
    graph = Graph(api)
    # Far later than two seconds after the run began; not after the repair did.
    graph.repair(run_id, rerun_all_failed_tasks=True, python_params=["0.2"])
    assert api.wait(run_id)["state"]["result_state"] == "SUCCESS"


@pytest.mark.slow
def test_parameters_of_a_repair(api: Api) -> None:
    """A repair's parameters lie over the run's own, for that repair only."""
    path = api.notebook(
        "got = [dbutils.widgets.get(name) for name in 'abc']",
        "assert 'ok' in got, got",
        "dbutils.notebook.exit(','.join(got))",
    )
    base = {"a": "base", "b": "base", "c": "base"}
    task = {"task_key": "t", "notebook_task": {"notebook_path": path, "base_parameters": base}}
    job_id = api.post("create", {"tasks": [task]}, version="2.2").json()["job_id"]
    run_id = api.run_now(job_id, notebook_params={"b": "run"})
    assert api.wait(run_id)["state"]["result_state"] == "FAILED"
    graph = Graph(api)
    first = graph.repair(run_id, rerun_all_failed_tasks=True, notebook_params={"c": "repair"})
    assert api.wait(run_id)["overriding_parameters"] == {
        "notebook_params": {"b": "run", "c": "repair"}
    }
    graph.repair(
        run_id,
        rerun_all_failed_tasks=True,
        latest_repair_id=first,
        notebook_params={"a": "ok"},
    )
    run = api.wait(run_id)
    assert run["state"]["result_state"] == "SUCCESS"
    task_run = graph.attempts(run_id)["t"][-1]["run_id"]
    assert api.output(task_run)["notebook_output"]["result"] == "ok,run,base"


def test_repair_runs_the_job_as_it_is_now(api: Api) -> None:
    """A task that is repaired is run with the job's current settings."""
    graph = Graph(api)
    job_id = api.post("create", {"tasks": graph.tasks()}, version="2.2").json()["job_id"]
    run_id = api.run_now(job_id)
    assert api.wait(run_id)["state"]["result_state"] == "FAILED"
    mended = _task("bad", graph.good, "first", "of tomorrow")
    later = _task("of tomorrow", graph.good)
    change = {"job_id": job_id, "new_settings": {"tasks": [mended, later]}}
    assert api.post("update", change, version="2.2").status_code == 200
    graph.repair(run_id, rerun_all_failed_tasks=True)
    assert api.wait(run_id)["state"]["result_state"] == "SUCCESS"
    assert "of tomorrow" not in graph.attempts(run_id)
    bad = graph.attempts(run_id)["bad"]
    assert [one["spark_python_task"]["python_file"] for one in bad] == [graph.bad, graph.good]


def test_repair_of_a_run_of_the_single_form(api: Api) -> None:
    """A run of one task, launched with 2.0, is run again under its own run_id, and not retried."""
    graph = Graph(api)
    task = {"python_file": graph.bad, "parameters": [str(graph.mended)]}
    job_id = api.create(spark_python_task=task, name="single")
    run_id = api.run_now(job_id)
    assert api.wait(run_id)["state"]["result_state"] == "FAILED"
    # The job may have retries by now; a repair has none.
    api.post("update", {"job_id": job_id, "new_settings": {"max_retries": 3}})
    first = graph.repair(run_id, rerun_tasks=["single"])
    assert api.wait(run_id)["state"]["result_state"] == "FAILED"
    graph.mended.touch()
    graph.repair(run_id, rerun_all_failed_tasks=True, latest_repair_id=first)
    run = api.wait(run_id)
    assert run["state"]["result_state"] == "SUCCESS"
    assert run["attempt_number"] == 0
    [task_run] = api.run(run_id, version="2.2")["tasks"]
    assert (task_run["run_id"], task_run["attempt_number"]) == (run_id, 2)
    assert [item["task_run_ids"] for item in _history(api, run_id)] == [[run_id]] * 3
    assert "error" not in api.output(run_id)
    assert len(api.get("runs/list", job_id=job_id).json()["runs"]) == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "rerun_all_failed_tasks"),
        ({"rerun_tasks": []}, "rerun_tasks"),
        ({"rerun_all_failed_tasks": False}, "rerun_tasks"),
        ({"rerun_tasks": ["t"], "rerun_all_failed_tasks": True}, "Only one of rerun_tasks"),
        ({"rerun_tasks": ["nowhere"]}, "'nowhere'"),
        ({"rerun_tasks": ["t", "t"]}, "rerun_tasks cannot contain duplicate task keys"),
        ({"rerun_tasks": "t"}, "rerun_tasks must be an array"),
        ({"rerun_tasks": [1]}, "rerun_tasks must be an array"),
        ({"rerun_all_failed_tasks": True}, "no failed task"),
        ({"rerun_tasks": ["t"], "latest_repair_id": "x"}, "latest_repair_id"),
        ({"rerun_tasks": ["t"], "python_params": ["é"]}, "python_params[0]"),
        ({"rerun_tasks": ["t"], "notebook_params": {"a": 1}}, "notebook_params.a"),
        ({"rerun_tasks": ["t"], "jar_params": ["a"], "notebook_params": {"a": "b"}}, "jar_params"),
        ({"rerun_tasks": ["t"], "job_parameters": {"a": "b" * 10_000}}, "job_parameters"),
    ],
)
def test_bad_repairs(api: Api, fields: dict[str, Any], words: str) -> None:
    """A repair that makes no sense is refused, with the field named."""
    body = {"tasks": [_task("t", api.python("print(1)"))]}
    run_id = api.post("runs/submit", body, version="2.2").json()["run_id"]
    ended = api.wait(run_id)
    answer = api.post("runs/repair", {"run_id": run_id, **fields}, version="2.2")
    assert answer.status_code == 400
    assert words in answer.json()["message"]
    assert api.run(run_id) == ended


def test_runs_that_cannot_be_repaired(api: Api) -> None:
    """An active run, a task's run, no run: none of them can be repaired; nor any in 2.0."""
    body = {"tasks": [_task("t", api.python("import time; time.sleep(600)"))]}
    run_id = api.post("runs/submit", body, version="2.2").json()["run_id"]
    api.wait(run_id, "RUNNING")

    def repair(run_id: Any, version: str = "2.2") -> tuple[int, str]:
        fields = {"run_id": run_id, "rerun_all_failed_tasks": True}
        answer = api.post("runs/repair", fields, version=version)
        return answer.status_code, answer.json()["error_code"]

    assert repair(run_id) == (400, "INVALID_STATE")
    api.post("runs/cancel", {"run_id": run_id})
    api.wait(run_id)
    [task] = api.run(run_id, version="2.2")["tasks"]
    assert repair(task["run_id"]) == (400, "INVALID_PARAMETER_VALUE")
    assert repair(987_654_321) == (400, "INVALID_PARAMETER_VALUE")
    assert repair(None) == (400, "INVALID_PARAMETER_VALUE")
    assert repair(run_id, "2.0") == (404, "ENDPOINT_NOT_FOUND")


def test_page_of_a_repaired_run(api: Api) -> None:
    """Each attempt of a task is there, told from the others. The first is 1, as in task logs."""
    graph = Graph(api)
    run_id = graph.launch()
    graph.mended.touch()
    graph.repair(run_id, rerun_all_failed_tasks=True)
    assert api.wait(run_id)["state"]["result_state"] == "SUCCESS"
    page = requests.get(f"{api.workspace.url}/runs/{run_id}", timeout=60).text
    assert page.count('<td data-label="Attempt">1</td>') == 5
    assert page.count('<td data-label="Attempt">2</td>') == 3
    assert page.count("<title>attempt 2: ") == 3
    assert "attempt 0" not in page
    repaired = [one for one in api.run(run_id, version="2.1")["tasks"] if one["attempt_number"]]
    assert {one["attempt_number"] for one in repaired} == {1}
    page = requests.get(f"{api.workspace.url}/runs/{repaired[0]['run_id']}", timeout=60).text
    assert "<dt>Attempt</dt><dd>2 (attempt_number 1 in the API)</dd>" in page
