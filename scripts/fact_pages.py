"""The other pages of docs/reference/: exceptions, run states, configuration and endpoints.

Like the pages of classes they come from the code.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import airflow_jobs_provider
from airflow_jobs_provider.api import endpoints, errors, retry
from airflow_jobs_provider.api.schema.request_types import ENDPOINTS
from airflow_jobs_provider.api.states import (
    RunLifeCycleState,
    RunResultState,
    RunState,
    RunStatus,
)
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from scripts.class_pages import (
    attributes_table,
    cell,
    error_classes,
    links_of,
    name_link,
    walk_errors,
)
from scripts.docstrings import parse

__all__ = ["hook_method_of", "pages"]

GENERATED = "<!-- Written by scripts/fact_pages.py; change that, or the code it reads. -->"


def pages() -> dict[str, str]:
    """Return the pages by their paths below docs/."""
    made = {
        "exceptions.md": _exceptions(),
        "run-states.md": _run_states(),
        "configuration.md": _configuration(),
        "rest-coverage.md": _rest_coverage(),
    }
    return {f"reference/{name}": f"{text.rstrip()}\n" for name, text in made.items()}


# -- exceptions ----------------------------------------------------------------------------------

EXCEPTIONS_HEAD = """\
# Exceptions

{generated}

Exceptions of tasks are in `airflow_jobs_provider.exceptions`, those of a request in
`airflow_jobs_provider.api.errors`. An operator, the sensor and the hook raise an error of a request
as an `AirflowException`, too. One that is final becomes an `AirflowFailException`, which Airflow
does not retry. Both are caught by their own name or by Airflow's.

## Tree

```text
{tree}
```
"""

RETRIES_HEAD = """\
## Retries

A client sends a request again after these errors, before it raises one:

{table}

The wait doubles with each attempt. See [Outages and retries](../guarantees.md#outages-and-retries).
"""


def _exceptions() -> str:
    links = links_of("exceptions.md")
    tree = [
        "AirflowException",
        "    DatabricksRunFailedError",
        "    DatabricksRunTimeoutError",
        *(
            f"{'    ' * depth}{kind.__name__}"
            for kind, depth in walk_errors(errors.JobsAPIError, 0)
        ),
    ]
    parts = [EXCEPTIONS_HEAD.format(generated=GENERATED, tree="\n".join(tree))]
    for kind in error_classes():
        found = parse(kind, links)
        parts += [f"## {kind.__name__}", found.summary]
        if found.body:
            parts.append(found.body)
        parts += attributes_table(found)
    parts.append(RETRIES_HEAD.format(table=_retry_table()))
    return "\n\n".join(part.rstrip() for part in parts)


def _retry_table() -> str:
    """Return the table in the docstring of the retry policy."""
    border, *_ = re.findall(r"^=[= ]+$", retry.__doc__ or "", re.MULTILINE)
    columns = [match.span() for match in re.finditer(r"=+", border)]
    columns[-1] = (columns[-1][0], 200)
    _, head, body, _ = (retry.__doc__ or "").split(border, 3)
    rows: list[list[str]] = []
    for line in body.strip("\n").splitlines():
        cells = [line[start:end].strip() for start, end in columns]
        # A row of several lines goes on where only some columns have a second line.
        is_second_line = not cells[2] and cells[1] != "not retried"
        if rows and (is_second_line or not rows[-1][2]):
            pairs = zip(rows.pop(), cells, strict=True)
            cells = [" ".join(filter(None, pair)) for pair in pairs]
        rows.append(cells)
    titles = [head.strip("\n")[start:end].strip() for start, end in columns]
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


# -- states --------------------------------------------------------------------------------------

STATES_HEAD = """\
# Run states

{generated}

A run has a life cycle state and, once it has ended, a result state. The task, the sensor and the
trigger decide by both. A state that is not listed here counts as active if it is a life cycle
state, and as failed if it is a result state.

## Active

{active}. The task waits.

## Ended

| Life cycle state | Result state | The run | The task |
| --- | --- | --- | --- |
"""

OUTCOMES = {
    RunStatus.SUCCEEDED: "succeeds",
    RunStatus.SUCCEEDED_WITH_FAILURES: (
        "fails; with `fail_on_partial_success=False` it succeeds, and the log names the failed "
        "tasks"
    ),
    RunStatus.FAILED: "fails",
    RunStatus.TIMED_OUT: "fails",
    RunStatus.CANCELED: "fails",
    RunStatus.SKIPPED: "fails; a task of a workflow group is skipped",
}


def _run_states() -> str:
    active, ended = [], []
    for life_cycle in RunLifeCycleState:
        if not RunState(life_cycle).is_terminal:
            active.append(f"`{life_cycle}`")
            continue
        # What has the status of an unknown result is the last row.
        other = RunState(life_cycle, "UNKNOWN").status
        listed = {result: RunState(life_cycle, result).status for result in RunResultState}
        if life_cycle is not RunLifeCycleState.TERMINATED:
            listed = {result: status for result, status in listed.items() if status is not other}
        rows = {f"`{result}`": status for result, status in listed.items()}
        rows["any other, or none" if rows else "any, or none"] = other
        for shown, status in rows.items():
            meaning = status.value.replace("_", " ")
            ended.append(f"| `{life_cycle}` | {shown} | {meaning} | {OUTCOMES[status]} |")
    head = STATES_HEAD.format(generated=GENERATED, active=", ".join(active))
    return head + "\n".join(ended)


# -- configuration -------------------------------------------------------------------------------

CONFIGURATION_HEAD = """\
# Configuration

{generated}

These options are in Airflow's configuration. `airflow config list` shows them once the package is
installed. Set one in `airflow.cfg`, or by its environment variable:

```ini
{example}
```
"""
WORKSPACE_SETTINGS = """\
The settings of a workspace are in its [connection](../connections.md). Airflow's own settings that
matter are listed in [Deployment](../deployment.md)."""


def _configuration() -> str:
    info: Any = airflow_jobs_provider.get_provider_info()
    example, sections = [], []
    for section, content in info["config"].items():
        example.append(f"[{section}]")
        rows = []
        for name, option in content["options"].items():
            example.append(f"{name} = {option['example'] or option['default']}")
            variable = f"AIRFLOW__{section}__{name}".upper()
            default = f"`{option['default']}`" if option["default"] else "empty"
            text = cell(" ".join(option["description"].split()))
            rows.append(f"| `{name}` | `{option['type']}` | {default} | {text} `{variable}` |")
        sections += [
            f"## [{section}]",
            content["description"],
            "\n".join(
                (
                    "| Option | Type | Default | Description and environment variable |",
                    "| --- | --- | --- | --- |",
                    *rows,
                )
            ),
        ]
    head = CONFIGURATION_HEAD.format(generated=GENERATED, example="\n".join(example))
    return "\n\n".join(
        (
            head.rstrip(),
            *sections,
            WORKSPACE_SETTINGS,
        )
    )


# -- endpoints -----------------------------------------------------------------------------------

COVERAGE_HEAD = """\
# REST coverage

{generated}

Each endpoint of the Jobs API 2.0 has a method of the [hook](hook.md), blocking and asyncio. Most
have an operator. The request and response of each are in
[Requests, fields and rules](../reference.md#endpoints).

| Endpoint | Hook method | In a DAG |
| --- | --- | --- |
"""

# What a DAG uses for an endpoint. An endpoint that is missing here fails the test of the page.
IN_A_DAG = {
    "create": ["DatabricksCreateJobsOperator"],
    "reset": ["DatabricksCreateJobsOperator"],
    "run-now": ["DatabricksRunNowOperator", "DatabricksWorkflowTaskGroup"],
    "runs/submit": [
        "DatabricksSubmitRunOperator",
        "DatabricksNotebookOperator",
        "DatabricksTaskOperator",
        "databricks_notebook",
        "databricks_python",
    ],
    "runs/list": ["DatabricksJobRunSensor"],
    "runs/get": ["DatabricksJobRunSensor", "DatabricksJobRunTrigger"],
    "runs/get-output": ["DatabricksJobRunSensor"],
    "runs/cancel": ["DatabricksCancelRunsOperator"],
    "runs/cancel-all": ["DatabricksCancelRunsOperator"],
    "runs/delete": ["DatabricksDeleteRunOperator"],
    "runs/export": ["DatabricksExportRunOperator"],
    "list": [],
    "get": [],
    "update": [],
    "delete": [],
}
BEYOND = """\

Beyond the 2.0 reference:

| Endpoint | Hook method | In a DAG |
| --- | --- | --- |
"""
LATER = {
    "POST /api/2.2/jobs/runs/repair": (
        "repair_run",
        ["DatabricksRunNowOperator", "DatabricksWorkflowTaskGroup"],
    ),
    "PATCH /api/2.0/permissions/jobs/{job_id}": (
        "update_job_permission",
        ["DatabricksCreateJobsOperator"],
    ),
    "GET /api/2.0/pipelines": ("list_pipelines", ["DatabricksSubmitRunOperator"]),
}


def _rest_coverage() -> str:
    links = links_of("rest-coverage.md")
    methods = hook_method_of()

    def used(names: Sequence[str]) -> str:
        return ", ".join(name_link(name, links) for name in names) or "by the hook"

    def row(endpoint: str, method: str, names: Sequence[str]) -> str:
        return f"| `{endpoint}` | [`{method}`](hook.md#{method}) | {used(names)} |"

    rows = [
        row(f"{endpoint.verb} /api/2.0/jobs/{path}", methods[path], IN_A_DAG[path])
        for path, endpoint in ENDPOINTS.items()
    ]
    later = [row(endpoint, method, names) for endpoint, (method, names) in LATER.items()]
    head = COVERAGE_HEAD.format(generated=GENERATED)
    return head + "\n".join(rows) + "\n" + BEYOND + "\n".join(later)


def hook_method_of() -> dict[str, str]:
    """Return the name of the hook's method by path: that of the endpoint's function."""
    found: dict[str, str] = {}
    for name in endpoints.__all__:
        function = getattr(endpoints, name)
        if inspect.isfunction(function) and hasattr(DatabricksJobsHook, name):
            required = [
                p for p in inspect.signature(function).parameters.values() if p.default is p.empty
            ]
            call = function(
                *({} if p.name in ("request", "settings", "new_settings") else 1 for p in required)
            )
            found.setdefault(call.path, name)
    return found
