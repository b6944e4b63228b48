"""How many processes Airflow starts for a task whose run the triggerer launches (Airflow 3.3).

Counted in a real Airflow, like those of test_starts.py.
"""

from __future__ import annotations

from ast import literal_eval
from dataclasses import replace

import pytest

from tests.end_to_end.airflow_cluster import AirflowCluster
from tests.end_to_end.airflow_versions import RENDERS_IN_TRIGGERER
from tests.end_to_end.cluster_dag_run import ClusterDagRun
from tests.end_to_end.eventually import eventually
from tests.end_to_end.task_starts import Starts, seen_by_the_next_task
from tests.fakes.fake_service import FakeService, Run

pytestmark = [
    pytest.mark.standalone,
    pytest.mark.skipif(not RENDERS_IN_TRIGGERER, reason="a worker launches every run"),
]


@pytest.fixture(scope="module")
def triggered(cluster: AirflowCluster) -> dict[str, ClusterDagRun]:
    """Runs of DAGs whose tasks need no worker, begun at once; two have names of their own."""
    dag_ids = {
        "triggered": "triggered",
        "to be cleared": "triggered",
        "triggered_rendered": "triggered_rendered",
        "triggered_mapped": "triggered_mapped",
        "triggered_mapped_over_output": "triggered_mapped_over_output",
        "with failures": "triggered_mapped",
        "triggered_retried": "triggered_retried",
    }
    return {name: cluster.trigger(dag_id) for name, dag_id in dag_ids.items()}


@pytest.fixture(scope="module")
def timed_out(cluster: AirflowCluster) -> ClusterDagRun:
    """A DAG run whose task takes too long; begun by the first test that uses it.

    Among all others its task might not launch its run within the time-out.
    """
    return cluster.trigger("triggered_timed_out")


def followed(workspace: FakeService, dag_run: ClusterDagRun, number: int = 1) -> Run:
    """Wait until the DAG run has launched so many runs and stored the id of the last one."""
    runs = eventually(
        lambda: runs if len(runs := workspace.runs_of(dag_run.run_id)) >= number else [],
        f"{dag_run.run_id} has launched run {number}",
    )
    eventually(lambda: dag_run.xcom("run_id") == str(runs[-1].run_id), "the run's id is stored")
    return runs[-1]


def test_a_run_that_the_triggerer_launches_takes_no_process(
    triggered: dict[str, ClusterDagRun], workspace: FakeService, starts: Starts
) -> None:
    """Launch, wait, output and end; cleared, the task starts afresh, without a process again."""
    dag_run = triggered["triggered"]
    run = followed(workspace, dag_run)
    assert run.name == f"triggered.wait {dag_run.run_id} try 1"
    workspace.end(run)
    dag_run.until("success")
    assert seen_by_the_next_task(dag_run) == (f"output of {run.run_id}", run.run_id, None)
    assert dag_run.xcom("run_page_url").endswith(f"/{run.run_id}")
    dag_run.until_over()
    dag_run.clear()
    again = followed(workspace, dag_run, 2)
    workspace.end(again)
    dag_run.until("success")
    assert dag_run.xcom("return_value") == f"output of {again.run_id}"
    assert starts(dag_run) == 0
    assert [one.launches for one in workspace.runs_of(dag_run.run_id)] == [1, 1]


@pytest.mark.usefixtures("timed_out")
def test_the_triggerer_renders_a_launch(
    triggered: dict[str, ClusterDagRun], workspace: FakeService, starts: Starts
) -> None:
    """Templates, the DAG's params and the output of another task, which keeps its type."""
    dag_run = triggered["triggered_rendered"]
    run = followed(workspace, dag_run)
    (request,) = (
        one for one in workspace.asked("runs/submit") if dag_run.run_id in str(one.get("run_name"))
    )
    assert request["tasks"] == [
        {
            "task_key": "a",
            "notebook_task": {
                "notebook_path": "/Shared/long",
                "base_parameters": {"number": "1", "day": "of a task"},
            },
            "existing_cluster_id": "c",
        },
        {
            "task_key": "b",
            "existing_cluster_id": "c",
            "notebook_task": {
                "notebook_path": "/Shared/wait",
                "base_parameters": {"day": "3"},
            },
        },
    ]
    workspace.end(run)
    dag_run.until("success")
    assert starts(dag_run) == 0


def in_order_of_instances(workspace: FakeService, dag_run: ClusterDagRun) -> list[Run]:
    """Wait until a mapped task has launched its five runs; return them by map index."""
    runs = eventually(
        lambda: runs if len(runs := workspace.runs_of(dag_run.run_id)) >= 5 else [],
        f"{dag_run.run_id} has launched five runs",
    )
    by_name = {run.name: run for run in runs}
    task = f"{dag_run.dag_id}.{dag_run.task_id}"
    return [by_name[f"{task}[{index}] {dag_run.run_id} try 1"] for index in range(5)]


@pytest.mark.parametrize("dag_id", ["triggered_mapped", "triggered_mapped_over_output"])
def test_a_mapped_task_whose_runs_the_triggerer_launches_takes_no_process(
    dag_id: str, triggered: dict[str, ClusterDagRun], workspace: FakeService, starts: Starts
) -> None:
    """Five runs of five notebooks; each output is found by the index of its instance."""
    dag_run = triggered[dag_id]
    in_order = in_order_of_instances(workspace, dag_run)
    paths = [run.request["notebook_task"]["notebook_path"] for run in in_order]
    assert paths == ["/a", "/b", "/c", "/d", "/e"]
    for run in reversed(in_order):
        workspace.end(run)
    for index in range(5):
        dag_run.until("success", map_index=index)
    see_all = replace(dag_run, task_id="see_all")
    see_all.until("success")
    assert literal_eval(see_all.xcom("return_value")) == [
        [f"output of {run.run_id}" for run in in_order],
        [run.run_id for run in in_order],
    ]
    assert [run.launches for run in in_order] == [1] * 5
    assert len(workspace.runs_of(dag_run.run_id)) == 5
    assert starts(dag_run) == 0


def test_what_happens_to_one_instance_of_a_mapped_task_is_its_own(
    triggered: dict[str, ClusterDagRun], workspace: FakeService, starts: Starts
) -> None:
    """One is marked, one is cleared later, the run of one fails: a worker tells of that only."""
    dag_run = triggered["with failures"]
    marked, failed, *others = in_order_of_instances(workspace, dag_run)
    dag_run.mark("failed", map_index=0)
    eventually(lambda: marked.result == "CANCELED", "the run of the marked instance is canceled")
    workspace.end(failed, "FAILED")
    dag_run.until("failed", map_index=1)
    assert f"Run {failed.run_id} failed (TERMINATED/FAILED)" in dag_run.logs()
    for run in others:
        workspace.end(run)
    for index in (2, 3, 4):
        dag_run.until("success", map_index=index)
    assert starts(dag_run) == 1
    dag_run.until_over()
    dag_run.clear(only_failed=True)
    runs = eventually(
        lambda: runs if len(runs := workspace.runs_of(dag_run.run_id)) >= 7 else [],
        "the two failed instances have launched again",
    )
    paths = [run.request["notebook_task"]["notebook_path"] for run in runs[5:]]
    assert sorted(paths) == ["/a", "/b"]
    for run in runs[5:]:
        workspace.end(run)
    for index in (0, 1):
        dag_run.until("success", map_index=index)
    assert len(workspace.runs_of(dag_run.run_id)) == 7
    assert [run.result for run in others] == ["SUCCESS"] * 3


def test_a_failed_run_that_the_triggerer_launched(
    triggered: dict[str, ClusterDagRun], workspace: FakeService, starts: Starts
) -> None:
    """A worker tells at each try why it failed; each try launches one run."""
    dag_run = triggered["triggered_retried"]
    for number in (1, 2):
        workspace.end(followed(workspace, dag_run, number), "FAILED")
    dag_run.until("failed")
    for run in workspace.runs_of(dag_run.run_id):
        assert f"Run {run.run_id} failed (TERMINATED/FAILED)" in dag_run.logs()
    assert starts(dag_run) == 2


def test_a_launch_that_is_cleared_in_the_triggerer(
    triggered: dict[str, ClusterDagRun], workspace: FakeService, starts: Starts
) -> None:
    """Its run is canceled, and the next one is launched although both are in one triggerer."""
    dag_run = triggered["to be cleared"]
    first = followed(workspace, dag_run)
    dag_run.clear()
    second = followed(workspace, dag_run, 2)
    eventually(lambda: first.result == "CANCELED", "the first run is canceled")
    workspace.end(second)
    dag_run.until("success")
    assert dag_run.xcom("return_value") == f"output of {second.run_id}"
    assert len(workspace.runs_of(dag_run.run_id)) == 2
    assert starts(dag_run) == 0


def test_a_launch_that_takes_too_long(
    timed_out: ClusterDagRun, workspace: FakeService, starts: Starts
) -> None:
    """After execution_timeout the run is canceled, and a worker fails the task."""
    run = followed(workspace, timed_out)
    timed_out.until("failed")
    eventually(lambda: run.result == "CANCELED", "the run is canceled")
    logs = timed_out.logs()
    # Airflow fails the task itself if it finds the time-out before it has the trigger's event.
    reasons = (
        f"Run {run.run_id} took longer than the task's execution_timeout",
        "TaskDeferralError",
    )
    assert any(reason in logs for reason in reasons), logs
    assert len(workspace.runs_of(timed_out.run_id)) == 1
    assert starts(timed_out) == 1
