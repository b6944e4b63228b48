"""What the official provider offers, and what its operators send, beside this package."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scripts import official

pytestmark = pytest.mark.real_clients
ROOT = Path(__file__).parents[2]
RECORD = ROOT / "tests" / "data" / "official_provider.json"
SURFACE = ROOT / "tests" / "helpers" / "surface.py"
SUBMIT, RUN_NOW, CREATE = (
    "DatabricksSubmitRunOperator",
    "DatabricksRunNowOperator",
    "DatabricksCreateJobsOperator",
)
CLUSTER = {"spark_version": "15.4.x-scala2.12", "node_type_id": "i3.xlarge", "num_workers": 2}
NOTEBOOK = {"notebook_task": {"notebook_path": "/n"}}
ON_CLUSTER = {"existing_cluster_id": "c", **NOTEBOOK}
SERVERLESS = {"task_key": "t", "environment_key": "e", "python_wheel_task": {"package_name": "p"}}
SERVERLESS["python_wheel_task"]["entry_point"] = "main"  # type: ignore[index]
ENVIRONMENTS = [{"environment_key": "e", "spec": {"client": "1", "dependencies": ["p"]}}]
LOOP = {
    "task_key": "loop",
    "for_each_task": {
        "inputs": "[1, 2]",
        "task": {"task_key": "each", "new_cluster": CLUSTER, **NOTEBOOK},
    },
}
PARAMS = {"day": "2026-01-01", "nothing": None}
PARENT = {"openlineage_inject_parent_job_info": True}
BOTH = {**PARENT, "openlineage_inject_transport_info": True}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "notebook": (SUBMIT, ON_CLUSTER),
    "new cluster": (
        SUBMIT,
        {"new_cluster": {**CLUSTER, "spark_conf": {"a": 1, "b": True}}, **NOTEBOOK},
    ),
    "jar": (
        SUBMIT,
        {
            "new_cluster": CLUSTER,
            "spark_jar_task": {"main_class_name": "Main", "parameters": ["a", "1"]},
            "libraries": [{"jar": "dbfs:/etl.jar"}],
            "timeout_seconds": 60,
        },
    ),
    "python file": (
        SUBMIT,
        {"existing_cluster_id": "c", "spark_python_task": {"python_file": "dbfs:/a.py"}},
    ),
    "spark-submit": (
        SUBMIT,
        {"new_cluster": CLUSTER, "spark_submit_task": {"parameters": ["--class", "Main"]}},
    ),
    "pipeline by name": (SUBMIT, {"pipeline_task": {"pipeline_name": "sales"}}),
    "dbt": (
        SUBMIT,
        {
            "dbt_task": {"commands": ["dbt run"], "warehouse_id": "w"},
            "git_source": {"git_url": "https://example.com/r", "git_provider": "gitHub"},
            "existing_cluster_id": "c",
        },
    ),
    "serverless": (
        SUBMIT,
        {"tasks": [SERVERLESS], "environments": ENVIRONMENTS, "performance_target": "STANDARD"},
    ),
    "json and fields": (
        SUBMIT,
        {"json": {**ON_CLUSTER, "run_name": "a", "timeout_seconds": 5}, "run_name": "b"},
    ),
    "json as text": (SUBMIT, {"json": json.dumps(ON_CLUSTER)}),
    "permissions": (
        SUBMIT,
        {
            **ON_CLUSTER,
            "access_control_list": [{"user_name": "u", "permission_level": "CAN_VIEW"}],
            "idempotency_token": "token",
        },
    ),
    "run-now": (RUN_NOW, {"job_id": 3}),
    "run-now by name": (RUN_NOW, {"job_name": "nightly", "notebook_params": {"day": "1"}}),
    "run-now of Python": (RUN_NOW, {"job_id": 3, "python_params": ["a", "1"]}),
    "run-now of a JAR": (RUN_NOW, {"job_id": 3, "jar_params": ["a"]}),
    "run-now of spark-submit": (RUN_NOW, {"job_id": 3, "spark_submit_params": ["--class", "M"]}),
    "run-now of a wheel": (RUN_NOW, {"job_id": 3, "python_named_params": {"a": "1"}}),
    "run-now of dbt": (
        RUN_NOW,
        {"job_id": 3, "dbt_commands": ["dbt run"], "performance_target": "STANDARD"},
    ),
    "run-now with job parameters": (
        RUN_NOW,
        {"json": {"job_id": 3}, "job_parameters": {"a": "1"}, "idempotency_token": "token"},
    ),
    "create": (
        CREATE,
        {
            "name": "new",
            "description": "d",
            "tags": {"team": "sales"},
            "tasks": [{"task_key": "t", "job_cluster_key": "k", **NOTEBOOK}, SERVERLESS],
            "job_clusters": [{"job_cluster_key": "k", "new_cluster": CLUSTER}],
            "environments": ENVIRONMENTS,
            "email_notifications": {"on_failure": ["a@example.com"]},
            "timeout_seconds": 60,
            "trigger": {"periodic": {"interval": 1, "unit": "DAYS"}},
            "max_concurrent_runs": 2,
            "performance_target": "STANDARD",
            "access_control_list": [{"user_name": "u", "permission_level": "CAN_VIEW"}],
        },
    ),
    "reset": (
        CREATE,
        {
            "json": {"name": "nightly"},
            "tasks": [{"task_key": "t", **ON_CLUSTER}],
            "schedule": {"quartz_cron_expression": "0 0 0 * * ?", "timezone_id": "UTC"},
        },
    ),
    "params of a notebook": (SUBMIT, ON_CLUSTER),
    "params of tasks": (
        SUBMIT,
        {
            "tasks": [
                {**SERVERLESS, "task_key": "wheel"},
                {"task_key": "sql", "sql_task": {"warehouse_id": "w", "query": {"query_id": "q"}}},
                {"task_key": "job", "run_job_task": {"job_id": 5}},
                {
                    "task_key": "file",
                    "environment_key": "e",
                    "spark_python_task": {"python_file": "dbfs:/a.py"},
                },
            ],
            "environments": ENVIRONMENTS,
        },
    ),
    "params of a job": (RUN_NOW, {"job_id": 3}),
    "params of a job with others": (RUN_NOW, {"job_id": 3, "notebook_params": {"day": "1"}}),
    "params left out": (RUN_NOW, {"job_id": 3, "forward_dag_params": False}),
    "params of a new job": (CREATE, {"name": "new", "tasks": [{"task_key": "t", **ON_CLUSTER}]}),
    "OpenLineage, notebook": (SUBMIT, {**ON_CLUSTER, **BOTH}),
    "OpenLineage, new cluster": (SUBMIT, {"new_cluster": CLUSTER, **NOTEBOOK, **BOTH}),
    "OpenLineage, transport": (
        SUBMIT,
        {"new_cluster": CLUSTER, **NOTEBOOK, "openlineage_inject_transport_info": True},
    ),
    "OpenLineage, given": (
        SUBMIT,
        {
            "new_cluster": {**CLUSTER, "spark_conf": {"spark.openlineage.parentJobName": "x"}},
            "notebook_task": {
                "notebook_path": "/n",
                "base_parameters": {"OPENLINEAGE_CONTEXT": "{}"},
            },
            **BOTH,
        },
    ),
    "OpenLineage, tasks": (
        SUBMIT,
        {
            "json": {"job_clusters": [{"job_cluster_key": "k", "new_cluster": CLUSTER}]},
            "tasks": [{"task_key": "t", "new_cluster": CLUSTER, **NOTEBOOK}, LOOP],
            **BOTH,
        },
    ),
    "OpenLineage, run-now": (RUN_NOW, {"job_id": 3, "job_parameters": {"a": "1"}, **PARENT}),
    "OpenLineage, run-now of Python": (RUN_NOW, {"job_id": 3, "python_params": ["a"], **PARENT}),
}


def run(python: str, *command: str, home: Path) -> str:
    """Run a Python program in an environment; return what it printed."""
    done = subprocess.run(
        [python, "-W", "ignore", *command],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "AIRFLOW_HOME": str(home),
            # Nothing is sent there: no task runs, and so no event arises.
            "OPENLINEAGE_URL": "http://127.0.0.1:9",
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_record_is_what_the_official_provider_offers(tmp_path: Path) -> None:
    """tests/data/official_provider.json is the surface of the pinned version."""
    found = run(
        official.python(), "-P", str(SURFACE), "airflow.providers.databricks", home=tmp_path
    )
    assert json.loads(found) == json.loads(RECORD.read_text())


@pytest.fixture(scope="module")
def launches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What both providers send for each case, in one environment with OpenLineage."""
    python = official.with_openlineage()
    cases = [
        {
            "class": kind,
            "arguments": arguments,
            "params": PARAMS if name.startswith("params") else None,
        }
        for name, (kind, arguments) in CASES.items()
    ]
    script = str(Path(__file__).with_name("launch_with_both.py"))
    printed = run(python, script, json.dumps(cases), home=tmp_path_factory.mktemp("airflow"))
    return dict(zip(CASES, json.loads(printed.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_both_providers_send_the_same(launches: dict[str, Any], case: str) -> None:
    """Except what docs/migrating.md lists: the run's name, the token, and numbers as text."""
    arguments = str(CASES[case][1])
    ((path, theirs),), ((our_path, ours),) = launches[case]["official"], launches[case]["ours"]
    assert our_path == path
    for name in ("run_name", "idempotency_token"):
        if name not in arguments:
            theirs.pop(name, None)
            ours.pop(name, None)
    assert numbers_as_text(ours) == numbers_as_text(theirs)
    assert ("OPENLINEAGE_CONTEXT" in str(ours) or "spark.openlineage" in str(ours)) is (
        case.startswith("OpenLineage") and "Python" not in case
    )


def numbers_as_text(value: Any) -> Any:
    """Return a request as the official provider sends it."""
    if isinstance(value, dict):
        return {name: numbers_as_text(item) for name, item in value.items()}
    if isinstance(value, list):
        return [numbers_as_text(item) for item in value]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return str(value) if is_number else value
