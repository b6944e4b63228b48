"""Decorated functions as the tests of decorators use them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_jobs_provider.decorators.jobs import databricks_notebook, databricks_python
from airflow_jobs_provider.local.notebook_files import read_notebook
from tests.fakes.scripted_server import ScriptedServer, Step, answer
from tests.helpers.responses import good

__all__ = [
    "ME",
    "MISSING",
    "NEW",
    "RUN",
    "STORED",
    "add",
    "executed",
    "notebook",
    "operator_of",
    "parameters",
    "python",
    "result",
    "sent",
]

RUN: dict[str, Any] = {"existing_cluster_id": "1201-my-cluster", "polling_period_seconds": 0.01}
ME = answer({"userName": "ann@example.com"})
MISSING = answer({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no object"}, status=404)
STORED = answer({"object_id": 5})
# The notebook is not there, and is stored.
NEW = (MISSING, STORED)


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
