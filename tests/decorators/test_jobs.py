"""The TaskFlow decorators over real HTTP, answer by answer."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowException,
    AirflowFailException,
    TaskDeferred,
    task,
)

from airflow_jobs_provider import get_provider_info
from airflow_jobs_provider.airflow_compat.orphaned_runs import cancel_orphaned_run
from airflow_jobs_provider.decorators.jobs import databricks_notebook, databricks_python
from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from tests.fakes.scripted_server import ScriptedServer, answer
from tests.helpers.decorators import (
    ME,
    NEW,
    RUN,
    add,
    executed,
    notebook,
    operator_of,
    parameters,
    python,
    result,
    sent,
)
from tests.helpers.responses import (
    FAILED,
    FAILED_OUTPUT,
    LAUNCHED,
    OUTPUT,
    RUNNING,
    SUCCEEDED,
)
from tests.helpers.tasks import Logged, events, retrying

FOLDER = "/Users/ann@example.com/.airflow_jobs_provider"


def test_airflow_knows_the_decorators() -> None:
    """``task.databricks_python`` and ``task.databricks_notebook`` are the functions of jobs.py."""
    found: Any = task
    assert found.databricks_python is databricks_python
    assert found.databricks_notebook is databricks_notebook
    named: Any = get_provider_info()["task-decorators"]
    assert {one["name"] for one in named} == {"databricks_python", "databricks_notebook"}


def test_function(context: Any, server: ScriptedServer, tmp_path: Path) -> None:
    """The function is stored below the user's home, runs once, and its result is returned."""
    server.will(ME, *NEW, LAUNCHED, RUNNING, SUCCEEDED, result({"total": 3}))
    operator = python(1, right=2)
    assert operator.execute(context) == {"total": 3}
    assert sent(server) == [
        "preview/scim/v2/Me",
        "workspace/export",
        "workspace/import",
        "jobs/runs/submit",
        *["jobs/runs/get"] * 2,
        "jobs/runs/get-output",
    ]
    upload, launch = server.requests[2].body, server.requests[3].body
    path = upload["path"]
    assert re.fullmatch(re.escape(FOLDER) + "/add_[0-9a-f]{32}", path)
    assert (upload["format"], upload["language"], upload["overwrite"]) == (
        "SOURCE",
        "PYTHON",
        False,
    )
    assert launch["notebook_task"]["notebook_path"] == path
    assert launch["existing_cluster_id"] == "1201-my-cluster"
    assert re.fullmatch("[0-9a-f]{64}", launch["idempotency_token"])
    assert operator.task_id == "add"
    # Annotated as a dict: each item is an XCom of its own, beside those of the run.
    assert context["ti"].xcoms["total"] == 3
    assert context["ti"].xcoms["run_id"] == 7
    text = base64.b64decode(upload["content"]).decode()
    exit_value = executed(text, parameters(server)["airflow_arguments"], tmp_path)
    assert json.loads(exit_value) == {"return_value": {"total": 3}}


@pytest.mark.parametrize("make", [python, notebook])
def test_kill_while_the_run_is_active(context: Any, server: ScriptedServer, make: Any) -> None:
    """The run is canceled."""

    def etl(day: Any) -> None: ...

    operator = python(1) if make is python else notebook(etl, 1)
    if make is python:
        server.will(ME, *NEW)
    server.will(LAUNCHED, RUNNING)

    def killed(_seconds: float) -> None:
        operator.on_kill()
        server.will(FAILED, FAILED_OUTPUT)

    operator.hook.client.sleep = killed
    with pytest.raises(DatabricksRunFailedError):
        operator.execute(context)
    assert "jobs/runs/cancel" in sent(server)


def test_deferred_function(context: Any, server: ScriptedServer) -> None:
    """The result is read by the trigger, and decoded by the worker that resumes the task."""
    server.will(ME, *NEW, LAUNCHED, RUNNING)
    operator = python(1, arguments={"deferrable": True})
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    server.will(SUCCEEDED, result({"total": 1}))
    [event] = events(deferred.value.trigger)
    kwargs = deferred.value.kwargs or {}
    again = python(1, arguments={"deferrable": True})
    assert again.execute_complete(context, event, **kwargs) == {"total": 1}
    assert sent(server).count("jobs/runs/submit") == 1


def test_retry_follows_the_run_before(context: Any, server: ScriptedServer) -> None:
    """The next try finds the run by its token, whatever the function has become meanwhile."""
    server.will(ME, *NEW, LAUNCHED, SUCCEEDED, answer({}))
    with pytest.raises(AirflowException, match="could not be read"):
        python(1).execute(context)
    retrying(context)
    server.will(ME, *NEW, LAUNCHED, SUCCEEDED, result({"total": 1}))
    assert python(1, function=other_add).execute(context) == {"total": 1}
    tokens = [one.body["idempotency_token"] for one in server.requests if "submit" in one.path]
    assert len(tokens) == 2
    stored = {one.body["path"] for one in server.requests if "import" in one.path}
    assert len(stored) == 2


def other_add(left: int) -> dict[str, int]:
    """Add otherwise."""
    return {"total": 0 + left}


def test_error_of_the_function(context: Any, server: ScriptedServer, logged: Logged) -> None:
    """The exception of the function is the task's, and its trace is in the log."""
    server.will(ME, *NEW, LAUNCHED, FAILED, FAILED_OUTPUT)
    with pytest.raises(DatabricksRunFailedError) as failed:
        python(1).execute(context)
    assert "ValueError: no rows" in str(failed.value)
    assert "Traceback" in logged()


@pytest.mark.parametrize(
    ("output", "kind", "words"),
    [
        (OUTPUT, AirflowFailException, "must not call dbutils.notebook.exit"),
        (answer({}), AirflowException, "could not be read"),
        (
            answer({"notebook_output": {"result": '{"return_va', "truncated": True}}),
            AirflowFailException,
            "longer than the 5,242,880 bytes",
        ),
        (
            result([1]),
            AirflowFailException,
            "the function add must return a dict, not list",
        ),
    ],
)
def test_output_that_is_no_result(
    context: Any, server: ScriptedServer, output: Any, kind: Any, words: str
) -> None:
    """A result that is missing, cut off or of another form is an error that says what to do."""
    server.will(ME, *NEW, LAUNCHED, SUCCEEDED, output)
    with pytest.raises(kind, match=words):
        python(1).execute(context)


def test_reserved_keys_of_a_result(context: Any, server: ScriptedServer, logged: Logged) -> None:
    """An item with the name of another XCom replaces nothing."""
    server.will(ME, *NEW, LAUNCHED, SUCCEEDED, result({"run_id": 1, "n": None}))
    assert python(1).execute(context) == {"run_id": 1, "n": None}
    assert context["ti"].xcoms["run_id"] == 7
    assert context["ti"].xcoms["n"] is None
    assert "'run_id' is in return_value only" in logged()


def test_characters_of_a_result_that_airflow_cannot_store(
    context: Any, server: ScriptedServer, logged: Logged
) -> None:
    """The function has run, and its result is JSON in ASCII until it is read."""
    returned = {"a\0": ["b\ud83d", 1.5, None], "c": "\U0001f600"}
    server.will(ME, *NEW, LAUNCHED, SUCCEEDED, result(returned))
    replaced = {"a\ufffd": ["b\ufffd", 1.5, None], "c": "\U0001f600"}
    assert python(1).execute(context) == replaced
    assert context["ti"].xcoms["a\ufffd"] == ["b\ufffd", 1.5, None]
    assert "The result of add has NUL characters" in logged()


def test_context_variables_are_arguments(context: Any, server: ScriptedServer) -> None:
    """An argument with a context variable's name has its value; what is no JSON is refused."""

    def takes(n: int, ds: Any = None, *, params: Any = None, other: int = 5) -> int:
        return n

    context |= {"ds": "2026-01-01", "params": {"{{job.id}}": 1}, "logical_date": object()}
    server.will(ME, *NEW, LAUNCHED, SUCCEEDED, result(1))
    operator = python(1, function=takes)
    operator.execute(context)
    text = parameters(server)["airflow_arguments"]
    assert "{{" not in text
    assert json.loads(text) == {
        "args": [1],
        "kwargs": {"ds": "2026-01-01", "params": {"{{job.id}}": 1}},
    }
    before = len(server.requests)
    with pytest.raises(AirflowFailException, match="The argument n of takes is of type"):
        python(n=object(), function=takes).execute(context)
    assert len(server.requests) == before


def test_function_that_cannot_be_sent_is_an_error_of_the_dag() -> None:
    """It is refused when the function is decorated, before it is called or mapped."""

    def needs() -> Any:
        return json.dumps(RUN)

    with pytest.raises(ValueError, match="RUN, json"):
        databricks_python(needs)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        python(1, wrong=2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"notebook_task": {"notebook_path": "/n"}}, "takes no notebook_task"),
        ({"tasks": []}, "takes no tasks"),
        ({"json": {"run_name": "x"}}, "takes no json"),
        ({"max_output_bytes": 5}, "takes no max_output_bytes"),
        ({"end_from_trigger": True}, "takes no end_from_trigger"),
        ({"requirements": "pandas"}, "requirements must be a list"),
        ({"requirements": ["pandas\n%sh x"]}, "requirements must be a list"),
    ],
)
def test_arguments_that_are_not_taken(arguments: Any, words: str) -> None:
    """What makes no sense for a function is refused when the DAG is parsed."""
    with pytest.raises(TypeError, match=words):
        databricks_python(**{**RUN, **arguments})(add)


def test_payload_is_validated_when_the_dag_is_parsed() -> None:
    """As that of any operator."""
    with pytest.raises(Exception, match="new_cluster"):
        python(1, arguments={"new_cluster": {"num_workers": 1, "spark_version": "15.4.x"}})


@pytest.mark.parametrize("cancel_on_kill", [True, False])
def test_mapped_function(context: Any, server: ScriptedServer, cancel_on_kill: bool) -> None:
    """A mapped task has the failure callback that cancels the run of a dead worker, once."""

    def callback(_: Any) -> None: ...

    with DAG("sales", schedule=None, default_args={"on_failure_callback": callback}):
        decorated: Any = databricks_python(**RUN, cancel_on_kill=cancel_on_kill)(add)
        mapped = operator_of(decorated.partial(right=5).expand(left=[1, 2]))
    expected = [cancel_orphaned_run, callback] if cancel_on_kill else callback
    assert mapped.partial_kwargs["on_failure_callback"] == expected
    server.will(ME, *NEW, LAUNCHED, SUCCEEDED, result({"total": 7}))
    unmapped = mapped.unmap({"op_kwargs": {"left": 2, "right": 5}})
    assert unmapped.execute(context) == {"total": 7}
    if cancel_on_kill:
        assert unmapped.on_failure_callback == [cancel_orphaned_run, callback]
    assert json.loads(parameters(server)["airflow_arguments"])["kwargs"] == {"left": 2, "right": 5}


def test_override_and_reuse() -> None:
    """A decorated function is called several times, and its arguments are overridden."""
    with DAG("sales", schedule=None):
        decorated: Any = databricks_python(**RUN)(add)
        operators = [operator_of(decorated(1)), operator_of(decorated(2))]
        changed = operator_of(decorated.override(task_id="sum", retries=3, requirements=["x"])(3))
    assert [one.task_id for one in operators] == ["add", "add__1"]
    assert (changed.task_id, changed.retries, changed.requirements) == ("sum", 3, ["x"])


def test_templates() -> None:
    """The function's arguments, the folder and the run's fields are rendered; XComArgs connect."""
    with DAG("sales", schedule=None):
        first: Any = task(task_id="first")(other_add)(1)
        second = databricks_python(workspace_folder="/Shared/{{ ds }}", **RUN)(add)(first)
    operator = operator_of(second)
    assert operator.upstream_task_ids == {"first"}
    assert {"op_args", "op_kwargs", "workspace_folder", "existing_cluster_id"} <= set(
        operator.template_fields
    )
