"""What a path leads to is what is opened: nothing beside the root, and no link to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_jobs_provider.local.workspace import LocalWorkspace
from tests.local.api import Api

OUTSIDE = "# Databricks notebook source\nprint('outside'); dbutils.notebook.exit('outside')\n"
INSIDE = OUTSIDE.replace("outside", "inside")


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Return a workspace with links, and with files beside its root."""
    outer = tmp_path_factory.mktemp("outer")
    root = outer / "root"
    (root / "folder").mkdir(parents=True)
    for name in ("root.py", "root.ipynb", "secret.py"):
        (outer / name).write_text(OUTSIDE)
    (root / "inside.py").write_text(INSIDE)
    (root / "self").symlink_to(root)
    (root / "folder" / "up").symlink_to("..")
    (root / "out.py").symlink_to(outer / "secret.py")
    (root / "out").symlink_to(outer / "secret")
    (root / "outer").symlink_to(outer)
    (root / "state").symlink_to(root / ".workspace")
    (root / "loop.py").symlink_to(root / "loop.py")
    (root / "loop").symlink_to(root / "loop")
    (root / "alias").symlink_to(root / "inside")
    (root / "alias_of_file").symlink_to(root / "inside.py")
    with LocalWorkspace(root) as workspace:
        (root / ".workspace" / "kept.py").write_text(OUTSIDE)
        yield Api(workspace)


REFUSED = [
    "/self",
    "/self/self",
    "/folder/up",
    "/out",
    "/out.py",
    "/outer/secret",
    "/outer/secret.py",
    "/self/outer/secret",
    "/state/kept",
    "/.workspace/kept",
    "/.WORKSPACE/kept",
    "/self/.workspace/kept",
    "/loop",
    "/loop.py",
    "/" + "x" * 300,
    "/" + "é" * 126,
    "/folder/" + "x/" * 3000 + "y",
    "/",
    "/..",
    "/../secret",
    "/a\0b",
]


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path[:20].replace("\0", "NUL"))
def test_nothing_outside_is_run(linked: Api, path: str) -> None:
    """A notebook or a file whose path leads out of the root, or nowhere, fails its run and says so.

    So it does if what is found with the extension added would lie beside the root.
    """
    notebook = linked.submit(notebook_task={"notebook_path": path})
    file = linked.submit(spark_python_task={"python_file": f"dbfs:{path}"})
    run = linked.wait(notebook)
    assert run["state"]["result_state"] == "FAILED"
    assert "Unable to access the notebook" in run["state"]["state_message"]
    run = linked.wait(file)
    assert run["state"]["result_state"] == "FAILED"
    assert "Cannot read the file" in run["state"]["state_message"]
    for run_id in (notebook, file):
        assert linked.get("runs/get-output", run_id=run_id).status_code == 200
    export = linked.get("runs/export", run_id=notebook)
    assert (export.status_code, export.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.slow
def test_nothing_outside_is_included(linked: Api) -> None:
    """A notebook's ``%run`` opens nothing outside of the root either."""
    for path in ("/self", "/out", "/outer/secret", "./folder/up", "/state/kept", "/" + "x" * 300):
        run, output = linked.run_notebook(f"%run {path}")
        assert run["state"]["result_state"] == "FAILED"
        assert output["error"].startswith("FileNotFoundError")


@pytest.mark.parametrize(
    "path",
    ["/inside", "/inside.py", "/alias", "/alias_of_file", "/self/inside", "/folder/up/inside"],
)
def test_links_within_the_root(linked: Api, path: str) -> None:
    """Links that stay inside of the root are followed, with and without the extension."""
    run_id = linked.submit(notebook_task={"notebook_path": path})
    assert linked.wait(run_id)["state"]["result_state"] == "SUCCESS"
    assert linked.output(run_id)["notebook_output"]["result"] == "inside"


@pytest.mark.parametrize("length", [pytest.param(249, marks=pytest.mark.exhaustive), 252])
def test_long_names(linked: Api, length: int) -> None:
    """A notebook whose name is as long as a file's can be runs, and is exported under its name."""
    name = "n" * length
    (linked.root / f"{name}.py").write_text(INSIDE)
    run_id = linked.submit(notebook_task={"notebook_path": f"/{name}"})
    assert linked.wait(run_id)["state"]["result_state"] == "SUCCESS"
    [view] = linked.get("runs/export", run_id=run_id).json()["views"]
    assert view["name"] == name
    assert "inside" in view["content"]
