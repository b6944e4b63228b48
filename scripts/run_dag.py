"""Run DAGs to their end in this process, triggers included, and write down what became of them.

    python scripts/run_dag.py DAG_FILE DAG_ID RESULT.json [CONF_JSON]
    python scripts/run_dag.py DAG_FOLDER all RESULT.json
    python scripts/run_dag.py DAG_FOLDER several RESULT.json '[["DAG_ID", {"conf": 1}], ...]'

Runs inside Airflow: AIRFLOW_HOME and the connection come from the environment, and the metadata
database must be there. Works with Airflow 2.11 and 3. Exits with 1 unless each DAG run succeeded.
With ``several``, a line ``[DAG RUN] DAG_ID`` precedes the log of each DAG run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

ALL = "all"
SEVERAL = "several"


def load(dag_file: str, dag_id: str) -> dict[str, Any]:
    """Return the DAG of a file by its id, or all DAGs of a folder."""
    try:
        dagbag: Any = import_module("airflow.dag_processing.dagbag")
    except ImportError:  # Airflow before 3.2
        dagbag = import_module("airflow.models.dagbag")
    bag = dagbag.DagBag(dag_folder=dag_file)
    for path, trace in bag.import_errors.items():
        sys.exit(f"Error: {path} cannot be imported.\n{trace}")
    if dag_id in (ALL, SEVERAL):
        return dict(sorted(bag.dags.items()))
    if dag_id not in bag.dags:
        sys.exit(f"Error: {dag_file} has no DAG {dag_id!r}, only {sorted(bag.dags)}.")
    return {dag_id: bag.dags[dag_id]}


def share_api_server() -> None:
    """Let all tasks share one API server in this process, as Airflow 3.3 does.

    Airflow 3.0 to 3.2 make one for each task, which takes 1.6 s of processor time.
    """
    try:
        supervisor: Any = import_module("airflow.sdk.execution_time.supervisor")
    except ImportError:  # Airflow 2
        return
    if not hasattr(supervisor.in_process_api_server, "cache_info"):
        supervisor.in_process_api_server = cache(supervisor.in_process_api_server)


def outcome(dag_id: str, run_id: str, state: str) -> dict[str, Any]:
    """Read states and XComs of a DAG run from the metadata database."""
    from airflow.models import xcom
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    model: Any = getattr(xcom, "XComModel", None) or xcom.XCom  # the name before Airflow 3
    tasks: dict[str, dict[str, Any]] = {}
    with create_session() as session:
        for ti in session.query(TaskInstance).filter_by(dag_id=dag_id, run_id=run_id):
            tasks[_key(ti)] = {"state": str(ti.state), "xcoms": {}}
        for row in session.query(model).filter_by(dag_id=dag_id, run_id=run_id):
            tasks[_key(row)]["xcoms"][row.key] = row.value
    return {"run_id": run_id, "state": state, "tasks": tasks}


def _key(row: Any) -> str:
    return row.task_id if row.map_index < 0 else f"{row.task_id}[{row.map_index}]"


def run(dag: Any, conf: dict[str, Any]) -> dict[str, Any]:
    """Run a DAG to its end, and return its outcome."""
    dag_run = dag.test(run_conf=conf)
    state = str(getattr(dag_run.state, "value", dag_run.state))
    return outcome(dag.dag_id, dag_run.run_id, state)


def run_several(dags: dict[str, Any], wanted: list[tuple[str, Any]], result_file: Path) -> int:
    """Run DAGs one after the other; after each one, write the outcomes so far as a list."""
    outcomes: list[dict[str, Any]] = []
    for dag_id, conf in wanted:
        print(f"\n[DAG RUN] {dag_id}", flush=True)
        outcomes.append(run(dags[dag_id], conf))
        result_file.write_text(json.dumps(outcomes, indent=2))
    return exit_code(outcomes)


def exit_code(outcomes: Iterable[dict[str, Any]]) -> int:
    """Return 0 if each DAG run succeeded, else 1."""
    return 0 if all(one["state"] == "success" for one in outcomes) else 1


def main(dag_file: str, dag_id: str, result_file: str, conf: str = "{}") -> int:
    """Run the DAG or DAGs, write the result file, return the exit code."""
    dags = load(dag_file, dag_id)
    share_api_server()
    if dag_id == SEVERAL:
        return run_several(dags, json.loads(conf), Path(result_file))
    outcomes = {one: run(dag, json.loads(conf)) for one, dag in dags.items()}
    result = outcomes if dag_id == ALL else outcomes[dag_id]
    Path(result_file).write_text(json.dumps(result, indent=2))
    return exit_code(outcomes.values())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
