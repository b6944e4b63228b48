"""The hook over real HTTP: an Airflow connection, a method, a request."""

from __future__ import annotations

import asyncio
import inspect
import json
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_jobs_provider.api.errors import (
    CredentialsError,
    DuplicateNameError,
    InvalidRequestError,
    InvalidSettingsError,
    JobsAPIError,
)
from airflow_jobs_provider.hooks.jobs import DatabricksHook, DatabricksJobsHook, RunState
from airflow_jobs_provider.local.workspace import LocalWorkspace
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
ENDED = {"life_cycle_state": "TERMINATED", "result_state": "FAILED", "state_message": "no file"}
RUN = {"run_id": 7, "job_id": 3, "run_page_url": "http://x/7", "state": ENDED}
TASKS = [{"task_key": "a", "run_id": 8}, {"task_key": "b", "run_id": 9}]
PIPELINE = {"pipeline_id": "36c5a3f0-01", "name": "sales", "state": "IDLE"}
ORIGINAL = {"type": "ORIGINAL"}
REPAIRS = [ORIGINAL, {"type": "REPAIR", "id": 11}, {"type": "REPAIR", "id": 12}]
LATEST = {"create", "reset", "runs/repair"}
CASES: list[tuple[str, tuple[Any, ...], str, Any, Any]] = [
    # method, arguments, path, answer, result
    ("create_job", (SETTINGS,), "create", {"job_id": 3}, 3),
    ("list_jobs", (), "list", {"jobs": [{"job_id": 3}]}, [{"job_id": 3}]),
    ("iter_jobs", (), "list", {"jobs": [{"job_id": 3}]}, [{"job_id": 3}]),
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
    ("get_run_state", (7,), "runs/get", RUN, RunState("TERMINATED", "FAILED", "no file")),
    (
        "get_run_state_str",
        (7,),
        "runs/get",
        RUN,
        "State: TERMINATED. Result: FAILED. no file",
    ),
    ("get_run_state_lifecycle", (7,), "runs/get", RUN, "TERMINATED"),
    ("get_run_state_result", (7,), "runs/get", RUN, "FAILED"),
    ("get_run_state_result", (7,), "runs/get", {"run_id": 7}, ""),
    ("get_run_state_message", (7,), "runs/get", RUN, "no file"),
    ("get_run_page_url", (7,), "runs/get", RUN, "http://x/7"),
    ("get_job_id", (7,), "runs/get", RUN, 3),
    ("get_run_tasks", (7,), "2.2/jobs/runs/get", {**RUN, "tasks": TASKS}, TASKS),
    ("get_run_tasks", (7,), "2.2/jobs/runs/get", RUN, []),
    ("get_latest_repair_id", (7,), "2.2/jobs/runs/get", {**RUN, "repair_history": REPAIRS}, 12),
    (
        "get_latest_repair_id",
        (7,),
        "2.2/jobs/runs/get",
        {**RUN, "repair_history": [ORIGINAL]},
        None,
    ),
    ("get_latest_repair_id", (7,), "2.2/jobs/runs/get", RUN, None),
    ("list_pipelines", (), "2.0/pipelines", {"statuses": [PIPELINE]}, [PIPELINE]),
    ("list_pipelines", (), "2.0/pipelines", {}, []),
    (
        "find_pipeline_id_by_name",
        ("sales",),
        "2.0/pipelines",
        {"statuses": [PIPELINE]},
        "36c5a3f0-01",
    ),
    (
        "update_job_permission",
        (3, {"access_control_list": []}),
        "2.0/permissions/jobs/3",
        {"object_id": "/jobs/3"},
        {"object_id": "/jobs/3"},
    ),
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
    if not path.startswith("2."):
        path = f"{'2.2' if path in LATEST else '2.0'}/jobs/{path}"
    assert request.path == f"/api/{path}"
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


def test_the_constructor_and_list_jobs_have_the_official_order() -> None:
    """Arguments by position mean what they mean in the official provider."""
    official = "databricks_conn_id timeout_seconds retry_limit retry_delay retry_args caller"
    assert [*inspect.signature(DatabricksHook).parameters][:6] == official.split()
    parameters = inspect.signature(DatabricksHook.list_jobs).parameters
    assert [*parameters][1:6] == [
        *("limit", "expand_tasks", "job_name", "page_token", "include_user_names")
    ]
    assert parameters["offset"].kind is inspect.Parameter.KEYWORD_ONLY
    with pytest.raises(ValueError, match="retry_limit must be 1 or more"):
        DatabricksHook("c", 180, 0, 1.0, None, "me")


def test_list_jobs_returns_all_jobs_from_all_pages(method: Method, server: ScriptedServer) -> None:
    """The limit is that of a page; the name is compared here, too."""
    pages = (
        {"jobs": [{"job_id": 1, "settings": {"name": "etl"}}], "next_page_token": "two"},
        {"jobs": [{"job_id": 2, "settings": {"name": "ETL"}}], "next_page_token": "three"},
        {"jobs": [{"job_id": 3, "settings": {"name": "etl"}}, {"job_id": 4}]},
    )
    for name in ("list_jobs", "iter_jobs"):
        server.will(*map(answer, pages))
        jobs = method(name, 1, True, "etl", "one", True)
        assert [job["job_id"] for job in jobs] == [1, 3]
    given = {"limit": "1", "expand_tasks": "true", "name": "etl", "include_user_names": "true"}
    assert [request.query for request in server.requests] == [
        {**given, "page_token": token} for token in ("one", "two", "three")
    ] * 2
    assert {request.path for request in server.requests} == {"/api/2.2/jobs/list"}


def test_iter_jobs_reads_no_more_pages_than_needed(
    connection: None, server: ScriptedServer
) -> None:
    """The first job of a long list takes one request; an offset is skipped by the service."""
    server.will(answer({"jobs": [{"job_id": 1}, {"job_id": 2}], "next_page_token": "two"}))
    assert next(DatabricksHook().iter_jobs(offset=5)) == {"job_id": 1}
    (request,) = server.requests
    assert request.query == {"offset": "5"}


def test_pipelines_are_listed_by_name_or_notebook(method: Method, server: ScriptedServer) -> None:
    """All pages are read; quotation marks in a name cannot end the filter."""
    server.will(
        answer({"statuses": [PIPELINE], "next_page_token": "two"}),
        answer({"statuses": [{**PIPELINE, "pipeline_id": "other"}]}),
    )
    found = method("list_pipelines", 1, "it's %")
    assert [one["pipeline_id"] for one in found] == ["36c5a3f0-01", "other"]
    method("list_pipelines", notebook_path="/Shared/etl")
    by_name = {"max_results": "1", "filter": "name LIKE 'it''s %'"}
    assert [request.query for request in server.requests] == [
        by_name,
        {**by_name, "page_token": "two"},
        {"filter": "notebook='/Shared/etl'"},
    ]
    with pytest.raises(AirflowException, match="must not be combined"):
        method("list_pipelines", pipeline_name="a", notebook_path="b")


def test_a_pipeline_is_found_by_exactly_its_name(method: Method, server: ScriptedServer) -> None:
    """The service takes the underscore for any character."""
    similar = [{"pipeline_id": "a", "name": "my_etl"}, {"pipeline_id": "b", "name": "my-etl"}]
    server.will(
        answer({"statuses": similar}),
        answer({"statuses": []}),
        answer({"statuses": [{"pipeline_id": "c", "name": "my_etl"}, similar[0]]}),
    )
    assert method("find_pipeline_id_by_name", "my_etl") == "a"
    assert method("find_pipeline_id_by_name", "my_etl") is None
    with pytest.raises(DuplicateNameError, match=r"2 pipelines have.*pipeline_id c, a") as caught:
        method("find_pipeline_id_by_name", "my_etl")
    assert isinstance(caught.value, AirflowException)
    assert (caught.value.name, caught.value.ids) == ("my_etl", ["c", "a"])
    assert method("find_pipeline_id_by_name", "") is None
    assert len(server.requests) == 3


BAD_ANSWERS = [
    ("get_run", (7,), {"error_code": "INVALID_PARAMETER_VALUE", "message": "Run 7 does not exist"}),
    ("get_job_id", (7,), None),
    ("list_jobs", (), None),
    ("list_runs", (), None),
    ("list_pipelines", (), None),
    ("reset_job", (3, SETTINGS), {"error_code": "MALFORMED_REQUEST", "message": "no"}),
]


@pytest.mark.parametrize(("name", "arguments", "refusal"), BAD_ANSWERS)
def test_an_error_of_a_method_is_an_airflow_exception_as_well(
    name: str, arguments: tuple[Any, ...], refusal: Any, method: Method, server: ScriptedServer
) -> None:
    """Whoever called the hook decides about retries: never an AirflowFailException."""
    odd = {"run_id": 7, "jobs": [1], "runs": [1], "statuses": [{"name": "n"}]}
    server.will(answer(odd) if refusal is None else answer(refusal, 400))
    with pytest.raises(AirflowException) as caught:
        method(name, *arguments)
    error: Any = caught.value
    kinds = [isinstance(error, kind) for kind in (JobsAPIError, AirflowFailException)]
    assert (kinds, bool(error.call)) == ([True, False], True)
    assert "_send_once" in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("update_job_permission", ("x/../y", {})),
        ("reset_job", ("x", {"access_control_list": [{}]})),
        ("get_run", ("seven",)),
        ("submit_run", ({"run_name": {1}},)),
        ("find_job_id_by_name", ("two",)),
    ],
)
def test_so_is_one_that_is_raised_before_or_after_the_request(
    name: str, arguments: tuple[Any, ...], method: Method, server: ScriptedServer
) -> None:
    """An unusable argument, and a name that two jobs have."""
    server.will(answer(JOBS))
    with pytest.raises(AirflowException) as caught:
        method(name, *arguments)
    assert isinstance(caught.value, (InvalidRequestError, DuplicateNameError))
    assert isinstance(caught.value, ValueError)


def test_so_is_that_of_an_unusable_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is read at the first use, on both faces."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_DATABRICKS_DEFAULT",
        json.dumps({"conn_type": "databricks", "host": "http://127.0.0.1:1", "login": "me"}),
    )
    with pytest.raises(AirflowException) as caught:
        DatabricksHook().get_run(7)
    assert isinstance(caught.value, CredentialsError)
    with pytest.raises(AirflowException) as caught:
        asyncio.run(DatabricksHook().a_get_run(7))
    assert isinstance(caught.value, CredentialsError)
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps({"conn_type": "databricks"}))
    with pytest.raises(AirflowException, match="has no host") as caught:
        DatabricksHook().get_run(7)
    assert isinstance(caught.value, InvalidSettingsError)


def test_an_open_hook_keeps_its_client(connection: None, server: ScriptedServer) -> None:
    """``async with`` opens one client for all calls; without it each call opens one."""

    async def ask() -> list[Any]:
        async with DatabricksHook() as hook:
            clients = []
            for run_id in (7, 8):
                async with hook._any_async_client() as client:
                    clients.append(client)
                assert (await hook.a_get_run(run_id))["run_id"] == run_id
            with pytest.raises(RuntimeError, match="open already"):
                await hook.__aenter__()
        async with hook._any_async_client() as client:
            clients.append(client)
        assert (await hook.a_get_run(9))["run_id"] == 9
        return clients

    first, second, third = asyncio.run(ask())
    assert first is second is not third
    assert len(server.requests) == 3


def test_what_the_connection_says_can_be_read(connection: None, server: ScriptedServer) -> None:
    """The Airflow connection and the host, as in the official hook."""
    hook = DatabricksHook()
    assert (hook.get_conn().conn_id, hook.get_conn().host) == ("databricks_default", server.url)
    assert hook.databricks_conn.conn_id == "databricks_default"
    assert hook.host == "127.0.0.1"


def test_a_job_is_found_by_its_name(method: Method, server: ScriptedServer) -> None:
    """Exactly one job may have the name; none is None."""
    server.will(answer(JOBS), answer(JOBS), answer(JOBS))
    assert method("find_job_id_by_name", "one") == 1
    assert method("find_job_id_by_name", "on") is None
    with pytest.raises(DuplicateNameError, match="job_id 2, 3"):
        method("find_job_id_by_name", "two")


def test_test_connection(connection: None, server: ScriptedServer) -> None:
    """The button in the connection form says that it works, or why it does not."""
    server.will(answer({}), answer({"userName": "me@example.com"}))
    method = "(authentication: access token of the connection)"
    assert DatabricksJobsHook().test_connection() == (
        True,
        f"Connected to {server.url} as me@example.com: the Jobs API answers {method}.",
    )
    assert [one.path.rpartition("/")[2] for one in server.requests] == ["list", "Me"]
    server.will(answer({"error_code": 403, "message": "Invalid access token."}, 403))
    works, message = DatabricksJobsHook().test_connection()
    assert (works, "Invalid access token" in message) == (False, True)
    assert message.endswith(method)
    assert TOKEN not in message


def test_a_connection_works_where_nobody_tells_who_one_is(
    connection: None, server: ScriptedServer
) -> None:
    """The Jobs API is what matters."""
    server.will(answer({}), answer({"error_code": "NOT_FOUND"}, 404))
    works, message = DatabricksJobsHook().test_connection()
    assert works
    assert f"{server.url}: the Jobs API answers" in message


def test_a_closed_hook_can_be_used_again(connection: None, server: ScriptedServer) -> None:
    """Closing ends the connections, not the hook."""
    hook = DatabricksJobsHook()
    hook.cancel_run(7)
    hook.close()
    hook.cancel_run(7)
    assert len(server.requests) == 2


@pytest.fixture(scope="module")
def dry_workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalWorkspace]:
    """A local workspace in which each run succeeds at once."""
    with LocalWorkspace(tmp_path_factory.mktemp("dry"), dry_run=True) as workspace:
        yield workspace


def test_the_methods_agree_with_a_workspace(
    dry_workspace: LocalWorkspace, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs over several pages, a run of one of them, and its repairs."""
    fields = {"host": dry_workspace.url, "password": dry_workspace.token}
    connection = json.dumps({"conn_type": "databricks_jobs", **fields})
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", connection)
    before = {job["job_id"] for job in method("list_jobs")}
    task = {
        "task_key": "a",
        "existing_cluster_id": "1-my-c",
        "notebook_task": {"notebook_path": "/n"},
    }
    names = ["one", "two", "two"]
    jobs = [method("create_job", {"name": name, "tasks": [task]}) for name in names]
    assert {job["job_id"] for job in method("list_jobs")} - before == set(jobs)
    listed = method("list_jobs", 1, True)
    assert {job["job_id"] for job in listed} - before == set(jobs)
    assert listed[0]["settings"]["tasks"][0]["task_key"] == "a"
    assert {job["job_id"] for job in method("list_jobs", job_name="two")} == set(jobs[1:])
    assert method("find_job_id_by_name", "one") == jobs[0]
    with pytest.raises(DuplicateNameError):
        method("find_job_id_by_name", "two")
    access = {"access_control_list": [{"user_name": "u", "permission_level": "CAN_VIEW"}]}
    assert method("update_job_permission", jobs[0], access)["object_id"] == f"/jobs/{jobs[0]}"
    run_id = method("run_now", {"job_id": jobs[0]})
    assert method("get_job_id", run_id) == jobs[0]
    assert [one["task_key"] for one in method("get_run_tasks", run_id)] == ["a"]
    assert method("get_run_state_lifecycle", run_id) in RunState.RUN_LIFE_CYCLE_STATES
    assert method("get_latest_repair_id", run_id) is None
    method("cancel_all_runs", jobs[0])
    for job_id in jobs:
        method("delete_job", job_id)
