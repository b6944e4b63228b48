"""Launch the same work with the official provider's operators and with this package's.

    python launch_with_both.py CASES

CASES is JSON: for each case the class, its arguments, and optionally the DAG's params. Prints, for
each case, what each provider sent to launch it. The environment that runs it has both packages.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.databricks.operators import (  # type: ignore[import-not-found]
    databricks as official,
)

from airflow_jobs_provider.operators import jobs as ours
from tests.fakes.scripted_server import ScriptedServer, Step, answer

LAUNCHES = ("run-now", "runs/submit", "create", "reset")
RUN = {
    "run_id": 7,
    "job_id": 3,
    "run_page_url": "http://w/7",
    "state": {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS", "state_message": ""},
}
RESPONSES: dict[str, Any] = {
    "run-now": {"run_id": 7},
    "runs/submit": {"run_id": 7},
    "create": {"job_id": 3},
    "list": {"jobs": [{"job_id": 3, "settings": {"name": "nightly"}}]},
    "runs/get": RUN,
    "pipelines": {"statuses": [{"pipeline_id": "a-1", "name": "sales"}]},
}


class Responses(list[Step]):
    """Steps without an end."""

    def __init__(self, server: ScriptedServer) -> None:
        super().__init__()
        self._server = server
        server.steps = self

    def __bool__(self) -> bool:
        return True

    def pop(self, _place: Any = -1) -> Step:
        """Answer the request that came last."""
        return answer(RESPONSES.get(path(self._server.requests[-1].path), {}))


def path(url_path: str) -> str:
    """Return an endpoint's path without the version and the service."""
    return url_path.split("/", 3)[3].removeprefix("jobs/").rstrip("/")


class TaskInstance(SimpleNamespace):
    """What operators and OpenLineage's macros ask of a task instance."""

    def xcom_push(self, key: str, value: Any) -> None:
        """Take an XCom."""

    def get_template_context(self) -> dict[str, Any]:
        """Return the context."""
        return self.context  # type: ignore[no-any-return]


def context_of(task: Any) -> dict[str, Any]:
    """Return the context of a task's first try."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    dag_run = SimpleNamespace(
        dag_id="sales", run_id="r", logical_date=moment, run_after=moment, clear_number=0, conf={}
    )
    ti = TaskInstance(
        dag_id="sales",
        task_id=task.task_id,
        run_id="r",
        map_index=-1,
        try_number=1,
        max_tries=0,
        start_date=moment,
        logical_date=moment,
        task=task,
    )
    ti.context = {
        "ti": ti,
        "task_instance": ti,
        "dag_run": dag_run,
        "logical_date": moment,
        "params": dict(task.params),
        "task": task,
    }
    return ti.context  # type: ignore[no-any-return]


def launch(module: Any, case: dict[str, Any], server: ScriptedServer) -> list[Any]:
    """Execute a task of one provider; return the paths and bodies of what it launched."""
    server.requests.clear()
    arguments = dict(case["arguments"])
    if not case["class"].startswith("DatabricksCreate"):
        arguments |= {"deferrable": True, "wait_for_termination": False}
    with DAG("sales", schedule=None, params=case.get("params")):
        task = getattr(module, case["class"])(task_id="etl", **arguments)
    context = context_of(task)
    task.render_template_fields(context)
    task.execute(context)
    return [
        [path(request.path), request.body]
        for request in server.requests
        if path(request.path) in LAUNCHES
    ]


def main(cases: list[dict[str, Any]]) -> None:
    """Print what each provider sends for each case."""
    logging.disable()
    server = ScriptedServer()
    Responses(server)
    connection = {
        "conn_type": "databricks",
        "schema": "http",
        "host": "127.0.0.1",
        "port": server.port,
        "password": "token",
    }
    os.environ["AIRFLOW_CONN_DATABRICKS_DEFAULT"] = json.dumps(connection)
    found = [
        {"official": launch(official, case, server), "ours": launch(ours, case, server)}
        for case in cases
    ]
    server.close()
    sys.stdout.write("\n" + json.dumps(found))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
