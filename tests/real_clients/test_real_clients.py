"""databricks-sdk and the old databricks-cli work on the local workspace as on Databricks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.real_clients.client import Client

pytestmark = pytest.mark.real_clients
ClientOf = Callable[..., Client]


def test_databricks_sdk(client_of: ClientOf) -> None:
    """databricks-sdk submits, waits, lists, reads output, cancels and keeps jobs over 2.2."""
    client = client_of("databricks-sdk", "databricks-sdk")
    seen = client.json("python", str(Path(__file__).with_name("drive_sdk.py")))
    assert seen["state"] == "SUCCESS"
    assert seen["output"] == "hello SDK"
    assert "multiple tasks is not supported" in seen["output_of_parent"]
    assert seen["export"] == "NOTEBOOK"
    assert seen["listed"] is True
    assert "failed" in seen["failure"].lower()
    assert seen["error"] == "ValueError: the text"
    assert seen["canceled"] == "CANCELED"
    assert seen["job"] == "python"
    assert seen["found"] is True
    assert seen["logs"] == "['a']\n"
    assert seen["attempts"] == [0, 1]
    assert seen["repaired_logs"] == "['b']\n"
    assert seen["history"] == ["ORIGINAL", "REPAIR"]
    assert seen["repair_is_known"] is True
    assert "latest repair ID needs to be provided" in seen["second_repair"]
    assert seen["renamed"] == "renamed"
    assert f"Job {seen['job_id']} does not exist." in seen["gone"]
    assert seen["all_pages"] >= 27


def test_databricks_cli(client_of: ClientOf, port_finder: str) -> None:
    """databricks-cli 0.18 does the same over 2.0, and shows the service's errors."""
    # It takes no more than scheme and host name from the URL that it is given.
    installed = client_of("databricks-cli", "databricks-cli==0.18.0")
    client = replace(installed, proxy_url=port_finder)
    assert client.run("databricks", "jobs", "configure", "--version=2.0").returncode == 0

    def runs(*arguments: str) -> Any:
        return client.json("databricks", "runs", *arguments)

    def wait(run_id: int, *states: str) -> dict[str, Any]:
        deadline = time.monotonic() + 30
        while True:
            run: dict[str, Any] = runs("get", "--run-id", str(run_id))
            if run["state"]["life_cycle_state"] in states:
                return run
            assert time.monotonic() < deadline, run["state"]

    def submit(path: str, **parameters: str) -> int:
        task = {"notebook_path": path, "base_parameters": parameters}
        settings = {"run_name": path, "existing_cluster_id": "c", "notebook_task": task}
        run_id: int = runs("submit", "--json", json.dumps(settings))["run_id"]
        return run_id

    run_id = submit("/greet", name="CLI")
    assert wait(run_id, "TERMINATED")["state"]["result_state"] == "SUCCESS"
    output = runs("get-output", "--run-id", str(run_id))
    assert output["notebook_output"]["result"] == "hello CLI"
    listed = runs("list", "--output", "JSON")["runs"]
    assert run_id in [run["run_id"] for run in listed]
    assert "/greet" in client.run("databricks", "runs", "list").stdout

    failed = submit("/fail")
    wait(failed, "INTERNAL_ERROR")
    assert runs("get-output", "--run-id", str(failed))["error"] == "ValueError: the text"

    long = submit("/sleep")
    wait(long, "RUNNING")
    assert runs("cancel", "--run-id", str(long)) == {}
    assert wait(long, "TERMINATED")["state"]["result_state"] == "CANCELED"

    settings = {
        "name": "CLI job",
        "existing_cluster_id": "c",
        "spark_python_task": {"python_file": "dbfs:/job.py"},
    }
    created = client.json("databricks", "jobs", "create", "--json", json.dumps(settings))
    job_id = str(created["job_id"])
    started = client.json("databricks", "jobs", "run-now", "--job-id", job_id)
    wait(started["run_id"], "TERMINATED")
    jobs = client.json("databricks", "jobs", "list", "--output", "JSON")["jobs"]
    assert "CLI job" in [job["settings"]["name"] for job in jobs]
    assert client.run("databricks", "jobs", "delete", "--job-id", job_id).returncode == 0
    gone = client.run("databricks", "jobs", "get", "--job-id", job_id)
    assert gone.returncode != 0
    assert f"Job {job_id} does not exist." in gone.stdout + gone.stderr
