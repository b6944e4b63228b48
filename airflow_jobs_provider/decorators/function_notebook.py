"""The notebook that runs a decorated function on Databricks."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Sequence

from airflow_jobs_provider.decorators.function_source import FunctionSource
from airflow_jobs_provider.decorators.json_text import (
    MAX_RESULT_BYTES,
    RESULT_KEY,
    airflow_json_text,
)

__all__ = ["ARGUMENTS_PARAMETER", "function_notebook"]

# The notebook's parameter with the function's arguments: {"args": [...], "kwargs": {...}} as JSON.
ARGUMENTS_PARAMETER = "airflow_arguments"
_SEPARATOR = "\n\n# COMMAND ----------\n\n"
_CALL = """\
import json

airflow_arguments = json.loads(dbutils.widgets.get("{parameter}"))
airflow_result = {name}(*airflow_arguments["args"], **airflow_arguments["kwargs"])
airflow_result = airflow_json_text(airflow_result, "The result of {name}")
airflow_result = '{{"{key}": ' + airflow_result + "}}"
if len(airflow_result) > {limit}:
    raise ValueError(
        f"The result of {name} has {{len(airflow_result):,}} bytes as JSON, and Databricks returns "
        "{limit:,} at most. Write it to a table or a file, and return where it is."
    )
dbutils.notebook.exit(airflow_result)
"""


def function_notebook(function: FunctionSource, requirements: Sequence[str] = ()) -> str:
    """Return the notebook that calls a function and exits with its result, in the source form.

    :param function: the function.
    :param requirements: packages to install with ``%pip`` for the notebook alone; default none.
    """
    head = (
        "# Databricks notebook source\n"
        "# MAGIC %md\n"
        f"# MAGIC The function `{function.name}` of an Airflow DAG, for `@task.databricks_python`. "
        "The name of this notebook has a hash of its content. Changes are overwritten."
    )
    cells = [head]
    if requirements:
        cells.append(f"# MAGIC %pip install {' '.join(map(shlex.quote, requirements))}")
    future = "from __future__ import annotations\n\n"
    cells += [
        future + inspect.getsource(airflow_json_text).rstrip(),
        future + function.text.rstrip(),
        _CALL.format(
            parameter=ARGUMENTS_PARAMETER,
            key=RESULT_KEY,
            name=function.name,
            limit=MAX_RESULT_BYTES,
        ),
    ]
    return _SEPARATOR.join(cells)
