"""How many processes Airflow starts for a task: counted in a real Airflow.

Every process that begins a task, or resumes it, notes itself; see cluster_dags/starts.py.
"""

from __future__ import annotations

from ast import literal_eval
from dataclasses import replace

import pytest

from tests.end_to_end.airflow_cluster import AirflowCluster
from tests.end_to_end.airflow_versions import AIRFLOW_3_0, RENDERS_IN_TRIGGERER
from tests.end_to_end.cluster_dag_run import ClusterDagRun
from tests.end_to_end.eventually import eventually
from tests.end_to_end.task_starts import Starts, seen_by_the_next_task
from tests.fakes.fake_service import FakeService, Run

pytestmark = pytest.mark.standalone

# Where a trigger ends a task, Airflow 3.0 would take the DAGs of its file for gone; a worker does.
BACK_ON_A_WORKER = 1 if AIRFLOW_3_0 else 0


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
