"""What is imported where: in the process that forks task processes, and nowhere else."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import airflow
import pytest

from airflow_jobs_provider.airflow_compat.forking_processes import (
    call_before_celery_forks,
    forks_parsing_processes,
    forks_task_processes,
)
from airflow_jobs_provider.airflow_compat.start_in_triggerer import renders_in_triggerer
from tests.fakes.fake_service import TOKEN, UNTIL_ENDED, FakeService

ROOT = Path(__file__).parents[1]

# The plugin, in the process that forks task processes.
PARENT = """
import sys
import airflow.models
from airflow_jobs_provider.plugin import DatabricksJobsPlugin

def loaded(before):
    ours = ("airflow_jobs_provider", "requests", "urllib3", "tenacity", "databricks")
    return sorted(n for n in set(sys.modules) - before if n.partition(".")[0] in ours)

before = set(sys.modules)
sys.argv = ["airflow", "api-server"]
DatabricksJobsPlugin.on_load()
assert loaded(before) == [], loaded(before)
sys.argv = ["airflow", "scheduler"]
DatabricksJobsPlugin.on_load()
parent = loaded(before)
assert "airflow_jobs_provider.operators.submit_run" in parent
# Sensors and tasks of a group defer with these.
assert {f"airflow_jobs_provider.triggers.{name}" for name in ("sensor", "workflow")} < set(parent)
assert "requests" in sys.modules  # Airflow 2 has imported it before.
assert not [n for n in parent if n.partition(".")[0] == "databricks"]
assert "aiohttp" not in sys.modules
before = set(sys.modules)
"""

# A task that defers.
FIRST = """
import sys
from datetime import datetime, timezone
from types import SimpleNamespace
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator

ti = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1, max_tries=0,
                     start_date=datetime.now(timezone.utc), xcom_push=lambda key, value: None)
context = {"ti": ti, "params": {}, "dag_run": None, "task": None}

def task():
    return DatabricksSubmitRunOperator(
        task_id="t", deferrable=True, existing_cluster_id="c",
        notebook_task={"notebook_path": "/etl"})

try:
    task().execute(context)
except TaskDeferred as error:
    deferred = error
"""

# The same task resumes, in the same process.
RESUMED = """
run = {"run_id": deferred.trigger.run_id, "job_id": 1,
       "state": {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}}
task().execute_complete(context, {"run": run}, **deferred.kwargs)
assert "airflow_jobs_provider.triggers.polling.poller" not in sys.modules
print("IMPORTED", loaded(before))
"""

# What a process that only launches a run and defers has of the package.
SMALL = """
own = {n: m for n, m in sys.modules.items() if n.startswith("airflow_jobs_provider.")}
print("IMPORTED", sorted(own))
print("DATACLASSES", sorted({
    value.__name__ for module in own.values() for value in vars(module).values()
    if isinstance(value, type) and value.__module__ in own
    and "__dataclass_fields__" in vars(value)}))
"""


def execute(script: str) -> tuple[str, FakeService]:
    """Execute a script beside a service; return what it has printed, and the service."""
    with FakeService(UNTIL_ENDED) as service:
        connection = {"conn_type": "databricks_jobs", "host": service.url, "password": TOKEN}
        result = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script],
            env={
                **os.environ,
                "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
                "AIRFLOW_CONN_DATABRICKS_DEFAULT": json.dumps(connection),
                "PYTHONPATH": str(ROOT),
            },
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout, service


@pytest.mark.slow
def test_a_forked_task_process_imports_nothing_of_the_package() -> None:
    """The scheduler has imported it all: from the DAG file's parse to the deferral, and after."""
    printed, service = execute(PARENT + FIRST + RESUMED)
    assert printed.splitlines()[-1] == "IMPORTED []"
    assert {seen.endpoint for seen in service.seen} == {
        "runs/submit",
        "runs/get",
        "runs/get-output",
    }


@pytest.mark.slow
def test_a_fresh_task_process_makes_only_what_a_launch_needs() -> None:
    """No other login method, no end of a run, no response type, and hardly any dataclass."""
    printed, _ = execute(FIRST + SMALL)
    imported, dataclasses = printed.splitlines()[-2:]
    for unneeded in (
        "api.auth.cached",
        "api.auth.sdk",
        "api.export_stream",
        "api.large_json",
        "api.schema.response_types",
        "api.workflows.find",
        "api.workflows.outputs",
        "hooks.official_methods",
        "operators.workflow",
        "run_result",
        "triggers.polling.poller",
    ):
        assert f"'airflow_jobs_provider.{unneeded}'" not in imported, unneeded
    assert "'airflow_jobs_provider.api.workflows.launch'" in imported
    # Each of them takes about a millisecond.
    assert dataclasses == "DATACLASSES ['RunTriggerArguments', 'TriggerArguments']"


# A DAG file is parsed and serialized in the process that has preloaded. Prints what it imports.
PARSE = """
import logging, sys
from airflow.dag_processing import manager, processor
from airflow_jobs_provider.plugin import DatabricksJobsPlugin

before = set(sys.modules)
sys.argv = ["airflow", "dag-processor"]
DatabricksJobsPlugin.on_load()
assert not {"aiohttp", "requests", "airflow_jobs_provider.hooks.jobs"} & (set(sys.modules) - before)
before = set(sys.modules)
result = processor._parse_file(
    processor.DagFileParseRequest(
        file=str(DAG_FILE), bundle_path=DAG_FILE.parent, bundle_name="dags", requests_fd=1
    ),
    logging.getLogger(),
)
assert not result.import_errors, result.import_errors
[dag] = result.serialized_dags
ours = ("airflow_jobs_provider", "airflow.providers", "requests", "pydantic", "jinja2")
print("IMPORTED", sorted(n for n in set(sys.modules) - before if n.startswith(ours)))
"""
DAG_FILE = """
from airflow.sdk import DAG
from airflow_jobs_provider.operators.jobs import DatabricksCreateJobsOperator
from airflow_jobs_provider.operators.jobs import DatabricksNotebookOperator
from airflow_jobs_provider.operators.jobs import DatabricksRunNowOperator
from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator
from airflow_jobs_provider.operators.jobs import DatabricksWorkflowTaskGroup
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor

def notebook(name):
    return DatabricksNotebookOperator(
        task_id=name, notebook_path="/etl", source="WORKSPACE", existing_cluster_id="c"
    )

with DAG("etl", schedule=None):
    submit = DatabricksSubmitRunOperator(
        task_id="submit", existing_cluster_id="c", start_from_trigger=START, end_from_trigger=True,
        notebook_task={"notebook_path": "/etl", "base_parameters": {"day": "{{ ds }}"}},
    )
    DatabricksJobRunSensor(task_id="wait", run_id=submit.output["run_id"])
    DatabricksRunNowOperator(task_id="now", job_id=1, deferrable=True)
    DatabricksCreateJobsOperator(task_id="create", json={"name": "etl"})
    notebook("alone")
    with DatabricksWorkflowTaskGroup(group_id="group"):
        notebook("first") >> notebook("second")
"""


@pytest.mark.slow
@pytest.mark.skipif(
    airflow.__version__.startswith("2."),
    reason="Airflow 2 parses with other functions",
)
def test_a_process_that_parses_a_dag_file_imports_nothing_of_the_package(tmp_path: Path) -> None:
    """The DAG processor has imported it all, and what Airflow imports to serialize a DAG."""
    file = tmp_path / "etl.py"
    file.write_text(DAG_FILE.replace("START", str(renders_in_triggerer())))
    result = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            f"from pathlib import Path\nDAG_FILE = Path({str(file)!r})\n{PARSE}",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines()[-1] == "IMPORTED []"


@pytest.mark.parametrize(
    ("arguments", "executor", "start_method", "forks"),
    [
        (["scheduler"], "LocalExecutor", "fork", True),
        (["scheduler", "--daemon"], "LocalExecutor,CeleryExecutor", None, True),
        (["scheduler"], "airflow.executors.local_executor.LocalExecutor", "fork", True),
        (["scheduler"], "CeleryExecutor,team1=LocalExecutor", "fork", True),
        (["scheduler"], "LocalKubernetesExecutor", "fork", True),
        (["scheduler"], "CeleryExecutor", "fork", False),
        (["scheduler"], "KubernetesExecutor", "fork", False),
        (["scheduler"], "LocalExecutor", "spawn", False),
        (["dag-processor"], "LocalExecutor", "fork", False),
        (["api-server"], "LocalExecutor", "fork", False),
        (["triggerer"], "LocalExecutor", "fork", False),
        (["dags", "list"], "LocalExecutor", "fork", False),
        ([], "LocalExecutor", "fork", False),
    ],
)
def test_which_process_forks_task_processes(
    arguments: list[str],
    executor: str,
    start_method: str | None,
    forks: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A scheduler with a LocalExecutor, where children are forked."""
    monkeypatch.setattr(sys, "argv", ["airflow", *arguments])
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)

    def chosen(*, allow_none: bool) -> str | None:
        assert allow_none, "it would be fixed"
        return start_method

    monkeypatch.setattr(multiprocessing, "get_start_method", chosen)
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["fork", "spawn"])
    assert forks_task_processes() is forks


@pytest.mark.parametrize(
    ("arguments", "forks"),
    [(["dag-processor"], True), (["scheduler"], False), (["dags", "reserialize"], False)],
)
def test_which_process_forks_those_that_parse(
    arguments: list[str], forks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The DAG processor."""
    monkeypatch.setattr(sys, "argv", ["airflow", *arguments])
    assert forks_parsing_processes() is forks


def test_a_child_of_the_scheduler_does_not_preload(monkeypatch: pytest.MonkeyPatch) -> None:
    """With spawn it has the scheduler's command line, but nothing of what that has imported."""
    monkeypatch.setattr(sys, "argv", ["airflow", "scheduler"])
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
    monkeypatch.setattr(multiprocessing, "parent_process", object)
    assert not forks_task_processes()


class Signal:
    """A signal as Celery's."""

    def __init__(self) -> None:
        self.receivers: dict[str, Any] = {}

    def connect(self, receiver: Any, *, weak: bool, dispatch_uid: str) -> None:
        """Remember the receiver, once for each id."""
        assert not weak, "nothing else holds it"
        self.receivers[dispatch_uid] = receiver


@pytest.mark.parametrize(
    ("arguments", "calls"),
    [
        (["celery", "worker"], 1),
        (["celery", "worker", "--concurrency", "4"], 1),
        (["celery", "flower"], 0),
        (["scheduler"], 0),
    ],
)
def test_a_celery_worker_preloads_before_it_forks(
    arguments: list[str], calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through Celery's signal import_modules, and once, however often Airflow asks."""
    called: list[int] = []
    signal = Signal()
    monkeypatch.setitem(sys.modules, "celery", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "celery.signals", SimpleNamespace(import_modules=signal))
    monkeypatch.setattr(sys, "argv", ["airflow", *arguments])

    def preload() -> None:
        called.append(1)

    for _ in range(2):
        call_before_celery_forks(preload)
    for receiver in signal.receivers.values():
        receiver(sender=None, signal=signal)
    assert len(called) == calls
