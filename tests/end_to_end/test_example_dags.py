from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.local.workspace import LocalWorkspace
from scripts.airflow_env import EXAMPLE_DAGS, ROOT, airflow_environment, connection_to
from tests.end_to_end.airflow_versions import AIRFLOW_2, AIRFLOW_3_0
from tests.end_to_end.dag_run import DagRun, RunDag, RunDags

# Airflow 2 has no asset watchers, and finds no DAG in that file.
DAG_FILES = [
    file
    for file in sorted(EXAMPLE_DAGS.glob("*.py"))
    if not (AIRFLOW_2 and file.stem == "databricks_job_events")
]
RUNS: list[tuple[str, dict[str, Any]]] = [
    ("databricks_demo", {"island": "Dream"}),
    ("databricks_run_now", {"measure": "body_mass_g"}),
    ("databricks_run_now", {"measure": "bill_depth_mm"}),
    ("databricks_wait_for_job", {}),
    ("databricks_taskflow", {}),
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalWorkspace]:
    """The workspace of the examples."""
    root = tmp_path_factory.mktemp("workspace")
    # A copy: a run uploads its function.
    shutil.copytree(EXAMPLE_DAGS / "workspace", root, dirs_exist_ok=True)
    with LocalWorkspace(root) as running:
        yield running


@pytest.fixture(scope="module")
def done(workspace: LocalWorkspace, run_dags: RunDags) -> list[DagRun]:
    """The examples, run once in the order of ``RUNS``."""
    if AIRFLOW_3_0:
        pytest.skip("tried with the first and the last line")
    return run_dags(EXAMPLE_DAGS, *RUNS, connection=connection_to(workspace))


@pytest.fixture(scope="module")
def demo(done: list[DagRun]) -> DagRun:
    """The run of the demo DAG."""
    return done[0]


def test_demo_succeeds(demo: DagRun) -> None:
    """The demo DAG ends well, both tasks included."""
    assert demo.state == "success", demo.log
    assert {task["state"] for task in demo.tasks.values()} == {"success"}


def test_demo_really_defers(demo: DagRun) -> None:
    """The first task leaves the worker, and its trigger sees the run end."""
    log = demo.log_of("weigh_penguins")
    deferred = log.index("Deferring: the triggerer waits for run")
    in_trigger = log.index("running trigger in line")
    assert deferred < in_trigger < log.rindex("is TERMINATED/SUCCESS")


def test_demo_hands_the_exit_value_over(demo: DagRun, workspace: LocalWorkspace) -> None:
    """XCom has the notebook's exit value as it was given, the run's id, its job's and its page."""
    xcoms = demo.tasks["weigh_penguins"]["xcoms"]
    assert json.loads(xcoms["return_value"]) == {
        "island": "Dream",
        "mean_grams": {"Adelie": 3688, "Chinstrap": 3733},
    }
    assert xcoms["run_page_url"].startswith(workspace.url)
    assert str(xcoms["run_id"]) in xcoms["run_page_url"]
    assert isinstance(xcoms["job_id"], int)


def test_demo_second_task_prints_the_exit_value(demo: DagRun) -> None:
    """The second task has read the exit value from XCom, and prints it."""
    exit_value = demo.tasks["weigh_penguins"]["xcoms"]["return_value"]
    assert f"The notebook's exit value: {exit_value}" in demo.log_of("print_weights")


def test_run_now_creates_the_job_once(done: list[DagRun]) -> None:
    """The run-now DAG makes its job if it is not there, and runs the one there is after that."""
    first, second = done[1:3]
    assert (first.state, second.state) == ("success", "success"), first.log + second.log
    jobs = {run.tasks["create_or_reset_job"]["xcoms"]["return_value"] for run in (first, second)}
    assert len(jobs) == 1
    launched = [run.tasks["launch"]["xcoms"] for run in (first, second)]
    assert {xcoms["job_id"] for xcoms in launched} == jobs
    assert launched[0]["run_id"] != launched[1]["run_id"]
    found = [json.loads(run.tasks["wait"]["xcoms"]["return_value"]) for run in (first, second)]
    assert [answer["measure"] for answer in found] == ["body_mass_g", "bill_depth_mm"]
    assert found[0]["Gentoo"] == {"min": 3950.0, "mean": 5076.0, "max": 6300.0}


def test_a_job_is_waited_for_by_its_name(done: list[DagRun]) -> None:
    """The sensor finds the run that started since the DAG run's time, and gives its output."""
    run = done[3]
    assert run.state == "success", run.log
    launched, found = (run.tasks[name]["xcoms"] for name in ("run_job", "wait"))
    assert found["run_id"] == launched["run_id"]
    assert json.loads(found["return_value"])["measure"] == "body_mass_g"


def test_functions_and_notebooks_run_on_the_workspace(done: list[DagRun]) -> None:
    """A mapped notebook's outputs are a function's argument, whose result is the next one's."""
    run = done[4]
    assert run.state == "success", run.log
    ranked = run.tasks["rank"]["xcoms"]
    assert ranked["return_value"] == {"Biscoe": 5076, "Dream": 3733, "Torgersen": 3706}
    # Each item is an XCom of its own, since the function is annotated as a dict.
    assert ranked["Dream"] == 3733
    assert str(ranked["run_id"]) in ranked["run_page_url"]
    log = run.log_of("print_ranking")
    assert log.index("Biscoe weighs 5076 g") < log.index("Torgersen weighs 3706 g")


@pytest.mark.slow
@pytest.mark.thorough
def test_a_group_of_notebooks_is_one_run(workspace: LocalWorkspace, run_dag: RunDag) -> None:
    """Each task has the output of its own notebook, with the group's parameters or its own.

    The whole check executes this DAG in test_standalone.py.
    """
    done = run_dag(
        EXAMPLE_DAGS / "databricks_workflow_group.py",
        connection=connection_to(workspace),
        conf={"measure": "bill_depth_mm"},
    )
    assert done.state == "success", done.log
    outputs = {
        task_id.removeprefix("penguins."): json.loads(task["xcoms"]["return_value"])
        for task_id, task in done.tasks.items()
        if task_id != "penguins.launch"
    }
    assert outputs["weigh_biscoe"]["island"] == "Biscoe"
    assert outputs["weigh_dream"]["island"] == "Dream"
    assert outputs["compare"]["measure"] == "bill_depth_mm"
    assert len({task["xcoms"]["job_id"] for task in done.tasks.values()}) == 1


PARSE = """
import json, os, socket, sys, time, traceback
from airflow.providers.common.compat.sdk import DAG, BaseHook, BaseSensorOperator, Variable, task

def no_network(*args, **kwargs):
    raise AssertionError("the network was touched")

def parse(dag_file):
    before = set(sys.modules)
    sys.argv = [dag_file]
    start = time.process_time()
    exec(compile(open(dag_file).read(), dag_file, "exec"), {"__name__": "dag"})
    took = time.process_time() - start
    new = {name.partition(".")[0] for name in set(sys.modules) - before}
    assert not new & {"aiohttp", "requests", "pandas", "nbclient"}, sorted(new)
    assert took < 0.5, took

socket.socket.connect = socket.getaddrinfo = no_network
for dag_file in sys.argv[1:]:
    if os.fork():  # each file is parsed in a process that has parsed no other
        os.wait()
        continue
    error = None
    try:
        parse(dag_file)
    except BaseException:
        error = traceback.format_exc()
    print(json.dumps([dag_file, error]), flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """What parsing each example DAG raised, if anything."""
    home = tmp_path_factory.mktemp("parsing")
    done = subprocess.run(
        [sys.executable, "-c", PARSE, *map(str, DAG_FILES)],
        env=airflow_environment(home, home, connection=None),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith('["')]
    return dict(json.loads(line) for line in lines)


@pytest.mark.parametrize("dag_file", DAG_FILES, ids=lambda path: path.stem)
def test_example_is_parsed_without_network(dag_file: Path, parsed: dict[str, str | None]) -> None:
    """An example DAG is parsed without opening a socket, and loads neither HTTP client."""
    assert parsed[str(dag_file)] is None, parsed[str(dag_file)]


def test_airflow_reads_only_the_dags(migrated_home: Path, tmp_path: Path) -> None:
    """It imports neither the tests, without pytest, nor what runs have uploaded."""
    dags = shutil.copytree(EXAMPLE_DAGS, tmp_path / "dags")
    uploaded = dags / "workspace" / "Users" / "someone" / "function.py"
    uploaded.parent.mkdir(parents=True, exist_ok=True)
    # Airflow imports files with the words "airflow" and "dag" only.
    uploaded.write_text("raise RuntimeError('The dag processor of airflow has imported this.')")
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "from scripts.run_dag import load\n"
        f"print(*load({str(dags)!r}, 'all'), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        env=airflow_environment(migrated_home, dags, connection=None),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [f"{name}.py" for name in done.stdout.split()[-len(DAG_FILES) :]] == [
        file.name for file in DAG_FILES
    ]
