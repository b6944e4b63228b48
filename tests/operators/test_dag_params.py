"""A DAG's params reach the run, as with the official provider's operators. Over real HTTP."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, TaskDeferred

from airflow_jobs_provider.operators.jobs import (
    DatabricksCreateJobsOperator,
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from tests.fakes.scripted_server import ScriptedServer, answer
from tests.helpers.responses import LAUNCHED, OUTPUT, RUNNING, SUCCEEDED
from tests.helpers.tasks import TaskInstance

PARAMS = {"day": "2026-01-01", "n": 3, "full": True, "none": None, "deep": {"a": [1, "ä"]}}
# As they are sent: text; what is neither text, number nor boolean as JSON; None not at all.
SENT = {"day": "2026-01-01", "n": "3", "full": "true", "deep": '{"a": [1, "\\u00e4"]}'}
CLUSTER = {"existing_cluster_id": "1201-my-cluster"}


def sent(server: ScriptedServer, operator: Any, context: Any) -> dict[str, Any]:
    """Return the launch that an operator sends; the run ends at once."""
    server.requests.clear()
    server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    operator.execute(context)
    body: dict[str, Any] = server.requests[0].body
    del body["idempotency_token"]
    return body


def run_now(**arguments: Any) -> DatabricksRunNowOperator:
    """Make an operator that runs job 3."""
    return DatabricksRunNowOperator(task_id="etl", job_id=3, **arguments)


def submit(**arguments: Any) -> DatabricksSubmitRunOperator:
    """Make an operator that submits a named run."""
    return DatabricksSubmitRunOperator(task_id="etl", run_name="r", **arguments)


def test_run_now_sends_them_as_job_parameters(context: Any, server: ScriptedServer) -> None:
    """As text, to API 2.2, which has them; without params nothing changes."""
    context["params"] = PARAMS
    assert sent(server, run_now(), context) == {"job_id": 3, "job_parameters": SENT}
    assert server.requests[0].path == "/api/2.2/jobs/run-now"
    context["params"] = {"none": None}
    assert sent(server, run_now(), context) == {"job_id": 3}
    assert server.requests[0].path == "/api/2.0/jobs/run-now"


@pytest.mark.parametrize(
    "given",
    [
        {"job_parameters": {"day": "today"}},
        {"notebook_params": {"day": "today"}},
        {"python_params": ["today"]},
        {"jar_params": ["today"]},
        {"spark_submit_params": ["--class", "Main"]},
        {"python_named_params": {"day": "today"}},
        {"json": {"dbt_commands": ["dbt run"]}},
        {"json": {"sql_params": {"day": "today"}}},
    ],
)
def test_parameters_of_the_request_come_first(
    context: Any, server: ScriptedServer, given: dict[str, Any]
) -> None:
    """The request's own parameters are sent alone, of whatever kind they are."""
    context["params"] = PARAMS
    expected = {"job_id": 3, **given.get("json", given)}
    assert sent(server, run_now(**given), context) == expected


@pytest.mark.parametrize(
    ("task", "field"),
    [
        ({"notebook_task": {"notebook_path": "/etl"}}, "base_parameters"),
        ({"python_wheel_task": {"package_name": "p", "entry_point": "e"}}, "named_parameters"),
        ({"sql_task": {"warehouse_id": "w", "query": {"query_id": "q"}}}, "parameters"),
        ({"run_job_task": {"job_id": 5}}, "job_parameters"),
    ],
)
def test_submit_sends_them_with_each_task(
    context: Any, server: ScriptedServer, task: dict[str, Any], field: str
) -> None:
    """As the parameters of each kind of task that has them by name; the task's own come first."""
    context["params"] = PARAMS
    ((kind, definition),) = task.items()
    with_params = {kind: {**definition, field: SENT}}
    own = {kind: {**definition, field: {"own": "1"}}}
    alone = submit(json={**CLUSTER, **task})
    assert sent(server, alone, context) == {"run_name": "r", **CLUSTER, **with_params}
    assert alone.json == {**CLUSTER, **task}, "a template field is not changed"
    tasks = [{"task_key": key, **CLUSTER} for key in "ab"]
    several = submit(json={"tasks": [tasks[0] | task, tasks[1] | own]})
    assert sent(server, several, context)["tasks"] == [tasks[0] | with_params, tasks[1] | own]


def test_positional_parameters_are_left_alone(context: Any, server: ScriptedServer) -> None:
    """Names and values cannot become the arguments of a Python file or a JAR."""
    context["params"] = PARAMS
    wheel = {"package_name": "p", "entry_point": "e", "parameters": ["a"]}
    for task in (
        {"spark_python_task": {"python_file": "dbfs:/a.py"}},
        # A wheel takes one kind only.
        {"python_wheel_task": wheel},
        # An alert takes none.
        {"sql_task": {"warehouse_id": "w", "alert": {"alert_id": "a"}}},
    ):
        body = sent(server, submit(json={**CLUSTER, **task}), context)
        assert body == {"run_name": "r", **CLUSTER, **task}


@pytest.mark.parametrize("job_id", [None, 5])
def test_create_keeps_them_as_parameters(
    context: Any, server: ScriptedServer, job_id: int | None
) -> None:
    """In a new job and in one that is reset; the settings' own parameters come first."""
    context["params"] = PARAMS
    job = {**CLUSTER, "name": "train", "notebook_task": {"notebook_path": "/etl"}}
    expected: Any = [{"name": name, "default": value} for name, value in SENT.items()]
    for given in (None, [{"name": "own", "default": "1"}]):
        server.requests.clear()
        known = [] if job_id is None else [{"job_id": job_id, "settings": {"name": "train"}}]
        server.will(answer({"jobs": known}), answer({"job_id": 3}))
        DatabricksCreateJobsOperator(task_id="t", json={**job, "parameters": given}).execute(
            context
        )
        settings = server.requests[1].body
        assert settings.get("new_settings", settings)["parameters"] == (given or expected)


def test_the_log_says_what_is_sent_besides(
    context: Any,
    server: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The names of the params and how to keep them back, once; no value, which may be a secret."""
    caplog.set_level("INFO")
    line = "The DAG's params are sent as parameters: day, n, full, deep. forward_dag_params=False"
    context["params"] = PARAMS
    sent(server, run_now(), context)
    told = caplog.text + capsys.readouterr().out
    assert line in told
    assert "2026-01-01" not in told.partition(line)[2].partition("\n")[0]
    caplog.clear()
    sent(server, run_now(notebook_params={"a": "b"}), context)
    assert "forward_dag_params" not in caplog.text + capsys.readouterr().out


@pytest.mark.parametrize("deferrable", [False, True])
def test_they_can_be_kept_back(context: Any, server: ScriptedServer, deferrable: bool) -> None:
    """With forward_dag_params=False nothing of them is sent, by any of the three operators."""
    context["params"] = PARAMS
    off: dict[str, Any] = {"forward_dag_params": False, "deferrable": deferrable}
    notebook = {**CLUSTER, "notebook_task": {"notebook_path": "/etl"}}
    for operator in (run_now(**off), submit(json=notebook, **off)):
        server.requests.clear()
        server.will(LAUNCHED, RUNNING if deferrable else SUCCEEDED, OUTPUT)
        if deferrable:
            with pytest.raises(TaskDeferred):
                operator.execute(context)
            server.steps.clear()
        else:
            operator.execute(context)
        assert "2026" not in str(server.requests[0].body)
    server.requests.clear()
    server.will(answer({}), answer({"job_id": 3}))
    DatabricksCreateJobsOperator(
        task_id="t", json={**notebook, "name": "n"}, forward_dag_params=False
    ).execute(context)
    assert "parameters" not in server.requests[1].body


def test_conf_overrides_the_params_that_the_dag_has(context: Any, server: ScriptedServer) -> None:
    """As Airflow resolves them for the run; a name that only conf has is none of the DAG's."""
    with DAG("d", schedule=None, params={"day": "default"}):
        operator = run_now(params={"own": "task's"})
    conf = {"day": "given", "other": "x"}
    context["params"] = {"day": "given", "own": "task's", "other": "x"}
    context["dag_run"] = SimpleNamespace(conf=conf)
    body = sent(server, operator, context)
    assert body["job_parameters"] == {"day": "given", "own": "task's"}


def test_an_operator_in_another_ones_task(context: Any, server: ScriptedServer) -> None:
    """It sends its own params, not those of the task that executes it."""
    context["params"] = PARAMS
    context["task"] = SimpleNamespace(task_id="outer", retries=1)
    assert sent(server, run_now(), context) == {"job_id": 3}
    own = run_now(params={"day": "x"})
    assert sent(server, own, context)["job_parameters"] == {"day": "x"}


def test_every_try_sends_the_same(context: Any, server: ScriptedServer) -> None:
    """A retry's launch, which the token makes the same launch, has the same parameters."""
    context["params"] = PARAMS
    operator = run_now()
    first = sent(server, operator, context)
    context["ti"] = TaskInstance()
    assert sent(server, operator, context) == first
