"""Dynamic value references in parameters: replaced when a task starts, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.testing import DatabricksWorkspace
from tests.local.api import CLUSTER, Api


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabricksWorkspace]:
    """A workspace whose runs succeed at once."""
    with DatabricksWorkspace(tmp_path_factory.mktemp("root"), dry_run=True) as running:
        yield running


@pytest.fixture
def api(workspace: DatabricksWorkspace) -> Api:
    """The API of the workspace."""
    return Api(workspace)


def task(key: str, **fields: Any) -> dict[str, Any]:
    """Return a task with a notebook, unless another kind is given."""
    kind = {} if any(name.endswith("_task") for name in fields) else notebook(f"/{key}")
    return {"task_key": key, **CLUSTER, **kind, **fields}


def notebook(path: str, **parameters: str) -> dict[str, Any]:
    """Return a notebook_task with parameters."""
    return {"notebook_task": {"notebook_path": path, "base_parameters": parameters}}


def submit(api: Api, *tasks: dict[str, Any], **settings: Any) -> int:
    """Submit a run of several tasks, and wait for its end."""
    answer = api.post("runs/submit", {"tasks": list(tasks), **settings}, version="2.2")
    assert answer.status_code == 200, answer.text
    run_id: int = answer.json()["run_id"]
    api.wait(run_id)
    return run_id


def parameters(workspace: DatabricksWorkspace, run_id: int, key: str) -> Any:
    """Return the parameters of the last run of a task."""
    runs = [run for run in workspace.runs if run.parent_run_id == run_id and key in run.names]
    return runs[-1].parameters


def test_job_and_task(api: Api, workspace: DatabricksWorkspace) -> None:
    """Ids and names of the job's run, not of the task's, where ``job`` says so."""
    texts = {
        "job": "{{job.id}}/{{job.run_id}}/{{ job.name }}",
        "task": "{{task.run_id}}/{{task.name}}/{{task.execution_count}}/{{task.notebook_path}}",
        "rest": "{{job.repair_count}} {{job.trigger.type}} {{workspace.url}}",
        "old": "{{run_id}} {{parent_run_id}} {{task_retry_count}}",
        "day": "{{job.start_time.iso_date}} {{job.start_time.year}} {{start_date}}",
        "not": "{{my.value}} {{job.id} {{}} {{job.parameters.none}} {{tasks.b.values.n}}",
    }
    run_id = submit(api, task("a", **notebook("/a", **texts)), run_name="nightly")
    run = api.run(run_id, "2.2")
    (child,) = run["tasks"]
    found = parameters(workspace, run_id, "a")
    assert found["job"] == f"{run['job_id']}/{run_id}/nightly"
    assert found["task"] == f"{child['run_id']}/a/1//a"
    assert found["rest"] == f"0 onetime {workspace.url}"
    assert found["old"] == f"{child['run_id']} {run_id} 0"
    day = found["day"].split()
    assert day[0] == day[2]
    assert day[0].startswith(day[1])
    assert found["not"] == texts["not"]


def test_parameters_of_a_job(api: Api, workspace: DatabricksWorkspace) -> None:
    """They may have references, too; names with other characters are put in backticks."""
    one = task("a", **notebook("/a", day="{{job.parameters.day}}", x="{{job.parameters.`a b`}}"))
    settings = {
        "tasks": [one],
        "parameters": [
            {"name": "day", "default": "{{job.start_time.iso_date}}"},
            {"name": "a b", "default": "1"},
        ],
    }
    job_id = api.create(version="2.2", **settings)
    answer = api.post("run-now", {"job_id": job_id, "job_parameters": {"a b": "2"}}, version="2.2")
    run_id = answer.json()["run_id"]
    api.wait(run_id)
    found = parameters(workspace, run_id, "a")
    assert found["x"] == "2"
    assert len(found["day"].split("-")) == 3


def test_results_of_other_tasks(api: Api, workspace: DatabricksWorkspace) -> None:
    """After a failure, a task that runs all the same sees it."""
    workspace.fails("/a")
    text = "{{tasks.a.result_state}} {{tasks.a.error_code}} {{tasks.b.result_state}}"
    b = task("b", depends_on=[{"task_key": "a"}])
    c = task(
        "c",
        run_if="ALL_DONE",
        depends_on=[{"task_key": "a"}, {"task_key": "b"}],
        **notebook("/c", seen=text),
    )
    run_id = submit(api, task("a"), b, c)
    assert parameters(workspace, run_id, "c")["seen"] == "failed FAILED upstream_failed"
    workspace.simulation.results.clear()


@pytest.mark.parametrize(
    "text",
    [
        "{{job.naem}}",
        "{{job.start_time.iso}}",
        "{{ task.id }}",
        "{{tasks.a.value.n}}",
        "{{workspace.name}}",
    ],
)
def test_an_unknown_reference_is_refused(api: Api, text: str) -> None:
    """In settings, in parameters of a run, and in those of a job."""
    refused = [
        api.post("runs/submit", {**CLUSTER, **notebook("/a", x=text)}),
        api.post("runs/submit", {"tasks": [task("a", **notebook("/a", x=text))]}, version="2.2"),
        api.post(
            "create",
            {"tasks": [task("a")], "parameters": [{"name": "x", "default": text}]},
            version="2.2",
        ),
        api.post(
            "run-now",
            {
                "job_id": api.create(**notebook("/a")),
                "notebook_params": {"x": text},
            },
        ),
    ]
    assert [answer.status_code for answer in refused] == [400] * 4
    assert all(text in answer.json()["message"] for answer in refused)


def condition(op: str, left: str, right: str, **fields: Any) -> dict[str, Any]:
    """Return a condition_task."""
    return {"task_key": "if", "condition_task": {"op": op, "left": left, "right": right}, **fields}


@pytest.mark.parametrize(
    ("op", "left", "right", "outcome"),
    [
        ("EQUAL_TO", "a", "a", "true"),
        ("EQUAL_TO", "1", "1.0", "false"),
        ("NOT_EQUAL", "a", "b", "true"),
        ("GREATER_THAN", "10", "9", "true"),
        ("LESS_THAN_OR_EQUAL", "{{job.repair_count}}", "0", "true"),
    ],
)
def test_a_condition_decides_which_tasks_run(
    api: Api, op: str, left: str, right: str, outcome: str
) -> None:
    """The tasks that depend on the other outcome are excluded, and those below them."""
    yes = task("yes", depends_on=[{"task_key": "if", "outcome": "true"}])
    no = task("no", depends_on=[{"task_key": "if", "outcome": "false"}])
    below = task("below", depends_on=[{"task_key": "no"}])
    run = api.run(submit(api, condition(op, left, right), yes, no, below), "2.2")
    states = {one["task_key"]: one["state"]["result_state"] for one in run["tasks"]}
    excluded = ("EXCLUDED", "SUCCESS") if outcome == "false" else ("SUCCESS", "EXCLUDED")
    assert (states["yes"], states["no"]) == excluded
    assert states["below"] == states["no"]
    assert run["tasks"][0]["condition_task"]["outcome"] == outcome
    assert run["state"]["result_state"] == "SUCCESS"


def test_a_condition_of_texts_has_no_order(api: Api) -> None:
    """The task fails, and says why."""
    run = api.run(submit(api, condition("LESS_THAN", "a", "b")), "2.2")
    (failed,) = run["tasks"]
    output = api.get("runs/get-output", run_id=failed["run_id"]).json()
    assert "LESS_THAN compares numbers, not 'a' and 'b'" in output["error"]


def loop(inputs: str, inner: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a for_each_task."""
    return {"task_key": "loop", "for_each_task": {"inputs": inputs, "task": inner, **fields}}


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ([condition("LIKE", "a", "b")], "op must be EQUAL_TO or NOT_EQUAL or"),
        ([{"task_key": "if", "condition_task": {"op": "EQUAL_TO"}}], "left"),
        (
            [task("a"), task("b", depends_on=[{"task_key": "a", "outcome": "true"}])],
            "outcomes true and false are those of a condition_task",
        ),
        (
            [loop("[]", task("b"), concurrency=0)],
            "for_each_task.concurrency must be from 1 to 100",
        ),
        (
            [loop("[]", loop("[]", task("b")))],
            "for_each_task.task cannot be a for_each_task itself",
        ),
    ],
)
def test_what_is_wrong_is_refused(api: Api, tasks: list[dict[str, Any]], words: str) -> None:
    """When the run is submitted."""
    answer = api.post("runs/submit", {"tasks": tasks}, version="2.2")
    assert answer.status_code == 400
    assert words in answer.json()["message"]


def test_iterations(api: Api, workspace: DatabricksWorkspace) -> None:
    """One run for each input; its output is read like any other's."""
    workspace.returns("/each", "done")
    inner = task("each", **notebook("/each", all="{{input}}", day="{{input.day}}"))
    inputs = '[{"day": "mon"}, {"day": "tue"}, 3]'
    run_id = submit(api, loop(inputs, inner, concurrency=2))
    (entry,) = api.run(run_id, "2.2")["tasks"]
    assert entry["for_each_task"]["stats"]["task_run_stats"]["total_iterations"] == 3
    run = api.run(entry["run_id"], "2.2")
    assert [one["task_key"] for one in run["tasks"]] == ["loop"]
    assert len(run["iterations"]) == 3
    assert all(one["state"]["result_state"] == "SUCCESS" for one in run["iterations"])
    given = [one.parameters for one in workspace.runs if one.parent_run_id == entry["run_id"]]
    assert given == [
        {"all": '{"day": "mon"}', "day": "mon"},
        {"all": '{"day": "tue"}', "day": "tue"},
        {"all": "3", "day": "{{input.day}}"},
    ]
    first = run["iterations"][0]["run_id"]
    output = api.get("runs/get-output", run_id=first).json()
    assert output["notebook_output"]["result"] == "done"
    assert api.get("runs/get-output", run_id=entry["run_id"]).status_code == 400
    assert api.run(first)["parent_run_id"] == entry["run_id"]


def test_a_failed_iteration_fails_the_task(api: Api, workspace: DatabricksWorkspace) -> None:
    """After its retries; the others end."""
    workspace.returns("/flaky")
    workspace.fails("/flaky", times=2)
    inner = task("flaky", max_retries=1, **notebook("/flaky"))
    run_id = submit(api, loop("[1]", inner), loop("[2, 3]", inner) | {"task_key": "more"})
    run = api.run(run_id, "2.2")
    counted = {
        one["task_key"]: len(api.run(one["run_id"], "2.2")["iterations"]) for one in run["tasks"]
    }
    assert sum(counted.values()) == 5


@pytest.mark.parametrize("inputs", ["1", "{}", "{{tasks.none.values.x}}"])
def test_inputs_that_are_no_list(api: Api, inputs: str) -> None:
    """The task fails, and says so."""
    run = api.run(submit(api, loop(inputs, task("each"))), "2.2")
    (entry,) = run["tasks"]
    assert entry["state"]["result_state"] == "FAILED"


def test_a_loop_is_canceled_with_its_iterations(api: Api, workspace: DatabricksWorkspace) -> None:
    """None of them stays active, and no other one starts."""
    workspace.never_ends("/endless")
    inner = task("endless", **notebook("/endless"))
    answer = api.post("runs/submit", {"tasks": [loop("[1, 2, 3]", inner)]}, version="2.2")
    run_id = answer.json()["run_id"]
    api.wait(run_id, "RUNNING")
    while not any(run.life_cycle_state == "RUNNING" for run in workspace.runs_of("/endless")):
        pass
    (entry,) = api.run(run_id, "2.2")["tasks"]
    assert entry["for_each_task"]["stats"]["task_run_stats"]["total_iterations"] == 3
    api.post("runs/cancel", {"run_id": run_id})
    assert api.wait(run_id)["state"]["result_state"] == "CANCELED"
    (iteration,) = workspace.runs_of("/endless")
    assert iteration.result_state == "CANCELED"


def test_task_values_reach_later_tasks(tmp_path: Path) -> None:
    """Of any JSON type; by a reference, a loop's inputs, and dbutils."""
    with DatabricksWorkspace(tmp_path, max_concurrent_runs=2) as workspace:
        workspace.add_notebook("/set", 'dbutils.jobs.taskValues.set("days", ["mon", "tue"])')
        workspace.add_notebook(
            "/get",
            """
            values = dbutils.jobs.taskValues
            found = values.get(taskKey="set", key="days", debugValue=[])
            other = values.get("set", "none", default=1)
            try:
                values.get("nobody", "days")
            except ValueError as error:
                message = str(error)
            dbutils.notebook.exit(f"{found} {other} {message}")
            """,
        )
        workspace.returns("/each")
        after = [{"task_key": "set"}]
        run_id = submit(
            Api(workspace),
            task("set"),
            task("get", depends_on=after, **notebook("/get", days="{{tasks.set.values.days}}")),
            loop("{{tasks.set.values.days}}", task("each", **notebook("/each", day="{{input}}")))
            | {"depends_on": after},
        )
        (got,) = workspace.runs_of("/get")
        assert got.result == "['mon', 'tue'] 1 The job run has no task with the key 'nobody'"
        assert got.parameters == {"days": '["mon", "tue"]'}
        assert [run.parameters for run in workspace.runs_of("/each")] == [
            {"day": "mon"},
            {"day": "tue"},
        ]
        assert Api(workspace).run(run_id)["state"]["result_state"] == "SUCCESS"
