"""What one process of a task asks for: of the service, and of Airflow."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from tests.fakes.fake_service import TOKEN, UNTIL_ENDED, FakeService
from tests.helpers.tasks import TaskInstance, deferred_by, submit


def test_a_deferred_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its processes opens one connection and reads the Airflow connection once."""
    opened: list[Any] = []
    read: list[str] = []
    get_connection = DatabricksJobsHook.get_connection

    def counted(conn_id: str) -> Any:
        read.append(conn_id)
        return get_connection(conn_id)

    monkeypatch.setattr(DatabricksJobsHook, "get_connection", staticmethod(counted))
    context: Any = {"ti": TaskInstance(), "params": {}, "dag_run": None, "task": None}
    context["ti"].try_number = 1
    with FakeService(UNTIL_ENDED) as service:
        process_request = service._server.process_request

        def accept(request: Any, address: Any) -> None:
            opened.append(address)
            process_request(request, address)

        monkeypatch.setattr(service._server, "process_request", accept)
        connection = {"conn_type": "databricks_jobs", "host": service.url, "password": TOKEN}
        monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))

        deferred = deferred_by(submit(deferrable=True), context)
        assert [seen.endpoint for seen in service.seen] == ["runs/submit", "runs/get"]
        assert (len(opened), read) == (1, ["databricks_default"])

        (run,) = service.runs.values()
        run.end("SUCCESS", run.started)
        opened.clear()
        read.clear()
        service.seen.clear()
        event = {"run": run.as_answer()}
        output = submit(deferrable=True).execute_complete(context, event, **deferred.kwargs or {})
        assert output == f"output of {run.run_id}"
        assert [seen.endpoint for seen in service.seen] == ["runs/get-output"]
        assert (len(opened), read) == (1, ["databricks_default"])
