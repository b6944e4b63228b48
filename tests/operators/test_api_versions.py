"""Operators and hooks on a workspace that tells the versions of the API apart."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_jobs_provider.api.client import JobsClient
from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.local.workspace import LocalWorkspace
from airflow_jobs_provider.operators.jobs import (
    DatabricksCreateJobsOperator,
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from tests.fakes.scripted_server import TOKEN, ScriptedServer, answer
from tests.helpers.responses import LAUNCHED, OUTPUT, SUCCEEDED
from tests.helpers.tasks import TaskInstance

NOTEBOOK: dict[str, Any] = {"notebook_task": {"notebook_path": "/n"}}
ON_CLUSTER: dict[str, Any] = {**NOTEBOOK, "existing_cluster_id": "c"}
NEW = {"spark_version": "v", "node_type_id": "n", "num_workers": 1}
CONTEXT: Any = {"ti": TaskInstance(), "params": {}, "dag_run": None, "task": None}


def context_of(run_id: str) -> Any:
    """Make the context of a task of another DAG run, whose launch is another one."""
    ti = TaskInstance()
    ti.run_id, ti.try_number, ti.max_tries = run_id, 1, 0
    return {**CONTEXT, "ti": ti}


def tasks(count: int) -> list[dict[str, Any]]:
    """Make so many tasks."""
    return [{"task_key": f"t{number}", **ON_CLUSTER} for number in range(count)]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalWorkspace]:
    """A workspace whose runs end at once."""
    with LocalWorkspace(tmp_path_factory.mktemp("dry"), dry_run=True) as dry:
        yield dry


@pytest.fixture
def _connected(workspace: LocalWorkspace, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, workspace.url, workspace.token)


def connect(monkeypatch: pytest.MonkeyPatch, url: str, token: str, **extra: Any) -> None:
    """Make an Airflow connection."""
    connection = {"conn_type": "databricks_jobs", "host": url, "password": token, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))


def submit(**arguments: Any) -> DatabricksSubmitRunOperator:
    """Make a submit operator that polls fast."""
    return DatabricksSubmitRunOperator(
        task_id="etl", polling_period_seconds=0.01, run_name="r", **arguments
    )


# What was refused, as an error of the whole DAG file, and the version that takes it.
SUBMITS: dict[str, tuple[dict[str, Any], str]] = {
    "a serverless notebook": (NOTEBOOK, "2.2"),
    "a serverless notebook of several tasks": ({"tasks": [{"task_key": "a", **NOTEBOOK}]}, "2.2"),
    "101 tasks": ({"tasks": tasks(101)}, "2.2"),
    "1000 tasks": ({"tasks": tasks(1000), "wait_for_termination": False}, "2.2"),
    "other characters": (
        {
            "notebook_task": {"notebook_path": "/n", "base_parameters": {"name": "Jürgen 漢"}},
            "existing_cluster_id": "c",
        },
        "2.2",
    ),
    "numbers as tags, variables and settings": (
        {
            **NOTEBOOK,
            "new_cluster": {
                **NEW,
                "custom_tags": {"cost": 5},
                "spark_env_vars": {"N": 3, "YES": True},
                "spark_conf": {"spark.n": 7},
            },
        },
        "2.0",
    ),
    "tags of another cloud": (
        {
            **NOTEBOOK,
            "new_cluster": {**NEW, "custom_tags": {"azure": "no", "team/cost+center": "a"}},
        },
        "2.0",
    ),
    "numbers below a for-each task": (
        {
            "tasks": [
                {
                    "task_key": "loop",
                    "for_each_task": {
                        "inputs": "[1]",
                        "task": {
                            "task_key": "inner",
                            "notebook_task": {
                                "notebook_path": "/n",
                                "base_parameters": {"n": 5},
                            },
                            "existing_cluster_id": "c",
                        },
                    },
                }
            ]
        },
        "2.2",
    ),
    "a cluster completed by a policy": (
        {**NOTEBOOK, "new_cluster": {"policy_id": "p", "driver_instance_pool_id": "d"}},
        "2.2",
    ),
    "no task's own cluster": (
        {
            "json": {
                "tasks": [{"task_key": "a", "job_cluster_key": "c", **NOTEBOOK}],
                "job_clusters": [{"job_cluster_key": "c", "new_cluster": {"policy_id": "p"}}],
            }
        },
        "2.2",
    ),
}


@pytest.mark.usefixtures("_connected")
@pytest.mark.parametrize(
    "case",
    [
        # The workspace takes seconds of processor time for them.
        pytest.param(case, marks=pytest.mark.slow) if case == "1000 tasks" else case
        for case in SUBMITS
    ],
)
def test_what_a_version_takes_is_submitted(
    case: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """It parses, launches through the version that takes it, and the log says which."""
    arguments, version = SUBMITS[case]
    with caplog.at_level(logging.INFO):
        submit(**arguments).execute(context_of(case))
    # Airflow 3 writes the log of a task to standard output, and 2.11 to both.
    logged = (caplog.text + capsys.readouterr().out).splitlines()
    lines = [line for line in logged if "Launched run" in line]
    assert lines
    for line in lines:
        assert ("version 2.2" in line) == (version == "2.2")
        assert "version 2.0" not in line


@pytest.mark.usefixtures("_connected")
@pytest.mark.parametrize(
    "parameters",
    [
        {"notebook_params": {"a": "b"}, "python_params": ["x"]},
        {"notebook_params": {"name": "Jürgen"}},
        {"job_parameters": {"a": 5}},
        {"notebook_params": {"a": "b"}},
    ],
)
def test_what_a_version_takes_is_run(parameters: dict[str, Any]) -> None:
    """An existing job runs with parameters of several kinds, and of any characters."""
    job_id = DatabricksCreateJobsOperator(task_id="make", name="train", **ON_CLUSTER).execute(
        CONTEXT
    )
    operator = DatabricksRunNowOperator(
        task_id="run", job_id=job_id, polling_period_seconds=0.01, **parameters
    )
    operator.execute(context_of(repr(parameters)))


@pytest.mark.usefixtures("_connected")
def test_a_job_that_is_created_queues(workspace: LocalWorkspace) -> None:
    """Created and reset through 2.2, a job has the default of queueing of today."""
    for _ in range(2):
        job_id = DatabricksCreateJobsOperator(
            task_id="make", name="queueing", **ON_CLUSTER
        ).execute(CONTEXT)
        with DatabricksJobsHook().client as client:
            assert client.base_url == workspace.url
        settings: Any = DatabricksJobsHook().get_job(job_id)["settings"]
        assert settings["queue"] == {"enabled": True}


def test_the_official_parameters_of_a_submit_are_sent_as_text(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers in tags, variables and settings are the text that the service wants."""
    connect(monkeypatch, server.url, TOKEN)
    server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    arguments, _ = SUBMITS["numbers as tags, variables and settings"]
    submit(**arguments).execute(CONTEXT)
    launch = server.requests[0]
    assert launch.path == "/api/2.0/jobs/runs/submit"
    cluster = launch.body["new_cluster"]
    assert cluster["custom_tags"] == {"cost": "5"}
    assert cluster["spark_env_vars"] == {"N": "3", "YES": "true"}
    assert cluster["spark_conf"] == {"spark.n": "7"}
    assert cluster["num_workers"] == 1


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"tasks": tasks(1)}, "tasks"),
        ({**ON_CLUSTER, "git_source": {"git_url": "u"}}, "git_source"),
        ({"json": {**ON_CLUSTER, "queue": {"enabled": True}}}, "queue"),
        (NOTEBOOK, "existing_cluster_id"),
    ],
)
@pytest.mark.parametrize("validate", [True, False])
def test_a_pinned_version_that_is_too_low(
    arguments: dict[str, Any],
    field: str,
    validate: bool,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is sent, and the task is not retried: the message names field and version."""
    connect(monkeypatch, server.url, TOKEN, api_version="2.0")
    operator = submit(validate=validate, **arguments)
    if not validate and field == "existing_cluster_id":
        # Only a rule forbids it, and its user has turned the rules off.
        server.will(LAUNCHED, SUCCEEDED, OUTPUT)
        operator.execute(CONTEXT)
        assert server.requests[0].path == "/api/2.0/jobs/runs/submit"
        return
    with pytest.raises(AirflowFailException) as caught:
        operator.execute(CONTEXT)
    assert field in str(caught.value)
    assert '"api_version": "2.2"' in str(caught.value)
    assert server.requests == []


@pytest.mark.parametrize("face", ["blocking", "asyncio"])
def test_the_hook_obeys_the_same_rule(
    face: str, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each method picks the version by what it asks for; a pinned one is checked likewise."""
    connect(monkeypatch, server.url, TOKEN)

    def ask(name: str, *arguments: Any, **fields: Any) -> Any:
        hook = DatabricksJobsHook()
        if face == "blocking":
            return getattr(hook, name)(*arguments, **fields)
        return asyncio.run(getattr(hook, f"a_{name}")(*arguments, **fields))

    calls: list[tuple[str, tuple[Any, ...], str]] = [
        ("submit_run", (ON_CLUSTER,), "2.0"),
        ("submit_run", (NOTEBOOK,), "2.2"),
        ("submit_run", ({"tasks": tasks(2)},), "2.2"),
        ("run_now", ({"job_id": 1, "notebook_params": {"a": "b"}},), "2.0"),
        ("run_now", ({"job_id": 1, "job_parameters": {"a": "b"}},), "2.2"),
        ("create_job", (ON_CLUSTER,), "2.2"),
        ("reset_job", (1, ON_CLUSTER), "2.2"),
        ("update_job", (1, {"timeout_seconds": 5}), "2.0"),
        ("update_job", (1, {"queue": {"enabled": True}}), "2.2"),
        ("repair_run", ({"run_id": 7, "rerun_all_failed_tasks": True},), "2.2"),
        ("get_run", (7,), "2.0"),
        ("find_job_id_by_name", ("train",), "2.2"),
    ]
    for name, arguments, _ in calls:
        server.will(answer({"run_id": 7, "job_id": 1, "repair_id": 5}))
        ask(name, *arguments)
    assert [request.path.split("/")[2] for request in server.requests] == [v for *_, v in calls]
    connect(monkeypatch, server.url, TOKEN, api_version="2.0")
    with pytest.raises(InvalidRequestError, match="repair"):
        ask("repair_run", {"run_id": 7, "rerun_all_failed_tasks": True})
    with pytest.raises(InvalidRequestError, match="job_parameters"):
        ask("run_now", {"job_id": 1, "job_parameters": {"a": "b"}})
    assert len(server.requests) == len(calls)


def test_the_pages_of_a_list_keep_its_version(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job is looked for by name on 2.2, page after page with the name."""
    connect(monkeypatch, server.url, TOKEN)
    server.will(
        answer({"jobs": [], "next_page_token": "two"}),
        answer({"jobs": [{"job_id": 5, "settings": {"name": "train"}}]}),
    )
    assert DatabricksJobsHook().find_job_id_by_name("train") == 5
    assert [(request.path, request.query) for request in server.requests] == [
        ("/api/2.2/jobs/list", {"name": "train"}),
        ("/api/2.2/jobs/list", {"name": "train", "page_token": "two"}),
    ]


def test_a_job_is_found_by_name_where_2_0_is_pinned(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.0 does not filter by name: the jobs that it answers are looked through here."""
    connect(monkeypatch, server.url, TOKEN, api_version="2.0")
    jobs = [{"job_id": n, "settings": {"name": name}} for n, name in ((4, "other"), (5, "train"))]
    server.will(answer({"jobs": jobs}))
    assert DatabricksJobsHook().find_job_id_by_name("train") == 5
    assert [request.path for request in server.requests] == ["/api/2.0/jobs/list"]


@pytest.mark.parametrize("permissions", [[], [{"user_name": "u", "permission_level": "CAN_VIEW"}]])
def test_permissions_need_a_later_version_only_where_they_go_into_it(
    permissions: list[Any], server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.0 creates no job with permissions; those of a job that is there are another service's."""
    connect(monkeypatch, server.url, TOKEN, api_version="2.0")
    operator = DatabricksCreateJobsOperator(
        task_id="t",
        name="train",
        existing_cluster_id="c",
        notebook_task={"notebook_path": "/train"},
        access_control_list=permissions,
    )
    context: Any = {"ti": None}
    listed = {"jobs": [{"job_id": 5, "settings": {"name": "train"}}]}
    server.will(answer(listed), *[answer()] * (1 + len(permissions)))
    assert operator.execute(context) == 5
    sent = [request.path for request in server.requests[1:]]
    assert sent == [*["/api/2.0/permissions/jobs/5"] * len(permissions), "/api/2.0/jobs/reset"]
    server.requests.clear()
    server.will(answer({"jobs": []}), answer({"job_id": 6}))
    if permissions:
        with pytest.raises(InvalidRequestError, match=r"access_control_list needs version 2\.1"):
            operator.execute(context)
        assert len(server.requests) == 1
    else:
        assert operator.execute(context) == 6


@pytest.mark.parametrize("validate", [True, False])
def test_a_reset_that_is_not_sent_changes_no_permissions(
    validate: bool, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version is looked at before the first of the two requests, on both faces."""
    connect(monkeypatch, server.url, TOKEN, api_version="2.0")
    hook = DatabricksJobsHook(validate=validate)
    acl = [{"user_name": "u", "permission_level": "CAN_VIEW"}]
    settings = {**ON_CLUSTER, "queue": {"enabled": True}, "access_control_list": acl}
    with pytest.raises(InvalidRequestError, match="queue needs version"):
        hook.reset_job(5, settings)
    with pytest.raises(InvalidRequestError, match="queue needs version"):
        asyncio.run(hook.a_reset_job(5, settings))
    assert server.requests == []


@pytest.mark.parametrize("validate", [True, False])
def test_several_tasks_that_2_0_does_not_tell(
    validate: bool, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is followed through 2.0; where that leaves out the tasks, 2.2 is asked for them."""
    connect(monkeypatch, server.url, TOKEN)
    state = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}
    ended = {"run_id": 7, "job_id": 3, "format": "MULTI_TASK", "state": state}
    task = {"task_key": "t0", "run_id": 8, "state": state}
    refused = {
        "error_code": "INVALID_PARAMETER_VALUE",
        "message": "Retrieving the output of runs with multiple tasks is not supported.",
    }
    server.will(
        LAUNCHED,
        answer(ended),
        answer(refused, 400),
        answer({**ended, "tasks": [task]}),
        answer({"metadata": task, "notebook_output": {"result": "out"}}),
    )
    assert submit(tasks=tasks(1), validate=validate).execute(CONTEXT) in ("out", {"t0": "out"})
    asked = [request.path.removeprefix("/api/") for request in server.requests]
    assert asked == [
        "2.2/jobs/runs/submit",
        "2.0/jobs/runs/get",
        "2.0/jobs/runs/get-output",
        "2.2/jobs/runs/get",
        "2.0/jobs/runs/get-output",
    ]


AZURE_TAGS = {**NOTEBOOK, "new_cluster": {**NEW, "custom_tags": {"azure": "x", "a/b": "y"}}}


@pytest.mark.parametrize(
    ("host", "is_azure"),
    [
        ("https://adb-1.2.azuredatabricks.net", True),
        ("https://adb-1.2.databricks.azure.cn/", True),
        ("https://adb-1.2.databricks.azure.us:443/api", True),
        ("https://dbc-1.cloud.databricks.com", False),
        ("https://azuredatabricks.net.example.com", False),
        ("http://127.0.0.1:5", False),
    ],
)
def test_which_workspace_is_on_azure(host: str, is_azure: bool) -> None:
    """It is known by its host name."""
    from airflow_jobs_provider.api.auth import Token

    assert JobsClient(host, Token("t")).is_azure is is_azure


def test_the_rules_of_azure_bind_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is known when the task runs: nothing is sent, both tags are named."""
    operator = submit(**AZURE_TAGS)
    connect(monkeypatch, "https://adb-1.2.azuredatabricks.net", TOKEN)
    with pytest.raises(AirflowFailException) as caught:
        operator.execute(CONTEXT)
    assert "custom_tags.azure" in str(caught.value)
    assert "custom_tags['a/b']" in str(caught.value)
    with pytest.raises(InvalidRequestError, match="custom_tags"):
        DatabricksJobsHook().submit_run(AZURE_TAGS)
