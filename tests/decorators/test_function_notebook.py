"""The notebook of a decorated function: its text, and how it gets into the workspace."""

from __future__ import annotations

import ast
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.decorators.function_notebook import function_notebook
from airflow_jobs_provider.decorators.function_source import read_function_source
from airflow_jobs_provider.local.notebook_files import read_notebook
from tests.fakes.scripted_server import ScriptedServer, Step, answer, lose
from tests.helpers.decorators import ME, MISSING, STORED, add, executed, python, result, sent
from tests.helpers.responses import LAUNCHED, SUCCEEDED

EXISTS = answer({"error_code": "RESOURCE_ALREADY_EXISTS", "message": "Path exists."}, status=400)
NO_FOLDER = answer({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no folder"}, status=404)


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


def test_refused_upload_launches_nothing(context: Any, server: ScriptedServer) -> None:
    """A folder that may not be written fails the try, in the service's words."""
    refused = answer({"error_code": "PERMISSION_DENIED", "message": "not yours"}, status=403)
    server.will(ME, MISSING, refused)
    with pytest.raises(AirflowException, match="not yours"):
        python(1).execute(context)
    assert sent(server)[-1] == "workspace/import"


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
