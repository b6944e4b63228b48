"""Spark tasks go through spark-submit, where there is one."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.local.runners.processes import environment_of_runs
from tests.local.api import Api

CLUSTER = {"spark_version": "13.3.x-scala2.12", "node_type_id": "n", "num_workers": 1}
NEW = {"new_cluster": CLUSTER}


@pytest.fixture
def spark_submit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a pyspark in place whose spark-submit says how it was called."""
    binaries = tmp_path / "pyspark" / "bin"
    binaries.mkdir(parents=True)
    (tmp_path / "pyspark" / "__init__.py").touch()
    for program in (binaries / "spark-submit", tmp_path / "java"):
        program.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
        program.chmod(0o755)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


def _run(api: Api, **settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    answer = api.post("runs/submit", {**NEW, **settings})
    assert answer.status_code == 200, answer.text
    run = api.wait(answer.json()["run_id"])
    output = api.get("runs/get-output", version="2.2", run_id=run["run_id"]).json()
    return run["state"], output


@pytest.mark.skipif(importlib.util.find_spec("pyspark") is not None, reason="pyspark is there")
@pytest.mark.parametrize(
    "task",
    [
        {"spark_submit_task": {"parameters": ["dbfs:/x.py"]}},
        {"spark_jar_task": {"main_class_name": "Main"}},
    ],
)
def test_without_pyspark(api: Api, task: dict[str, Any]) -> None:
    """Without pyspark the run ends INTERNAL_ERROR, without a result, and says what to install."""
    state, _ = _run(api, **task)
    assert state["life_cycle_state"] == "INTERNAL_ERROR"
    assert "result_state" not in state
    assert "pip install pyspark" in state["state_message"]


@pytest.mark.usefixtures("spark_submit")
def test_spark_submit_task(api: Api) -> None:
    """spark-submit gets the parameters as they are, DBFS paths found below the root."""
    parameters = ["--jars", "dbfs:/a.jar,dbfs:/b.jar", "dbfs:/x.py", "10"]
    state, output = _run(api, spark_submit_task={"parameters": parameters})
    assert state["result_state"] == "SUCCESS"
    root = api.root
    lines = output["logs"].splitlines()
    assert lines.pop(3).startswith("spark.sql.warehouse.dir=")
    assert lines == [
        "--master",
        "local[*]",
        "--conf",
        "--jars",
        f"{root}/a.jar,{root}/b.jar",
        f"{root}/x.py",
        "10",
    ]


@pytest.mark.usefixtures("spark_submit")
def test_spark_jar_task(api: Api) -> None:
    """A JAR task runs its main class out of the libraries, with its parameters."""
    for name in ("main.jar", "more.jar"):
        (api.root / name).touch()
    libraries = [{"jar": "dbfs:/main.jar"}, {"jar": "dbfs:/more.jar"}, {"pypi": {"package": "x"}}]
    task = {"main_class_name": "com.example.Main", "parameters": ["a b"]}
    state, output = _run(api, spark_jar_task=task, libraries=libraries)
    assert state["result_state"] == "SUCCESS"
    assert output["logs"].splitlines()[4:] == [
        "--class",
        "com.example.Main",
        "--jars",
        f"{api.root}/more.jar",
        f"{api.root}/main.jar",
        "a b",
    ]


@pytest.mark.usefixtures("spark_submit")
@pytest.mark.parametrize(
    ("libraries", "words"),
    [
        ([], "needs a JAR"),
        ([{"jar": "dbfs:/nowhere.jar"}], "dbfs:/nowhere.jar"),
        ([{"jar": "dbfs:/../x.jar"}], "out of the workspace"),
    ],
)
def test_jar_that_is_not_there(api: Api, libraries: list[dict[str, str]], words: str) -> None:
    """A JAR that is not there, or outside of the root, fails the run and is named."""
    state, output = _run(api, spark_jar_task={"main_class_name": "M"}, libraries=libraries)
    assert state["result_state"] == "FAILED"
    assert words in output["error"]


@pytest.mark.usefixtures("spark_submit")
def test_submit_out_of_the_root(api: Api) -> None:
    """A DBFS path that leads out of the root is refused."""
    state, output = _run(api, spark_submit_task={"parameters": ["dbfs:/../x.py"]})
    assert state["result_state"] == "FAILED"
    assert "out of the workspace" in output["error"]


def test_each_run_has_a_warehouse_of_its_own(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python file may save a table in each run: Spark finds no files of the run before."""
    source = """
        import os, shlex
        option, setting, program = shlex.split(os.environ["PYSPARK_SUBMIT_ARGS"])
        assert (option, program) == ("--conf", "pyspark-shell")
        name, _, folder = setting.partition("=")
        os.mkdir(folder)
        print(name, folder)
        """
    folders = set()
    for _ in range(2):
        run_id = api.submit_python(source)
        assert api.wait(run_id)["state"]["result_state"] == "SUCCESS", api.output(run_id)
        logs = api.get("runs/get-output", version="2.2", run_id=run_id).json()["logs"]
        name, folder = logs.split()
        assert name == "spark.sql.warehouse.dir"
        folders.add(folder)
    assert len(folders) == 2
    assert not any(Path(folder).exists() for folder in folders)
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", "chosen")
    run_id = api.submit_python("import os; print(os.environ['PYSPARK_SUBMIT_ARGS'])")
    api.wait(run_id)
    output = api.get("runs/get-output", version="2.2", run_id=run_id).json()
    assert output["logs"] == "chosen\n"


def test_python_of_spark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spark runs Python functions with the workspace's Python, unless the user has chosen one."""
    monkeypatch.delenv("PYSPARK_PYTHON", raising=False)
    assert environment_of_runs("marker")["PYSPARK_PYTHON"] == sys.executable
    monkeypatch.setenv("PYSPARK_PYTHON", "/opt/python")
    assert environment_of_runs("marker")["PYSPARK_PYTHON"] == "/opt/python"
