"""What checking costs: a request of 100 tasks, and parsing a DAG of 50 tasks.

    python -m benchmarks.validation [--rounds 7]

A request: 100 tasks, each with a notebook and its parameters, a new cluster with tags and Spark
configuration, and a library; checked again and again in one process. The first time counts apart,
since the checkers are made then.

A DAG: 50 submit operators, each with a request that holds no template and is checked in the
constructor. Each parse is in a fresh process, as Airflow's DAG processor does it, that has imported
Airflow; what is timed is running the DAG file, imports of this package included. Airflow's own time
is the same DAG of 50 plain operators. Medians; CPU time, so that a busy machine counts less.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

TASK: dict[str, Any] = {
    "notebook_task": {
        "notebook_path": "/Shared/etl",
        "base_parameters": {f"parameter_{n}": "value" for n in range(5)},
    },
    "new_cluster": {
        "spark_version": "15.4.x-scala2.12",
        "node_type_id": "Standard_D3_v2",
        "num_workers": 2,
        "spark_conf": {f"spark.option{n}": "value" for n in range(5)},
        "custom_tags": {f"tag{n}": "value" for n in range(5)},
    },
    "libraries": [{"pypi": {"package": "simplejson==3.8.0"}}],
}
REQUEST = {"tasks": [{"task_key": f"task_{n}", **TASK} for n in range(100)]}
LIMIT_REQUEST_MS = 10
LIMIT_PARSE_MS = 100

_PARSE = """
import sys, time
import airflow.models
from airflow.providers.common.compat.sdk import (
    DAG, AirflowException, AirflowFailException, BaseOperator, BaseOperatorLink, XCom, conf)
from benchmarks.validation import TASK
with DAG("warm", schedule=None):
    BaseOperator(task_id="warm")
before = time.process_time()
with DAG("d", schedule=None):
    if sys.argv[1] == "plain":
        for n in range(50):
            BaseOperator(task_id=f"t{n}")
    else:
        from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator
        for n in range(50):
            DatabricksSubmitRunOperator(
                task_id=f"t{n}", validate=sys.argv[1] == "checked", **TASK)
print(time.process_time() - before)
"""


def check_requests(rounds: int) -> tuple[float, float]:
    """Return the milliseconds of the first check, and the median of later ones."""
    taken: list[float] = []
    for _ in range(rounds * 3 + 1):
        before = time.process_time()
        if not taken:
            from airflow_jobs_provider.api.schema.validation import validate
        validate("runs/submit", REQUEST)
        taken.append((time.process_time() - before) * 1000)
    return taken[0], statistics.median(taken[1:])


def parse_a_dag(kind: str, rounds: int) -> float:
    """Return the median milliseconds of running a DAG file of 50 tasks."""
    taken: list[float] = []
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        for _ in range(rounds):
            result = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", _PARSE, kind],
                env=environment,
                check=True,
                capture_output=True,
                text=True,
            )
            taken.append(float(result.stdout.split()[-1]) * 1000)
    return statistics.median(taken)


def main() -> int:
    """Measure, print a table, and fail where a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="processes for each figure; 7")
    rounds = parser.parse_args().rounds
    first, later = check_requests(rounds)
    plain = parse_a_dag("plain", rounds)
    unchecked = parse_a_dag("unchecked", rounds)
    checked = parse_a_dag("checked", rounds)
    print("| what | CPU ms |")
    print("| --- | --- |")
    print(f"| checking a request of 100 tasks, the first time | {first:.1f} |")
    print(f"| the same, after the first | {later:.1f} |")
    print(f"| parsing a DAG of 50 plain operators | {plain:.1f} |")
    print(f"| parsing a DAG of 50 submit operators, validate=False | {unchecked:.1f} |")
    print(f"| the same, checked | {checked:.1f} |")
    print(f"| over Airflow's own | {checked - plain:.1f} |")
    return int(later > LIMIT_REQUEST_MS or checked - plain > LIMIT_PARSE_MS)


if __name__ == "__main__":
    sys.exit(main())
