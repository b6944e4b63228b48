"""Notebooks, files and folders: ``/api/2.0/workspace/...``."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_jobs_provider.local.notebook_files import as_source, read_notebook
from tests.local.api import Api

SOURCE = "# Databricks notebook source\ndbutils.notebook.exit('done')\n"
CELLS = [
    {"cell_type": "markdown", "metadata": {}, "source": ["# Title\n", "text"]},
    {"cell_type": "code", "metadata": {}, "source": "%sql\nselect 1", "outputs": []},
    {"cell_type": "code", "metadata": {}, "source": "x = 1\nprint(x)", "outputs": []},
]
JUPYTER = json.dumps({"cells": CELLS, "metadata": {}, "nbformat": 4, "nbformat_minor": 4})


def send(api: Api, verb: str, endpoint: str, /, **fields: Any) -> requests.Response:
    """Send a request to the Workspace API."""
    url = f"{api.workspace.url}/api/2.0/workspace/{endpoint}"
    if verb == "GET":
        return api.session.get(url, params=fields, timeout=30)
    return api.session.post(url, json=fields, timeout=30)


def put(api: Api, path: str, content: str, **fields: Any) -> requests.Response:
    """Import an object."""
    encoded = base64.b64encode(content.encode()).decode()
    return send(api, "POST", "import", path=path, content=encoded, **fields)


def export(api: Api, path: str, **fields: Any) -> str:
    """Export an object."""
    answer = send(api, "GET", "export", path=path, **fields)
    assert answer.status_code == 200, answer.text
    return base64.b64decode(answer.json()["content"]).decode()


def error(answer: requests.Response) -> tuple[int, str]:
    """Return the status and the error code of an answer."""
    return answer.status_code, answer.json()["error_code"]


def test_imported_notebook_runs(api: Api) -> None:
    """A notebook is imported, found, run, exported and deleted under its name."""
    assert send(api, "POST", "mkdirs", path="/Shared/new/deep").json() == {}
    path = "/Shared/new/deep/etl"
    answer = put(api, path, "dbutils.notebook.exit('done')", language="PYTHON")
    assert answer.status_code == 200, answer.text
    status = send(api, "GET", "get-status", path=path).json()
    assert (status["object_type"], status["language"], status["path"]) == (
        "NOTEBOOK",
        "PYTHON",
        path,
    )
    run_id = api.submit(notebook_task={"notebook_path": path})
    assert api.wait(run_id)["state"]["result_state"] == "SUCCESS"
    assert api.output(run_id)["notebook_output"]["result"] == "done"
    assert export(api, path) == SOURCE.rstrip("\n")
    assert error(send(api, "POST", "delete", path="/Shared/new")) == (400, "DIRECTORY_NOT_EMPTY")
    assert send(api, "POST", "delete", path="/Shared/new", recursive=True).json() == {}
    gone = (404, "RESOURCE_DOES_NOT_EXIST")
    assert error(send(api, "GET", "get-status", path=path)) == gone
    assert error(send(api, "POST", "delete", path="/Shared/new")) == gone
    assert error(put(api, path, SOURCE, language="PYTHON")) == gone


def test_overwrite(api: Api) -> None:
    """An object is replaced if the request says so, also by a notebook of the other form."""
    path = "/twice"
    assert put(api, path, SOURCE, language="PYTHON").status_code == 200
    for fields in ({"language": "PYTHON"}, {"format": "JUPYTER"}):
        assert error(put(api, path, SOURCE, **fields)) == (400, "RESOURCE_ALREADY_EXISTS")
    assert put(api, path, JUPYTER, format="JUPYTER", overwrite=True).status_code == 200
    assert json.loads(export(api, path, format="JUPYTER")) == json.loads(JUPYTER)
    assert not (api.root / "twice.py").exists()
    send(api, "POST", "mkdirs", path="/a_folder")
    answer = put(api, "/a_folder", "x", format="RAW", overwrite=True)
    assert error(answer) == (400, "RESOURCE_ALREADY_EXISTS")
    assert error(send(api, "POST", "mkdirs", path="/twice.ipynb/x"))[0] == 400


def test_forms_of_a_notebook(api: Api, tmp_path: Path) -> None:
    """A notebook is exported in either form, with the same cells."""
    put(api, "/both", JUPYTER, format="JUPYTER")
    source = export(api, "/both")
    assert source == (
        "# Databricks notebook source\n# MAGIC %md\n# MAGIC # Title\n# MAGIC text\n"
        "\n# COMMAND ----------\n\n# MAGIC %sql\n# MAGIC select 1\n"
        "\n# COMMAND ----------\n\nx = 1\nprint(x)\n"
    )
    file = tmp_path / "both.py"
    file.write_text(source, encoding="utf-8")
    assert as_source(read_notebook(file)) == source
    put(api, "/source", source, language="PYTHON")
    document = json.loads(export(api, "/source", format="JUPYTER"))
    kinds = [(cell["cell_type"], cell["source"].strip()) for cell in document["cells"]]
    assert kinds == [
        ("markdown", "# Title\ntext"),
        ("code", "%%sql\nselect 1"),
        ("code", "x = 1\nprint(x)"),
    ]


def test_list_of_a_folder(api: Api) -> None:
    """AUTO tells a notebook from a file; a list has both, and hides the workspace's own state."""
    send(api, "POST", "mkdirs", path="/kinds/below")
    put(api, "/kinds/etl.py", SOURCE, format="AUTO")
    put(api, "/kinds/module.py", "x = 1\n", format="AUTO")
    put(api, "/kinds/data.csv", "a,b\n", format="AUTO")
    put(api, "/kinds/nb.ipynb", JUPYTER, format="AUTO")
    objects = send(api, "GET", "list", path="/kinds").json()["objects"]
    assert {one["path"]: one["object_type"] for one in objects} == {
        "/kinds/below": "DIRECTORY",
        "/kinds/data.csv": "FILE",
        "/kinds/etl": "NOTEBOOK",
        "/kinds/module.py": "FILE",
        "/kinds/nb": "NOTEBOOK",
    }
    assert send(api, "GET", "list", path="/kinds/below").json() == {}
    [itself] = send(api, "GET", "list", path="/kinds/data.csv").json()["objects"]
    assert itself["size"] == 4
    assert export(api, "/kinds/data.csv") == "a,b\n"
    shown = [one["path"] for one in send(api, "GET", "list", path="/").json()["objects"]]
    assert "/kinds" in shown
    assert "/.workspace" not in shown


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"path": "relative"}, "absolute"),
        ({"path": "/../outside"}, "leads out of"),
        ({"path": "/.workspace/x"}, "own state"),
        ({"path": None}, "path"),
        ({"path": 5}, "path"),
        ({"language": None}, "language is required"),
        ({"language": "SCALA"}, "PYTHON only"),
        ({"format": "DBC"}, "format must be one of"),
        ({"content": "%"}, "base64"),
        ({"content": None}, "content"),
        ({"overwrite": "perhaps"}, "overwrite"),
    ],
)
def test_bad_imports(api: Api, fields: dict[str, Any], words: str) -> None:
    """An import that cannot be done is refused, with the field named."""
    body = {"path": "/n", "content": "eA==", "language": "PYTHON", **fields}
    answer = send(api, "POST", "import", **body)
    assert error(answer) == (400, "INVALID_PARAMETER_VALUE")
    assert words in answer.json()["message"]


@pytest.mark.parametrize("path", ["/../outside", "/.workspace", "/missing", "/"])
def test_bad_deletes(api: Api, path: str) -> None:
    """Nothing outside of the workspace is deleted, nor its root or its state."""
    answer = send(api, "POST", "delete", path=path, recursive=True)
    assert answer.status_code in {400, 404}
    assert (api.root / ".workspace").is_dir()


def test_upload_as_a_form(api: Api) -> None:
    """The official SDK uploads a file as a form, not as JSON, and downloads it as it is."""
    url = f"{api.workspace.url}/api/2.0/workspace/import"
    fields = {"path": "/uploaded.py", "format": "AUTO", "overwrite": "true"}
    for _ in range(2):
        files = {"content": SOURCE.encode()}
        answer = api.session.post(url, files=files, data=fields, timeout=30)
        assert answer.status_code == 200, answer.text
    assert export(api, "/uploaded") == SOURCE
    direct = send(api, "GET", "export", path="/uploaded", direct_download="true")
    assert direct.content == SOURCE.encode()
    large = {"content": b"x" * (10 * 1024 * 1024)}
    refused = api.session.post(url, files=large, data=fields, timeout=30)
    assert error(refused) == (400, "MALFORMED_REQUEST")
