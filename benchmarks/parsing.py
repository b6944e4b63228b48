"""What it costs Airflow 3 to parse a DAG file, with both providers and with an empty operator.

    python -m benchmarks.parsing [--tasks 1 10 300]

Airflow parses each DAG file every 30 seconds by default, each time in a process that its DAG
processor forks. The measured process does what such a process does: it reads a DAG file of some
tasks, or of a workflow group of 100 notebooks, with the code of Airflow, and serializes the DAG. It
is forked from a process that has loaded Airflow's plugins, this package's among them, and has
imported what Airflow itself imports in the DAG processor. The figures are medians of several forks,
in CPU time. They do not include what Airflow does for each fork, whatever the file has: about 30
ms.

*Callbacks only* is the same without serializing. Airflow does so for each task that its trigger has
ended, whether it has callbacks or not, for several such tasks together.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.airflow_costs import MODES, OFFICIAL, THIS_ONE
from scripts import official

Row = tuple[str, dict[str, float]]
MODE_NAMES = (
    "empty",
    "official",
    "deferrable",
    "end_from_trigger",
    "start_from_trigger",
    "airflow_sensor",
)
GROUP_NOTEBOOKS = 100
GROUP = """from airflow.sdk import DAG
from {operators} import DatabricksNotebookOperator
from {groups} import DatabricksWorkflowTaskGroup

CLUSTER = {{"spark_version": "15.4.x-scala2.12", "node_type_id": "i3.xlarge", "num_workers": 2}}

with DAG("group", schedule=None), DatabricksWorkflowTaskGroup(
    group_id="g", databricks_conn_id="databricks_default",
    job_clusters=[{{"job_cluster_key": "small", "new_cluster": CLUSTER}}],
):
    for number in range({notebooks}):
        DatabricksNotebookOperator(
            task_id=f"notebook_{{number}}", databricks_conn_id="databricks_default",
            notebook_path=f"/Shared/sales/{{number}}", source="WORKSPACE",
            job_cluster_key="small", deferrable=True,
        )
"""
# The modules of the operators and of the group.
GROUP_MODULES = {
    OFFICIAL: (
        "airflow.providers.databricks.operators.databricks",
        "airflow.providers.databricks.operators.databricks_workflow",
    ),
    THIS_ONE: ("airflow_jobs_provider.operators.jobs", "airflow_jobs_provider.operators.workflow"),
}
MEASURE = """
import json, logging, os, statistics, sys, time
from pathlib import Path

file, forks, preloads = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "True"
sys.argv = ["airflow", "dag-processor" if preloads else "another"]
from airflow.dag_processing import manager, processor
from airflow import plugins_manager

plugins_manager.ensure_plugins_loaded()
log = logging.getLogger()
processor._pre_import_airflow_modules(str(file), log)

def parse():
    bag = processor.BundleDagBag(
        dag_folder=file, bundle_path=file.parent, bundle_name="dags", load_op_links=False
    )
    assert not bag.import_errors and len(bag.dags) == 1, bag.import_errors
    return bag

def serialize():
    processor._serialize_dags(parse(), log)

def seconds(function):
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "client"
        begun = time.process_time()
        function()
        os.write(write, str(time.process_time() - begun).encode())
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    taken = float(os.read(read, 100))
    os.close(read)
    os.close(write)
    return taken

figures = {
    name: statistics.median(seconds(function) for _ in range(forks))
    for name, function in (("parsed", serialize), ("callbacks", parse))
}
print(json.dumps(figures))
"""


def measure(python: str, file: Path, forks: int, *, preloads: bool = True) -> dict[str, float]:
    """Measure one DAG file.

    :param python: the interpreter of its environment.
    :param file: the DAG file.
    :param forks: how many processes parse it.
    :param preloads: whether this package's plugin preloads, as it does in the DAG processor.
    """
    with tempfile.TemporaryDirectory() as home:
        result = subprocess.run(
            [python, "-W", "ignore", "-c", MEASURE, str(file), str(forks), str(preloads)],
            env={
                **os.environ,
                "AIRFLOW_HOME": home,
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            },
            cwd=home,
            check=True,
            capture_output=True,
            text=True,
        )
    figures: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return figures


def measure_tasks(pythons: dict[str, str], folder: Path, tasks: int, forks: int) -> list[Row]:
    """Measure a DAG of independent tasks in each mode.

    :param pythons: the interpreters by environment.
    :param folder: for the DAG files.
    :param tasks: how many.
    :param forks: how many processes parse each file.
    """
    rows = []
    for name in MODE_NAMES:
        mode = MODES[name]
        file = folder / f"{name}_{tasks}.py"
        file.write_text(mode.dag_file(name, tasks))
        python = pythons[mode.environments[0]]
        rows.append((mode.shown, measure(python, file, forks)))
        if name in ("deferrable", "start_from_trigger"):
            without = measure(python, file, forks, preloads=False)
            rows.append((f"{mode.shown}, without preloading", without))
    return rows


def measure_groups(pythons: dict[str, str], folder: Path, forks: int) -> list[Row]:
    """Measure a workflow group of both providers; the arguments are as above."""
    rows = []
    for environment, (operators, groups) in GROUP_MODULES.items():
        file = folder / "group.py"
        file.write_text(GROUP.format(operators=operators, groups=groups, notebooks=GROUP_NOTEBOOKS))
        rows.append((f"group, {environment}", measure(pythons[environment], file, forks)))
    return rows


def table(title: str, rows: list[Row]) -> str:
    """Write measures as a Markdown table."""
    lines = [f"| {title} | parsed and serialized | for callbacks only |", "| --- | --- | --- |"]
    lines += [
        f"| {shown} | {1000 * row['parsed']:.0f} ms | {1000 * row['callbacks']:.0f} ms |"
        for shown, row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forks", type=int, default=15, help="of each file")
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 10, 300], help="of a DAG")
    chosen = parser.parse_args()
    pythons = {THIS_ONE: sys.executable, OFFICIAL: official.python()}
    tables = []
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        for tasks in chosen.tasks:
            rows = measure_tasks(pythons, folder, tasks, chosen.forks)
            tables.append(table(f"tasks: {tasks}", rows))
        rows = measure_groups(pythons, folder, chosen.forks)
        tables.append(table(f"notebooks: {GROUP_NOTEBOOKS}", rows))
    print(
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()} with {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, {official.AIRFLOW}, load average {os.getloadavg()[0]:.1f}\n"
    )
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()
