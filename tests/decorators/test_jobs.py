"""The TaskFlow decorators over real HTTP, answer by answer."""

from __future__ import annotations

import ast
import base64
import json
import re
from pathlib import Path
from types import SimpleNamespace
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
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.decorators.function_notebook import function_notebook
from airflow_jobs_provider.decorators.function_source import read_function_source
from airflow_jobs_provider.decorators.jobs import databricks_notebook, databricks_python
from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from airflow_jobs_provider.local.notebook_files import read_notebook
from tests.fakes.scripted_server import ScriptedServer, Step, answer, lose
from tests.helpers.responses import (
    FAILED,
    FAILED_OUTPUT,
    LAUNCHED,
    OUTPUT,
    RUNNING,
    SUCCEEDED,
    good,
)
from tests.helpers.tasks import Logged, events, retrying

RUN: dict[str, Any] = {"existing_cluster_id": "1201-my-cluster", "polling_period_seconds": 0.01}
ME = answer({"userName": "ann@example.com"})
MISSING = answer({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no object"}, status=404)
STORED = answer({"object_id": 5})
# The notebook is not there, and is stored.
NEW = (MISSING, STORED)
EXISTS = answer({"error_code": "RESOURCE_ALREADY_EXISTS", "message": "Path exists."}, status=400)
NO_FOLDER = answer({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no folder"}, status=404)
FOLDER = "/Users/ann@example.com/.airflow_jobs_provider"


def add(left: int, right: int = 0) -> dict[str, int]:
    """Add two numbers."""
    return {"total": left + right}


def operator_of(output: Any) -> Any:
    """Return the operator behind the value of a call."""
    return output.operator


def python(*args: Any, arguments: Any = None, function: Any = add, **kwargs: Any) -> Any:
    """Return the operator of a call of a decorated function."""
    with DAG("sales", schedule=None):
        decorated: Any = databricks_python(**RUN, **(arguments or {}))(function)
        return operator_of(decorated(*args, **kwargs))


def notebook(function: Any, *args: Any, arguments: Any = None, **kwargs: Any) -> Any:
    """Return the operator of a call of a function that gives a notebook's parameters."""
    with DAG("sales", schedule=None):
        decorated: Any = databricks_notebook("/Shared/etl", **RUN, **(arguments or {}))(function)
        return operator_of(decorated(*args, **kwargs))


def sent(server: ScriptedServer) -> list[str]:
    """Return what was asked, in order."""
    return [request.path.partition("/api/2.0/")[2] for request in server.requests]


def result(value: Any) -> Step:
    """Answer the output of a function's run."""
    return good(json.dumps({"return_value": value}))


def parameters(server: ScriptedServer) -> dict[str, str]:
    """Return the parameters of the notebook that was launched."""
    [launch] = [one for one in server.requests if one.path.endswith("runs/submit")]
    found: dict[str, str] = launch.body["notebook_task"]["base_parameters"]
    return found


def executed(text: str, arguments: str, tmp_path: Path) -> str:
    """Execute the notebook of a function in this process, and return its exit value."""
    file = tmp_path / "function.py"
    file.write_text(text, encoding="utf-8")
    exits: list[str] = []
    dbutils = SimpleNamespace(
        widgets=SimpleNamespace(get=lambda name: {"airflow_arguments": arguments}[name]),
        notebook=SimpleNamespace(exit=exits.append),
    )
    namespace: dict[str, Any] = {"dbutils": dbutils}
    for cell in read_notebook(file):
        if cell.kind == "code" and not cell.source.startswith("%"):
            exec(compile(cell.source, "cell", "exec", dont_inherit=True), namespace)
    [exit_value] = exits
    return exit_value


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


def test_folder_is_made_if_it_is_missing(context: Any, server: ScriptedServer) -> None:
    """With a folder of one's own nobody is asked who the user is; lost answers do no harm."""
    server.will(MISSING, NO_FOLDER, lose, answer(), lose, EXISTS, LAUNCHED, SUCCEEDED, result({}))
    operator = python(1, arguments={"workspace_folder": "/Shared/fn/"})
    with no_waiting():
        assert operator.execute(context) == {}
    assert sent(server)[:7] == [
        "workspace/export",
        "workspace/import",
        *["workspace/mkdirs"] * 2,
        *["workspace/import"] * 2,
        "jobs/runs/submit",
    ]
    assert server.requests[2].body == {"path": "/Shared/fn"}
    assert server.requests[1].body["path"].startswith("/Shared/fn/add_")


def test_notebook_that_is_there(context: Any, server: ScriptedServer) -> None:
    """It is not written again, so that no run that starts is disturbed; unless it was changed."""
    text = function_notebook(read_function_source(add, "x"))
    as_exported = text.replace("\n\n", "\n") + "\n\n"
    arguments = {"workspace_folder": "/Shared/fn"}

    def holding(content: str) -> Step:
        return answer({"content": base64.b64encode(content.encode()).decode(), "file_type": "py"})

    server.will(holding(as_exported), LAUNCHED, SUCCEEDED, result({}))
    python(1, arguments=arguments).execute(context)
    assert sent(server)[:2] == ["workspace/export", "jobs/runs/submit"]
    changed = text.replace("left + right", "left - right")
    server.will(holding(changed), STORED, LAUNCHED, SUCCEEDED, result({}))
    before = len(server.requests)
    python(1, arguments=arguments).execute(context)
    assert sent(server)[before : before + 3] == [
        "workspace/export",
        "workspace/import",
        "jobs/runs/submit",
    ]
    upload = server.requests[before + 1].body
    assert upload["overwrite"] is True
    assert base64.b64decode(upload["content"]).decode() == text


@pytest.mark.parametrize("folder", [None, "/Shared/fn"])
def test_refused_credentials(folder: str | None, context: Any, server: ScriptedServer) -> None:
    """The try fails at once, as where a launch is refused."""
    server.will(answer({"error_code": "PERMISSION_DENIED", "message": "no more"}, 403))
    operator = python(1, arguments={"workspace_folder": folder})
    with no_waiting() as waits, pytest.raises(AirflowException, match="no more"):
        operator.execute(context)
    assert waits == []
    assert sent(server) == ["workspace/export" if folder else "preview/scim/v2/Me"]


def test_kill_during_the_upload(context: Any, server: ScriptedServer) -> None:
    """No run is launched after it. (On Airflow 3 the process goes on.)"""
    operator = python(1)

    def kill(connection: Any) -> None:
        operator.on_kill()
        STORED(connection)

    server.will(ME, MISSING, kill)
    with pytest.raises(AirflowException, match="the task was killed"):
        operator.execute(context)
    assert sent(server)[-1] == "workspace/import"


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


def test_refused_upload_launches_nothing(context: Any, server: ScriptedServer) -> None:
    """A folder that may not be written fails the try, in the service's words."""
    refused = answer({"error_code": "PERMISSION_DENIED", "message": "not yours"}, status=403)
    server.will(ME, MISSING, refused)
    with pytest.raises(AirflowException, match="not yours"):
        python(1).execute(context)
    assert sent(server)[-1] == "workspace/import"


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


def test_notebook_of_a_function(tmp_path: Path) -> None:
    """Requirements are installed first; a function's texts are not changed; large results fail."""

    def repeat(text: str, times: int) -> str:
        return text * times

    source = read_function_source(repeat, "x")
    text = function_notebook(source, ["pandas==2.2.3", "x>=1"])
    assert "# MAGIC %pip install pandas==2.2.3 'x>=1'\n" in text
    assert function_notebook(source) != text
    for cell in read_notebook_text(text, tmp_path):
        # The oldest Python that Databricks supports.
        ast.parse(cell, feature_version=(3, 8))
    arguments = json.dumps({"args": ["ab"], "kwargs": {"times": 2}})
    assert json.loads(executed(text, arguments, tmp_path)) == {"return_value": "abab"}
    arguments = json.dumps({"args": ["a"], "kwargs": {"times": 5 * 1024 * 1024}})
    with pytest.raises(ValueError, match="The result of repeat has 5,242,900 bytes"):
        executed(text, arguments, tmp_path)


def read_notebook_text(text: str, tmp_path: Path) -> list[str]:
    """Return the Python cells of a notebook."""
    file = tmp_path / "cells.py"
    file.write_text(text, encoding="utf-8")
    cells = read_notebook(file)
    return [c.source for c in cells if c.kind == "code" and not c.source.startswith("%")]


def test_result_that_is_no_json(tmp_path: Path) -> None:
    """The function's own run fails, with the place of the value."""

    def days() -> object:
        from datetime import date

        return {"day": date(2026, 1, 1)}

    text = function_notebook(read_function_source(days, "x"))
    with pytest.raises(TypeError, match=r"The result of days\['day'\] is of type"):
        executed(text, '{"args": [], "kwargs": {}}', tmp_path)


def test_parameters_of_a_notebook(context: Any, server: ScriptedServer) -> None:
    """The function gives the parameters; the call gives the notebook's exit value."""

    def etl(day: str, ds: Any = None) -> dict[str, Any]:
        return {"day": day, "ds": ds, "n": 5, "flag": True, "rows": [1, "a"], "ref": "{{job.id}}"}

    context |= {"ds": "2026-01-01"}
    server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    operator = notebook(etl, "monday")
    assert operator.execute(context) == "42"
    assert sent(server) == ["jobs/runs/submit", "jobs/runs/get", "jobs/runs/get-output"]
    assert parameters(server) == {
        "day": "monday",
        "ds": "2026-01-01",
        "n": "5",
        "flag": "true",
        "rows": '[1, "a"]',
        "ref": "{{job.id}}",
    }
    # The annotation is that of the parameters.
    assert operator.multiple_outputs is False


@pytest.mark.parametrize("returned", [None, {}])
def test_notebook_without_parameters(context: Any, server: ScriptedServer, returned: Any) -> None:
    """The DAG's params are not sent in place of what the function returns."""

    def etl() -> Any:
        return returned

    context["params"] = {"a": 1}
    server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    operator = notebook(etl)
    operator.params = {"a": 1}
    operator.execute(context)
    assert parameters(server) == {}


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (["a"], "as a dict, or None; it returned list"),
        ({1: "a"}, "The name of a parameter must be text, not int"),
        ({"day": {1}}, "The parameter day is of type builtins.set"),
    ],
)
def test_function_that_returns_no_parameters(
    context: Any, server: ScriptedServer, returned: Any, words: str
) -> None:
    """What is no dict of JSON is an error, and launches nothing."""

    def etl() -> Any:
        return returned

    with pytest.raises(TypeError, match=words):
        notebook(etl).execute(context)
    assert server.requests == []


def test_notebook_decorator_without_a_path() -> None:
    """The error says how it is written."""

    def etl() -> None: ...

    for wrong in (None, etl):
        with pytest.raises(TypeError, match=r'@task.databricks_notebook\("/Shared/etl"\)'):
            databricks_notebook(wrong)  # type: ignore[arg-type]

    async def asynchronous() -> None: ...

    with pytest.raises(TypeError, match="no async function"):
        notebook(asynchronous)


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
