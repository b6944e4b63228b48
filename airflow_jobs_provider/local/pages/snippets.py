"""A request as a curl command and as an Airflow DAG, to be copied."""

from __future__ import annotations

import json
import pprint
import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from airflow_jobs_provider.local.engine.model import Run, RunType

__all__ = ["curl", "dag_of", "request_of"]

_WIDTH = 88
_OPERATORS = {
    "runs/submit": "DatabricksSubmitRunOperator",
    "run-now": "DatabricksRunNowOperator",
    "create": "DatabricksCreateJobsOperator",
}
# What Airflow would read as a template.
_TEMPLATE_MARKS = ("{{", "{%", "{#")


def request_of(run: Run) -> tuple[str, dict[str, Any]]:
    """Return the endpoint and the fields of the request that launches a run like this one."""
    if run.run_type == RunType.JOB_RUN:
        # Those of the launch, not those that a repair was given.
        first = run.history[0]["overriding_parameters"] if run.history else None
        return "run-now", {
            "job_id": run.job_id,
            **({"only": run.only} if run.only else {}),
            **(run.overriding_parameters if first is None else first),
        }
    settings: dict[str, Any] = {"run_name": run.run_name}
    if run.is_of_tasks:
        settings["tasks"] = run.tasks
    else:
        settings |= run.task
    settings |= {**run.cluster_spec, **run.shown_settings}
    if run.timeout_seconds:
        settings["timeout_seconds"] = run.timeout_seconds
    return "runs/submit", settings


def curl(method: str, url: str, data: Mapping[str, Any]) -> str:
    """Return a curl command; the token is in the variable DATABRICKS_TOKEN."""
    header = '"Authorization: Bearer $DATABRICKS_TOKEN"'
    if method == "GET":
        query = f"?{urlencode(data)}" if data else ""
        return f"curl --header {header} \\\n  {shlex.quote(url + query)}"
    body = shlex.quote(json.dumps(data, indent=2, ensure_ascii=False))
    json_type = shlex.quote("Content-Type: application/json")
    return (
        f"curl --request {shlex.quote(method)} --header {header} --header {json_type} \\\n"
        f"  {shlex.quote(url)} \\\n  --data {body}"
    )


def dag_of(endpoint: str, data: Mapping[str, Any]) -> str | None:
    """Return a DAG that sends a request; None if no operator does."""
    operator = _OPERATORS.get(endpoint)
    if operator is None:
        return None
    payload = {name: value for name, value in data.items() if name != "idempotency_token"}
    text = pprint.pformat(_literal(payload), width=_WIDTH, sort_dicts=False)
    indented = text.replace("\n", "\n" + " " * len("        json="))
    return (
        "from airflow.providers.common.compat.sdk import DAG\n"
        f"from airflow_jobs_provider.operators.jobs import {operator}\n"
        "\n"
        'with DAG("from_the_local_workspace"):\n'
        f"    {operator}(\n"
        '        task_id="launch",\n'
        f"        json={indented},\n"
        "    )\n"
    )


def _literal(value: Any) -> Any:
    """Return JSON in which Airflow finds no templates: ``{{job.id}}`` is for Databricks."""
    if isinstance(value, Mapping):
        return {name: _literal(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_literal(one) for one in value]
    if isinstance(value, str) and any(mark in value for mark in _TEMPLATE_MARKS):
        return f"{{% raw %}}{value}{{% endraw %}}"
    return value
