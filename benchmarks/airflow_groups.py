"""Measure what a workflow group costs a whole Airflow, beside the official provider's group.

    python -m benchmarks.airflow_groups [--tasks 100] [--rounds 3] [--ends 20 60]

Two Airflows run at the same time, with scheduler, LocalExecutor, triggerer, DAG processor, API
server and SQLite: one has this package, the other one the official provider. In each round each
way to run a group runs once: so many deferrable notebooks, polled every 5 seconds, which is the
default of both. A service on loopback launches the group's run, and lets its tasks end evenly over
a stretch of time (``--ends``). Counted are the requests to the service, the processes, and the CPU
seconds of each component with all its processes, less what the idle Airflow takes in the same time,
measured before and after. A first round with 10 notebooks that end soon is not counted: it is for
imports. The first counted round defines the job of the group; in later rounds it exists.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.airflow_report import WORKERS
from benchmarks.whole_airflow import WholeAirflow
from scripts import official
from tests.fakes.fake_service import FakeService, JobRun, Seen

ROOT = Path(__file__).parents[1]
THIS_ONE, OFFICIAL = "this package", "official provider"
OPERATORS = {
    THIS_ONE: "airflow_jobs_provider.operators.jobs",
    OFFICIAL: "airflow.providers.databricks.operators.databricks",
}
GROUPS = {
    THIS_ONE: "airflow_jobs_provider.operators.jobs",
    OFFICIAL: "airflow.providers.databricks.operators.databricks_workflow",
}
# The ways to run a group: in which of the two Airflows, and with which argument of its tasks.
MODES = {
    "official provider": (OFFICIAL, ""),
    "this package": (THIS_ONE, ""),
    "this package, end_from_trigger": (THIS_ONE, "end_from_trigger=True,"),
}
WARM_UP_TASKS = 10
WARM_UP_ENDS = (20.0, 40.0)
IDLE_SECONDS = 6
# Until supervisors and the scheduler have noted all ends.
SETTLE_SECONDS = 6
LONGEST_SECONDS = 600
DAG = """from airflow.sdk import DAG
from {operators} import DatabricksNotebookOperator
from {group} import DatabricksWorkflowTaskGroup

CLUSTER = {{
    "job_cluster_key": "small",
    "new_cluster": {{
        "spark_version": "15.4.x-scala2.12", "node_type_id": "i3.xlarge", "num_workers": 2
    }},
}}

with DAG("{name}", schedule=None), DatabricksWorkflowTaskGroup(
    group_id="g", databricks_conn_id="databricks_default", job_clusters=[CLUSTER],
):
    for number in range({tasks}):
        DatabricksNotebookOperator(
            task_id=f"notebook_{{number}}",
            databricks_conn_id="databricks_default",
            notebook_path=f"/Shared/sales/{{number}}",
            source="WORKSPACE",
            job_cluster_key="small",
            deferrable=True,
            {argument}
        )
"""


class TimedJobService(FakeService):
    """A service whose tasks end evenly over a stretch of time.

    :ivar ends: seconds from the launch to the first end and to the last one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ends = WARM_UP_ENDS

    def answer(self, seen: Seen) -> tuple[int, dict[str, Any]]:
        """End the task runs whose time is over; then do what is asked."""
        first, last = self.ends
        with self._lock:
            for run in self.runs.values():
                if not isinstance(run, JobRun) or run.ended:
                    continue
                for number, task in enumerate(run.task_runs):
                    end = first + (last - first) * number / len(run.task_runs)
                    if task.result is None and time.time() > run.started + end:
                        task.result = "SUCCESS"
        return super().answer(seen)


@dataclass
class Measures:
    """What one group took, over the idle Airflow.

    :ivar mode: of MODES.
    :ivar round: its number.
    :ivar tasks: how many notebooks.
    :ivar requests: to the service, by endpoint.
    :ivar cpu_seconds: by kind of process.
    :ivar idle_cpu_seconds: what was subtracted from them.
    :ivar wall_seconds: of the DAG run.
    :ivar processes: started, by component.
    """

    mode: str
    round: int
    tasks: int
    requests: dict[str, int]
    cpu_seconds: dict[str, float]
    idle_cpu_seconds: dict[str, float]
    wall_seconds: float
    processes: dict[str, int]


def idle_rates(airflow: WholeAirflow) -> dict[str, float]:
    """Return the CPU seconds that each kind of process takes in a second without tasks."""
    before, begun = airflow.cpu_seconds(), time.monotonic()
    time.sleep(IDLE_SECONDS)
    taken, after = time.monotonic() - begun, airflow.cpu_seconds()
    return {key: (after[key] - before[key]) / taken for key in after}


def run_group(
    airflow: WholeAirflow, service: FakeService, mode: str, number: int, tasks: int
) -> Measures:
    """Run a group once, and measure it."""
    idle_before = idle_rates(airflow)
    service.seen.clear()
    processes, cpu, begun = airflow.processes(), airflow.cpu_seconds(), time.monotonic()
    wall = airflow.run(dag_id(mode, tasks), 1, LONGEST_SECONDS)
    time.sleep(SETTLE_SECONDS)
    taken, cpu_after = time.monotonic() - begun, airflow.cpu_seconds()
    requests = Counter(seen.endpoint for seen in service.seen)
    processes_after, idle_after = airflow.processes(), idle_rates(airflow)
    idle = {
        key: taken * (idle_before.get(key, 0.0) + idle_after.get(key, 0.0)) / 2 for key in cpu_after
    }
    return Measures(
        mode=mode,
        round=number,
        tasks=tasks,
        requests=dict(requests),
        cpu_seconds={key: cpu_after[key] - cpu[key] - idle[key] for key in cpu_after},
        idle_cpu_seconds=idle,
        wall_seconds=wall,
        processes=dict(processes_after - processes),
    )


def measure(modes: list[str], tasks: int, rounds: int, ends: tuple[float, float]) -> list[Measures]:
    """Measure modes, and print a line for each measurement.

    :param modes: of MODES.
    :param tasks: how many notebooks.
    :param rounds: how many rounds are counted.
    :param ends: seconds from the launch to the first end and to the last one.
    """
    measured: list[Measures] = []
    pythons = {THIS_ONE: sys.executable, OFFICIAL: official.python()}
    with ExitStack() as stack:
        services = {provider: stack.enter_context(TimedJobService()) for provider in pythons}
        airflows = {
            provider: stack.enter_context(
                WholeAirflow(
                    Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))),
                    python,
                    {
                        f"{dag_id(mode, size)}.py": dag_file(mode, size)
                        for mode, (environment, _) in MODES.items()
                        if environment == provider
                        for size in {WARM_UP_TASKS, tasks}
                    },
                    connection_to(services[provider]),
                    packages=ROOT if provider == THIS_ONE else None,
                )
            )
            for provider, python in pythons.items()
        }
        time.sleep(SETTLE_SECONDS)
        for number in range(rounds + 1):
            # Each round begins with another one.
            for mode in modes[number % len(modes) :] + modes[: number % len(modes)]:
                provider, _ = MODES[mode]
                size = tasks if number else WARM_UP_TASKS
                services[provider].ends = ends if number else WARM_UP_ENDS
                row = run_group(airflows[provider], services[provider], mode, number, size)
                measured.append(row)
                print(line(row), flush=True)
    return measured


def dag_id(mode: str, tasks: int) -> str:
    """Return the name of a DAG."""
    return f"group_{list(MODES).index(mode)}_{tasks}"


def dag_file(mode: str, tasks: int) -> str:
    """Return the text of a DAG file."""
    provider, argument = MODES[mode]
    return DAG.format(
        operators=OPERATORS[provider],
        group=GROUPS[provider],
        name=dag_id(mode, tasks),
        tasks=tasks,
        argument=argument,
    )


def connection_to(service: FakeService) -> dict[str, Any]:
    """Return a connection in the form that both providers take."""
    address = urlsplit(service.url)
    return {
        "conn_type": "databricks",
        "schema": "http",
        "host": address.hostname,
        "port": address.port,
        "password": "a-token",
    }


def line(row: Measures) -> str:
    """Return one measurement in a line."""
    return (
        f"round {row.round} {row.mode}: {sum(row.requests.values())} requests, "
        f"{sum(row.cpu_seconds.values()):.1f} CPU s, {sum(row.processes.values())} processes, "
        f"{row.wall_seconds:.0f} s, {json.dumps(row.requests)}"
    )


def table(measured: list[Measures]) -> str:
    """Return the medians of the counted rounds as a Markdown table."""
    kinds = sorted({kind for row in measured for kind in row.cpu_seconds})
    heads = ["Group of", "requests", "a minute", "CPU s", "(lowest to highest)", *kinds]
    heads += ["worker processes", "other processes", "wall s"]
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join("---" for _ in heads) + " |"]
    for mode in MODES:
        rows = [row for row in measured if row.mode == mode and row.round]
        if not rows:
            continue
        totals = [sum(row.cpu_seconds.values()) for row in rows]
        requests = [sum(row.requests.values()) for row in rows]
        rates = [60 * count / row.wall_seconds for count, row in zip(requests, rows, strict=True)]
        workers = [row.processes.get(WORKERS[False], 0) for row in rows]
        others = [sum(row.processes.values()) for row in rows]
        others = [every - count for every, count in zip(others, workers, strict=True)]
        cells = [
            mode,
            f"{statistics.median(requests):.0f}",
            f"{statistics.median(rates):.0f}",
            f"{statistics.median(totals):.1f}",
            f"{min(totals):.1f} to {max(totals):.1f}",
            *(f"{statistics.median(row.cpu_seconds[kind] for row in rows):.1f}" for kind in kinds),
            f"{statistics.median(workers):.0f}",
            f"{statistics.median(others):.0f}",
            f"{statistics.median(row.wall_seconds for row in rows):.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100, help="notebooks of the group")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--modes", default="", help="some of: " + "; ".join(MODES))
    parser.add_argument(
        "--ends",
        type=float,
        nargs=2,
        default=(20, 60),
        help="seconds from the launch to the first and the last end",
    )
    parser.add_argument("--out", type=Path, help="file for the measures as JSON")
    chosen = parser.parse_args()
    modes = chosen.modes.split(";") if chosen.modes else list(MODES)
    if unknown := set(modes) - set(MODES):
        parser.error(f"unknown modes: {', '.join(sorted(unknown))}")
    measured = measure(modes, chosen.tasks, chosen.rounds, tuple(chosen.ends))
    print(table(measured))
    machine = f"{platform.machine()} with {os.cpu_count()} cores, {official.AIRFLOW}"
    print(f"{machine}, {time.strftime('%Y-%m-%d')}")
    if chosen.out:
        chosen.out.write_text(json.dumps([asdict(row) for row in measured], indent=2) + "\n")


if __name__ == "__main__":
    main()
