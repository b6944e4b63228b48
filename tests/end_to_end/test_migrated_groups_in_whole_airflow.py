"""The groups of official_dags in a whole Airflow, with only their imports changed.

test_official_dags.py compares them with the official provider on Airflow 3.3, in single processes,
and docs/migrating.md has the outcomes. Here scheduler, triggerer and worker processes execute them,
on each line of Airflow.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.local.workspace import LocalWorkspace
from scripts.airflow_env import connection_to
from tests.end_to_end.airflow_cluster import AirflowCluster
from tests.end_to_end.cluster_dag_run import ClusterDagRun
from tests.end_to_end.side_by_side import DAGS, shown, shown_outcomes, with_imports_changed

pytestmark = [pytest.mark.standalone, pytest.mark.thorough]

FILES = sorted(DAGS.glob("group_*.py"))


@pytest.fixture(scope="module")
def dags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The DAG files, with their imports changed."""
    folder = tmp_path_factory.mktemp("dags")
    for file in FILES:
        (folder / file.name).write_text(with_imports_changed(file.read_text()))
    return folder


@pytest.fixture(scope="module")
def connections(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A workspace that runs notebooks, and one for what nothing here can run."""
    root = tmp_path_factory.mktemp("workspace") / "root"
    shutil.copytree(DAGS / "workspace", root)
    with ExitStack() as stack:
        workspace = stack.enter_context(LocalWorkspace(root))
        staging = stack.enter_context(
            LocalWorkspace(tmp_path_factory.mktemp("staging"), dry_run=True)
        )
        yield {
            "AIRFLOW_CONN_DATABRICKS_DEFAULT": connection_to(workspace),
            "AIRFLOW_CONN_DATABRICKS_STAGING": connection_to(staging),
        }


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """An Airflow whose scheduler begins no DAG runs by itself."""
    return {"AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False"}


@pytest.fixture(scope="module")
def ended(cluster: AirflowCluster) -> dict[str, ClusterDagRun]:
    """A run of each DAG that has ended; all begin at once."""
    begun = {file.stem: cluster.trigger(file.stem) for file in FILES}
    for dag_run in begun.values():
        dag_run.until_over()
    return begun


@pytest.mark.parametrize("dag_id", [file.stem for file in FILES])
def test_the_outcomes_are_those_of_the_page(dag_id: str, ended: dict[str, ClusterDagRun]) -> None:
    """States and XComs of all tasks are those in docs/migrating.md."""
    seen = {task_id: shown(task) for task_id, task in tasks_of(ended[dag_id]).items()}
    expected = {
        task_id: outcome for (one, task_id), outcome in shown_outcomes().items() if one == dag_id
    }
    assert expected
    assert seen == expected, ended[dag_id].logs()


def tasks_of(dag_run: ClusterDagRun) -> dict[str, dict[str, Any]]:
    """Return state and XComs of each task, as ``scripts/run_dag.py`` does."""
    of_run = "where dag_id = :dag_id and run_id = :run_id"
    key = {"dag_id": dag_run.dag_id, "run_id": dag_run.run_id}

    def name(task_id: str, map_index: int) -> str:
        return task_id if map_index < 0 else f"{task_id}[{map_index}]"

    query = f"select task_id, map_index, state from task_instance {of_run}"
    states = dag_run.cluster.rows(query, **key)
    tasks: dict[str, dict[str, Any]] = {
        name(task_id, map_index): {"state": str(state), "xcoms": {}}
        for task_id, map_index, state in states
    }
    pushed = dag_run.cluster.rows(
        f"select task_id, map_index, key, value from xcom {of_run}", **key
    )
    for task_id, map_index, xcom, value in pushed:
        # SQLite gives a number as such, and any other JSON value as its text.
        given = json.loads(value) if isinstance(value, (str, bytes)) else value
        tasks[name(task_id, map_index)]["xcoms"][xcom] = given
    return tasks
