"""A real Airflow for the tests: one DAG run to its end, in a process and a home of its own."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.local.workspace import LocalWorkspace
from scripts.airflow_env import ROOT, airflow_environment, connection_to
from scripts.services import PostgresServer, RedisServer
from tests.end_to_end.airflow_cluster import AirflowCluster
from tests.end_to_end.cluster_dag_run import ClusterDagRun
from tests.end_to_end.cluster_environment import SHORT_SILENCE
from tests.end_to_end.clusters import Clusters
from tests.end_to_end.dag_run import DagRun, RunDag, RunDags, dag_run_of
from tests.end_to_end.deployment import Deployment
from tests.end_to_end.group_scenarios import BeginGroup, GroupScenario, Planned
from tests.end_to_end.scenarios import Begin, BeginAll, Scenario, unrecorded
from tests.end_to_end.statsd_server import StatsDServer
from tests.end_to_end.task_starts import Starts, count_starts
from tests.fakes.fake_service import UNTIL_ENDED, FakeService
from tests.helpers.launches import launch

HERE = Path(__file__).parent

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="session")
def migrated_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An AIRFLOW_HOME with an empty metadata database, to be copied."""
    base = tmp_path_factory.getbasetemp()
    # The processes of pytest-xdist share one migration, which takes many seconds.
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "migrated"
    with shared.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.exists():
            unfinished = tmp_path_factory.mktemp("migrating")
            subprocess.run(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                env=airflow_environment(unfinished, unfinished, connection=None),
                check=True,
                capture_output=True,
            )
            # Airflow writes its own paths into it; without it there is nothing but the environment.
            (unfinished / "airflow.cfg").unlink(missing_ok=True)
            unfinished.rename(shared)
    home = tmp_path_factory.mktemp("migrated") / "home"
    shutil.copytree(shared, home)
    return home


class _DagTests:
    """Runs DAGs with dag.test(), in a process and a home of their own."""

    def __init__(self, migrated_home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        self._migrated_home = migrated_home
        self._tmp_path_factory = tmp_path_factory

    def __call__(
        self, dags: Path, what: str, conf: object, connection: str, env: dict[str, str] | None
    ) -> tuple[int, str, Path, Any]:
        """Run ``scripts/run_dag.py``; return exit code, log, home, and the result or None."""
        home = self._tmp_path_factory.mktemp("airflow") / "home"
        shutil.copytree(self._migrated_home, home)
        result_file = home / "result.json"
        script = ROOT / "scripts" / "run_dag.py"
        command = [sys.executable, script, dags, what, result_file, json.dumps(conf)]
        folder = dags if dags.is_dir() else dags.parent
        done = subprocess.run(
            [str(part) for part in command],
            env=airflow_environment(home, folder, connection=connection) | (env or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,  # with other work on the machine
            check=False,
        )
        result = json.loads(result_file.read_text()) if result_file.exists() else None
        return done.returncode, COLOURS.sub("", done.stdout), home, result


@pytest.fixture(scope="session")
def dag_tests(migrated_home: Path, tmp_path_factory: pytest.TempPathFactory) -> _DagTests:
    """What the fixtures below run DAGs with."""
    return _DagTests(migrated_home, tmp_path_factory)


@pytest.fixture(scope="session")
def run_dag(dag_tests: _DagTests) -> RunDag:
    """Run a DAG with dag.test(), the triggers in the same process."""

    def run(
        dag_file: Path,
        *,
        connection: str,
        conf: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
    ) -> DagRun:
        exit_code, log, home, result = dag_tests(
            dag_file, dag_file.stem, conf or {}, connection, env
        )
        return dag_run_of(result, exit_code, log, home)

    return run


@pytest.fixture(scope="session")
def run_dags(dag_tests: _DagTests) -> RunDags:
    """Run DAGs of a folder with dag.test(), one after the other in one process.

    A process of Airflow takes 7 s of processor time before it begins a task.
    """

    def run(folder: Path, *wanted: tuple[str, dict[str, Any]], connection: str) -> list[DagRun]:
        exit_code, log, home, result = dag_tests(folder, "several", wanted, connection, None)
        before, *logs = re.split(r"^\[DAG RUN\] .*\n", log, flags=re.MULTILINE)
        # If the process ended early, the last log, or what came before the first, says why.
        results = [*(result or []), *[None] * len(wanted)]
        logs += [logs[-1] if logs else before] * len(wanted)
        return [
            dag_run_of(result, exit_code, log, home)
            for result, log, _ in zip(results, logs, wanted, strict=False)
        ]

    return run


@pytest.fixture(scope="session")
def shared_workspace() -> Iterator[FakeService]:
    """A workspace that counts the launches, looks and cancels."""
    with FakeService(UNTIL_ENDED) as running:
        yield running


@pytest.fixture(scope="module")
def workspace(shared_workspace: FakeService) -> FakeService:
    """The workspace of the default connection; a module may have its own."""
    return shared_workspace


@pytest.fixture(scope="session")
def local_workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalWorkspace]:
    """A workspace that really runs notebooks."""
    state = tmp_path_factory.mktemp("state")
    with LocalWorkspace(HERE / "notebooks", state_dir=state) as running:
        yield running


@pytest.fixture(scope="module")
def dags() -> Path:
    """The folder of the DAG files of a whole Airflow; a module may have its own."""
    return HERE / "cluster_dags"


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """Settings of a whole Airflow beside the usual ones; a module may have its own."""
    return {}


@pytest.fixture(scope="session")
def statsd() -> Iterator[StatsDServer]:
    """What gets Airflow's metrics."""
    with StatsDServer() as server:
        yield server


@pytest.fixture(scope="session")
def short_silence(statsd: StatsDServer) -> dict[str, str]:
    """An Airflow that soon takes a silent process for dead, and that sends metrics."""
    return SHORT_SILENCE | statsd.settings


@pytest.fixture(scope="session")
def sensed_runs(shared_workspace: FakeService) -> dict[str, str]:
    """Runs that no task launched, for the DAG files: environment variables with their ids."""
    good, bad = (launch(shared_workspace, name) for name in ("the sensed job", "a bad run"))
    return {"SENSED_GOOD_RUN": str(good.run_id), "SENSED_BAD_RUN": str(bad.run_id)}


@pytest.fixture(scope="session")
def event_workspace() -> Iterator[FakeService]:
    """The workspace of the DAG that starts when a run ends."""
    with FakeService(UNTIL_ENDED) as running:
        yield running


@pytest.fixture(scope="module")
def connections(
    workspace: FakeService,
    local_workspace: LocalWorkspace,
    event_workspace: FakeService,
    sensed_runs: dict[str, str],
) -> dict[str, str]:
    """What a whole Airflow is told of the workspaces, as environment variables."""
    return sensed_runs | {
        "AIRFLOW_CONN_DATABRICKS_DEFAULT": workspace.connection,
        "AIRFLOW_CONN_LOCAL_WORKSPACE": connection_to(local_workspace),
        "AIRFLOW_CONN_DATABRICKS_EVENTS": event_workspace.connection,
    }


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    """Whole Airflows, one at a time."""
    with Clusters(tmp_path_factory) as running:
        yield running


@pytest.fixture(scope="module")
def cluster(
    clusters: Clusters, dags: Path, connections: dict[str, str], settings: dict[str, str]
) -> AirflowCluster:
    """A whole Airflow for all tests of a module, and of the next one if it needs the same."""
    return clusters.running(dags, connections, settings)


@pytest.fixture
def triggerer(cluster: AirflowCluster) -> str:
    """The only triggerer at work."""
    return cluster.only_triggerer()


@pytest.fixture(scope="module")
def airflow_settings() -> dict[str, str]:
    """Environment variables of a module's distributed Airflow, besides those of Deployment."""
    return {}


@pytest.fixture(scope="module")
def deployment(
    dags: Path,
    connections: dict[str, str],
    airflow_settings: dict[str, str],
    postgres: PostgresServer,
    redis: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """A distributed Airflow for all tests of a module."""
    home = tmp_path_factory.mktemp("cluster")
    with Deployment(home, dags, connections, postgres, redis, airflow_settings) as running:
        yield running


@pytest.fixture(scope="module")
def begun_scenarios(
    cluster: AirflowCluster, request: pytest.FixtureRequest
) -> dict[str, ClusterDagRun]:
    """The DAG runs of all tests of a module that name theirs, by the tests' names.

    They begin at once: Airflow takes its time.
    """
    return {
        item.name: cluster.trigger(str(item.callspec.params["scenario"]))
        for item in request.session.items
        if item.path == request.path
        and isinstance(item, pytest.Function)
        and hasattr(item, "callspec")
        and "scenario" in item.callspec.params
    }


@pytest.fixture
def scenario(
    begun_scenarios: dict[str, ClusterDagRun],
    workspace: FakeService,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> Scenario:
    """The scenario of a test that names its DAG with :func:`.of`."""
    return Scenario(begun_scenarios[request.node.name], workspace, record_property)


@pytest.fixture(scope="module")
def begin_all(cluster: AirflowCluster, workspace: FakeService) -> BeginAll:
    """Begin the DAG runs of several tests, to whose tasks the same happens at once.

    Airflow takes its time to notice that a process is dead, and to start another one.
    """

    def begin_all(**dag_ids: str) -> dict[str, Scenario]:
        return {
            name: Scenario(cluster.trigger(dag_id), workspace, unrecorded)
            for name, dag_id in dag_ids.items()
        }

    return begin_all


@pytest.fixture
def begin(
    cluster: AirflowCluster,
    workspace: FakeService,
    record_property: Callable[[str, object], None],
) -> Begin:
    """Begin a DAG run; the test report has the runs and cancels that were seen."""
    return lambda dag_id: Scenario(cluster.trigger(dag_id), workspace, record_property)


@pytest.fixture
def starts(record_property: Callable[[str, object], None]) -> Starts:
    """Count the processes that were started for a task."""

    def count(dag_run: ClusterDagRun) -> int:
        number = count_starts(dag_run)
        record_property("starts", number)
        return number

    return count


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """The server of Airflow's metadata and Celery's results."""
    with PostgresServer() as running:
        yield running


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """The broker."""
    with RedisServer() as running:
        yield running


@pytest.fixture(scope="module")
def begun_groups(
    cluster: AirflowCluster, workspace: FakeService, request: pytest.FixtureRequest
) -> dict[str, GroupScenario]:
    """The DAG runs with a group of all tests of a module that name theirs, by the tests' names.

    They begin at once: Airflow takes its time.
    """
    scenarios = {}
    for item in request.session.items:
        if item.path != request.path or not isinstance(item, pytest.Function):
            continue
        planned = item.callspec.params.get("group") if hasattr(item, "callspec") else None
        if isinstance(planned, Planned) and planned.is_possible:
            scenarios[item.name] = GroupScenario(cluster.trigger(planned.dag_id), workspace)
            if planned.kill_at:
                scenarios[item.name].kill_worker_at(*planned.kill_at)
    return scenarios


@pytest.fixture
def group(
    begun_groups: dict[str, GroupScenario],
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> GroupScenario:
    """The DAG run of a test that names its DAG."""
    begun_groups[request.node.name].record = record_property
    return begun_groups[request.node.name]


@pytest.fixture
def begin_group(
    cluster: AirflowCluster,
    workspace: FakeService,
    record_property: Callable[[str, object], None],
) -> BeginGroup:
    """Begin a DAG run with a group; the test report has what was counted."""
    return lambda dag_id: GroupScenario(cluster.trigger(dag_id), workspace, record_property)
