"""Arguments that the official provider has, as they are seen at the wire and in a DAG file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowException,
    AirflowFailException,
    TaskDeferred,
)

from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from airflow_jobs_provider.operators.jobs import (
    DatabricksCreateJobsOperator,
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from tests.fakes.scripted_server import ScriptedServer, answer
from tests.helpers.responses import (
    FAILED,
    FAILED_OUTPUT,
    LAUNCHED,
    OUTPUT,
    RUNNING,
    SUCCEEDED,
)
from tests.helpers.tasks import events, retrying, run_now, submit

DBT = {"commands": ["dbt deps", "dbt run"], "warehouse_id": "w"}
GIT = {"git_url": "https://example.com/dbt", "git_provider": "gitHub", "git_branch": "main"}
ENVIRONMENTS = [{"environment_key": "e", "spec": {"client": "1"}}]
TRIGGER = {"file_arrival": {"url": "s3://bucket/"}}
SERVERLESS = {"notebook_task": {"notebook_path": "/n"}, "environment_key": "e", "task_key": "t"}


@pytest.mark.parametrize(
    ("task", "fields", "path"),
    [
        (DatabricksSubmitRunOperator, {"dbt_task": DBT, "git_source": GIT}, "runs/submit"),
        (
            DatabricksSubmitRunOperator,
            {
                "tasks": [SERVERLESS],
                "environments": ENVIRONMENTS,
                "performance_target": "STANDARD",
            },
            "runs/submit",
        ),
        (
            DatabricksRunNowOperator,
            {
                "job_id": 3,
                "dbt_commands": ["dbt seed"],
                "performance_target": "PERFORMANCE_OPTIMIZED",
            },
            "run-now",
        ),
        (
            DatabricksCreateJobsOperator,
            {
                "name": "n",
                "tasks": [SERVERLESS],
                "environments": ENVIRONMENTS,
                "trigger": TRIGGER,
                "performance_target": "STANDARD",
            },
            "create",
        ),
    ],
)
def test_fields_of_later_versions(
    context: Any, server: ScriptedServer, task: Any, fields: dict[str, Any], path: str
) -> None:
    """They are sent as they are given, to API 2.2."""
    if task is DatabricksCreateJobsOperator:
        server.will(answer({"jobs": []}), answer({"job_id": 3}))
    else:
        fields = {**fields, "wait_for_termination": False}
        server.will(LAUNCHED, RUNNING)
    task(task_id="t", **fields).execute(context)
    (request,) = [one for one in server.requests if one.path == f"/api/2.2/jobs/{path}"]
    fields.pop("wait_for_termination", None)
    assert fields.items() <= request.body.items()


def test_a_polling_period_of_a_job_that_is_created(context: Any, server: ScriptedServer) -> None:
    """The official provider takes it, and nothing is polled there either."""
    server.will(answer({"jobs": []}), answer({"job_id": 3}))
    task = DatabricksCreateJobsOperator(
        task_id="t",
        name="n",
        existing_cluster_id="c",
        notebook_task={"notebook_path": "/n"},
        polling_period_seconds=30,
    )
    assert task.execute(context) == 3
    assert "polling_period_seconds" not in server.requests[1].body


# -- durable -------------------------------------------------------------------------------------


def launch_tokens(server: ScriptedServer) -> list[str]:
    """Return the tokens of the launches."""
    return [one.body["idempotency_token"] for one in server.requests if "token" in str(one.body)]


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("durable", [None, True, False])
def test_durable(
    context: Any, server: ScriptedServer, durable: bool | None, deferrable: bool
) -> None:
    """A retry follows the run of the first try, unless it is False."""
    more = {} if durable is None else {"durable": durable}
    server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    context["ti"].try_number, context["ti"].max_tries = 1, 1
    assert run_now(job_id=3, deferrable=deferrable, **more).execute(context) == "42"
    retrying(context)
    server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    task = run_now(job_id=3, deferrable=deferrable, **more)
    assert task.execute(context) == "42"
    first, second = launch_tokens(server)
    assert (first == second) is (durable is not False)
    assert task.durable is task.reattach is (durable is not False)


def test_durable_in_default_args() -> None:
    """Where the official provider takes it from."""
    for make in (submit, partial(run_now, job_id=3)):
        with DAG("d", schedule=None, default_args={"durable": False}):
            assert not make().reattach


def test_a_contradiction_about_durable() -> None:
    """It shows when the DAG is parsed."""
    with pytest.raises(ValueError, match="durable"):
        run_now(job_id=3, durable=True, reattach=False)


# -- attributes ----------------------------------------------------------------------------------


def test_the_run_is_an_attribute_after_the_launch(context: Any, server: ScriptedServer) -> None:
    """Of a subclass' own code, or a callback's."""
    task = submit()
    assert task.run_id is None
    server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    task.execute(context)
    assert task.run_id == 7


def test_the_run_is_an_attribute_of_a_deferred_task(context: Any, server: ScriptedServer) -> None:
    """Before the deferral, and after it in another process."""
    task = submit(deferrable=True)
    server.will(LAUNCHED, RUNNING)
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context)
    assert task.run_id == 7
    trigger: Any = deferred.value.trigger
    server.will(SUCCEEDED)
    (event,) = events(trigger)
    resumed = submit(deferrable=True)
    server.will(OUTPUT)
    resumed.execute_complete(context, event, **deferred.value.kwargs or {})
    assert resumed.run_id == 7


# -- pipelines by name ---------------------------------------------------------------------------

PIPELINES = answer({"statuses": [{"pipeline_id": "a-1", "name": "sales"}]})


def with_task(task: dict[str, Any], where: str) -> dict[str, Any]:
    """Return arguments with a task: by its own name, in ``json``, or as one of ``tasks``."""
    arguments: dict[str, dict[str, Any]] = {
        "field": task,
        "json": {"json": task},
        "tasks": {"tasks": [{"task_key": "t", **task}]},
    }
    return arguments[where]


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("where", ["field", "json", "tasks"])
def test_a_pipeline_by_its_name(
    context: Any, server: ScriptedServer, where: str, deferrable: bool
) -> None:
    """Its id is sent, and the template field is not changed."""
    task = {"pipeline_task": {"pipeline_name": "sales", "full_refresh": True}}
    given = with_task(task, where)
    server.will(PIPELINES, LAUNCHED, SUCCEEDED, OUTPUT)
    operator = DatabricksSubmitRunOperator(task_id="t", deferrable=deferrable, **given)
    assert operator.execute(context) == "42"
    body = server.requests[1].body
    holder = body["tasks"][0] if where == "tasks" else body
    assert holder["pipeline_task"] == {"pipeline_id": "a-1", "full_refresh": True}
    assert server.requests[0].path == "/api/2.0/pipelines"
    assert task["pipeline_task"]["pipeline_name"] == "sales"


@pytest.mark.parametrize(
    "found", [[], [{"pipeline_id": f"a-{n}", "name": "sales"} for n in range(2)]]
)
def test_no_or_several_pipelines_of_the_name(
    context: Any, server: ScriptedServer, found: list[dict[str, str]]
) -> None:
    """Nothing is launched; a retry may help."""
    server.will(answer({"statuses": found}))
    task = DatabricksSubmitRunOperator(task_id="t", pipeline_task={"pipeline_name": "sales"})
    with pytest.raises(AirflowException, match="sales") as error:
        task.execute(context)
    assert not isinstance(error.value, AirflowFailException)
    assert len(server.requests) == 1


@pytest.mark.parametrize("where", ["field", "json", "tasks"])
def test_a_pipeline_by_both(where: str) -> None:
    """It shows when the DAG is parsed, as the official provider says when the task runs."""
    task = {"pipeline_task": {"pipeline_name": "sales", "pipeline_id": "a-1"}}
    given = with_task(task, where)
    with pytest.raises(InvalidRequestError, match=r"pipeline_name.*together with pipeline_id"):
        DatabricksSubmitRunOperator(task_id="t", **given)


def test_a_pipeline_by_both_in_a_template(context: Any, server: ScriptedServer) -> None:
    """It shows when the task runs, before anything is sent."""
    task = DatabricksSubmitRunOperator(task_id="t", pipeline_task="{{ x }}")
    both = '{"pipeline_name": "sales", "pipeline_id": "a-1"}'
    rendered: Any = {"x": both, **context}
    task.render_template_fields(rendered)
    with pytest.raises(AirflowFailException, match="pipeline_name"):
        task.execute(context)
    assert server.requests == []


# -- unknown arguments ---------------------------------------------------------------------------


@pytest.mark.parametrize("task", [DatabricksSubmitRunOperator, DatabricksRunNowOperator])
@pytest.mark.parametrize("mapped", [False, True])
def test_an_unknown_argument(task: Any, mapped: bool) -> None:
    """The error names it, and says how a field without an argument is given."""
    make: Callable[..., Any] = task.partial if mapped else task
    with pytest.raises((TypeError, AirflowException), match="of_tomorrow") as error:
        make(task_id="t", of_tomorrow=1)
    assert "json={...}" in str(error.value)


def test_another_mistake_says_nothing_of_json() -> None:
    """Such as a missing argument of Airflow."""
    make: Any = DatabricksSubmitRunOperator
    with pytest.raises((TypeError, AirflowException), match="task_id") as error:
        make(json={})
    assert "json=" not in str(error.value)


# -- tasks that the official provider deferred, before the DAG was migrated ----------------------

STATES = {
    "SUCCESS": '{"life_cycle_state": "TERMINATED", "result_state": "SUCCESS", "state_message": ""}',
    "FAILED": '{"life_cycle_state": "TERMINATED", "result_state": "FAILED", "state_message": "x"}',
}


def official_event(result: str, **more: Any) -> dict[str, Any]:
    """Return an event of the official trigger."""
    event = {"run_id": 7, "run_page_url": "http://w/7", "run_state": STATES[result]}
    return {**event, "repair_run": False, "errors": [], **more}


@pytest.mark.parametrize("task", [submit, run_now])
def test_a_task_that_the_official_provider_deferred(
    context: Any, server: ScriptedServer, task: Any
) -> None:
    """It is resumed: the run is read, nothing is launched, and its output is returned."""
    server.will(SUCCEEDED, OUTPUT)
    assert task(deferrable=True).execute_complete(context, official_event("SUCCESS")) == "42"
    assert [request.path.rpartition("/")[2] for request in server.requests] == ["get", "get-output"]


def test_a_failed_run_that_the_official_provider_followed(
    context: Any, server: ScriptedServer
) -> None:
    """It fails the task with the run's own error."""
    server.will(FAILED, FAILED_OUTPUT)
    with pytest.raises(DatabricksRunFailedError):
        submit(deferrable=True).execute_complete(context, official_event("FAILED"))
