"""Runs move through their states as the reference allows, and end for certain."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from airflow_jobs_provider.local.workspace import CannotStartError, LocalWorkspace
from tests.local.api import CLUSTER, Api, Process, lives, until

SLEEP = "import time; time.sleep(600)"


def test_fields_of_a_run(api: Api) -> None:
    """A run that ended has the reference's fields, and its durations add up."""
    run_id = api.submit_python("print('x')", run_name="named")
    run = api.wait(run_id)
    assert run["run_id"] == run["original_attempt_run_id"] == run_id
    assert run["job_id"] != run_id
    assert run["number_in_job"] == 1
    assert run["run_name"] == "named"
    assert run["run_type"] == "SUBMIT_RUN"
    assert run["trigger"] == "ONE_TIME"
    assert run["attempt_number"] == 0
    assert run["cluster_spec"] == {"existing_cluster_id": "1201-my-cluster"}
    assert run["cluster_instance"]["cluster_id"] == "1201-my-cluster"
    assert run["cluster_instance"]["spark_context_id"]
    assert run["task"]["spark_python_task"]["python_file"].startswith("dbfs:/")
    assert run["run_page_url"] == f"{api.workspace.url}/runs/{run_id}"
    parts = [run[f"{part}_duration"] for part in ("setup", "execution", "cleanup")]
    assert run["run_duration"] == sum(parts)
    assert run["end_time"] - run["start_time"] == pytest.approx(sum(parts), abs=500)


def test_running_run(api: Api) -> None:
    """An active run has no result, no end and no total duration yet."""
    run_id = api.submit_python(SLEEP)
    run = api.wait(run_id, "RUNNING")
    assert "result_state" not in run["state"]
    assert run["end_time"] == 0
    assert run["run_duration"] == 0
    api.post("runs/cancel", {"run_id": run_id})
    api.wait(run_id)


def test_python_file_gets_its_parameters(api: Api) -> None:
    """A Python file runs in its folder with its parameters, and its output is in the page."""
    source = "import sys, os; print(sys.argv[1:], os.path.basename(os.getcwd()))"
    run_id = api.submit_python(source, "a b", "{{run_id}}")
    assert api.wait(run_id)["state"]["result_state"] == "SUCCESS"
    later = api.get("runs/get-output", version="2.2", run_id=run_id).json()
    assert later["logs"] == f"['a b', '{run_id}'] me\n"
    assert "logs" not in api.output(run_id)


def test_python_file_that_fails(api: Api) -> None:
    """A Python file that raises fails with its own error; one that exits badly with its code."""
    raising = api.submit_python("def f():\n    raise ValueError('one\\ntwo')\nf()")
    leaving = api.submit_python("import sys; sys.exit(3)")
    killed = api.submit_python("import os; os.kill(os.getpid(), 9)")
    missing = api.submit(spark_python_task={"python_file": "dbfs:/nowhere.py"})
    for run_id in (raising, leaving, killed, missing):
        state = api.wait(run_id)["state"]
        assert (state["life_cycle_state"], state["result_state"]) == ("INTERNAL_ERROR", "FAILED")
    assert api.output(raising)["error"] == "ValueError: one"
    assert "in f" in api.output(raising)["error_trace"]
    assert "exit code 3" in api.output(leaving)["error"]
    assert "SIGKILL" in api.output(killed)["error"]
    assert "dbfs:/nowhere.py" in api.run(missing)["state"]["state_message"]


@pytest.mark.parametrize("kind", ["notebook", "python"])
def test_cancel_stops_the_process(api: Api, kind: str) -> None:
    """A canceled run ends CANCELED, and neither its process nor its children are left."""
    pids = api.root / f"pids_{kind}"
    source = f"""
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open({str(pids)!r} + "_", "w") as file:
    file.write(f"{{os.getpid()}} {{child.pid}}")
os.rename({str(pids)!r} + "_", {str(pids)!r})
time.sleep(600)
"""
    if kind == "python":
        run_id = api.submit_python(source)
    else:
        run_id = api.submit(notebook_task={"notebook_path": api.notebook(source)})
    until(pids.exists, "the process to start")
    alive = [Process(int(pid)) for pid in pids.read_text().split()]
    assert api.post("runs/cancel", {"run_id": run_id}).json() == {}
    run = api.wait(run_id)
    assert run["state"] == {
        "life_cycle_state": "TERMINATED",
        "result_state": "CANCELED",
        "state_message": "Run cancelled.",
        "user_cancelled_or_timedout": True,
    }
    assert not any(lives(process) for process in alive)
    assert api.post("runs/cancel", {"run_id": run_id}).json() == {}
    assert api.run(run_id) == run


def test_timeout(api: Api) -> None:
    """A run that takes too long ends TIMEDOUT, a notebook as well as a Python file."""
    ids = [
        api.submit_python(SLEEP, timeout_seconds=1),
        api.submit(notebook_task={"notebook_path": api.notebook(SLEEP)}, timeout_seconds=2),
    ]
    for run_id in ids:
        state = api.wait(run_id)["state"]
        assert (state["life_cycle_state"], state["result_state"]) == ("TERMINATED", "TIMEDOUT")
        assert state["user_cancelled_or_timedout"] is True
        assert "timed out" in state["state_message"]


def test_new_timeout_applies_to_active_runs(api: Api) -> None:
    """A job's changed timeout_seconds holds for a run that is already active."""
    job_id = api.create(spark_python_task={"python_file": api.python(SLEEP)})
    run_id = api.run_now(job_id)
    api.wait(run_id, "RUNNING")
    api.post("update", {"job_id": job_id, "new_settings": {"timeout_seconds": 1}})
    assert api.wait(run_id)["state"]["result_state"] == "TIMEDOUT"


def test_queue(narrow: Api) -> None:
    """Runs beyond the limit are QUEUED and begin in their order; a queued one can be canceled."""
    gate = narrow.root / "gate"
    wait = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.02)"
    first, second, third = (narrow.submit_python(wait) for _ in range(3))
    narrow.wait(first, "RUNNING")
    assert narrow.run(second)["state"]["life_cycle_state"] == "QUEUED"
    assert narrow.run(third)["state"]["life_cycle_state"] == "QUEUED"
    active = narrow.get("runs/list", active_only="true").json()["runs"]
    assert [run["run_id"] for run in active] == [third, second, first]
    narrow.post("runs/cancel", {"run_id": second})
    assert narrow.wait(second)["state"]["result_state"] == "CANCELED"
    gate.touch()
    assert narrow.wait(third)["state"]["result_state"] == "SUCCESS"
    assert narrow.wait(first)["state"]["result_state"] == "SUCCESS"
    assert narrow.run(third)["start_time"] >= narrow.run(first)["end_time"]


def test_waiting_runs_take_no_place(narrow: Api) -> None:
    """Runs that wait for other runs never block them, even where one run works at a time."""
    inner = narrow.notebook("dbutils.notebook.exit('inner')")
    outer = narrow.notebook(f"dbutils.notebook.exit(dbutils.notebook.run('{inner}', 60))")
    job_id = narrow.create(notebook_task={"notebook_path": outer})
    top = narrow.post("runs/submit", {"run_job_task": {"job_id": job_id}}).json()["run_id"]
    assert narrow.wait(top)["state"]["result_state"] == "SUCCESS"
    [job_run] = narrow.get("runs/list", job_id=job_id).json()["runs"]
    assert job_run["run_type"] == "JOB_RUN"
    assert narrow.output(job_run["run_id"])["notebook_output"]["result"] == "inner"


@pytest.mark.slow
def test_notebooks_started_side_by_side(narrow: Api) -> None:
    """Notebooks that one notebook starts at once queue for its place, and none of them is lost."""
    inner = narrow.notebook("dbutils.notebook.exit(dbutils.widgets.get('n'))")
    outer = narrow.notebook(
        f"""
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(3) as pool:
            run = lambda n: dbutils.notebook.run("{inner}", 60, {{"n": n}})
            dbutils.notebook.exit(",".join(pool.map(run, range(3))))
        """
    )
    run_id = narrow.submit(notebook_task={"notebook_path": outer})
    narrow.wait(run_id)
    assert narrow.output(run_id)["notebook_output"]["result"] == "0,1,2"
    runs = narrow.get("runs/list", run_type="WORKFLOW_RUN").json()["runs"]
    times = sorted((run["start_time"], run["end_time"]) for run in runs)
    assert len(times) == 3
    assert all(end <= start for (_, end), (start, _) in pairwise(times))


@pytest.mark.slow
def test_notebook_that_runs_itself(api: Api) -> None:
    """A notebook that runs itself without end is stopped before it fills the machine."""
    file = api.root / "again.py"
    file.write_text("# Databricks notebook source\ndbutils.notebook.run('/again', 60)")
    run_id = api.submit(notebook_task={"notebook_path": "/again"})
    assert api.wait(run_id, seconds=60)["state"]["result_state"] == "FAILED"
    assert "10 deep at most" in api.output(run_id)["error"]


@pytest.mark.slow
def test_forty_at_once(api: Api) -> None:
    """Forty runs submitted at once, ten times what may run, are answered first and all end well."""
    gate = api.root / "forty"
    path = api.python(
        f"""
        import os, time
        while not os.path.exists({str(gate)!r}):
            time.sleep(0.05)
        """
    )
    with ThreadPoolExecutor(10) as pool:
        task = {"python_file": path}
        # None of them ends before all are answered.
        ids = list(pool.map(lambda _: api.submit(spark_python_task=task), range(40)))
    gate.touch()
    assert len(set(ids)) == 40
    for run_id in ids:
        assert api.wait(run_id, seconds=60)["state"]["result_state"] == "SUCCESS"


def test_run_job_task(api: Api) -> None:
    """A run_job_task ends as the job's run does; canceling it cancels that run."""
    failing = api.create(spark_python_task={"python_file": api.python("raise KeyError('k')")})
    run_id = api.submit(run_job_task={"job_id": failing})
    assert api.wait(run_id)["state"]["result_state"] == "FAILED"
    assert f"of job {failing}" in api.output(run_id)["error"]
    lasting = api.create(spark_python_task={"python_file": api.python(SLEEP)})
    run_id = api.submit(run_job_task={"job_id": lasting})
    [child] = until(lambda: api.get("runs/list", job_id=lasting).json().get("runs"), "a child")
    api.wait(child["run_id"], "RUNNING")
    api.post("runs/cancel", {"run_id": run_id})
    assert api.wait(run_id)["state"]["result_state"] == "CANCELED"
    assert api.run(child["run_id"])["state"]["result_state"] == "CANCELED"
    nowhere = api.submit(run_job_task={"job_id": 999_999})
    api.wait(nowhere)
    assert api.output(nowhere)["error"] == "Job 999999 does not exist."


def test_what_cannot_be_run_here(api: Api) -> None:
    """A task that needs what is not here ends INTERNAL_ERROR and says what that is."""
    run_id = api.submit(pipeline_task={"pipeline_id": "p"})
    state = api.wait(run_id)["state"]
    assert state["life_cycle_state"] == "INTERNAL_ERROR"
    assert "Delta Live Tables" in state["state_message"]
    assert api.output(run_id)["error"] == state["state_message"]


def test_retries_of_a_job(api: Api) -> None:
    """Each retry of a job's run is a new run that knows the first attempt."""
    counter = api.root / "counter"
    source = f"""
import pathlib
counter = pathlib.Path({str(counter)!r})
tries = int(counter.read_text()) if counter.exists() else 0
counter.write_text(str(tries + 1))
assert tries == 2
"""
    job_id = api.create(
        spark_python_task={"python_file": api.python(source)},
        max_retries=5,
        min_retry_interval_millis=300,
    )
    first = api.run_now(job_id)
    assert api.wait(first)["state"]["result_state"] == "FAILED"

    def succeeded() -> list[dict[str, object]]:
        runs: list[dict[str, object]] = api.get("runs/list", job_id=job_id).json()["runs"]
        return runs if runs[0]["attempt_number"] == 2 and runs[0]["end_time"] else []

    runs = until(succeeded, "the third attempt")
    assert [run["attempt_number"] for run in runs] == [2, 1, 0]
    assert {run["original_attempt_run_id"] for run in runs} == {first}
    assert [run["trigger"] for run in runs] == ["RETRY", "RETRY", "ONE_TIME"]
    assert [run["state"]["result_state"] for run in runs] == ["SUCCESS", "FAILED", "FAILED"]  # type: ignore[index]
    assert runs[1]["start_time"] - runs[2]["start_time"] >= 290  # type: ignore[operator]
    assert api.run(first)["state"]["result_state"] == "FAILED"


def test_concurrency_limit_of_a_job(api: Api) -> None:
    """A run beyond the job's max_concurrent_runs is SKIPPED, or queued if the job says so."""
    settings = {"spark_python_task": {"python_file": api.python(SLEEP)}}
    job_id = api.create(**settings)
    first = api.run_now(job_id)
    skipped = api.run(api.run_now(job_id))
    assert skipped["state"]["life_cycle_state"] == "SKIPPED"
    assert skipped["state"]["state_message"] == (
        "Skipping this run because the limit of 1 maximum concurrent runs has been reached."
    )
    never = api.create(**settings, max_concurrent_runs=0)
    assert api.run(api.run_now(never))["state"]["life_cycle_state"] == "SKIPPED"
    # Through 2.2 a job's runs queue unless the job says otherwise.
    queueing = api.create(**settings, version="2.2")
    assert api.get("get", job_id=queueing).json()["settings"]["queue"] == {"enabled": True}
    unqueued = {**CLUSTER, **settings, "queue": {"enabled": False}}
    reset = api.post("reset", {"job_id": job_id, "new_settings": unqueued}, version="2.2")
    assert reset.status_code == 200
    assert api.run(api.run_now(job_id))["state"]["life_cycle_state"] == "SKIPPED"
    second, third = api.run_now(queueing), api.run_now(queueing)
    api.wait(second, "RUNNING")
    assert api.run(third)["state"]["life_cycle_state"] == "QUEUED"
    assert api.post("runs/cancel-all", {"job_id": queueing}).json() == {}
    api.post("runs/cancel-all", {"job_id": job_id})
    for run_id in (first, second, third):
        assert api.wait(run_id)["state"]["result_state"] == "CANCELED"


def test_idempotency_tokens(api: Api) -> None:
    """A token launches one run, however many ask at once; of a deleted run it is an error."""
    path = api.python("print(1)")
    body = {
        "existing_cluster_id": "c",
        "spark_python_task": {"python_file": path},
        "idempotency_token": "t" * 64,
    }
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: api.post("runs/submit", body).json(), range(24)))
    assert len({answer["run_id"] for answer in answers}) == 1
    run_id = answers[0]["run_id"]
    api.wait(run_id)
    job_id = api.create(spark_python_task={"python_file": path}, max_concurrent_runs=9)
    assert api.run_now(job_id, idempotency_token="of run-now") == api.run_now(
        job_id, idempotency_token="of run-now"
    )
    assert api.run_now(job_id) != api.run_now(job_id)
    api.post("runs/delete", {"run_id": run_id})
    answer = api.post("runs/submit", body)
    assert answer.status_code == 400
    assert "deleted" in answer.json()["message"]


def test_restart(tmp_path: Path) -> None:
    """Jobs, runs, outputs and tokens survive a restart; a live run ends INTERNAL_ERROR."""
    with LocalWorkspace(tmp_path) as workspace:
        api = Api(workspace)
        job_id = api.create(spark_python_task={"python_file": api.python("print(1)")}, name="kept")
        done = api.run_now(job_id, idempotency_token="kept token")
        api.wait(done)
        live = api.submit_python(SLEEP)
        api.wait(live, "RUNNING")
        with pytest.raises(CannotStartError, match="Another workspace"):
            LocalWorkspace(tmp_path).start()
    with LocalWorkspace(tmp_path) as workspace:
        api = Api(workspace)
        assert api.get("get", job_id=job_id).json()["settings"]["name"] == "kept"
        assert api.run_now(job_id, idempotency_token="kept token") == done
        assert api.run(done)["state"]["result_state"] == "SUCCESS"
        state = api.run(live)["state"]
        assert state["life_cycle_state"] == "INTERNAL_ERROR"
        assert state["state_message"] == "The local workspace stopped while the run was active."
