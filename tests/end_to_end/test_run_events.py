"""A run that nobody in Airflow has started starts a DAG: seen in a whole Airflow."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import airflow
import pytest

from tests.end_to_end.airflow_cluster import AirflowCluster
from tests.end_to_end.eventually import eventually
from tests.fakes.fake_service import FakeService, Run
from tests.helpers.launches import launch

pytestmark = [
    pytest.mark.standalone,
    pytest.mark.skipif(airflow.__version__ < "3.3", reason="before, no position is stored"),
]

DAG_PATH = "/dags/after_run"


def pause(cluster: AirflowCluster, *, paused: bool) -> None:
    """Let the DAG's watcher be there, or not."""
    cluster.ask("PATCH", DAG_PATH, {"is_paused": paused})
    # Airflow starts and ends watchers where it parses the DAG file, which takes up to two minutes.
    token = cluster.ask("GET", DAG_PATH)["file_token"]
    cluster.ask("PUT", f"/parseDagFile/{token}")


@pytest.fixture
def watched(cluster: AirflowCluster, event_workspace: FakeService) -> Iterator[FakeService]:
    """The workspace, with a watcher that has begun."""
    pause(cluster, paused=False)
    eventually(lambda: positions(cluster), "the watcher has stored its first position")
    yield event_workspace
    pause(cluster, paused=True)
    eventually(
        lambda: not cluster.rows("select id from trigger where classpath like '%RunEvent%'"),
        "the watcher has ended",
    )


def positions(cluster: AirflowCluster) -> list[Any]:
    """Return the stored positions."""
    return [json.loads(value) for (value,) in cluster.rows("select value from asset_state_store")]


def events(cluster: AirflowCluster) -> list[int]:
    """Return the runs of the asset's events."""
    rows = cluster.rows("select extra from asset_event order by id")
    extras = [json.loads(extra) if isinstance(extra, str) else extra for (extra,) in rows]
    return [extra["payload"]["run_id"] for extra in extras if extra.get("from_trigger")]


def told(cluster: AirflowCluster) -> list[dict[str, Any]]:
    """Return the runs that the DAG's task was told of, over all DAG runs."""
    rows = cluster.rows(
        "select value from xcom where dag_id = 'after_run' and key = 'return_value' order by run_id"
    )
    values = [json.loads(value) if isinstance(value, str) else value for (value,) in rows]
    # The value is JSON in JSON.
    lists = [json.loads(value) if isinstance(value, str) else value for value in values]
    return [run for runs in lists for run in runs]


def end(run: Run, result: str = "SUCCESS") -> None:
    """End a run."""
    run.end(result, time.time())


def test_a_run_by_hand_starts_a_dag_across_a_kill_of_the_triggerer(
    cluster: AirflowCluster, watched: FakeService
) -> None:
    """One run ends before the kill, two while no triggerer is at work, one after: each once."""
    name = "by hand"
    during, before, failed, after = (launch(watched, name) for _ in range(4))
    other = launch(watched, "another job")
    end(before)
    end(other)
    eventually(lambda: told(cluster), "a DAG run has begun after the first run")
    (payload,) = told(cluster)
    assert payload["run_id"] == before.run_id
    assert payload["job_id"] == before.job_id
    assert payload["job_name"] == name
    assert payload["result_state"] == "SUCCESS"
    assert payload["run_page_url"].endswith(f"/run/{before.run_id}")
    position = positions(cluster)
    for triggerer in cluster.triggerers:
        cluster.kill(triggerer)
    end(during)
    end(failed, "FAILED")
    cluster.start_triggerer()
    eventually(lambda: len(told(cluster)) == 2, "a DAG run has begun after the second run")
    end(after)
    eventually(lambda: len(told(cluster)) == 3, "a DAG run has begun after the last run")
    runs = [before.run_id, during.run_id, after.run_id]
    assert events(cluster) == runs
    assert sorted(run["run_id"] for run in told(cluster)) == sorted(runs)
    eventually(lambda: positions(cluster) != position, "the position has gone on")
    assert len(positions(cluster)) == 1
