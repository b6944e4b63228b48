"""What is checked before it is sent, as the service sees it: asked nothing, or what is right."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, BaseOperator

from airflow_jobs_provider.api.calls import Call
from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.api.schema.request_types import ENDPOINTS
from airflow_jobs_provider.api.versions import API_VERSIONS
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.operators.jobs import (
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from tests.fakes.scripted_server import TOKEN, ScriptedServer, answer
from tests.helpers.random_payloads import Payloads
from tests.helpers.responses import LAUNCHED, OUTPUT, SUCCEEDED
from tests.helpers.rule_cases import CASES
from tests.helpers.tasks import TaskInstance

EXAMPLES = json.loads((Path(__file__).parents[1] / "data/examples.json").read_text())
REQUESTS = [example for example in EXAMPLES if example["kind"] == "request"]
RESPONSES = [example for example in EXAMPLES if example["kind"] == "response"]
BY_SECTION = {endpoint.section: endpoint for endpoint in ENDPOINTS.values()}
MANY = 1000


@pytest.fixture
def hook(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> DatabricksJobsHook:
    """A hook on the scripted server."""
    connection = {"conn_type": "databricks_jobs", "host": server.url, "password": TOKEN}
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))
    return DatabricksJobsHook()


@pytest.fixture
def context(hook: DatabricksJobsHook) -> Any:
    """A task's context, with a connection."""
    return {"ti": TaskInstance()}


def pinned(
    version: str, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> DatabricksJobsHook:
    """Return a hook whose connection pins a version of the API."""
    connection = {"conn_type": "databricks_jobs", "host": server.url, "password": TOKEN}
    name = f"pinned_{version[-1]}"
    monkeypatch.setenv(
        f"AIRFLOW_CONN_{name.upper()}",
        json.dumps({**connection, "extra": {"api_version": version}}),
    )
    return DatabricksJobsHook(name)


def call_of(path: str, payload: dict[str, Any]) -> Call[Any]:
    """Make a call that returns the whole answer."""
    return Call(ENDPOINTS[path].verb, path, payload, True, lambda read: read)


@pytest.mark.parametrize("many", [150, pytest.param(MANY, marks=pytest.mark.exhaustive)])
def test_no_bad_request_is_sent(
    hook: DatabricksJobsHook, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    """Many random requests with one broken rule: each is refused by its field, none sent."""
    hooks = {version: pinned(version, server, monkeypatch) for version in API_VERSIONS}
    for seed in range(many):
        source = random.Random(seed)
        case = source.choice([case for case in CASES if not case.of_rule.only_azure])
        payloads = Payloads(source, source.choice(case.versions))
        path, request = payloads.around(case.structure, case.make(payloads, True))
        with pytest.raises(InvalidRequestError) as caught:
            hooks[payloads.api_version].send(call_of(path, request))
        assert case.field in str(caught.value)
    with pytest.raises(InvalidRequestError):
        asyncio.run(hook.a_send(call_of("runs/get", {})))
    with pytest.raises(InvalidRequestError):
        hook.list_runs(active_only=True, completed_only=True)
    with pytest.raises(InvalidRequestError):
        hook.submit_run({"notebook_task": {"notebook_path": "etl"}})
    assert server.requests == []


def test_every_good_request_is_sent(hook: DatabricksJobsHook, server: ScriptedServer) -> None:
    """Random requests within the rules arrive as they were made."""
    for seed in range(100):
        payloads = Payloads(random.Random(seed))
        path = payloads.random.choice(sorted(ENDPOINTS))
        request = payloads.request(path)
        hook.send(call_of(path, request))
        received = server.requests[-1]
        assert received.path.endswith(f"/jobs/{path}")
        if received.verb == "POST":
            assert (received.body or {}) == request
    assert len(server.requests) == 100


@pytest.mark.parametrize("example", REQUESTS, ids=lambda e: e["section"])
def test_each_example_request_is_sent(
    example: dict[str, Any], hook: DatabricksJobsHook, server: ScriptedServer
) -> None:
    """What the reference shows arrives unchanged."""
    endpoint = BY_SECTION[example["section"]]
    hook.send(call_of(endpoint.path, example["payload"]))
    (received,) = server.requests
    if endpoint.verb == "POST":
        assert received.body == example["payload"]
    else:
        assert received.query.keys() == example["payload"].keys()


@pytest.mark.parametrize("example", RESPONSES, ids=lambda e: e["section"])
def test_each_example_response_is_read(
    example: dict[str, Any], hook: DatabricksJobsHook, server: ScriptedServer
) -> None:
    """What the reference shows of an answer is read by the method of that endpoint."""
    payload = example["payload"]
    read: dict[str, tuple[Any, Any]] = {
        "Create": (lambda: hook.create_job({"run_job_task": {"job_id": 1}}), 1),
        "List": (lambda: list(hook.list_jobs()), payload.get("jobs")),
        "Get": (lambda: hook.get_job(1), payload),
        "Runs submit": (lambda: hook.submit_run({"run_job_task": {"job_id": 1}}), 123),
        "Runs list": (lambda: next(hook.list_runs()), (payload.get("runs") or [None])[0]),
        "Runs get": (lambda: hook.get_run(452), payload),
        "Runs export": (lambda: hook.export_run(452), payload.get("views")),
        "Runs get output": (lambda: hook.get_run_output(452), payload),
    }
    server.will(answer(payload))
    method, result = read[example["section"]]
    assert method() == result


def test_validation_can_be_turned_off(server: ScriptedServer, context: Any) -> None:
    """validate=False sends what the reference forbids, for an operator and for a hook."""
    server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    operator = DatabricksSubmitRunOperator(
        task_id="t", notebook_task={"notebook_path": "etl"}, validate=False
    )
    assert operator.execute(context) == "42"
    DatabricksJobsHook(validate=False).delete_run("x")  # type: ignore[arg-type]
    assert server.requests[-1].body == {"run_id": "x"}


@pytest.mark.parametrize(
    ("kind", "arguments", "field"),
    [
        (DatabricksSubmitRunOperator, {"notebook_task": {"notebook_path": "etl"}}, "notebook_path"),
        (DatabricksSubmitRunOperator, {"json": {"run_name": "n"}}, "notebook_task"),
        (DatabricksRunNowOperator, {"python_params": ["é"], "job_id": 1}, "python_params"),
        (DatabricksRunNowOperator, {"jar_params": [[]], "job_name": "n"}, "jar_params"),
        (DatabricksRunNowOperator, {"json": {"jar_params": ["x" * 10_000]}}, "jar_params"),
        (DatabricksRunNowOperator, {"notebook_params": {}}, "job_id"),
    ],
)
def test_a_mistake_shows_when_the_dag_is_parsed(
    kind: Any, arguments: dict[str, Any], field: str, server: ScriptedServer
) -> None:
    """The constructor refuses a complete request; one with another task's output waits."""
    with pytest.raises(InvalidRequestError) as caught:
        kind(task_id="t", **arguments)
    assert field in str(caught.value)
    with DAG("d", schedule=None):
        first = BaseOperator(task_id="first")
        kind(task_id="t", **arguments, idempotency_token=first.output)
        kind(task_id="u", **arguments, idempotency_token="{{ token }}")
    assert server.requests == []


@pytest.mark.parametrize("arguments", [{"job_name": "n"}, {"json": {"job_name": "n"}}, {}])
def test_a_job_known_by_name_needs_no_id_when_parsed(arguments: dict[str, Any]) -> None:
    """The name stands for the id until the task runs; with nothing given, nothing is checked."""
    DatabricksRunNowOperator(task_id="t", **arguments)


def test_a_mistake_in_a_template_shows_before_the_launch(
    server: ScriptedServer, context: Any
) -> None:
    """What rendered wrong is not sent, and Airflow does not retry it; all problems are told."""
    operator = DatabricksSubmitRunOperator(
        task_id="t",
        existing_cluster_id="c",
        notebook_task={"notebook_path": "{{ path }}"},
        run_name="{{ name }}",
    )
    rendered: Any = {"path": "etl", "name": "x" * 5000}
    operator.render_template_fields(rendered)
    with pytest.raises(AirflowFailException) as caught:
        operator.execute(context)
    assert str(caught.value).splitlines() == [
        "runs/submit: 2 problems",
        "- run_name must have at most 4,096 bytes in UTF-8; it has 5,000",
        (
            "- notebook_task.notebook_path must be an absolute path that begins with a slash; "
            "it begins with 'e'"
        ),
    ]
    assert server.requests == []
