"""What it costs Airflow 3 to parse a DAG file, with both providers and with an empty operator.

    python -m benchmarks.parsing [--tasks 1 10 300] [--rounds 15]

Airflow parses each DAG file every 30 seconds by default, each time in a process that its DAG
processor forks. The measured process does what such a process does: it reads a DAG file of some
tasks, or of a workflow group of 100 notebooks, with the code of Airflow, and serializes the DAG. It
is forked from a process that has loaded Airflow's plugins, this package's among them, and has
imported what Airflow itself imports in the DAG processor. The figures are medians of several forks,
in CPU time. The files take turns. They do not include what Airflow does for each
fork, whatever the file has: about 30 ms.

*Callbacks only* is a process that Airflow has sent callbacks with the file; it does not serialize
the DAG. The callbacks themselves are left out. Airflow starts such a process for each task that its
trigger has ended, whether it has callbacks or not, for several such tasks together.

*Stored* is the size of the serialized DAG as JSON. *Read* is the CPU time to make a DAG of it, as
the scheduler, the API server and the triggerer do.
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
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.airflow_costs import MODES, OFFICIAL, THIS_ONE
from scripts import official

# Seconds of each process by what it has done, and bytes of what is stored.
Measured = dict[str, list[float]]
MODE_NAMES = (
    "empty",
    "official",
    "deferrable",
    "end_from_trigger",
    "start_from_trigger",
    "airflow_sensor",
)
# Tasks whose requests have no template, and are validated each time.
LITERAL = {
    f"{name}, no template": replace(
        MODES[name],
        shown=f"{MODES[name].shown}, no template",
        arguments=MODES[name].arguments.replace("{{ ds }}", "2026-01-01"),
    )
    for name in ("official", "deferrable", "start_from_trigger")
}
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
import json, os, sys, time
from pathlib import Path

# What Airflow logs is no result.
results = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
file, preloads = Path(sys.argv[1]), sys.argv[2] == "True"
sys.argv = ["airflow", "dag-processor" if preloads else "another"]
import structlog
from airflow import plugins_manager
from airflow.callbacks.callback_requests import DagCallbackRequest
from airflow.dag_processing import manager, processor
from airflow.serialization.serialized_objects import DagSerialization

plugins_manager.ensure_plugins_loaded()
log = structlog.get_logger()
processor._pre_import_airflow_modules(str(file), log)
called = []
processor._execute_callbacks = lambda bag, *_: called.append(bag)

def parse(*callbacks):
    return processor._parse_file(
        processor.DagFileParseRequest(
            file=str(file), bundle_path=file.parent, bundle_name="dags",
            callback_requests=list(callbacks),
        ),
        log,
    )

def serialize():
    result = parse()
    assert not result.import_errors and len(result.serialized_dags) == 1, result.import_errors
    return result.serialized_dags[0].data

def call_back():
    parse(
        DagCallbackRequest(
            filepath=file.name, bundle_name="dags", bundle_version=None, dag_id="d", run_id="r"
        )
    )
    assert not called[0].import_errors and len(called[0].dags) == 1, called[0].import_errors

def read(stored):
    return DagSerialization.from_dict(json.loads(stored))

def measured(function, *arguments):
    begun = time.process_time()
    function(*arguments)
    return time.process_time() - begun

def in_fork(function, *arguments):
    source, target = os.pipe()
    pid = os.fork()
    if not pid:
        os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "client"
        os.write(target, json.dumps(function(*arguments)).encode())
        os._exit(0)
    os.close(target)
    with open(source) as lines:
        text = lines.read()
    assert os.waitpid(pid, 0)[1] == 0
    return json.loads(text)

def report(**figures):
    print(json.dumps(figures), file=results, flush=True)

stored = in_fork(lambda: json.dumps(serialize()))
report(stored=len(stored))
for _ in sys.stdin:
    report(
        parsed=in_fork(measured, serialize),
        callbacks=in_fork(measured, call_back),
        read=in_fork(measured, read, stored),
    )
"""


class Parent:
    """A process that forks others, each of which parses a DAG file.

    :param python: the interpreter of its environment.
    :param file: the DAG file.
    :param preloads: whether this package's plugin preloads, as it does in the DAG processor.
    """

    def __init__(self, python: str, file: Path, *, preloads: bool = True) -> None:
        home = file.with_suffix(f".home-{preloads}")
        home.mkdir()
        self._process = subprocess.Popen(
            [python, "-W", "ignore", "-c", MEASURE, str(file), str(preloads)],
            env={
                **os.environ,
                "AIRFLOW_HOME": str(home),
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            },
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.measured: Measured = defaultdict(list)
        self._read()

    def measure(self) -> None:
        """Let it fork one process for each figure."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._read()

    def end(self) -> None:
        """Let it end."""
        self._process.communicate()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for name, value in json.loads(self._process.stdout.readline()).items():
            self.measured[name].append(value)


def start_tasks(pythons: dict[str, str], folder: Path, tasks: int) -> dict[str, Parent]:
    """Start the parents for a DAG of independent tasks, in each mode.

    :param pythons: the interpreters by environment.
    :param folder: for the DAG files.
    :param tasks: how many.
    """
    parents = {}
    for name, mode in {**{name: MODES[name] for name in MODE_NAMES}, **LITERAL}.items():
        file = folder / f"{name}_{tasks}.py"
        file.write_text(mode.dag_file("dag", tasks))
        python = pythons[mode.environments[0]]
        parents[mode.shown] = Parent(python, file)
        if name in ("deferrable", "start_from_trigger"):
            parents[f"{mode.shown}, without preloading"] = Parent(python, file, preloads=False)
    return parents


def start_groups(pythons: dict[str, str], folder: Path) -> dict[str, Parent]:
    """Start the parents for a workflow group of both providers; the arguments are as above."""
    parents = {}
    for number, (environment, (operators, groups)) in enumerate(GROUP_MODULES.items()):
        file = folder / f"group_{number}.py"
        file.write_text(GROUP.format(operators=operators, groups=groups, notebooks=GROUP_NOTEBOOKS))
        parents[f"group, {environment}"] = Parent(pythons[environment], file)
    return parents


def measure(parents: dict[str, Parent], rounds: int) -> dict[str, Measured]:
    """Let the parents fork in turn, and end them.

    :param parents: the parents by what their DAG file is.
    :param rounds: how many processes of each count for a figure.
    """
    for _ in range(rounds):
        for parent in parents.values():
            parent.measure()
    for parent in parents.values():
        parent.end()
    return {shown: parent.measured for shown, parent in parents.items()}


def table(title: str, rows: dict[str, Measured]) -> str:
    """Write measures as a Markdown table."""
    lines = [
        f"| {title} | parsed and serialized | for callbacks only | stored | read |",
        "| --- | --- | --- | --- | --- |",
    ]
    for shown, row in rows.items():
        parsed, callbacks, read = (
            f"{1000 * median(row[name]):.0f} ms" for name in ("parsed", "callbacks", "read")
        )
        stored = f"{median(row['stored']) / 1000:.0f} kB"
        lines.append(f"| {shown} | {parsed} | {callbacks} | {stored} | {read} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="in which each file has its turn")
    parser.add_argument("--tasks", type=int, nargs="*", default=[1, 10, 300], help="of a DAG")
    chosen = parser.parse_args()
    pythons = {THIS_ONE: sys.executable, OFFICIAL: official.python()}
    tables = []
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        for tasks in chosen.tasks:
            rows = measure(start_tasks(pythons, folder, tasks), chosen.rounds)
            tables.append(table(f"tasks: {tasks}", rows))
        rows = measure(start_groups(pythons, folder), chosen.rounds)
        tables.append(table(f"notebooks: {GROUP_NOTEBOOKS}", rows))
    print(
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()} with {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, {official.AIRFLOW}, load average {os.getloadavg()[0]:.1f}\n"
    )
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()
