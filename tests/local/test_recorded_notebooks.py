"""Notebooks of many kinds, executed and compared with what was recorded of them.

Each ``tests/local/notebooks/NAME.py.txt`` (or ``.ipynb.txt``, ``.sql.txt``) is a notebook. What it
gives out is in ``recorded.json``. ``python -m tests.local.test_recorded_notebooks`` records it
again; read the difference before you commit it. ``NAME`` as an argument records that one only.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobs_provider.local.kernel.dbutils import DBUtils
from airflow_jobs_provider.local.notebook_files import read_notebook
from airflow_jobs_provider.local.workspace import LocalWorkspace
from tests.local.api import Api

FOLDER = Path(__file__).with_name("notebooks")
RECORDED = FOLDER / "recorded.json"
PARAMETERS = {"name": "a;b", "mode": "delta"}
NAMES = sorted(file.name.partition(".")[0] for file in FOLDER.glob("*.txt"))
NEEDED = {"queries": ("duckdb", "sqlglot")}
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def prepare(root: Path) -> None:
    """Copy the notebooks into the root of a workspace."""
    for file in FOLDER.rglob("*.txt"):
        copy = root / file.relative_to(FOLDER).with_suffix("")
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(file.read_text())


def put_secret(api: Api) -> None:
    """Store the secret that a notebook reads."""
    url = f"{api.workspace.url}/api/2.0/secrets"
    api.session.post(f"{url}/scopes/create", json={"scope": "job"}, timeout=30)
    body = {"scope": "job", "key": "password", "string_value": "hunter22"}
    assert api.session.post(f"{url}/put", json=body, timeout=30).ok


def executed(api: Api, name: str) -> dict[str, Any]:
    """Run a notebook; return how it ended and what its cells gave out."""
    task = {"notebook_path": f"/{name}", "base_parameters": PARAMETERS}
    run_id = api.submit(notebook_task=task)
    state = api.wait(run_id, seconds=60)["state"]
    output = api.output(run_id)
    file = api.root / ".workspace" / "runs" / f"{run_id}.ipynb"
    cells = json.loads(file.read_text())["cells"] if file.exists() else []
    return {
        "result_state": state["result_state"],
        "result": output["notebook_output"].get("result"),
        "error": without_ids(api, output.get("error", "")),
        "outputs": [
            {kind: without_ids(api, text) for kind, text in shown_by(cell).items()}
            for cell in cells
            if cell["cell_type"] == "code"
        ],
    }


def shown_by(cell: dict[str, Any]) -> dict[str, str]:
    """Return what a cell gave out, by kind; order and pieces of streams are not the notebook's."""
    shown: dict[str, str] = {}
    for output in cell["outputs"]:
        if output["output_type"] == "stream":
            parts = {output["name"]: output["text"]}
        elif output["output_type"] == "error":
            parts = {"error": f"{output['ename']}: {output['evalue']}"}
        else:
            parts = output["data"]
        for kind, text in parts.items():
            shown[kind] = shown.get(kind, "") + _COLOURS.sub("", "".join(text))
    return shown


def without_ids(api: Api, text: str) -> str:
    """Replace what differs between two runs: the root, the URL, ids."""
    text = text.replace(str(api.root), "ROOT").replace(api.workspace.url, "URL")
    return re.sub(r"\b(Run|runs/) ?\d+", r"\1 N", text)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Return a workspace with the notebooks."""
    root = tmp_path_factory.mktemp("notebooks").resolve()
    prepare(root)
    with LocalWorkspace(root) as workspace:
        api = Api(workspace)
        put_secret(api)
        yield api


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_recorded(workspace: Api, name: str) -> None:
    """A notebook ends and gives out what was recorded."""
    for package in NEEDED.get(name, ()):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    assert executed(workspace, name) == json.loads(RECORDED.read_text())[name]


def test_what_is_recorded() -> None:
    """There are twenty notebooks or more, and each has a record."""
    assert len(NAMES) >= 20
    assert sorted(json.loads(RECORDED.read_text())) == NAMES


def test_help(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The text of the help is the recorded one. It is made of docstrings, so they are seen here."""
    context: Any = SimpleNamespace(parameters={}, widgets={}, root=tmp_path)
    names = {"dbutils": DBUtils(context)}
    recorded = json.loads(RECORDED.read_text())["help"]["outputs"]
    cells = read_notebook(FOLDER / "help.py.txt")
    assert len(cells) == len(recorded) > 1
    for cell, expected in zip(cells, recorded, strict=True):
        exec(cell.source, names)
        assert {"stdout": capsys.readouterr().out} == expected


def record(*names: str) -> None:
    """Write what the notebooks give out now; all of them if none is named."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        prepare(root)
        with LocalWorkspace(root) as workspace:
            api = Api(workspace)
            put_secret(api)
            found = {name: executed(api, name) for name in names or NAMES}
    if names:
        found = {**json.loads(RECORDED.read_text()), **found}
    RECORDED.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    record(*sys.argv[1:])
