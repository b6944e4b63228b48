"""Measure what a task costs a whole Airflow, with both providers and with an empty operator.

    make bench-airflow [EXECUTOR=CeleryExecutor] [TASKS=100] [ROUNDS=3] [MODES=empty,official]

Two Airflows run at the same time, with scheduler, LocalExecutor, triggerer, DAG processor, API
server and SQLite: one has this package, the other one the official provider. In each round each
mode runs once: so many tasks at once, in DAG runs of ten. A service on loopback lets each run last
a fixed time. Counted are the CPU seconds of each component with all its processes, less what the
idle Airflow takes in the same time, measured before and after; the wall time; the processes; the
rows written to the database; the size of the logs; the requests to the service. The first round is
not counted: it is for imports, and for counting rows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

from benchmarks import airflow_report
from benchmarks.distributed import MORE
from benchmarks.whole_airflow import FailedDagRunsError, WholeAirflow
from scripts import official

ROOT = Path(__file__).parents[1]
TASKS, ROUNDS = 100, 3
TASKS_PER_RUN = 10
# In the round that is not counted. With CeleryExecutor enough for each of the worker's 16
# processes, which import Airflow's modules when they execute their first task.
WARM_UP_TASKS = {False: TASKS_PER_RUN, True: 40}
PARALLELISM = 32  # Airflow's default
RUN_SECONDS = 10
IDLE_SECONDS = 4
# Until supervisors and the scheduler have noted all ends.
SETTLE_SECONDS = 5
LONGEST_SECONDS = 300
THIS_ONE, OFFICIAL = "this package", "official provider"
BURNED_SECONDS = 1.0
DAG = """from airflow.sdk import DAG
{imports}

with DAG("{name}", schedule=None):
    for number in range({tasks}):
        {operator}(task_id=f"task_{{number}}", {arguments})
"""
SUBMIT = (
    'existing_cluster_id="0101-120000-abcdefgh", '
    'notebook_task={"notebook_path": "/Shared/sales/daily/aggregate", '
    '"base_parameters": {"day": "{{ ds }}"}}, polling_period_seconds=5'
)
PYTHON_OPERATOR = "from airflow.providers.standard.operators.python import PythonOperator"


@dataclass(frozen=True)
class Mode:
    """A way to run a task.

    :ivar shown: what it is, for the table.
    :ivar imports: the import lines of its DAG file.
    :ivar operator: the operator.
    :ivar arguments: its arguments.
    :ivar environments: in which of the two it is measured.
    :ivar is_check: whether it checks the measurement; ten tasks and one round are enough then.
    """

    shown: str
    imports: str
    operator: str
    arguments: str
    environments: tuple[str, ...] = (THIS_ONE,)
    is_check: bool = False

    def dag_file(self, name: str, tasks: int = TASKS_PER_RUN) -> str:
        """Return the text of a DAG file."""
        return DAG.format(
            name=name,
            tasks=tasks,
            imports=self.imports,
            operator=self.operator,
            arguments=self.arguments,
        )


def _submit(
    shown: str,
    module: str = "airflow_jobs_provider.operators.jobs",
    environment: str = THIS_ONE,
    **arguments: bool,
) -> Mode:
    more = "".join(f", {name}={value}" for name, value in arguments.items())
    return Mode(
        shown,
        f"from {module} import DatabricksSubmitRunOperator",
        "DatabricksSubmitRunOperator",
        SUBMIT + more,
        (environment,),
    )


def _official(shown: str, **arguments: bool) -> Mode:
    return _submit(
        shown, "airflow.providers.databricks.operators.databricks", OFFICIAL, **arguments
    )


BURN = (
    "\ndef burn():\n    from time import process_time\n"
    f"    end = process_time() + {BURNED_SECONDS}\n    while process_time() < end:\n        pass\n"
)
MODES = {
    "empty": Mode(
        "empty PythonOperator",
        PYTHON_OPERATOR,
        "PythonOperator",
        "python_callable=lambda: None",
        (THIS_ONE, OFFICIAL),
    ),
    "official": _official("official provider, deferrable", deferrable=True),
    "official_blocking": _official("official provider, blocking", deferrable=False),
    "deferrable": _submit("deferrable", deferrable=True),
    "end_from_trigger": _submit(
        "deferrable, end_from_trigger", deferrable=True, end_from_trigger=True
    ),
    "start_from_trigger": _submit(
        "deferrable, start_from_trigger, end_from_trigger",
        deferrable=True,
        start_from_trigger=True,
        end_from_trigger=True,
    ),
    # What Airflow itself takes for a task that starts in the triggerer, waits there about as long
    # as a run lasts, and ends there.
    "airflow_sensor": Mode(
        "DateTimeSensorAsync, start_from_trigger, end_from_trigger",
        "from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync",
        "DateTimeSensorAsync",
        f'target_time="{{{{ (dag_run.start_date + macros.timedelta(seconds={RUN_SECONDS}))'
        '.isoformat() }}", start_from_trigger=True, end_from_trigger=True',
    ),
    "blocking": _submit("blocking", deferrable=False),
    # Checks the measurement: see BURNED_SECONDS.
    "burn": Mode(
        f"PythonOperator that takes {BURNED_SECONDS} s CPU",
        PYTHON_OPERATOR + "\n" + BURN,
        "PythonOperator",
        "python_callable=burn",
        is_check=True,
    ),
}


@dataclass
class Measures:
    """What one mode took in one round, over the idle Airflow, all tasks together.

    :ivar mode: of MODES.
    :ivar environment: which of the two Airflows.
    :ivar round: its number.
    :ivar tasks: how many ran.
    :ivar cpu_seconds: by kind of process.
    :ivar idle_cpu_seconds: what was subtracted from them.
    :ivar wall_seconds: from the first DAG run's begin to the last one's end.
    :ivar processes: started, by component.
    :ivar log_bytes: written, by components and tasks.
    :ivar requests: to the service, by endpoint.
    :ivar airflow_requests: to Airflow's API, by endpoint.
    :ivar written_rows: in the database, by table; of the first round only.
    :ivar is_repeated: whether a task failed at the first attempt, which is not counted.
    """

    mode: str
    environment: str
    round: int
    tasks: int
    cpu_seconds: dict[str, float]
    idle_cpu_seconds: dict[str, float]
    wall_seconds: float
    processes: dict[str, int]
    log_bytes: int
    requests: dict[str, int]
    airflow_requests: dict[str, int]
    written_rows: dict[str, int] = field(default_factory=dict)
    is_repeated: bool = False


class Benchmark:
    """Runs modes in both Airflows.

    :param airflows: by the name of their environment.
    :param service: address of the service.
    :param warm_up_tasks: how many tasks of each mode run in the round that is not counted.
    """

    def __init__(self, airflows: dict[str, WholeAirflow], service: str, warm_up_tasks: int) -> None:
        self._warm_up_tasks = warm_up_tasks
        self._airflows = airflows
        self._service = service
        self._idle: dict[str, dict[str, float]] = {}

    def watch_idle(self) -> None:
        """Measure what each Airflow takes in a second without tasks."""
        begun = time.monotonic()
        before = {name: airflow.cpu_seconds() for name, airflow in self._airflows.items()}
        time.sleep(IDLE_SECONDS)
        taken = time.monotonic() - begun
        for name, airflow in self._airflows.items():
            after = airflow.cpu_seconds()
            self._idle[name] = {key: (after[key] - before[name][key]) / taken for key in after}

    def run(self, mode: str, environment: str, number: int, tasks: int) -> Measures:
        """Run one mode once; it must have been idle before, and is so again at the end."""
        airflow = self._airflows[environment]
        idle_before = self._idle[environment]
        runs = 1 if MODES[mode].is_check else max(1, tasks // TASKS_PER_RUN)
        requests, processes = self._requests(), airflow.processes()
        airflow_requests = airflow.requests()
        log_bytes, cpu, begun = airflow.log_bytes(), airflow.cpu_seconds(), time.monotonic()
        wall = airflow.run(mode, runs, LONGEST_SECONDS)
        time.sleep(SETTLE_SECONDS)
        taken, cpu_after = time.monotonic() - begun, airflow.cpu_seconds()
        log_bytes = airflow.log_bytes() - log_bytes
        self.watch_idle()
        idle_after = self._idle[environment]
        idle = {
            key: taken * (idle_before.get(key, 0.0) + idle_after.get(key, 0.0)) / 2
            for key in cpu_after
        }
        return Measures(
            mode=mode,
            environment=environment,
            round=number,
            tasks=runs * TASKS_PER_RUN,
            cpu_seconds={key: cpu_after[key] - cpu[key] - idle[key] for key in cpu_after},
            idle_cpu_seconds=idle,
            wall_seconds=wall,
            processes=dict(airflow.processes() - processes),
            log_bytes=log_bytes,
            requests=dict(self._requests() - requests),
            airflow_requests=dict(airflow.requests() - airflow_requests),
        )

    def run_or_repeat(self, mode: str, environment: str, number: int, tasks: int) -> Measures:
        """Run one mode once; once more where a task failed, which Airflow itself does at times."""
        try:
            return self.run(mode, environment, number, tasks)
        except FailedDagRunsError as failure:
            print(f"Repeated: {failure}", flush=True)
            time.sleep(SETTLE_SECONDS)
            self.watch_idle()
        measures = self.run(mode, environment, number, tasks)
        measures.is_repeated = True
        return measures

    def warm_up(self, mode: str, environment: str) -> Measures:
        """Run one mode for the first time, and count the rows that it writes."""
        with self._airflows[environment].written_rows() as written:
            measures = self.run_or_repeat(mode, environment, 0, self._warm_up_tasks)
        # Heartbeats of the components.
        del written["job"]
        measures.written_rows = dict(written)
        return measures

    def _requests(self) -> Counter[str]:
        with urlopen(f"{self._service}/counts") as answer:
            return Counter(json.load(answer))


@contextmanager
def service(seconds: float) -> Iterator[str]:
    """Lend a service whose runs last so long; its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.timed_service", "--seconds", str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.communicate(timeout=10)


def measure(
    modes: list[str],
    tasks: int,
    rounds: int,
    run_seconds: float,
    *,
    distributed: bool = False,
    homes: Path | None = None,
) -> list[Measures]:
    """Measure modes, and print a line for each.

    :param modes: of MODES.
    :param tasks: how many at once.
    :param rounds: how many are counted.
    :param run_seconds: how long each run lasts.
    :param distributed: whether with CeleryExecutor, PostgreSQL and Redis.
    :param homes: an empty folder for the homes; default: a folder that is removed at the end.
    """
    pythons = {THIS_ONE: sys.executable, OFFICIAL: ""}
    wanted = {name: MODES[name] for name in modes}
    turns = [(name, one) for name, mode in wanted.items() for one in mode.environments]
    if any(environment == OFFICIAL for _, environment in turns):
        pythons[OFFICIAL] = (
            official.python(ROOT / ".venv-official-distributed", more=MORE)
            if distributed
            else official.python()
        )
    else:
        del pythons[OFFICIAL]
    measured = []
    with ExitStack() as stack:
        if homes is None:
            homes = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-airflow-")))
        for name in pythons:
            (homes / name.replace(" ", "-")).mkdir(parents=True)
        url = stack.enter_context(service(run_seconds))
        # In the form that both providers take.
        address = urlsplit(url)
        connection = {
            "conn_type": "databricks",
            "schema": "http",
            "host": address.hostname,
            "port": address.port,
            "password": "a-token",
        }
        airflows = {
            name: WholeAirflow(
                homes / name.replace(" ", "-"),
                python,
                {
                    f"{mode}.py": MODES[mode].dag_file(mode)
                    for mode, environment in turns
                    if environment == name
                },
                connection,
                packages=ROOT if name == THIS_ONE else None,
                settings={"AIRFLOW__CORE__PARALLELISM": str(PARALLELISM)},
                distributed=distributed,
            )
            for name, python in pythons.items()
        }
        with ThreadPoolExecutor() as pool:
            list(pool.map(stack.enter_context, airflows.values()))
        benchmark = Benchmark(airflows, url, WARM_UP_TASKS[distributed])
        time.sleep(SETTLE_SECONDS)
        benchmark.watch_idle()
        for number in range(rounds + 1):
            # Each round begins with another mode.
            shift = number % len(turns)
            for mode, environment in turns[shift:] + turns[:shift]:
                if number > 1 and MODES[mode].is_check:
                    continue
                if number == 0:
                    row = benchmark.warm_up(mode, environment)
                else:
                    row = benchmark.run_or_repeat(mode, environment, number, tasks)
                measured.append(row)
                print(line(row), flush=True)
    return measured


def line(row: Measures) -> str:
    """Return one measurement in a line."""
    parts = ", ".join(
        f"{name} {seconds / row.tasks:.3f}" for name, seconds in sorted(row.cpu_seconds.items())
    )
    return (
        f"round {row.round} {row.mode} ({row.environment}): "
        f"{sum(row.cpu_seconds.values()) / row.tasks:.3f} CPU s a task ({parts}), "
        f"{row.wall_seconds:.0f} s"
    )


def options(tasks: int, rounds: int, modes: list[str]) -> str:
    """Return the options of ``make bench-airflow`` that differ from its defaults."""
    chosen = {
        f"TASKS={tasks}": tasks != TASKS,
        f"ROUNDS={rounds}": rounds != ROUNDS,
        f"MODES={','.join(modes)}": modes != list(MODES),
    }
    return " ".join(option for option, differs in chosen.items() if differs)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=TASKS, help="at once")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--modes", default="", help="some of: " + ", ".join(MODES))
    parser.add_argument("--run-seconds", type=float, default=RUN_SECONDS)
    parser.add_argument(
        "--distributed", action="store_true", help="CeleryExecutor, PostgreSQL, Redis"
    )
    parser.add_argument("--homes", type=Path, help="empty folder for both Airflows, to be kept")
    parser.add_argument("--report", action="store_true", help="write docs/benchmarks.md")
    parser.add_argument("--out", type=Path, help="file for the measures as JSON")
    chosen = parser.parse_args()
    modes = chosen.modes.split(",") if chosen.modes else list(MODES)
    if unknown := set(modes) - set(MODES):
        parser.error(f"unknown modes: {', '.join(sorted(unknown))}")
    # Ended from outside, it leaves neither processes nor folders.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    begun, load_average = time.monotonic(), os.getloadavg()[0]
    measured = measure(
        modes,
        chosen.tasks,
        chosen.rounds,
        chosen.run_seconds,
        distributed=chosen.distributed,
        homes=chosen.homes,
    )
    result: dict[str, Any] = {
        "machine": (
            f"{platform.machine()} with {os.cpu_count()} cores, Python "
            f"{platform.python_version()}, {official.AIRFLOW}"
        ),
        "date": time.strftime("%Y-%m-%d"),
        "official_provider": official.PROVIDER,
        "load_average": load_average,
        "options": options(chosen.tasks, chosen.rounds, modes),
        "distributed": chosen.distributed,
        "tasks": chosen.tasks,
        "rounds": chosen.rounds,
        "run_seconds": chosen.run_seconds,
        "parallelism": PARALLELISM,
        "minutes": (time.monotonic() - begun) / 60,
        "shown": {name: MODES[name].shown for name in modes},
        "repeated": sum(one.is_repeated for one in measured),
        "measured": [asdict(one) for one in measured],
    }
    print(airflow_report.tables(result))
    print(f"{result['minutes']:.1f} minutes")
    out = chosen.out
    if chosen.report:
        out = out or airflow_report.results_file(distributed=chosen.distributed)
    # First of all, since the page may lack the place for the section.
    if out:
        out.write_text(json.dumps(result, indent=2) + "\n")
    if chosen.report:
        airflow_report.write(result)
    for line in (broken := airflow_report.broken_promises(result)):
        print(f"Not kept: {line}")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
