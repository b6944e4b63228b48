"""The hook over real HTTP: an Airflow connection, a method, a request."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from tests.fakes.scripted_server import TOKEN, ScriptedServer, answer

Method = Callable[..., Any]


@pytest.fixture
def connection(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An Airflow connection to the scripted server."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_DATABRICKS_DEFAULT",
        json.dumps({"conn_type": "databricks_jobs", "host": server.url, "password": TOKEN}),
    )


@pytest.fixture(params=["", "a_"], ids=["blocking", "asyncio"])
def method(request: pytest.FixtureRequest, connection: None) -> Method:
    """Calls a method of the hook by its name, on either face; a list is returned whole."""
    hook = DatabricksJobsHook(retry_limit=1, caller="test")

    def call(name: str, *arguments: Any, **named: Any) -> Any:
        result = getattr(hook, request.param + name)(*arguments, **named)
        if hasattr(result, "__aiter__"):

            async def collect() -> list[Any]:
                return [item async for item in result]

            return asyncio.run(collect())
        if inspect.iscoroutine(result):
            return asyncio.run(result)
        return list(result) if hasattr(result, "__next__") else result

    return call


SETTINGS = {"run_job_task": {"job_id": 1}}
RUN = {"run_id": 7, "run_page_url": "http://x/7", "state": {"life_cycle_state": "RUNNING"}}
CASES: list[tuple[str, tuple[Any, ...], str, Any, Any]] = [
    # method, arguments, path, answer, result
    ("create_job", (SETTINGS,), "create", {"job_id": 3}, 3),
    ("list_jobs", (), "list", {"jobs": [{"job_id": 3}]}, [{"job_id": 3}]),
    ("get_job", (3,), "get", {"job_id": 3}, {"job_id": 3}),
    ("reset_job", (3, SETTINGS), "reset", {}, None),
    ("update_job", (3, {}, ["libraries"]), "update", {}, None),
    ("delete_job", (3,), "delete", {}, None),
    ("run_now", ({"job_id": 3},), "run-now", {"run_id": 7}, 7),
    ("submit_run", (SETTINGS,), "runs/submit", {"run_id": 7}, 7),
    ("list_runs", (True,), "runs/list", {"runs": [RUN]}, [RUN]),
    ("get_run", (7,), "runs/get", RUN, RUN),
    ("export_run", (7,), "runs/export", {"views": [{"name": "n"}]}, [{"name": "n"}]),
    ("cancel_run", (7,), "runs/cancel", {}, None),
    ("cancel_all_runs", (3,), "runs/cancel-all", {}, None),
    ("get_run_output", (7,), "runs/get-output", {"metadata": RUN}, {"metadata": RUN}),
    ("delete_run", (7,), "runs/delete", {}, None),
    (
        "repair_run",
        ({"run_id": 7, "rerun_all_failed_tasks": True},),
        "runs/repair",
        {"repair_id": 5},
        5,
    ),
    ("get_run_state", (7,), "runs/get", RUN, RunState("RUNNING")),
    ("get_run_page_url", (7,), "runs/get", RUN, "http://x/7"),
]


@pytest.mark.parametrize(("name", "arguments", "path", "payload", "result"), CASES)
def test_every_method_asks_and_reads(
    name: str,
    arguments: tuple[Any, ...],
    path: str,
    payload: Any,
    result: Any,
    method: Method,
    server: ScriptedServer,
) -> None:
    """One request with the connection's token, told apart by its caller; its answer is read."""
    server.will(answer(payload))
    assert method(name, *arguments) == result
    (request,) = server.requests
    version = "2.2" if path in ("create", "reset", "runs/repair") else "2.0"
    assert request.path == f"/api/{version}/jobs/{path}"
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert request.headers["user-agent"].endswith(" test")


JOBS = {
    "jobs": [
        {"job_id": 1, "settings": {"name": "one"}},
        {"job_id": 2, "settings": {"name": "two"}},
        {"job_id": 3, "settings": {"name": "two"}},
        {"job_id": 4},
    ]
}


def test_a_job_is_found_by_its_name(method: Method, server: ScriptedServer) -> None:
    """Exactly one job may have the name; none is None."""
    server.will(answer(JOBS), answer(JOBS), answer(JOBS))
    assert method("find_job_id_by_name", "one") == 1
    assert method("find_job_id_by_name", "on") is None
    with pytest.raises(ValueError, match="job_id 2, 3"):
        method("find_job_id_by_name", "two")


def test_test_connection(connection: None, server: ScriptedServer) -> None:
    """The button in the connection form says that it works, or why it does not."""
    server.will(answer({}), answer({"error_code": 403, "message": "Invalid access token."}, 403))
    assert DatabricksJobsHook().test_connection() == (
        True,
        f"Connected to {server.url}: the Jobs API answers.",
    )
    works, message = DatabricksJobsHook().test_connection()
    assert (works, "Invalid access token" in message) == (False, True)
    assert TOKEN not in message


def test_a_closed_hook_can_be_used_again(connection: None, server: ScriptedServer) -> None:
    """Closing ends the connections, not the hook."""
    hook = DatabricksJobsHook()
    hook.cancel_run(7)
    hook.close()
    hook.cancel_run(7)
    assert len(server.requests) == 2
