from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_jobs_provider.local.workspace import LocalWorkspace
from scripts.airflow_env import connection_to
from tests.end_to_end.dag_run import DagRun, RunDag
from tests.end_to_end.statsd_server import StatsDServer

HERE = Path(__file__).parent
TOKEN = "the-token-of-the-workspace-4711"
WRONG_TOKEN = "a-token-that-nobody-knows-0815"

# The last exception of a traceback, with the lines that belong to it.
RAISED = re.compile(r"^(?:airflow[\w.]*\.)?[A-Z]\w+: .*(?:\n(?![\[\d ]).+)*", re.MULTILINE)
# What it says: enough to know what to do.
MESSAGES = {
    "raising_notebook": "ValueError: only 3 apples are left, 5 are needed",
    "raising_notebook_blocking": "ValueError: only 3 apples are left, 5 are needed",
    "missing_notebook": 'Unable to access the notebook "/not/there"',
    "wrong_token": "403",
    "wrong_host": "no-such-workspace.invalid",
    "missing_job": "Job 987654321 does not exist.",
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalWorkspace]:
    """A workspace of notebooks that do not end well."""
    with LocalWorkspace(
        HERE / "notebooks", token=TOKEN, state_dir=tmp_path_factory.mktemp("state")
    ) as running:
        yield running


@pytest.fixture(scope="module")
def statsd() -> Iterator[StatsDServer]:
    """What gets Airflow's metrics."""
    with StatsDServer() as server:
        yield server


@pytest.fixture(scope="module")
def failing(workspace: LocalWorkspace, run_dag: RunDag, statsd: StatsDServer) -> DagRun:
    """All the failing tasks, run once at level DEBUG."""
    unknown = {"conn_type": "databricks_jobs", "host": workspace.url, "password": WRONG_TOKEN}
    nowhere = {"conn_type": "databricks", "host": "no-such-workspace.invalid", "password": TOKEN}
    return run_dag(
        HERE / "dags" / "failing.py",
        connection=connection_to(workspace),
        env={
            **statsd.settings,
            "AIRFLOW_CONN_WRONG_TOKEN": json.dumps(unknown),
            "AIRFLOW_CONN_WRONG_HOST": json.dumps(nowhere),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
            # Airflow 3.0 draws its tracebacks in boxes, local variables included.
            "COLUMNS": "1000",
        },
    )


@pytest.mark.parametrize("task_id", MESSAGES)
def test_failure_says_why(failing: DagRun, task_id: str) -> None:
    """The task fails, and its exception says what went wrong."""
    assert failing.tasks[task_id]["state"] == "failed", failing.log
    raised = RAISED.findall(failing.log_of(task_id))
    assert raised, failing.log_of(task_id)
    assert MESSAGES[task_id] in raised[-1]


def test_failure_of_a_notebook_names_its_page(failing: DagRun, workspace: LocalWorkspace) -> None:
    """The failure of a run leads to its page, where the whole trace stands."""
    page = failing.tasks["raising_notebook"]["xcoms"]["run_page_url"]
    assert page.startswith(workspace.url)
    assert page in failing.log_of("raising_notebook").partition("running trigger in line")[2]


@pytest.mark.usefixtures("failing")
def test_failures_are_counted_in_airflows_metrics(statsd: StatsDServer) -> None:
    """By connection, endpoint and status, on every line of Airflow."""
    pytest.importorskip("statsd", reason="Airflow's extra statsd is not installed")
    conn = {"conn_id": "databricks_default"}
    # The notebook that is missing is a run that fails.
    assert statsd.values("launches", **conn) == [1, 1, 1]
    assert statsd.values("requests", endpoint="run-now", status="400", **conn) == [1]
    assert set(statsd.values("requests", endpoint="runs_get", status="200", **conn)) == {1}
    assert statsd.values("requests", endpoint="runs_submit", conn_id="wrong_token") == [1]
    assert statsd.values("requests", status="403", conn_id="wrong_token") == [1]
    assert statsd.values("requests", status="HostNotFoundError", conn_id="wrong_host") == [1, 1]
    assert statsd.values("retries", conn_id="wrong_host") == [1]
    # Of those that wait in the triggerer. A run may end before its task defers.
    assert statsd.values("event_delay", **conn)
    assert max(statsd.values("poller_waits", **conn)) >= 1
    assert min(statsd.values("poll_duration", **conn)) > 0


@pytest.mark.parametrize("token", [TOKEN, WRONG_TOKEN])
def test_no_token_anywhere(failing: DagRun, token: str) -> None:
    """No token in the log at DEBUG, nor in any file that Airflow wrote, the database included."""
    assert "DEBUG" in failing.log.upper()
    # The one place where dag.test() itself writes it: Airflow tells its masker what to mask.
    told_by_airflow = re.compile(r".*msg=MaskSecret\(.*")
    assert token not in told_by_airflow.sub("", failing.log)
    holders = [
        path
        for path in failing.home.rglob("*")
        if path.is_file() and token.encode() in path.read_bytes()
    ]
    assert holders == []
