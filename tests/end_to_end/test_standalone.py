"""The whole of Airflow at work: scheduler, triggerer, DAG processor and API server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import airflow
import psutil
import pytest
import requests

from scripts.airflow_env import ROOT

pytestmark = [
    pytest.mark.standalone,
    pytest.mark.skipif(
        airflow.__version__ < "3.3", reason="make airflow is for the newest Airflow"
    ),
]

START_SECONDS = 180
RUN_SECONDS = 180


@dataclass
class Standalone:
    """A running ``make airflow``."""

    process: subprocess.Popen[str]
    home: Path
    url: str
    workspace_url: str
    session: requests.Session

    def get(self, path: str) -> dict[str, Any]:
        """Ask Airflow's REST API."""
        answer = self.session.get(f"{self.url}/api/v2/{path}", timeout=30)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def run(self, dag_id: str) -> str:
        """Trigger a DAG and wait for the end of its run; return the path of the run."""
        made = self.session.post(
            f"{self.url}/api/v2/dags/{dag_id}/dagRuns", json={"logical_date": None}, timeout=30
        )
        made.raise_for_status()
        path = f"dags/{dag_id}/dagRuns/{made.json()['dag_run_id']}"
        self.until_success(path)
        return path

    def clear(self, path: str, task_id: str) -> None:
        """Clear a task of a DAG run, and wait for the end of the DAG run."""
        _, dag_id, _, run_id = path.split("/")
        body = {"dry_run": False, "dag_run_id": run_id, "task_ids": [task_id], "only_failed": False}
        url = f"{self.url}/api/v2/dags/{dag_id}/clearTaskInstances"
        self.session.post(url, json=body, timeout=30).raise_for_status()
        self.until_success(path)

    def until_success(self, path: str) -> None:
        """Wait until a DAG run has succeeded."""
        deadline = time.monotonic() + RUN_SECONDS
        while (state := self.get(path)["state"]) in ("queued", "running"):
            assert time.monotonic() < deadline, f"{path} is still {state}"
            time.sleep(0.5)
        assert state == "success", self.task_log(path)

    def xcoms(self, path: str, task_id: str, *keys: str) -> list[Any]:
        """Return XComs of a task."""
        entries = f"{path}/taskInstances/{task_id}/xcomEntries"
        return [self.get(f"{entries}/{key}")["value"] for key in keys]

    def task_log(self, path: str) -> str:
        """Return the logs of all tasks of a DAG run."""
        tasks = self.get(f"{path}/taskInstances")["task_instances"]
        return "\n".join(
            f"{task['task_id']}: {line.get('event')}"
            for task in tasks
            for line in self.get(f"{path}/taskInstances/{task['task_id']}/logs/1")["content"]
        )


@pytest.fixture(scope="module")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """``make airflow`` on free ports; interrupted in the end."""
    home = tmp_path_factory.mktemp("standalone")
    arguments = {
        "--home": home / "airflow",
        "--port": 0,
        "--workspace-port": 0,
        "--workspace-state": home / "workspace",
    }
    command = [sys.executable, "-m", "scripts.standalone"]
    for name, value in arguments.items():
        command += [name, str(value)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield _when_ready(process, home / "airflow")
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait(60)


def _when_ready(process: subprocess.Popen[str], home: Path) -> Standalone:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "Ctrl-C" in line:
            break
    else:
        pytest.fail(said)
    found = re.search(
        r"Airflow: +(?P<url>\S+) +\(user (?P<username>\S+), password (?P<password>\S+)\)\s+"
        r"Local workspace: +(?P<workspace>\S+)",
        said,
    )
    assert found, said
    session = requests.Session()
    session.trust_env = False
    login = {"username": found["username"], "password": found["password"]}
    answer = session.post(f"{found['url']}/auth/token", json=login, timeout=30)
    answer.raise_for_status()
    session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    return Standalone(process, home, found["url"], found["workspace"], session)


def test_demo_in_a_whole_airflow(standalone: Standalone) -> None:
    """The demo DAG, triggered over REST: the triggerer resumes it, XCom and link are there."""
    start_page = (standalone.home / "index.html").read_text()
    assert f'"{standalone.url}"' in start_page
    assert f'"{standalone.workspace_url}/#key=' in start_page
    run = standalone.run("databricks_demo")
    task = f"{run}/taskInstances/weigh_penguins"
    exit_value = standalone.get(f"{task}/xcomEntries/return_value")["value"]
    assert json.loads(exit_value)["mean_grams"] == {"Adelie": 3710, "Gentoo": 5076}
    page = standalone.get(f"{task}/links")["extra_links"]["See Databricks Job Run"]
    assert page == standalone.get(f"{task}/xcomEntries/run_page_url")["value"]
    assert page.startswith(standalone.workspace_url)
    assert "Biscoe" in requests.get(page, timeout=30).text
    log = standalone.task_log(run)
    assert "weigh_penguins: Pausing task as DEFERRED." in log
    assert re.search(r"weigh_penguins: trigger \S+/weigh_penguins/\S+ \(ID \d+\) starting", log)
    assert f"print_weights: The notebook's exit value: {exit_value}" in log


def test_run_now_in_a_whole_airflow(standalone: Standalone) -> None:
    """The run-now DAG: the job is made, run with parameters, and waited for by the sensor.

    The UI has a link to the job, and the page of runs lists the run for a user of Airflow.
    """
    run = standalone.run("databricks_run_now")
    waited = standalone.get(f"{run}/taskInstances/wait/xcomEntries/return_value")["value"]
    assert json.loads(waited)["measure"] == "bill_length_mm"
    # The plugin's links and page.
    links = standalone.get(f"{run}/taskInstances/launch/links")["extra_links"]
    assert re.fullmatch(rf"{standalone.workspace_url}/jobs/\d+", links["See Databricks Job"])
    address = f"{standalone.url}/databricks-jobs/"
    assert requests.get(address, timeout=30).status_code == 401
    page = standalone.session.get(address, timeout=30)
    assert page.status_code == 200
    assert f'href="{links["See Databricks Job Run"]}"' in page.text
    plugins = standalone.get("plugins")["plugins"]
    assert "databricks-jobs/" in {view["href"] for one in plugins for view in one["external_views"]}


def test_taskflow_in_a_whole_airflow(standalone: Standalone) -> None:
    """The TaskFlow DAG: a mapped notebook is deferred, and a function runs on the workspace."""
    run = standalone.run("databricks_taskflow")
    ranked = standalone.get(f"{run}/taskInstances/rank/xcomEntries/return_value")["value"]
    ranked = json.loads(ranked) if isinstance(ranked, str) else ranked
    assert ranked == {"Biscoe": 5076, "Dream": 3733, "Torgersen": 3706}
    page = standalone.get(f"{run}/taskInstances/rank/links")["extra_links"]
    assert page["See Databricks Job Run"].startswith(standalone.workspace_url)


def test_a_clear_repairs_in_a_whole_airflow(standalone: Standalone) -> None:
    """A cleared notebook of a group runs again in the same run; the others do not."""
    group = "penguins"
    run = standalone.run("databricks_workflow_group")
    tasks = {task["task_id"] for task in standalone.get(f"{run}/taskInstances")["task_instances"]}
    others = sorted(tasks - {f"{group}.compare"})
    before = {task_id: standalone.xcoms(run, task_id, "run_id") for task_id in tasks}
    found = standalone.xcoms(run, f"{group}.compare", "return_value", "job_id")
    assert len(tasks) == 4
    standalone.clear(run, f"{group}.compare")
    after = {task_id: standalone.xcoms(run, task_id, "run_id") for task_id in tasks}
    assert [after[task_id] for task_id in others] == [before[task_id] for task_id in others]
    assert after[f"{group}.compare"] != before[f"{group}.compare"]
    assert standalone.xcoms(run, f"{group}.compare", "return_value", "job_id") == found
    tries = standalone.get(f"{run}/taskInstances")["task_instances"]
    assert {task["task_id"] for task in tries if task["try_number"] > 1} == {f"{group}.compare"}
    path = f"{run}/taskInstances/{group}.compare/logs/2"
    log = "\n".join(str(line.get("event")) for line in standalone.get(path)["content"])
    (launched,) = before[f"{group}.launch"]
    assert f"Run {launched} is to be repaired. These tasks run again: {group}.compare" in log


def test_everything_is_on_loopback(standalone: Standalone) -> None:
    """No process of the whole Airflow listens on an address that others can reach."""
    family = [psutil.Process(standalone.process.pid)]
    family += family[0].children(recursive=True)
    listening = {address for process in family for address in _listening(process)}
    assert listening == {"127.0.0.1"}


def test_interrupt_leaves_nothing_behind(standalone: Standalone) -> None:
    """Ctrl-C ends every process, and says so with exit code 0. The last test of this module."""
    standalone.process.send_signal(signal.SIGINT)
    assert standalone.process.wait(60) == 0
    left = [
        process.info
        for process in psutil.process_iter(["pid", "cmdline"])
        if _belongs_to(process, standalone.home)
    ]
    assert left == []


def _listening(process: psutil.Process) -> set[str]:
    try:
        connections = process.net_connections(kind="inet")
    except (psutil.NoSuchProcess, FileNotFoundError):  # It has just ended.
        return set()
    return {found.laddr.ip for found in connections if found.status == psutil.CONN_LISTEN}


def _belongs_to(process: psutil.Process, home: Path) -> bool:
    try:
        return (
            bool(process.environ().get("AIRFLOW_HOME") == str(home)) and process.pid != os.getpid()
        )
    except psutil.Error:
        return False
