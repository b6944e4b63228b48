"""A DAG run that maps a thousand runs, all launched in one triggerer, in a whole Airflow 3.3.

A second DAG run begins in the middle. Airflow and this package have their default settings.
docs/without-workers.md has the figures.
"""

from __future__ import annotations

import re
import statistics
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.airflow_cluster import AirflowCluster
from tests.end_to_end.airflow_versions import RENDERS_IN_TRIGGERER
from tests.end_to_end.cluster_dag_run import ClusterDagRun
from tests.end_to_end.cluster_environment import COMPONENTS
from tests.end_to_end.eventually import eventually
from tests.end_to_end.mapped_scenarios import index_of
from tests.fakes.fake_service import FakeService, Plan, Run

pytestmark = [
    pytest.mark.standalone,
    pytest.mark.thorough,
    pytest.mark.skipif(not RENDERS_IN_TRIGGERER, reason="a worker launches every run"),
]

HERE = Path(__file__).parent
INSTANCES = 1_000
OTHER_TASKS = 10
# Launches a second that the service allows for run-now; for runs/submit it is 35.
LOWEST_SERVICE_LIMIT = 20
# After so many launches of the first DAG run the second one begins.
MIDDLE = 400
# Both DAGs launch in turn. So many launches of the first one may be between the first and the last
# one of the second: its triggers do not start at the same moment.
LAUNCHES_BETWEEN = 3 * OTHER_TASKS
MINUTES = 20
HELD_BACK = "Launches are held back"
BLOCKED = re.compile(r"async thread was blocked for ([\d.]+) seconds")
# Beyond what the components write while nothing runs.
TABLES = ("task_instance", "trigger", "xcom", "log", "rendered_task_instance_fields")
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def workspace() -> Iterator[FakeService]:
    """A workspace whose runs take 10 to 20 s."""
    with FakeService() as running:
        count = INSTANCES + OTHER_TASKS
        running.plans.extend(Plan(seconds=10 + number % 11, looks=0) for number in range(count))
        yield running


@pytest.fixture(scope="module")
def dags() -> Path:
    """The DAGs of this module."""
    return HERE / "mapped_dags"


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """How many tasks the DAGs have."""
    return {"MAPPED_INSTANCES": str(INSTANCES), "OTHER_TASKS": str(OTHER_TASKS)}


@dataclass
class Watched:
    """What is seen of an Airflow while its DAG runs go on.

    :ivar cpu_seconds: by component.
    :ivar rows: that were added to each table.
    :ivar most_triggers: rows of the triggers at once, and their bytes.
    :ivar longest_silence: of the triggerer, between two heartbeats, in seconds.
    :ivar memory: of the triggerer's processes in megabytes (PSS), before and at most.
    """

    cpu_seconds: dict[str, float] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    most_triggers: tuple[int, int] = (0, 0)
    longest_silence: float = 0.0
    memory: tuple[float, float] = (0.0, 0.0)


class Watch:
    """Looks at an Airflow, again and again.

    :param cluster: the Airflow.
    :param triggerer: the name of its triggerer.
    """

    def __init__(self, cluster: AirflowCluster, triggerer: str) -> None:
        self._cluster, self._triggerer = cluster, triggerer
        self._beat = cluster.heartbeat_of(triggerer)
        memory = cluster.memory_megabytes(triggerer)
        self.seen = Watched(memory=(memory, memory))

    def look(self) -> None:
        """Note the heartbeat, the memory and the triggers of this moment."""
        before, most = self.seen.memory
        memory = self._cluster.memory_megabytes(self._triggerer)
        self.seen.memory = before, max(most, memory)
        beat = self._cluster.heartbeat_of(self._triggerer)
        self.seen.longest_silence = max(self.seen.longest_silence, beat - self._beat)
        self._beat = beat
        query = "select count(*), coalesce(sum(length(kwargs)), 0) from trigger"
        ((count, size),) = self._cluster.rows(query)
        self.seen.most_triggers = max(self.seen.most_triggers, (count, size))

    @contextmanager
    def measuring(self) -> Iterator[Watched]:
        """Measure what is taken within the context."""
        cpu, rows = self._cpu_seconds(), self._rows()
        yield self.seen
        self.seen.cpu_seconds = {
            name: after - cpu[name] for name, after in self._cpu_seconds().items()
        }
        self.seen.rows = {name: after - rows[name] for name, after in self._rows().items()}

    def _cpu_seconds(self) -> dict[str, float]:
        names = [*COMPONENTS, self._triggerer]
        return {name: self._cluster.cpu_seconds(name) for name in names}

    def _rows(self) -> dict[str, int]:
        return {
            table: self._cluster.rows(f"select count(*) from {table}")[0][0] for table in TABLES
        }


def most_in_a_second(times: list[float]) -> int:
    """Return how many of some times, in order, are within a second at the most."""
    return max(bisect_left(times, began + 1) - at for at, began in enumerate(times))


def check_xcoms(dag_run: ClusterDagRun, runs: list[Run]) -> None:
    """Check that each instance has the XComs of its own run."""
    xcoms = dag_run.xcoms()
    assert len(xcoms) == len(runs)
    for run in runs:
        index = index_of(run)
        parameters = run.request["notebook_task"]["base_parameters"]
        assert parameters == {"day": "2026-01-01", "table": f"table_{index}"}
        wanted = {
            "run_id": run.run_id,
            "job_id": run.job_id,
            "run_page_url": f"http://workspace.invalid/#job/{run.job_id}/run/{run.run_id}",
            "return_value": f"output of {run.run_id}",
        }
        assert {key: xcoms[index].get(key) for key in wanted} == wanted


def seconds_until_stored(dag_run: ClusterDagRun, runs: list[Run]) -> list[float]:
    """Return after how many seconds the id of each run was stored, in order of size."""
    stored_at = dag_run.xcom_times("run_id")
    return sorted(stored_at[index_of(run)] - run.started for run in runs)


def test_a_thousand_runs_are_launched(
    cluster: AirflowCluster, workspace: FakeService, triggerer: str, record_property: Record
) -> None:
    """Each instance has one run and its XComs; another DAG's tasks do not wait for the thousand."""
    watch = Watch(cluster, triggerer)

    def until(is_so: Callable[[], bool], what: str) -> None:
        def look() -> bool:
            watch.look()
            time.sleep(0.5)
            return is_so()

        try:
            eventually(look, what, MINUTES * 60)
        except AssertionError as error:
            states = [dag_run.states() for dag_run in dag_runs]
            raise AssertionError(
                f"{error}: {states}\n{cluster.log_of(triggerer)[-3000:]}"
            ) from None

    with watch.measuring() as seen:
        began = time.monotonic()
        dag_runs = [cluster.trigger("workerless_thousand")]
        thousand = dag_runs[0]
        until(lambda: len(workspace.runs_of(thousand.run_id)) >= MIDDLE, "the middle is reached")
        ten = cluster.trigger("workerless_ten")
        dag_runs.append(ten)
        ten_began = time.monotonic()
        until(lambda: ten.state() in {"success", "failed"}, "the second DAG run is over")
        ten_took = time.monotonic() - ten_began
        ended_by_then = thousand.states().get("success", 0)
        until(lambda: thousand.state() in {"success", "failed"}, "the first DAG run is over")
        took = time.monotonic() - began
    runs, others = (workspace.runs_of(dag_run.run_id) for dag_run in dag_runs)
    times, other_times = (sorted(run.launched_at for run in of) for of in (runs, others))
    between = bisect_left(times, other_times[-1]) - bisect_left(times, other_times[0])
    blocks = [float(seconds) for seconds in BLOCKED.findall(cluster.log_of(triggerer))]
    until_stored = seconds_until_stored(thousand, runs)
    figures: dict[str, Any] = {
        "seconds": round(took),
        "until the first launch, s": round(times[0] - began, 1),
        "until the last launch, s": round(times[-1] - began),
        "launches a second": round(len(times) / (times[-1] - times[0]), 2),
        "most launches in a second": most_in_a_second(sorted(times + other_times)),
        "from launch to stored run_id, s (median, longest)": (
            round(statistics.median(until_stored), 1),
            round(until_stored[-1], 1),
        ),
        "second DAG run: seconds": round(ten_took, 1),
        "second DAG run: until its first launch, s": round(other_times[0] - ten_began, 1),
        "second DAG run: until its last launch, s": round(other_times[-1] - ten_began, 1),
        "second DAG run: launches of the first one between its own": between,
        "second DAG run: instances of the first one that ended before it": ended_by_then,
        "requests": {
            name: workspace.count(name) for name in {one.endpoint for one in workspace.seen}
        },
        "CPU seconds": {name: round(seconds, 1) for name, seconds in seen.cpu_seconds.items()},
        "rows": seen.rows,
        "most triggers at once, and their bytes": seen.most_triggers,
        "longest silence of the triggerer, s": round(seen.longest_silence, 1),
        "blocks of the event loop that Airflow logged, and the longest, s": (
            len(blocks),
            max(blocks, default=0.0),
        ),
        "memory of the triggerer, before and at most, MB": tuple(map(round, seen.memory)),
    }
    for name, value in figures.items():
        record_property(name, value)
    assert thousand.states() == {"success": INSTANCES}
    assert ten.states() == {"success": OTHER_TASKS}
    for of, count in ((runs, INSTANCES), (others, OTHER_TASKS)):
        assert len(of) == len({run.task for run in of}) == count
        assert {(run.launches, run.cancels, run.result) for run in of} == {(1, 0, "SUCCESS")}
    check_xcoms(thousand, runs)
    assert not (cluster.home / "task_processes").exists()
    assert figures["most launches in a second"] < LOWEST_SERVICE_LIMIT
    assert between <= LAUNCHES_BETWEEN
    assert other_times[-1] < times[-1]
    assert ended_by_then < INSTANCES / 2
    # One line in ten minutes.
    assert 1 <= cluster.log_of(triggerer).count(HELD_BACK) <= 1 + took // 600
    assert HELD_BACK not in thousand.logs() + ten.logs()
