"""Notebooks really run, with what they find defined on Databricks."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from airflow_jobs_provider.local.workspace import LocalWorkspace
from tests.local.api import Api


def test_exit_value_is_the_result(api: Api) -> None:
    """A notebook's exit value is the run's result, and later cells are not run."""
    run, output = api.run_notebook(
        """
        try:
            dbutils.notebook.exit("done " + str(6 * 7))
        except Exception:
            pass
        """,
        "raise ValueError('a later cell was run')",
    )
    assert run["state"] == {
        "life_cycle_state": "TERMINATED",
        "result_state": "SUCCESS",
        "state_message": "",
        "user_cancelled_or_timedout": False,
    }
    assert output["notebook_output"] == {"result": "done 42", "truncated": False}
    assert "error" not in output
    assert output["metadata"]["run_id"] == run["run_id"]


def test_no_exit_no_result(api: Api) -> None:
    """A notebook that never calls exit succeeds with an output that has no result."""
    run, output = api.run_notebook("print('hello')", "display({'a': 1})\ndisplayHTML('<b>x</b>')")
    assert run["state"]["result_state"] == "SUCCESS"
    assert output["notebook_output"] == {}


def test_raising_notebook_fails_with_its_own_error(api: Api) -> None:
    """A notebook that raises fails, and the output has its error and trace without colours."""
    run, output = api.run_notebook("def f():\n    raise ValueError('the text')", "f()", "print(1)")
    assert run["state"]["life_cycle_state"] == "INTERNAL_ERROR"
    assert run["state"]["result_state"] == "FAILED"
    assert run["state"]["state_message"] == "Workload failed, see run output for details"
    assert output["error"] == "ValueError: the text"
    assert "raise ValueError('the text')" in output["error_trace"]
    assert "\x1b" not in output["error_trace"]
    assert output["notebook_output"] == {}


def test_widgets(api: Api) -> None:
    """Widgets take the run's parameters over their defaults, and know when they are not there."""
    _, output = api.run_notebook(
        """
        w = dbutils.widgets
        w.text("name", "nobody")
        w.text(name="size", defaultValue="3", label="Size")
        w.dropdown("colour", "red", ["red", "blue"])
        w.combobox("shape", "round", ["round", "flat"])
        w.multiselect("days", "mon", ["mon", "tue"])
        """,
        """
        import json
        seen = {"all": w.getAll(), "bare": w.get("unasked")}
        w.remove("size")
        try:
            w.get("size")
        except Exception as error:
            seen["error"] = f"{type(error).__name__}: {error}"
        w.removeAll()
        seen["left"] = w.getAll()
        try:
            w.dropdown("bad", "green", ["red"])
        except ValueError as error:
            seen["bad"] = str(error)
        dbutils.notebook.exit(json.dumps(seen))
        """,
        name="bob",
        unasked="1",
    )
    seen = json.loads(output["notebook_output"]["result"])
    assert seen["all"] == {
        "name": "bob",
        "unasked": "1",
        "size": "3",
        "colour": "red",
        "shape": "round",
        "days": "mon",
    }
    assert seen["bare"] == "1"
    assert seen["error"] == "InputWidgetNotDefined: No input widget named size is defined"
    assert seen["left"] == {}
    assert "green" in seen["bad"]


def test_jupyter_notebook_with_magics(api: Api) -> None:
    """A notebook in Jupyter's format runs, its leading magics understood, its folder importable."""
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {"cell_type": "code", "source": "%md\n*not* Python"},
        {"cell_type": "code", "source": ["%pip install something\n", "import beside\n", "x = 1"]},
        {"cell_type": "code", "source": "%python\nx += beside.Y"},
        {"cell_type": "code", "source": "%sh\necho from the shell"},
        {"cell_type": "code", "source": "dbutils.notebook.exit(x)"},
    ]
    folder = api.root / "jupyter"
    folder.mkdir()
    (folder / "beside.py").write_text("Y = 10")
    (folder / "book.ipynb").write_text(json.dumps({"cells": cells, "nbformat": 4}))
    run_id = api.submit(notebook_task={"notebook_path": "/jupyter/book"})
    assert api.wait(run_id)["state"]["result_state"] == "SUCCESS", api.output(run_id)
    assert api.output(run_id)["notebook_output"]["result"] == "11"
    [view] = api.get("runs/export", run_id=run_id).json()["views"]
    assert view["name"] == "book"
    assert view["type"] == "NOTEBOOK"
    assert view["content"].startswith("<!DOCTYPE html>")
    assert "from the shell" in view["content"]
    assert "%pip install something: not done by the local workspace" in view["content"]


@pytest.mark.slow
def test_pip_installs_for_its_run(tmp_path: Path) -> None:
    """With pip_install a run has what it installs, also after a restart; the next run does not."""
    name = "of_the_run-1.0-py3-none-any.whl"
    info = "of_the_run-1.0.dist-info"
    with zipfile.ZipFile(tmp_path / name, "w") as wheel:
        wheel.writestr("of_the_run.py", "VALUE = 7\n")
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: of_the_run\nVersion: 1.0\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    install = f"# MAGIC %pip install --quiet --no-index --no-deps /Workspace/{name}"
    show = "import of_the_run\ndbutils.notebook.exit(of_the_run.VALUE)"
    with LocalWorkspace(tmp_path, pip_install=True) as workspace:
        api = Api(workspace)
        for cells in ((install, show), (install, "# MAGIC %restart_python", show)):
            run, output = api.run_notebook(*cells)
            assert output["notebook_output"].get("result") == "7", (run, output)
        _, output = api.run_notebook(show)
        assert output["error"] == "ModuleNotFoundError: No module named 'of_the_run'"
        _, output = api.run_notebook("# MAGIC %pip install --no-index no-such-package", "1")
        assert output["error"].startswith("CalledProcessError: Command 'pip install --no-index")


def test_run_magic_shares_names(api: Api) -> None:
    """%run executes another notebook in this one's names, relative to each one's own folder."""
    folder = api.root / "deep" / "er"
    folder.mkdir(parents=True)
    head = "# Databricks notebook source\n"
    (folder / "inner.py").write_text(f"{head}# MAGIC %run ../leaf\n# COMMAND ----------\nB = A + 1")
    (api.root / "deep" / "leaf.py").write_text(f"{head}A = int(dbutils.widgets.get('start'))")
    (api.root / "deep" / "top.py").write_text(
        f'{head}# MAGIC %run ./er/inner $start="5"\n# COMMAND ----------\n'
        "dbutils.notebook.exit(A + B)"
    )
    run_id = api.submit(notebook_task={"notebook_path": "/deep/top"})
    api.wait(run_id)
    assert api.output(run_id)["notebook_output"]["result"] == "11", api.output(run_id)


@pytest.mark.parametrize("target", ["./nowhere", "/../../../etc/passwd"])
def test_run_magic_of_what_is_not_there(api: Api, target: str) -> None:
    """%run of a notebook that is not there, or outside of the root, fails with a clear error."""
    run, output = api.run_notebook(f"# MAGIC %run {target}")
    assert run["state"]["result_state"] == "FAILED"
    assert output["error"].startswith("FileNotFoundError: ")


@pytest.mark.slow
def test_notebook_run_returns_the_others_exit_value(api: Api) -> None:
    """dbutils.notebook.run makes a WORKFLOW_RUN and returns its exit value, or raises."""
    greet = api.notebook("dbutils.notebook.exit('hello ' + dbutils.widgets.get('who'))")
    bad = api.notebook("raise KeyError('inner')")
    name = greet.rpartition("/")[2]
    run, output = api.run_notebook(
        f"""
        said = dbutils.notebook.run("./{name}", 60, {{"who": 7}})
        try:
            dbutils.notebook.run("{bad}", 60)
        except Exception as error:
            said += " | " + str(error)
        dbutils.notebook.exit(said)
        """
    )
    assert run["state"]["result_state"] == "SUCCESS", output
    said, _, error = output["notebook_output"]["result"].partition(" | ")
    assert said == "hello 7"
    assert "KeyError: 'inner'" in error
    children = api.get("runs/list", run_type="WORKFLOW_RUN").json()["runs"]
    paths = [child["task"]["notebook_task"]["notebook_path"] for child in children]
    assert {greet, bad} <= set(paths)


def test_missing_notebook(api: Api) -> None:
    """A notebook that does not exist ends the run INTERNAL_ERROR, with its path in the message."""
    run_id = api.submit(notebook_task={"notebook_path": "/Users/me/nowhere"})
    state = api.wait(run_id)["state"]
    assert (state["life_cycle_state"], state["result_state"]) == ("INTERNAL_ERROR", "FAILED")
    assert state["state_message"].startswith(
        'Unable to access the notebook "/Users/me/nowhere". Either it does not exist, or'
    )


def test_paths_out_of_the_root_are_refused(api: Api, tmp_path: object) -> None:
    """Neither dots nor links lead out of the workspace's root, nor into its own state."""
    outside = api.root.parent / "outside"
    outside.mkdir()
    (outside / "secret.py").write_text("# Databricks notebook source\n")
    (api.root / "link").symlink_to(outside)
    (api.root / "file_link.py").symlink_to(outside / "secret.py")
    (api.root / ".workspace" / "own.py").write_text("# Databricks notebook source\n")
    for path in ("/../outside/secret", "/link/secret", "/file_link", "/.workspace/own"):
        run_id = api.submit(notebook_task={"notebook_path": path})
        state = api.wait(run_id)["state"]
        assert state["result_state"] == "FAILED", path
        assert f'Unable to access the notebook "{path}"' in state["state_message"]


def test_broken_notebook_file(api: Api) -> None:
    """A file that is no notebook fails the run and says why."""
    (api.root / "broken.ipynb").write_text("{not json")
    run_id = api.submit(notebook_task={"notebook_path": "/broken"})
    assert api.wait(run_id)["state"]["result_state"] == "FAILED"
    assert "broken.ipynb is not a Jupyter notebook" in api.output(run_id)["error"]


@pytest.mark.slow
def test_result_is_cut_at_five_megabytes(api: Api) -> None:
    """A result over 5 MB comes cut, and says so."""
    _, output = api.run_notebook("dbutils.notebook.exit('x' * (5 * 1024 * 1024 + 1))")
    assert output["notebook_output"]["truncated"] is True
    assert len(output["notebook_output"]["result"]) == 5 * 1024 * 1024


@pytest.mark.slow
def test_dead_kernel_fails_the_run(api: Api) -> None:
    """A notebook whose process dies fails and says so."""
    run, output = api.run_notebook("import os", "os._exit(3)")
    assert run["state"]["result_state"] == "FAILED"
    assert "process died" in output["error"]


def test_spark_is_lazy_and_says_what_is_missing(api: Api) -> None:
    """A notebook that does not use spark needs no pyspark; one that does is told to install it."""
    pytest.importorskip("IPython")
    try:
        import pyspark  # noqa: F401
    except ImportError:
        run, output = api.run_notebook("spark.range(3)")
        assert run["state"]["result_state"] == "FAILED"
        assert "pip install pyspark" in output["error"]
    else:
        _, output = api.run_notebook("dbutils.notebook.exit(spark.range(3).count())")
        assert output["notebook_output"]["result"] == "3"


def test_dynamic_values_in_parameters(api: Api) -> None:
    """The simple dynamic value references are filled in; unknown ones stay as they are."""
    run, output = api.run_notebook(
        "dbutils.notebook.exit(dbutils.widgets.get('p'))", p="{{run_id}}/{{job_id}}/{{unknown}}"
    )
    expected = f"{run['run_id']}/{run['job_id']}/{{{{unknown}}}}"
    assert output["notebook_output"]["result"] == expected


def test_kernel_does_not_see_secrets(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook's environment holds neither Airflow connections nor the workspace's token."""
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", "secret-of-other")
    _, output = api.run_notebook(
        "import os, json; dbutils.notebook.exit(json.dumps(dict(os.environ)))"
    )
    environment = output["notebook_output"]["result"]
    assert "secret-of-other" not in environment
    assert api.workspace.token not in environment


@pytest.mark.slow
def test_kernel_has_no_port(api: Api) -> None:
    """What a notebook's process prints arrives, and no other program can print into a notebook."""
    _, output = api.run_notebook(
        """
        import json, os, psutil
        if os.fork() == 0:
            print("of a process", flush=True)
            os._exit(0)
        os.wait()
        connections = psutil.Process().net_connections("inet")
        dbutils.notebook.exit(json.dumps([one.laddr.port for one in connections]))
        """
    )
    assert output["notebook_output"]["result"] == "[]"
    run_id = output["metadata"]["run_id"]
    notebook = json.loads((api.root / ".workspace" / "runs" / f"{run_id}.ipynb").read_text())
    [cell] = notebook["cells"]
    assert "of a process" in "".join(one.get("text", "") for one in cell["outputs"])
