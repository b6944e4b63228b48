"""DatabricksNotebookOperator and DatabricksTaskOperator alone: one-time runs over real HTTP."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, TaskDeferred

from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from airflow_jobs_provider.operators.jobs import DatabricksNotebookOperator, DatabricksTaskOperator
from tests.fakes.scripted_server import ScriptedServer, answer
from tests.helpers.responses import (
    FAILED,
    FAILED_OUTPUT,
    LAUNCHED,
    OUTPUT,
    RUNNING,
    SUCCEEDED,
    run,
)
from tests.helpers.tasks import XCOMS, events

CLUSTER = "1201-my-cluster"


def notebook(**arguments: Any) -> DatabricksNotebookOperator:
    """Make a notebook operator that polls fast."""
    arguments = {
        "task_id": "etl",
        "notebook_path": "/etl",
        "source": "WORKSPACE",
        "existing_cluster_id": CLUSTER,
        "polling_period_seconds": 0.01,
        **arguments,
    }
    return DatabricksNotebookOperator(**arguments)


def sent(server: ScriptedServer) -> dict[str, Any]:
    """Return the one-time run that was submitted, without its token and name."""
    (request,) = [one for one in server.requests if one.path.endswith("runs/submit")]
    assert len(request.body["idempotency_token"]) == 64
    return {
        name: value
        for name, value in request.body.items()
        if name not in ("idempotency_token", "run_name")
    }


def test_a_notebook_runs_once_and_returns_its_exit_value(
    context: Any, server: ScriptedServer
) -> None:
    """One launch with the task's token; parameters as text; output and XComs of a run."""
    server.will(LAUNCHED, RUNNING, SUCCEEDED, OUTPUT)
    operator = notebook(
        notebook_params={"day": "2026-01-01", "limit": 3},
        notebook_packages=[{"pypi": {"package": "simplejson"}}],
        execution_timeout=timedelta(minutes=2),
    )
    assert operator.execute(context) == "42"
    assert context["ti"].xcoms == XCOMS
    assert sent(server) == {
        "existing_cluster_id": CLUSTER,
        "libraries": [{"pypi": {"package": "simplejson"}}],
        "notebook_task": {
            "notebook_path": "/etl",
            "source": "WORKSPACE",
            "base_parameters": {"day": "2026-01-01", "limit": "3"},
        },
        "timeout_seconds": 120,
    }
    name = server.requests[0].body["run_name"]
    assert name == "sales.etl scheduled__2026-01-01 try 2"


def test_a_deferred_notebook_is_followed_by_the_trigger(
    context: Any, server: ScriptedServer
) -> None:
    """The operator's own polling period and connection go to the trigger."""
    server.will(LAUNCHED, RUNNING)
    with pytest.raises(TaskDeferred) as deferred:
        notebook(deferrable=True).execute(context)
    server.will(RUNNING, SUCCEEDED, OUTPUT)
    (event,) = events(deferred.value.trigger)
    resumed = getattr(notebook(deferrable=True), deferred.value.method_name)
    assert resumed(context, json.loads(json.dumps(event))) == "42"


def test_a_failed_notebook_fails_the_task(context: Any, server: ScriptedServer) -> None:
    """With the run's own error."""
    server.will(LAUNCHED, FAILED, FAILED_OUTPUT)
    with pytest.raises(DatabricksRunFailedError, match="ValueError: no rows"):
        notebook().execute(context)


def test_a_run_that_is_not_waited_for(context: Any, server: ScriptedServer) -> None:
    """wait_for_termination=False ends the task after the launch."""
    server.will(LAUNCHED, RUNNING)
    assert notebook(wait_for_termination=False).execute(context) is None
    assert context["ti"].xcoms == XCOMS


def test_the_services_own_retries_are_settings_of_a_task(
    context: Any, server: ScriptedServer
) -> None:
    """As text, too, as a template gives them; the run then lists its task, and has one output."""
    task = {**run("TERMINATED", "SUCCESS"), "run_id": 8, "task_key": "load"}
    server.will(LAUNCHED, answer(run("TERMINATED", "SUCCESS", tasks=[task])), OUTPUT)
    operator = notebook(
        databricks_task_key="load",
        max_retries="2",
        min_retry_interval_millis=1000,
        retry_on_timeout="true",
    )
    assert operator.execute(context) == "42"
    assert sent(server) == {
        "tasks": [
            {
                "task_key": "load",
                "existing_cluster_id": CLUSTER,
                "notebook_task": {"notebook_path": "/etl", "source": "WORKSPACE"},
                "max_retries": 2,
                "min_retry_interval_millis": 1000,
                "retry_on_timeout": True,
            }
        ]
    }


def test_a_task_of_any_kind(context: Any, server: ScriptedServer) -> None:
    """task_config is sent as it is, also as text; without a cluster in the form of 2.2."""
    server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    task = {"sql_task": {"query": {"query_id": "q"}, "warehouse_id": "w"}}
    operator = DatabricksTaskOperator(
        task_id="report", task_config=json.dumps(task), databricks_task_key="report"
    )
    assert operator.execute(context) == "42"
    assert sent(server) == {"tasks": [{**task, "task_key": "report"}]}


def test_the_default_task_key_is_that_of_the_official_provider() -> None:
    """A hash of DAG and task; so is it where the given key is too long."""
    with DAG("sales", schedule=None):
        made = notebook(), notebook(task_id="b", databricks_task_key="k" * 101)
        given = notebook(task_id="c", databricks_task_key="mine")
    keys = [one.databricks_task_key for one in made]
    assert keys == [
        hashlib.md5(name, usedforsecurity=False).hexdigest()
        for name in (b"sales__etl", b"sales__b")
    ]
    assert given.databricks_task_key == "mine"


@pytest.mark.parametrize(
    "arguments",
    [
        {"new_cluster": {"spark_version": "15.4.x-scala2.12", "num_workers": 1}},
        {"notebook_path": "relative"},
        {"max_retries": "many"},
        {"execution_timeout": timedelta(0)},
    ],
)
def test_a_request_that_cannot_succeed_is_refused_when_the_dag_is_parsed(arguments: Any) -> None:
    """With the name of the argument."""
    with pytest.raises(InvalidRequestError, match=next(iter(arguments))):
        notebook(**arguments)


def test_a_subclass_with_a_template_field_of_its_own() -> None:
    """It sets the field after the constructor of its base class, as operators of Airflow do."""

    class Tagged(DatabricksNotebookOperator):
        """A notebook operator with one more field."""

        template_fields = (*DatabricksNotebookOperator.template_fields, "unit")

        def __init__(self, *, unit: str, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.unit = unit

    arguments: dict[str, Any] = {"task_id": "etl", "existing_cluster_id": CLUSTER}
    own = Tagged(unit="{{ ds }}", notebook_path="/etl", source="WORKSPACE", **arguments)
    assert own.unit == "{{ ds }}"
