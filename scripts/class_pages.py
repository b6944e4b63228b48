"""The pages of docs/reference/: classes, exceptions, settings and endpoints, from the code.

``python -m scripts.reference_docs`` writes them, and a test fails when a page is not what this
makes. An example in a docstring of an operator or sensor is run by the tests as a part of a DAG.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException

import airflow_jobs_provider
from airflow_jobs_provider import exceptions
from airflow_jobs_provider.api import endpoints, errors, retry
from airflow_jobs_provider.api.schema.introspection import named_types, structures
from airflow_jobs_provider.api.schema.types import ENDPOINTS
from airflow_jobs_provider.api.states import (
    RunLifeCycleState,
    RunResultState,
    RunState,
    RunStatus,
)
from airflow_jobs_provider.decorators import jobs as decorators
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.local.workspace import LocalWorkspace
from airflow_jobs_provider.operators import arguments
from airflow_jobs_provider.operators import jobs as operators
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor
from airflow_jobs_provider.testing import DatabricksWorkspace, WorkspaceRun
from airflow_jobs_provider.triggers.arguments import (
    RunEventTriggerArguments,
    RunTriggerArguments,
    TriggerArguments,
)
from airflow_jobs_provider.triggers.jobs import (
    DatabricksJobRunEventTrigger,
    DatabricksJobRunTrigger,
)
from scripts.docstrings import Docstring, parse, signature_types

__all__ = ["hook_method_of", "pages"]

GENERATED = "<!-- Written by scripts/class_pages.py; change that, or the code it reads. -->"
OPERATORS = "from airflow_jobs_provider.operators.jobs import *"
TASK = "from airflow.providers.common.compat.sdk import task"
REPORT = "report = task(task_id='report')(lambda result: None)"
SMALL = (
    "SMALL = {'spark_version': '15.4.x-scala2.12', 'node_type_id': 'i3.xlarge', 'num_workers': 1}"
)
# What an example of a docstring needs before it.
SENSOR = (
    "from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor; "
    f"{OPERATORS}; launch = DatabricksRunNowOperator(task_id='launch', job_id=42)"
)
NOT_RUN = "not run: an example of a docstring, which needs a workspace"


@dataclass(frozen=True)
class Entry:
    """A class or function on a page.

    :ivar documented: the class or function.
    :ivar module: where users import it from.
    :ivar how: the comment before its example, see tests/helpers/snippets.py.
    :ivar methods: whether its public methods are listed.
    """

    documented: Any
    module: str
    how: str = NOT_RUN
    methods: bool = False

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.documented.__name__)


def _operators(*names: str) -> list[Entry]:
    module = operators.__name__
    return [Entry(getattr(operators, name), module, f"in a DAG: {OPERATORS}") for name in names]


def _shared(*names: str) -> list[Entry]:
    return [Entry(getattr(arguments, name), arguments.__name__) for name in names]


@dataclass(frozen=True)
class ClassPage:
    """A page of classes.

    :ivar title: its heading.
    :ivar intro: the text below.
    :ivar entries: what is on it.
    """

    title: str
    intro: str
    entries: Sequence[Entry]


CLASS_PAGES = {
    "operators.md": ClassPage(
        "Operators",
        "Import them from `airflow_jobs_provider.operators.jobs`. Every operator takes the "
        "arguments of Airflow's `BaseOperator` as well. Guides: [Submit a run](../submit-run.md), "
        "[Run a job](../run-now.md).",
        [
            *_operators(
                "DatabricksSubmitRunOperator",
                "DatabricksRunNowOperator",
                "DatabricksCreateJobsOperator",
                "DatabricksCancelRunsOperator",
                "DatabricksDeleteRunOperator",
                "DatabricksExportRunOperator",
            ),
            *_shared(
                "LaunchArguments",
                "PayloadArguments",
                "OperatorArguments",
                "ConnectionArguments",
                "RunArguments",
                "WaitArguments",
            ),
        ],
    ),
    "workflow-groups.md": ClassPage(
        "Workflow groups and single tasks",
        "Import them from `airflow_jobs_provider.operators.jobs`. Guide: "
        "[Workflow groups](../workflows.md).",
        [
            Entry(
                operators.DatabricksWorkflowTaskGroup,
                operators.__name__,
                f"in a DAG: {OPERATORS}; {SMALL}",
            ),
            *_operators(
                "DatabricksNotebookOperator",
                "DatabricksTaskOperator",
            ),
            *_shared("TaskArguments"),
        ],
    ),
    "decorators.md": ClassPage(
        "TaskFlow decorators",
        "Airflow has them as `@task.databricks_notebook` and `@task.databricks_python`. Guide: "
        "[TaskFlow decorators](../taskflow.md).",
        [
            Entry(
                getattr(decorators, name),
                decorators.__name__,
                f"in a DAG: {TASK}; {REPORT}",
            )
            for name in decorators.__all__
        ],
    ),
    "sensor.md": ClassPage(
        "Sensor",
        "Import it from `airflow_jobs_provider.sensors.jobs`. Guide: "
        "[Wait for a run](../wait-for-run.md).",
        [
            Entry(DatabricksJobRunSensor, DatabricksJobRunSensor.__module__, f"in a DAG: {SENSOR}"),
            *_shared("SensorArguments"),
        ],
    ),
    "hook.md": ClassPage(
        "Hook",
        "Guide: [Use the hook](../hook.md). "
        "`airflow_jobs_provider.hooks.jobs.DatabricksJobsHook` is also there as `DatabricksHook`. "
        "Each method has an asyncio form with the prefix `a_`, except `get_conn`, "
        "`test_connection` and `close`. `async with hook:` keeps one client open for the asyncio "
        "methods. An error of a method is an [exception](exceptions.md) of "
        "`airflow_jobs_provider.api.errors`, and an AirflowException as well.",
        [Entry(DatabricksJobsHook, DatabricksJobsHook.__module__, methods=True)],
    ),
    "triggers.md": ClassPage(
        "Triggers",
        "Import them from `airflow_jobs_provider.triggers.jobs`. `DatabricksJobRunEventTrigger` is "
        "for an `AssetWatcher`: [Event-driven scheduling](../event-driven.md). The operators and "
        "the sensor make `DatabricksJobRunTrigger` themselves; it is public for operators of your "
        "own.",
        [
            Entry(DatabricksJobRunEventTrigger, "airflow_jobs_provider.triggers.jobs"),
            Entry(RunEventTriggerArguments, RunEventTriggerArguments.__module__),
            Entry(DatabricksJobRunTrigger, DatabricksJobRunTrigger.__module__),
            Entry(RunTriggerArguments, RunTriggerArguments.__module__),
            Entry(TriggerArguments, TriggerArguments.__module__),
        ],
    ),
    "testing.md": ClassPage(
        "Local workspace and testing",
        "pytest's fixture `databricks_workspace` is a `DatabricksWorkspace`. Guides: "
        "[Testing DAGs](../testing.md), [Local workspace](../local-workspace.md).",
        [
            Entry(DatabricksWorkspace, "airflow_jobs_provider.testing", methods=True),
            Entry(WorkspaceRun, "airflow_jobs_provider.testing"),
            Entry(retry.no_waiting, "airflow_jobs_provider.testing"),
            Entry(LocalWorkspace, LocalWorkspace.__module__, methods=True),
        ],
    ),
}


def pages() -> dict[str, str]:
    """Return the generated pages by their paths below docs/."""
    made = {name: _class_page(name, page) for name, page in CLASS_PAGES.items()}
    made["exceptions.md"] = _exceptions()
    made["run-states.md"] = _run_states()
    made["configuration.md"] = _configuration()
    made["rest-coverage.md"] = _rest_coverage()
    return {f"reference/{name}": f"{text.rstrip()}\n" for name, text in made.items()}


# Modules whose docstrings are told by a page.
MODULES = {
    "airflow_jobs_provider.api.retry": "[Retries](exceptions.md#retries)",
    "airflow_jobs_provider.hooks.connection": "[Connections](../connections.md)",
    "airflow_jobs_provider.sensors.modes": "[Wait for a run](../wait-for-run.md#modes)",
}


# -- links ---------------------------------------------------------------------------------------


def _places() -> dict[str, str]:
    """Return where each class, function and section of the reference is described."""
    found = {
        entry.name: f"{name}#{entry.name.lower()}"
        for name, page in CLASS_PAGES.items()
        for entry in page.entries
    }
    for kind in _error_classes():
        found[kind.__name__] = f"exceptions.md#{kind.__name__.lower()}"
    for name in (*structures(), *named_types()):
        found[f'"{name}"'] = f"../reference.md#{name.lower()}"
    for endpoint in ENDPOINTS.values():
        found[f'"{endpoint.section}"'] = f"../reference.md#{endpoint.request.__name__.lower()}"
    return found | MODULES


def _links(page: str) -> Callable[[str], str | None]:
    places = _places()

    def link(name: str) -> str | None:
        place = places.get(name)
        return place.removeprefix(page) if place and place.startswith(f"{page}#") else place

    return link


# -- classes -------------------------------------------------------------------------------------


def _class_page(name: str, page: ClassPage) -> str:
    parts = [f"# {page.title}", GENERATED, page.intro]
    for entry in page.entries:
        parts += _entry(entry, _links(name))
    return "\n\n".join(parts)


def _entry(entry: Entry, links: Callable[[str], str | None]) -> Iterator[str]:
    found = parse(entry.documented, links)
    yield f"## {entry.name}"
    if not _is_typed_dict(entry.documented):
        yield f"`{entry.module}.{entry.name}`"
    yield found.summary
    if found.example:
        if found.lead:
            yield found.lead
        yield f"<!-- {entry.how} -->\n```python\n{found.example}\n```"
    if found.body:
        yield found.body
    if _is_typed_dict(entry.documented):
        if bases := _bases(entry.name):
            yield "It includes " + ", ".join(_base(base, links) for base in bases) + "."
        yield from _table("Argument", found.params, signature_types(entry.documented))
    else:
        owner = entry.documented
        yield from _table("Argument", found.params, signature_types(owner), _defaults(owner))
    yield from _attributes(found)
    if found.returns:
        yield f"Returns {found.returns}"
    yield from _raises(found, links)
    if entry.methods:
        yield from _methods(entry.documented, links)


def _is_typed_dict(documented: Any) -> bool:
    return hasattr(documented, "__total__")


def _bases(name: str) -> list[str]:
    """Return the TypedDicts that one is made of; at run time they are gone."""
    tree = ast.parse(Path(inspect.getfile(arguments)).read_text(encoding="utf-8"))
    (found,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name]
    return [
        base.id for base in found.bases if isinstance(base, ast.Name) and base.id != "TypedDict"
    ]


def _base(name: str, links: Callable[[str], str | None]) -> str:
    if name.startswith("Airflow"):
        of_airflow = "BaseSensorOperator" if "Sensor" in name else "BaseOperator"
        return f"the arguments of Airflow's `{of_airflow}`"
    return _name(name, links)


def _name(name: str, links: Callable[[str], str | None]) -> str:
    target = links(name)
    return f"[`{name}`]({target})" if target else f"`{name}`"


def _defaults(documented: Any) -> dict[str, str]:
    """Return the defaults in the signature that a description does not need to repeat."""
    found = {}
    for name, parameter in inspect.signature(documented).parameters.items():
        if parameter.default is not parameter.empty and parameter.default not in (None, ()):
            found[name] = f"`{parameter.default!r}`"
    return found


def _table(
    head: str,
    described: dict[str, str],
    types: dict[str, str],
    defaults: dict[str, str] | None = None,
) -> Iterator[str]:
    rest = {name: text for name, text in described.items() if name == "kwargs"}
    rows = []
    for name, text in described.items():
        if name in rest:
            continue
        hint = types.get(name, "")
        words = _cell(_sentence(text))
        default = (defaults or {}).get(name)
        if default and "efault" not in text:
            words += f" Default {default}."
        rows.append(f"| `{name}` | {f'`{_cell(hint)}`' if hint else ''} | {words} |")
    if rows:
        yield "\n".join((f"| {head} | Type | Description |", "| --- | --- | --- |", *rows))
    for text in rest.values():
        yield f"Other arguments: {text.removeprefix('other arguments of ')}"


def _attributes(found: Docstring) -> Iterator[str]:
    if found.attributes:
        rows = [
            f"| `{name}` | {_cell(_sentence(text))} |" for name, text in found.attributes.items()
        ]
        yield "\n".join(("| Attribute | Description |", "| --- | --- |", *rows))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] if text[:1].isalpha() and text[:3] != "dbt" else text


def _raises(found: Docstring, links: Callable[[str], str | None]) -> Iterator[str]:
    if found.raises:
        rows = [f"- {_name(name, links)}: {text}" for name, text in found.raises]
        yield "Raises:\n\n" + "\n".join(rows)


def _methods(kind: type, links: Callable[[str], str | None]) -> Iterator[str]:
    for name, method in _public_methods(kind):
        found = parse(method, links)
        parameters = list(inspect.signature(method).parameters.values())[1:]
        listed = ", ".join(
            p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters
        )
        yield f"### {name}"
        yield f"`{name}({listed})`"
        yield found.summary
        if found.body:
            yield found.body
        yield from _table("Argument", found.params, signature_types(method))
        if found.returns:
            yield f"Returns {found.returns}"
        yield from _raises(found, links)


def _public_methods(kind: type) -> list[tuple[str, Any]]:
    methods = inspect.getmembers(kind, inspect.isfunction)
    return [
        (name, method)
        for name, method in methods
        if method.__module__.startswith("airflow_jobs_provider.")
        and not name.startswith(("_", "a_", "async_"))
        and name != "retry_policy"
    ]


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


def _error_classes() -> list[type]:
    found = [exceptions.DatabricksRunFailedError, exceptions.DatabricksRunTimeoutError]
    return [*found, *(kind for kind, _ in _walk(errors.JobsAPIError, 0))]


def _walk(kind: type[Any], depth: int) -> Iterator[tuple[type[Any], int]]:
    yield kind, depth
    for below in kind.__subclasses__():
        # At run time a class of the same name is made with AirflowException as its second base.
        is_documented = below.__module__ == errors.__name__ and below.__name__ in errors.__all__
        if is_documented and not issubclass(below, AirflowException):
            yield from _walk(below, depth + 1)


def _exceptions() -> str:
    links = _links("exceptions.md")
    tree = [
        "AirflowException",
        "    DatabricksRunFailedError",
        "    DatabricksRunTimeoutError",
        *(f"{'    ' * depth}{kind.__name__}" for kind, depth in _walk(errors.JobsAPIError, 0)),
    ]
    parts = [EXCEPTIONS_HEAD.format(generated=GENERATED, tree="\n".join(tree))]
    for kind in _error_classes():
        found = parse(kind, links)
        parts += [f"## {kind.__name__}", found.summary]
        if found.body:
            parts.append(found.body)
        parts += _attributes(found)
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
            text = _cell(" ".join(option["description"].split()))
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
    links = _links("rest-coverage.md")
    methods = hook_method_of()

    def used(names: Sequence[str]) -> str:
        return ", ".join(_name(name, links) for name in names) or "by the hook"

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
