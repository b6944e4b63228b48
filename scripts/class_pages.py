"""The pages of docs/reference/ that list classes, from their docstrings.

``python -m scripts.reference_docs`` writes them, and a test fails when a page is not what this
makes. An example in a docstring of an operator or sensor is run by the tests as a part of a DAG.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException

from airflow_jobs_provider import exceptions
from airflow_jobs_provider.api import errors, retry
from airflow_jobs_provider.api.schema.introspection import named_types, structures
from airflow_jobs_provider.api.schema.request_types import ENDPOINTS
from airflow_jobs_provider.decorators import jobs as decorators
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.local.workspace import LocalWorkspace
from airflow_jobs_provider.operators import arguments
from airflow_jobs_provider.operators import jobs as operators
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor
from airflow_jobs_provider.testing import DatabricksWorkspace, WorkspaceRun
from airflow_jobs_provider.triggers.arguments import RunTriggerArguments, TriggerArguments
from airflow_jobs_provider.triggers.event_arguments import RunEventTriggerArguments
from airflow_jobs_provider.triggers.jobs import (
    DatabricksJobRunEventTrigger,
    DatabricksJobRunTrigger,
)
from scripts.docstrings import Docstring, parse, signature_types

__all__ = [
    "GENERATED",
    "attributes_table",
    "cell",
    "error_classes",
    "links_of",
    "name_link",
    "pages",
    "walk_errors",
]

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
    return {f"reference/{name}": f"{text.rstrip()}\n" for name, text in made.items()}


# Modules whose docstrings are told by a page.
MODULES = {
    "airflow_jobs_provider.api.retry": "[Retries](exceptions.md#retries)",
    "airflow_jobs_provider.hooks.connection": "[Connections](../connections.md)",
    "airflow_jobs_provider.sensors.modes": "[Wait for a run](../wait-for-run.md#modes)",
    "airflow_jobs_provider.operators.billing_tags": "[Billing tags](../billing-tags.md)",
    "airflow_jobs_provider.xcom": "[Outputs by task](../several-tasks.md#outputs-by-task)",
}


# -- links ---------------------------------------------------------------------------------------


def _places() -> dict[str, str]:
    """Return where each class, function and section of the reference is described."""
    found = {
        entry.name: f"{name}#{entry.name.lower()}"
        for name, page in CLASS_PAGES.items()
        for entry in page.entries
    }
    for kind in error_classes():
        found[kind.__name__] = f"exceptions.md#{kind.__name__.lower()}"
    for name in (*structures(), *named_types()):
        found[f'"{name}"'] = f"../reference.md#{name.lower()}"
    for endpoint in ENDPOINTS.values():
        found[f'"{endpoint.section}"'] = f"../reference.md#{endpoint.request.__name__.lower()}"
    return found | MODULES


def links_of(page: str) -> Callable[[str], str | None]:
    """Return what finds the link from a page to a name, or None."""
    places = _places()

    def link(name: str) -> str | None:
        place = places.get(name)
        return place.removeprefix(page) if place and place.startswith(f"{page}#") else place

    return link


# -- classes -------------------------------------------------------------------------------------


def _class_page(name: str, page: ClassPage) -> str:
    parts = [f"# {page.title}", GENERATED, page.intro]
    for entry in page.entries:
        parts += _entry(entry, links_of(name))
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
    yield from attributes_table(found)
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
    return name_link(name, links)


def name_link(name: str, links: Callable[[str], str | None]) -> str:
    """Return a name as code, with its link if it has one."""
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
        words = cell(_sentence(text))
        default = (defaults or {}).get(name)
        if default and "efault" not in text:
            words += f" Default {default}."
        rows.append(f"| `{name}` | {f'`{cell(hint)}`' if hint else ''} | {words} |")
    if rows:
        yield "\n".join((f"| {head} | Type | Description |", "| --- | --- | --- |", *rows))
    for text in rest.values():
        yield f"Other arguments: {text.removeprefix('other arguments of ')}"


def attributes_table(found: Docstring) -> Iterator[str]:
    """Yield the table of the attributes, if there are any."""
    if found.attributes:
        rows = [
            f"| `{name}` | {cell(_sentence(text))} |" for name, text in found.attributes.items()
        ]
        yield "\n".join(("| Attribute | Description |", "| --- | --- |", *rows))


def cell(text: str) -> str:
    """Return a text as it stands in a table."""
    return text.replace("|", "\\|")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] if text[:1].isalpha() and text[:3] != "dbt" else text


def _raises(found: Docstring, links: Callable[[str], str | None]) -> Iterator[str]:
    if found.raises:
        rows = [f"- {name_link(name, links)}: {text}" for name, text in found.raises]
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


def error_classes() -> list[type]:
    """Return every public exception."""
    found = [exceptions.DatabricksRunFailedError, exceptions.DatabricksRunTimeoutError]
    return [*found, *(kind for kind, _ in walk_errors(errors.JobsAPIError, 0))]


def walk_errors(kind: type[Any], depth: int) -> Iterator[tuple[type[Any], int]]:
    """Yield an exception and those derived from it, with their depth."""
    yield kind, depth
    for below in kind.__subclasses__():
        # At run time a class of the same name is made with AirflowException as its second base.
        is_documented = below.__module__ == errors.__name__ and below.__name__ in errors.__all__
        if is_documented and not issubclass(below, AirflowException):
            yield from walk_errors(below, depth + 1)
