"""What an import loads in a process that has Airflow loaded, as those that read DAG files have."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import airflow
import pytest

NAME = "airflow_jobs_provider"
AIRFLOW_2 = airflow.__version__.startswith("2.")
# The steps of a process: what each of them loads is told apart.
STEPS = {
    "operators": [f"import {NAME}.operators.jobs"],
    "sensors": [f"import {NAME}.sensors.jobs"],
    "plugin": [
        f"from {NAME}.airflow_compat import forking_processes",
        f"from {NAME}.plugin import DatabricksJobsPlugin as plugin; plugin().on_load()",
        "assert bool(plugin().operator_extra_links) == (airflow.__version__ >= '3')",
    ],
}
# Importing Airflow takes seconds of processor time, so the processes are forks of one that has.
PROCESSES = """
import json, os, sys
import airflow.models
from airflow.providers.common.compat.sdk import AirflowException, AirflowPlugin, BaseOperator, \
    BaseOperatorLink, BaseSensorOperator, PokeReturnValue, XCom, conf

for name, steps in json.loads(sys.argv[1]).items():
    if process := os.fork():
        assert os.waitpid(process, 0)[1] == 0, name
        continue
    loaded, known = [], set(sys.modules)
    for step in steps:
        exec(step)
        loaded.append(sorted(set(sys.modules) - known))
        known = set(sys.modules)
    print(json.dumps([name, loaded]), flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[set[str]]]:
    """The modules that the steps of each process load."""
    done = subprocess.run(
        [sys.executable, "-c", PROCESSES, json.dumps(STEPS)],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    lines = done.stdout.splitlines()[-len(STEPS) :]
    return {name: [set(names) for names in steps] for name, steps in map(json.loads, lines)}


@pytest.mark.parametrize("process", ["operators", "sensors"])
def test_parsing_a_dag_loads_nothing_heavy(process: str, loaded: dict[str, list[set[str]]]) -> None:
    """Importing the operators or the sensor loads no HTTP library, no models, no workspace."""
    [modules] = loaded[process]
    heavy = {"requests", "aiohttp", "pydantic", "tenacity", "nbclient", "pandas", "urllib3"}
    assert not {name.split(".")[0] for name in modules} & heavy
    assert f"{NAME}.{process}.jobs" in modules
    assert not {n for n in modules if n.startswith((f"{NAME}.local", f"{NAME}.hooks"))}
    assert f"{NAME}.api.client" not in modules


def test_importing_the_sensor_loads_no_operator(loaded: dict[str, list[set[str]]]) -> None:
    """A DAG file with a sensor loads what the operators share, and none of their classes."""
    [modules] = loaded["sensors"]
    assert f"{NAME}.sensors.jobs" in modules
    for name in ("jobs", "launch", "submit_run", "run_now", "create_job", "payload"):
        assert f"{NAME}.operators.{name}" not in modules
    assert f"{NAME}.triggers.sensor" not in modules


def test_only_the_api_server_imports_the_page(loaded: dict[str, list[set[str]]]) -> None:
    """Loading the plugin imports the plugin; reading DAGs its links. Neither imports FastAPI."""
    _, by_plugin, links = loaded["plugin"]
    assert by_plugin == {f"{NAME}.plugin"}
    ours = {name for name in links if name.startswith(NAME)}
    of_ui = {name.partition(".")[2] for name in ours if ".ui" in name}
    assert of_ui == (set() if AIRFLOW_2 else {"ui", "ui.links", "ui.job_page"})
    assert {name.partition(".")[0] for name in links - ours} <= set(sys.stdlib_module_names)
    assert not {name for name in ours if "operators" in name or "triggers" in name}
