"""A DAG run with Airflow's OpenLineage provider: its events, and what is sent to Databricks.

The provider has two transports: a file, and HTTP with an API key, which is a secret.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from scripts import official
from scripts.airflow_env import ROOT, airflow_environment
from tests.fakes.fake_service import FakeService, JobRun, Plan, Run, Seen

pytestmark = pytest.mark.real_clients
DAGS = Path(__file__).with_name("lineage_dags")
API_KEY = "the-key-of-the-lineage-receiver"
HEADER = "the-header-of-the-lineage-receiver"
JOB_ID = 77


@dataclass
class Outcome:
    """What is left of the DAG run.

    :ivar events: OpenLineage's events of tasks, by task and type.
    :ivar received: how many events came by HTTP, each with the API key.
    :ivar runs: the runs on the service by task.
    :ivar log: what the process printed.
    :ivar home: its AIRFLOW_HOME, with the database.
    :ivar result: states and XComs.
    """

    events: dict[tuple[str, str], dict[str, Any]]
    received: int
    runs: dict[str, Run]
    workspace: str
    log: str
    home: Path
    result: dict[str, Any]


class Receiver(BaseHTTPRequestHandler):
    """Receives OpenLineage's events."""

    received = 0

    def do_POST(self) -> None:
        """Count an event."""
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] == f"Bearer {API_KEY}":
            type(self).received += 1
        self.send_response(201)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet."""


def ends_groups(service: FakeService) -> None:
    """Let the tasks of a group's run end half a second after its start."""

    def hook(_seen: Seen, _moment: str) -> bool:
        for run in service.live:
            if isinstance(run, JobRun) and time.time() > run.started + 0.5:
                service.end_task(run, "member")
        return False

    service.hooks.append(hook)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """Run the DAG to its end, with ``dag.test()``."""
    python = official.with_openlineage()
    home = tmp_path_factory.mktemp("lineage")
    events, result = home / "events.jsonl", home / "result.json"
    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    http = {
        "type": "http",
        "url": f"http://127.0.0.1:{receiver.server_port}",
        "auth": {"type": "api_key", "apiKey": API_KEY},
        "custom_headers": {"X-Receiver": HEADER},
    }
    file = {"type": "file", "log_file_path": str(events), "append": True}
    transport = {"type": "composite", "transports": {"http": http, "file": file}}
    with FakeService(Plan(seconds=0.5)) as service:
        service.jobs[JOB_ID] = {"name": "nightly"}
        service.plans_of_jobs[JOB_ID] = Plan("FAILED", seconds=0.5)
        ends_groups(service)
        environment = airflow_environment(home, DAGS, connection=service.connection) | {
            "PYTHONPATH": str(ROOT),
            "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
            "AIRFLOW__OPENLINEAGE__NAMESPACE": "here",
        }

        def run(*command: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [python, "-W", "ignore", *command],
                env=environment,
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=300,
            )

        migrated = run("-m", "airflow", "db", "migrate")
        assert migrated.returncode == 0, migrated.stdout
        script = str(ROOT / "scripts" / "run_dag.py")
        done = run(script, str(DAGS / "lineage.py"), "lineage", str(result))
        assert result.exists(), done.stdout
        lines = [json.loads(line) for line in events.read_text().splitlines()]
        yield Outcome(
            events={
                (event["job"]["name"].removeprefix("lineage."), event["eventType"]): event
                for event in lines
                if event["job"]["name"] != "lineage"
            },
            received=Receiver.received,
            runs={task_of(one): one for one in service.runs.values()},
            workspace=service.url,
            log=done.stdout,
            home=home,
            result=json.loads(result.read_text()),
        )
    receiver.shutdown()
    receiver.server_close()


def task_of(run: Run) -> str:
    """Return the task that has launched a run."""
    if isinstance(run, JobRun):
        return "group.launch"
    return run.task.partition(" ")[0].removeprefix("lineage.") or "failing"


def test_the_dag_run(outcome: Outcome) -> None:
    """All tasks succeed but the one whose run fails."""
    states = {task: one["state"] for task, one in outcome.result["tasks"].items()}
    assert states == {
        "alone": "success",
        "blocking": "success",
        "deferrable": "success",
        "failing": "failed",
        "group.launch": "success",
        "group.member": "success",
        "sensor": "success",
    }, outcome.log


@pytest.mark.parametrize(
    ("task", "event_type", "launched_by"),
    [
        ("blocking", "COMPLETE", "blocking"),
        ("deferrable", "COMPLETE", "deferrable"),
        ("alone", "COMPLETE", "alone"),
        ("sensor", "COMPLETE", "blocking"),
        ("group.launch", "COMPLETE", "group.launch"),
        ("failing", "FAIL", "failing"),
    ],
)
def test_an_event_names_the_run(
    outcome: Outcome, task: str, event_type: str, launched_by: str
) -> None:
    """Its ids, its page, its workspace; also from the process that resumes a deferred task."""
    run = outcome.runs[launched_by]
    facets = outcome.events[task, event_type]["run"]["facets"]
    found = facets["databricks_jobRun"]
    assert found["runId"] == run.run_id
    assert found["workspaceUrl"] == outcome.workspace
    assert found["runPageUrl"] == run.as_answer()["run_page_url"]
    if task != "sensor":
        assert found["jobId"] == run.job_id
    host = outcome.workspace.removeprefix("http://")
    assert facets["externalQuery"]["externalQueryId"] == str(run.run_id)
    assert facets["externalQuery"]["source"] == f"databricks://{host}"


def test_the_tasks_of_a_run(outcome: Outcome) -> None:
    """Each has a run of its own."""
    found = outcome.events["deferrable", "COMPLETE"]["run"]["facets"]["databricks_jobRun"]
    assert (found["lifeCycleState"], found["resultState"]) == ("TERMINATED", "SUCCESS")
    tasks = outcome.runs["deferrable"].tasks()
    assert [(one["taskKey"], one["runId"], one["resultState"]) for one in found["tasks"]] == [
        (one["task_key"], one["run_id"], "SUCCESS") for one in tasks
    ]


def test_a_task_of_a_group(outcome: Outcome) -> None:
    """Its own task run, and the run of the group."""
    event = outcome.events["group.member", "COMPLETE"]
    found = event["run"]["facets"]["databricks_jobRun"]
    run = outcome.runs["group.launch"]
    assert isinstance(run, JobRun)
    assert found["runId"] == run.latest["member"].run_id
    assert (found["jobRunId"], found["jobId"]) == (run.run_id, run.job_id)
    assert event["job"]["facets"]["databricks_job"]["jobId"] == run.job_id


def test_a_job_is_a_facet_of_the_task(outcome: Outcome) -> None:
    """A one-time run has a job that nobody runs again."""
    facet = outcome.events["failing", "FAIL"]["job"]["facets"]["databricks_job"]
    assert (facet["jobId"], facet["workspaceUrl"]) == (JOB_ID, outcome.workspace)
    assert "databricks_job" not in outcome.events["blocking", "COMPLETE"]["job"]["facets"]


def test_the_run_names_the_task_as_its_parent(outcome: Outcome) -> None:
    """By the id of the task's run in its events, in parameters and Spark properties."""
    for task in ("blocking", "alone"):
        request = outcome.runs[task].request
        parent_id = outcome.events[task, "COMPLETE"]["run"]["runId"]
        conf = request["new_cluster"]["spark_conf"]
        assert conf["spark.openlineage.parentRunId"] == parent_id
        assert conf["spark.openlineage.parentJobName"] == f"lineage.{task}"
        context = json.loads(request["notebook_task"]["base_parameters"]["OPENLINEAGE_CONTEXT"])
        assert context["parent"]["run"]["runId"] == parent_id
    given = outcome.runs["failing"].request["job_parameters"]["OPENLINEAGE_CONTEXT"]
    failed_id = outcome.events["failing", "FAIL"]["run"]["runId"]
    assert json.loads(given)["parent"]["run"]["runId"] == failed_id
    given = outcome.runs["group.launch"].request["notebook_params"]["OPENLINEAGE_CONTEXT"]
    launch_id = outcome.events["group.launch", "COMPLETE"]["run"]["runId"]
    assert json.loads(given)["parent"]["run"]["runId"] == launch_id


def test_the_transports_secrets_reach_the_cluster_only(outcome: Outcome) -> None:
    """Not the log, the database (XComs, rendered templates, triggers), or an event."""
    conf = outcome.runs["blocking"].request["new_cluster"]["spark_conf"]
    assert conf["spark.openlineage.transport.transports.http.auth.apiKey"].endswith(API_KEY)
    assert conf["spark.openlineage.transport.transports.http.headers.X-Receiver"] == HEADER
    assert outcome.received > 0
    for secret in (API_KEY, HEADER):
        assert secret not in outcome.log
        for file in outcome.home.rglob("*"):
            if file.is_file():
                assert secret.encode() not in file.read_bytes(), file
