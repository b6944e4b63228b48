"""How many processes Airflow starts for a task: counted in a real Airflow.

Every process that begins a task, or resumes it, notes itself; see cluster_dags/starts.py.
"""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.end_to_end.airflow_cluster import AirflowCluster
from tests.end_to_end.airflow_versions import AIRFLOW_3_0, RENDERS_IN_TRIGGERER
from tests.end_to_end.cluster_dag_run import ClusterDagRun
from tests.end_to_end.eventually import eventually
from tests.fakes.fake_service import FakeService, Run

pytestmark = pytest.mark.standalone

# Where a trigger ends a task, Airflow 3.0 would take the DAGs of its file for gone; a worker does.
BACK_ON_A_WORKER = 1 if AIRFLOW_3_0 else 0


Starts = Callable[[ClusterDagRun], int]


@pytest.fixture
def starts(
    cluster: AirflowCluster, record_property: Callable[[str, object], None]
) -> Callable[[ClusterDagRun], int]:
    """Count the processes that were started for a task."""

    def count(dag_run: ClusterDagRun) -> int:
        note = cluster.home / f"{dag_run.dag_id}.{dag_run.task_id}.starts"
        lines = note.read_text().splitlines() if note.exists() else []
        parents = dict(line.split() for line in lines)
        # A process that Airflow 2 forks from another one of the same start reads the file again.
        roots = [pid for pid, parent in parents.items() if parent not in parents]
        record_property("starts", len(roots))
        return len(roots)

    return count


@pytest.fixture(scope="module")
def begun(cluster: AirflowCluster) -> dict[str, ClusterDagRun]:
    """Runs of DAGs that wait for what their tests do, begun at once: Airflow takes its time."""
    dag_ids = (
        "ordinary",
        "ending",
        "ending_capped",
        "ending_each",
        "ending_retried",
        "ending_with_callback",
        "sensed_failing",
        "rendered",
    )
    return {dag_id: cluster.trigger(dag_id) for dag_id in dag_ids}


def launched(workspace: FakeService, dag_run: ClusterDagRun, number: int = 1) -> Run:
    """Wait until the DAG run has launched so many runs and its task is deferred."""
    try:
        runs = eventually(
            lambda: runs if len(runs := workspace.runs_of(dag_run.run_id)) >= number else [],
            f"{dag_run.run_id} has launched run {number}",
        )
    except AssertionError as error:
        raise AssertionError(f"{error}\n{dag_run.logs()}") from None
    dag_run.until("deferred")
    dag_run.until_settled(times=number)
    return runs[-1]


def seen_by_the_next_task(dag_run: ClusterDagRun) -> tuple[Any, ...]:
    """Return what the next task got: output, run_id and flag."""
    seen: tuple[Any, ...] = literal_eval(replace(dag_run, task_id="see").xcom("return_value"))
    return seen


def test_an_ordinary_task_takes_two(
    begun: dict[str, ClusterDagRun], workspace: FakeService, starts: Starts
) -> None:
    """One process launches, another one reads the output: what the others are measured by."""
    dag_run = begun["ordinary"]
    run = launched(workspace, dag_run)
    assert starts(dag_run) == 1
    workspace.end(run)
    dag_run.until("success")
    assert starts(dag_run) == 2
    assert seen_by_the_next_task(dag_run) == (f"output of {run.run_id}", run.run_id, None)


def test_a_task_that_its_trigger_ends_takes_one(
    begun: dict[str, ClusterDagRun], workspace: FakeService, starts: Starts
) -> None:
    """The XComs are all there; cleared, the task starts afresh."""
    dag_run = begun["ending"]
    run = launched(workspace, dag_run)
    workspace.end(run)
    dag_run.until("success")
    assert starts(dag_run) == 1 + BACK_ON_A_WORKER
    assert seen_by_the_next_task(dag_run) == (f"output of {run.run_id}", run.run_id, None)
    assert dag_run.xcom("run_page_url").endswith(f"/{run.run_id}")
    task = dag_run.task()
    assert task["start_date"] < task["end_date"]
    # Not its value: on SQLite, Airflow 3.0 is a minute wrong where the task spans a full minute.
    assert task["duration"]
    dag_run.until_over()
    dag_run.clear()
    again = launched(workspace, dag_run, 2)
    assert again.run_id != run.run_id
    workspace.end(again)
    dag_run.until("success")
    assert starts(dag_run) == 2 + 2 * BACK_ON_A_WORKER
    assert dag_run.xcom("return_value") == f"output of {again.run_id}"


def test_the_trigger_pushes_the_flag(
    begun: dict[str, ClusterDagRun], workspace: FakeService, starts: Starts
) -> None:
    """An output over max_output_bytes is cut, and output_truncated says so."""
    dag_run = begun["ending_capped"]
    workspace.end(launched(workspace, dag_run))
    dag_run.until("success")
    output, _, truncated = seen_by_the_next_task(dag_run)
    assert (output, truncated) == ("output", True)
    assert starts(dag_run) == 1 + BACK_ON_A_WORKER


def test_the_trigger_pushes_the_output_of_each_task(
    begun: dict[str, ClusterDagRun], workspace: FakeService, starts: Starts
) -> None:
    """With multiple_outputs, and never over the XCom run_id; no worker is needed for it."""
    dag_run = begun["ending_each"]
    run = launched(workspace, dag_run)
    workspace.end(run)
    dag_run.until("success")
    take = replace(dag_run, task_id="take")
    take.until("success")
    assert literal_eval(take.xcom("return_value")) == ("output of load", run.run_id)
    assert literal_eval(dag_run.xcom("return_value")) == {
        "load": "output of load",
        "run_id": "output of run_id",
    }
    assert starts(dag_run) == 1 + BACK_ON_A_WORKER


def test_a_failed_run_still_fails_its_task_with_reason_and_retries(
    begun: dict[str, ClusterDagRun], workspace: FakeService, starts: Starts
) -> None:
    """Each try launches a run, and resumes on a worker to tell why it failed."""
    dag_run = begun["ending_retried"]
    for number in (1, 2):
        run = launched(workspace, dag_run, number)
        workspace.end(run, "FAILED")
    dag_run.until("failed")
    logs = dag_run.logs()
    for run in workspace.runs_of(dag_run.run_id):
        assert f"Run {run.run_id} failed (TERMINATED/FAILED)" in logs
    assert starts(dag_run) == 4


def test_a_callback_on_success_brings_the_task_back(
    cluster: AirflowCluster,
    workspace: FakeService,
    starts: Starts,
    begun: dict[str, ClusterDagRun],
) -> None:
    """Airflow 3 would not call it for a task that its trigger ended."""
    dag_run = begun["ending_with_callback"]
    workspace.end(launched(workspace, dag_run))
    dag_run.until("success")
    eventually((cluster.home / f"{dag_run.run_id}.called").exists, "the callback was called")
    assert starts(dag_run) == 2
    assert "in spite of end_from_trigger, because of: " in dag_run.logs()
    assert "on_success_callback" in dag_run.logs()


@pytest.fixture(scope="module")
def sensed(cluster: AirflowCluster, workspace: FakeService) -> dict[str, ClusterDagRun]:
    """DAG runs whose sensors all waited for one run, which has ended well now."""
    dag_ids = (
        "sensed",
        "sensed_from_the_start",
        "sensed_to_the_end",
        "sensed_all_along",
        "named",
    )
    rescheduled = cluster.trigger("rescheduled")
    dag_runs = {dag_id: cluster.trigger(dag_id) for dag_id in dag_ids}
    for dag_run in dag_runs.values():
        dag_run.until("deferred")
        dag_run.until_watched()
    eventually(lambda: len(noted(rescheduled)) > 2, "the sensor has looked often")
    dag_runs["rescheduled"] = rescheduled
    run_id = int(cluster.env["SENSED_GOOD_RUN"])
    workspace.end(workspace.run(run_id))
    return dag_runs


def noted(dag_run: ClusterDagRun) -> list[float]:
    """Return when a sensor's wait began, as it knew at each poke."""
    note = dag_run.cluster.home / f"{dag_run.run_id}.began"
    return [float(line) for line in note.read_text().splitlines()] if note.exists() else []


def test_a_rescheduled_sensor_knows_when_its_wait_began(sensed: dict[str, ClusterDagRun]) -> None:
    """It is a new process at each poke; Airflow remembers, from the first reschedule on."""
    dag_run = sensed["rescheduled"]
    dag_run.until("success")
    run_id = int(dag_run.cluster.env["SENSED_GOOD_RUN"])
    assert seen_by_the_next_task(dag_run) == (f"output of {run_id}", run_id, None)
    first, *others = noted(dag_run)
    assert len(set(others)) == 1
    assert abs(others[0] - first) < 10


@pytest.mark.parametrize(
    ("dag_id", "processes"),
    [
        ("sensed", 2),
        ("sensed_from_the_start", 1),
        ("sensed_to_the_end", 1 + BACK_ON_A_WORKER),
        ("sensed_all_along", BACK_ON_A_WORKER),
        ("named", 0 if RENDERS_IN_TRIGGERER else 2),
    ],
)
def test_a_sensor_takes_two_or_one_or_none(
    dag_id: str, processes: int, sensed: dict[str, ClusterDagRun], starts: Starts
) -> None:
    """Where both its beginning and its end are the triggerer's, no process starts for it."""
    dag_run = sensed[dag_id]
    dag_run.until("success")
    run_id = int(dag_run.cluster.env["SENSED_GOOD_RUN"])
    assert seen_by_the_next_task(dag_run) == (f"output of {run_id}", run_id, None)
    assert starts(dag_run) == processes


@pytest.mark.parametrize("dag_id", ["sensed_from_the_start", "sensed_all_along"])
def test_a_sensor_that_is_cleared_leaves_no_old_output(
    dag_id: str,
    cluster: AirflowCluster,
    workspace: FakeService,
    sensed: dict[str, ClusterDagRun],
) -> None:
    """Airflow deletes XComs only where a worker begins a task, be it ended on a worker or not."""
    dag_run = sensed[dag_id]
    dag_run.until("success")
    assert "return_value" in dag_run.xcom_keys()
    run = workspace.run(int(cluster.env["SENSED_GOOD_RUN"]))
    run.has_output = False
    dag_run.until_over()
    try:
        dag_run.clear()
        dag_run.until("success")
    finally:
        run.has_output = True
    assert dag_run.xcom_keys() == {"run_id", "run_page_url"}


def test_mapped_sensors_begin_on_a_worker(
    cluster: AirflowCluster, sensed: dict[str, ClusterDagRun], starts: Starts
) -> None:
    """No version of Airflow here begins them in the triggerer; they wait all the same."""
    dag_run = cluster.trigger("sensed_by_mapped")
    dag_run.until("success", map_index=0)
    assert starts(dag_run) == 1


def test_a_sensor_that_begins_and_ends_in_the_triggerer_fails_with_reason_and_retries(
    cluster: AirflowCluster,
    workspace: FakeService,
    starts: Starts,
    begun: dict[str, ClusterDagRun],
) -> None:
    """A worker resumes at each try, to tell why."""
    dag_run = begun["sensed_failing"]
    dag_run.until_watched()
    run_id = int(cluster.env["SENSED_BAD_RUN"])
    workspace.end(workspace.run(run_id), "FAILED")
    dag_run.until("failed")
    assert dag_run.task()["try_number"] == 2
    assert dag_run.logs().count(f"Run {run_id} failed (TERMINATED/FAILED)") >= 2
    assert starts(dag_run) == 2


def test_a_sensor_of_what_another_task_launched(
    begun: dict[str, ClusterDagRun], workspace: FakeService, starts: Starts
) -> None:
    """Its XComArg is rendered in the triggerer, where Airflow can."""
    dag_run = begun["rendered"]
    dag_run.until("deferred")
    dag_run.until_watched()
    (run,) = workspace.runs_of(dag_run.run_id)
    workspace.end(run)
    dag_run.until("success")
    assert seen_by_the_next_task(dag_run) == (f"output of {run.run_id}", run.run_id, None)
    assert starts(dag_run) == (0 if RENDERS_IN_TRIGGERER else 2)


# -- runs that the triggerer launches (Airflow 3.3) --------------------------------------------

launches_in_triggerer = pytest.mark.skipif(
    not RENDERS_IN_TRIGGERER, reason="a worker launches every run"
)


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


@launches_in_triggerer
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


@launches_in_triggerer
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


@launches_in_triggerer
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


@launches_in_triggerer
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


@launches_in_triggerer
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


@launches_in_triggerer
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


@launches_in_triggerer
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
