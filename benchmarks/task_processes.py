"""What a task process costs: CPU of the process that defers, and of the one that resumes.

    python -m benchmarks.task_processes [--rounds 30] [--official PYTHON]

Each task runs as an executor of Airflow 3.3 runs it: Airflow's own ``supervise_task`` forks the
task's process, which parses the DAG file, renders, executes and defers, or resumes with the
trigger's event. The supervisor's answers from Airflow's API are made here; the service is a server
of its own on this machine. What is measured is the processor time of the task's process (user and
system, as the kernel counts it at the process's end), and that of its supervisor beside it.

An empty task, a task that defers and one that resumes take turns, as children of the same process.
So other work on the machine slows them down alike. Printed are the median of the empty tasks, the
median of what each other process takes more than the empty one before it, and in brackets the same
of the least times.

Two kinds of parent:

* ``scheduler``: what a LocalExecutor forks from, a process that has loaded Airflow's scheduler and
  the plugins.
* ``bare``: what the KubernetesExecutor starts in a pod, a process that has loaded the supervisor
  alone. So everything that the task needs is imported in the task's process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PARENTS = ("scheduler", "bare")
TASKS = ("this one", "official")
EMPTY = "empty"

_IMPORTS = {
    EMPTY: "from airflow.providers.standard.operators.empty import EmptyOperator as Operator",
    "this one": (
        "from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator as Operator"
    ),
    "official": (
        "from airflow.providers.databricks.operators.databricks "
        "import DatabricksSubmitRunOperator as Operator"
    ),
}
_ARGUMENTS = {
    EMPTY: "",
    "this one": """
            deferrable=True,
            existing_cluster_id="1201-my-cluster",
            notebook_task={"notebook_path": "/Shared/etl", "base_parameters": {"day": "{{ ds }}"}},
    """,
}
_ARGUMENTS["official"] = _ARGUMENTS["this one"]
_DAG = """
from airflow.sdk import DAG
{imported}
with DAG("{dag}", schedule=None):
    for n in range({operators}):
        Operator(task_id=f"t{{n}}", {arguments})
"""

# -- the process that supervises ------------------------------------------------------------------


def supervise(parent: str, task: str, rounds: int) -> dict[str, list[float]]:
    """Run a task's processes, and return the CPU seconds of each by its kind."""
    if parent == "scheduler":
        _become_a_scheduler()
    import gc

    from airflow.sdk.execution_time import supervisor  # noqa: F401

    gc.freeze()  # as the LocalExecutor does before it forks
    taken: dict[str, list[float]] = {"empty": [], "first": [], "resuming": [], "supervisor": []}
    for _ in range(rounds + 1):
        _run(taken, "empty", None)
        deferral = _run(taken, "first", None)
        assert deferral is not None, "the task has not deferred"
        _run(taken, "resuming", _resume(task, deferral))
    # The first one warms up the supervisor, and the service.
    return {kind: times[1:] for kind, times in taken.items()}


def _become_a_scheduler() -> None:
    sys.argv[:] = ["airflow", "scheduler"]
    import airflow.cli.commands.scheduler_command
    from airflow.executors.local_executor import LocalExecutor  # noqa: F401
    from airflow.listeners.listener import get_listener_manager

    assert airflow.cli.commands.scheduler_command
    get_listener_manager()  # loads the plugins, as at the start of a scheduler's job


def _resume(task: str, deferral: dict[str, Any]) -> dict[str, Any]:
    """Return the context of a task that resumes with the event of its run's end."""
    from airflow.sdk.serde import deserialize, serialize

    trigger_kwargs: Any = deserialize(deferral["trigger_kwargs"])
    run_id = trigger_kwargs["run_id"]
    state = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS", "state_message": ""}
    page = f"https://example.com/#job/1/run/{run_id}"
    event: dict[str, Any]
    if task == "official":
        event = {
            "run_id": run_id,
            "run_page_url": page,
            "run_state": json.dumps(state),
            "repair_run": False,
            "errors": [],
        }
    else:
        from airflow_jobs_provider.triggers.events import run_payload

        event = run_payload({"run_id": run_id, "job_id": 1, "state": state, "run_page_url": page})
        # As the trigger puts it there.
        event["outputs"] = [{"run_id": run_id, "result": f"output of {run_id}"}]
    kwargs: Any = deserialize(deferral["next_kwargs"] or {})
    return {
        "next_method": deferral["next_method"],
        "next_kwargs": serialize({**kwargs, "event": event}),
    }


def _run(taken: dict[str, list[float]], kind: str, resume: dict[str, Any] | None) -> Any:
    """Run one process of the task; return the deferral if it defers."""
    import resource
    from uuid import uuid4

    import httpx
    from airflow.sdk.api.client import Client
    from airflow.sdk.api.datamodels._generated import BundleInfo, TaskInstance
    from airflow.sdk.execution_time.supervisor import supervise_task

    states: list[dict[str, Any]] = []
    xcoms: dict[str, Any] = {"run_page_url": "https://example.com"} if resume else {}
    ti_id = uuid4()
    dag_id = _dag_id(kind)
    run_name = f"manual__{uuid4()}"

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.endswith("/run"):
            return httpx.Response(200, json=_context(dag_id, run_name) | (resume or {}))
        if path.endswith("/state"):
            states.append(json.loads(request.content))
            return httpx.Response(200, json={})
        if "/connections/" in path:
            return httpx.Response(200, json=json.loads(os.environ["MEASURED_CONNECTION"]))
        if "/xcoms/" in path:
            key = path.rpartition("/")[2]
            if request.method != "GET":
                xcoms[key] = json.loads(request.content)
                return httpx.Response(200, json={})
            if key not in xcoms:
                return httpx.Response(404, json={"detail": {"reason": "not_found"}})
            return httpx.Response(200, json={"key": key, "value": xcoms[key]})
        return httpx.Response(200, json={"ok": True})

    client = Client(base_url=None, dry_run=True, token="", transport=httpx.MockTransport(answer))
    before = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    bundle: Any = BundleInfo(name="dags-folder")
    code = supervise_task(
        ti=TaskInstance(
            id=ti_id,
            task_id="t0",
            dag_id=dag_id,
            run_id=run_name,
            try_number=1,
            dag_version_id=uuid4(),
        ),
        bundle_info=bundle,
        dag_rel_path=f"{dag_id}.py",
        token="",
        client=client,
        log_path=f"measured/{ti_id}.log",
    )
    after = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    assert code == 0 and states, f"the task's process ended with {code}"  # noqa: PT018
    spent = [
        now.ru_utime + now.ru_stime - then.ru_utime - then.ru_stime
        for then, now in zip(before, after, strict=True)
    ]
    taken[kind].append(spent[0])
    if kind != EMPTY:
        taken["supervisor"].append(spent[1])
    if states[-1]["state"] == "deferred":
        return states[-1]
    assert states[-1]["state"] == "success", states[-1]
    return None


def _dag_id(kind: str) -> str:
    return "nothing" if kind == EMPTY else "measured"


def _context(dag_id: str, run_name: str) -> dict[str, Any]:
    moment = "2026-01-01T00:00:00Z"
    return {
        "dag_run": {
            "dag_id": dag_id,
            "run_id": run_name,
            "logical_date": moment,
            "data_interval_start": moment,
            "data_interval_end": moment,
            "run_after": moment,
            "start_date": moment,
            "end_date": None,
            "run_type": "manual",
            "state": "running",
            "consumed_asset_events": [],
            "partition_key": None,
        },
        "max_tries": 0,
        "should_retry": False,
        "start_date": moment,
    }


# -- the whole measure ----------------------------------------------------------------------------


@contextmanager
def service() -> Iterator[int]:
    """Start the service in a process of its own, and yield its port."""
    code = (
        "import sys\n"
        "from tests.fakes.fake_service import UNTIL_ENDED, FakeService\n"
        "with FakeService(UNTIL_ENDED) as service:\n"
        "    print(service.port, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        assert process.stdin is not None
        process.stdin.close()


def measure(
    python: str, parent: str, task: str, *, rounds: int, port: int, operators: int = 1
) -> dict[str, list[float]]:
    """Measure one kind of task under one kind of parent, in an Airflow of its own."""
    with tempfile.TemporaryDirectory() as home:
        dags = Path(home, "dags")
        dags.mkdir()
        for kind, chosen in ((EMPTY, EMPTY), ("first", task)):
            text = _DAG.format(
                dag=_dag_id(kind),
                imported=_IMPORTS[chosen],
                arguments=_ARGUMENTS[chosen],
                operators=operators,
            )
            Path(dags, f"{_dag_id(kind)}.py").write_text(text)
        connection = {
            "conn_id": "databricks_default",
            "conn_type": "databricks",
            "host": "127.0.0.1",
            "schema": "http",
            "login": None,
            "password": "the-token-of-the-fake-service",
            "port": port,
            "extra": None,
        }
        environment = {
            # Without it each process would compile the modules of a checkout anew.
            **{k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(Path(home, "logs")),
            "MEASURED_CONNECTION": json.dumps(connection),
            "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))),
            "NO_PROXY": "*",
            "no_proxy": "*",
        }
        command = [python, "-W", "ignore", "-m", "benchmarks.task_processes", "--supervise"]
        result = subprocess.run(
            [*command, parent, task, "--rounds", str(rounds)],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            for log in sorted(Path(home, "logs").rglob("*.log"))[:2]:
                print(log.read_text()[-6000:])
            raise RuntimeError(result.stdout[-3000:] + result.stderr[-3000:])
        measured: dict[str, list[float]] = json.loads(result.stdout.splitlines()[-1])
        return measured


def _figure(seconds: list[float], least: float) -> str:
    return f"{1000 * statistics.median(seconds):.1f} ({1000 * least:.1f})"


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="tasks for each figure; 30")
    parser.add_argument("--official", help="a Python that has the official provider")
    parser.add_argument("--operators", type=int, default=1, help="operators in the DAG file; 1")
    parser.add_argument("--parents", default=",".join(PARENTS))
    parser.add_argument("--supervise", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.supervise:
        parent, task = arguments.supervise
        print(json.dumps(supervise(parent, task, arguments.rounds)))
        return 0
    print("| parent | task | empty, ms | first, ms more | resuming, ms more | supervisor, ms |")
    print("| --- | --- | --- | --- | --- | --- |")
    with service() as port:
        for parent in arguments.parents.split(","):
            for task in TASKS:
                python = arguments.official if task == "official" else sys.executable
                if python is None:
                    continue
                times = measure(
                    python,
                    parent,
                    task,
                    rounds=arguments.rounds,
                    port=port,
                    operators=arguments.operators,
                )
                empty = times["empty"]
                figures = (
                    _figure(empty, min(empty)),
                    *(
                        _figure(
                            [more - less for more, less in zip(times[kind], empty, strict=True)],
                            min(times[kind]) - min(empty),
                        )
                        for kind in ("first", "resuming")
                    ),
                    _figure(times["supervisor"], min(times["supervisor"])),
                )
                print(f"| {parent} | {task} | {' | '.join(figures)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
