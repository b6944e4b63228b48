"""What hundreds of deferred runs cost the triggerers of a distributed Airflow, for both providers.

    python -m benchmarks.distributed [--runs 300] [--seconds 60] [--rounds 3]

Airflow with CeleryExecutor, PostgreSQL, Redis and two triggerers, as processes on this machine; one
DAG run a round for each provider in turn, whose tasks wait for the same runs of a counting server,
polled every 5 s. Counted are the requests that the server gets and the CPU time of both triggerers
with all their processes, from when all triggers have begun, less that of the same time without any
trigger. Needs PostgreSQL and Redis; the environment with the official provider is made by the
benchmark.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from scripts import official

HERE = Path(__file__).parent
ROOT = HERE.parent
PROVIDERS = ("this_one", "official")
# After the last trigger has begun, so that its first poll is over.
SETTLE_SECONDS = 10
MORE = ("apache-airflow-providers-celery", "psycopg2-binary", "asyncpg", "psutil", "pytest")


def main() -> None:
    """Measure, in the environment that has both providers, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if not chosen.inside:
        python = official.python(ROOT / ".venv-official-distributed", more=MORE)
        env = os.environ | {"PYTHONPATH": str(ROOT), "BENCHMARK_RUNS": str(chosen.runs)}
        command = [python, "-m", "benchmarks.distributed", "--inside", *sys.argv[1:]]
        sys.exit(subprocess.run(command, env=env, cwd=ROOT, check=False).returncode)
    print_table(measure(chosen.runs, chosen.seconds, chosen.rounds))


def measure(runs: int, seconds: float, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Return requests and CPU seconds of each round, for each provider and for none."""
    import tempfile

    from scripts.services import PostgresServer, RedisServer
    from tests.end_to_end.airflow_cluster import AirflowCluster
    from tests.fakes.fake_service import UNTIL_ENDED, FakeService

    measured: dict[str, list[dict[str, float]]] = {name: [] for name in ("none", *PROVIDERS)}
    with (
        tempfile.TemporaryDirectory() as home,
        FakeService(UNTIL_ENDED) as workspace,
        PostgresServer() as postgres,
        RedisServer() as redis,
    ):
        launch(workspace.url, runs)
        # In the form that both providers take.
        address = {"schema": "http", "host": "127.0.0.1", "port": workspace.port}
        connection = json.loads(workspace.connection) | {"conn_type": "databricks"} | address
        settings = {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(2 * runs),
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": str(2 * runs),
            "AIRFLOW__CELERY__BROKER_URL": redis.url,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{postgres.url}/postgres",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": "2",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "60",
            "BENCHMARK_RUNS": str(runs),
        }
        with AirflowCluster(
            Path(home),
            HERE / "distributed_dags",
            {"AIRFLOW_CONN_DATABRICKS_DEFAULT": json.dumps(connection)},
            settings,
            database_server=postgres.url,
            components=("scheduler", "dagprocessor", "apiserver", "worker-1"),
        ) as cluster:
            cluster.start_triggerer()
            for number in range(rounds + 1):
                for name in ("none", *PROVIDERS):
                    row = one(cluster, workspace, name, runs, seconds)
                    if number:  # The first round is for imports.
                        measured[name].append(row)
                        print(name, row, flush=True)
    return measured


def one(cluster: Any, workspace: Any, name: str, runs: int, seconds: float) -> dict[str, float]:
    """Measure one round of one provider, or of no trigger at all."""
    from tests.end_to_end.eventually import eventually

    dag_run = None
    if name != "none":
        dag_run = cluster.trigger(name)
        pattern = rf"trigger {dag_run.dag_id}/{dag_run.run_id}/.* \(ID (\d+)\) starting"
        eventually(
            # Of both: one may have taken triggers over from the other.
            lambda: (
                len(
                    set().union(
                        *(cluster.logged_by_triggers(one, pattern) for one in cluster.triggerers)
                    )
                )
                == runs
            ),
            f"all {runs} triggers have begun",
            seconds=180,
        )
        time.sleep(SETTLE_SECONDS)
    requests, cpu = workspace.requests, cluster.cpu_seconds(*cluster.triggerers)
    time.sleep(seconds)
    row = {
        "requests": workspace.requests - requests,
        "cpu": cluster.cpu_seconds(*cluster.triggerers) - cpu,
    }
    if dag_run is not None:
        dag_run.mark_all("failed")
        quiet = seconds_without_requests(workspace)
        assert quiet, f"the triggers of {name} go on after their DAG run has ended"
        for number in range(1001, 1001 + runs):
            # A trigger may have canceled its run with the DAG run.
            workspace.run(number).canceled_at = None
    return row


def seconds_without_requests(workspace: Any) -> bool:
    """Wait until the server was asked nothing for 8 s."""
    for _ in range(30):
        before = workspace.requests
        time.sleep(8)
        if workspace.requests == before:
            return True
    return False


def launch(url: str, runs: int) -> None:
    """Launch the runs that all tasks wait for."""
    from airflow_jobs_provider.api import endpoints
    from airflow_jobs_provider.api.auth import Token
    from airflow_jobs_provider.api.client import JobsClient
    from tests.fakes.fake_service import TOKEN

    request = {"existing_cluster_id": "c", "notebook_task": {"notebook_path": "/Shared/long"}}
    with JobsClient(url, Token(TOKEN)) as client:
        for _ in range(runs):
            client.send(endpoints.submit_run(request))


def print_table(measured: dict[str, list[dict[str, float]]]) -> None:
    """Print the medians."""
    idle = statistics.median(row["cpu"] for row in measured["none"])
    print("| provider | requests | CPU s of both triggerers, over the idle ones |")
    print("| --- | --- | --- |")
    for name in PROVIDERS:
        requests = statistics.median(row["requests"] for row in measured[name])
        cpu = statistics.median(row["cpu"] for row in measured[name]) - idle
        print(f"| {name.replace('_', ' ')} | {requests:,.0f} | {cpu:.2f} |")
    print(f"Two idle triggerers: {idle:.2f} CPU s.")


if __name__ == "__main__":
    main()
