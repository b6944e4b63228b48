"""The templates and outputs of other tasks that the triggerer can read, for tasks that start there.

Airflow renders the templates in the triggerer's event loop, with a context that lacks a part of a
worker's. Of the names in a template only those are taken that have the same value in both, and that
need no look-up: a look-up would block the event loop. ``xcom_pull`` never gets an answer there. An
XComArg is replaced by a reference, which the trigger itself reads.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

__all__ = [
    "MARKERS",
    "MAX_STORED_BYTES",
    "UnreadableValueError",
    "is_unchanged_by_rendering",
    "names_of_dag",
    "plain_text_reasons",
    "rendering_reasons",
    "storable",
    "storable_field",
    "with_xcoms",
    "xcom_item",
    "xcom_references",
]

# Of a trigger's arguments. MySQL stores 65,535 bytes of them, encrypted, which takes a third more.
# The scheduler stores them, and an error there would stop it.
MAX_STORED_BYTES = 40_000
# The key of a reference to another task's XCom: {_XCOM: [task_id, key]}. A third value is the index
# of an item of the XCom, over which the task is mapped.
_XCOM = "airflow_jobs_provider.xcom"
MARKERS = ("{{", "{%", "{#")
_TEMPLATE_FILES = ".json-tpl"
# A name, with attributes.
_EXPRESSION = re.compile(r"\{\{\s*[A-Za-z_][\w.]*\s*\}\}")
_NAMES = frozenset(
    {
        "data_interval_end",
        "data_interval_start",
        "ds",
        "ds_nodash",
        "logical_date",
        "macros",
        "params",
        "partition_date",
        "partition_key",
        "run_id",
        "task_instance_key_str",
        "ts",
        "ts_nodash",
        "ts_nodash_with_tz",
        # Jinja's own
        "dict",
        "namespace",
        "range",
    }
)
_OF_TASK_INSTANCE = frozenset({"dag_id", "map_index", "run_id", "task_id", "try_number"})
_ATTRIBUTES = {
    "dag": frozenset({"dag_id"}),
    "dag_run": frozenset(
        {
            "conf",
            "dag_id",
            "data_interval_end",
            "data_interval_start",
            "logical_date",
            "partition_key",
            "run_after",
            "run_id",
            "start_date",
        }
    ),
    "task": frozenset({"task_id"}),
    "task_instance": _OF_TASK_INSTANCE,
    "ti": _OF_TASK_INSTANCE,
}


class UnreadableValueError(ValueError):
    """The triggerer cannot read a value; the message says why."""


def storable(value: Any) -> Any:
    """Return a value of a template field as Airflow stores it for the triggerer.

    :param value: the value.
    :raises UnreadableValueError: a worker has to read it.
    """
    if isinstance(value, str):
        if reason := _unreadable_reason(value):
            raise UnreadableValueError(reason)
        return value
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, timedelta):
        # Rounded up, as on a worker: a timeout of 0 is none.
        return math.ceil(value.total_seconds())
    if isinstance(value, (dict, Mapping)):  # A dict is recognized faster than a Mapping.
        if not all(isinstance(key, str) for key in value):
            raise UnreadableValueError("a key that is no text")
        return {key: storable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [storable(item) for item in value]
    if hasattr(value, "resolve"):
        return _reference(value)
    raise UnreadableValueError(f"a value of the type {type(value).__name__}")


def storable_field(name: str, value: Any) -> Any:
    """Return what :func:`storable` returns; an error names the field.

    :param name: the field, for the error.
    :param value: its value.
    :raises UnreadableValueError: a worker has to read it.
    """
    try:
        return storable(value)
    except UnreadableValueError as reason:
        raise UnreadableValueError(f"{reason} in {name}") from None


def xcom_references(value: Any) -> Iterator[tuple[str, str]]:
    """Yield task id and key of each XCom that a stored value refers to."""
    if isinstance(value, Mapping):
        if _XCOM in value:
            task_id, key, *_ = value[_XCOM]
            yield task_id, key
        else:
            for item in value.values():
                yield from xcom_references(item)
    elif isinstance(value, list):
        for item in value:
            yield from xcom_references(item)


def with_xcoms(value: Any, xcoms: Mapping[tuple[str, str], Any]) -> Any:
    """Return a stored value with XComs in place of the references to them.

    :param value: the value.
    :param xcoms: the XComs by task id and key.
    :raises UnreadableValueError: a worker has to read one.
    """
    if isinstance(value, Mapping):
        if _XCOM in value:
            task_id, key, *index = value[_XCOM]
            if not index:
                return xcoms[task_id, key]
            item = xcom_item(xcoms[task_id, key], *index)
            if not is_unchanged_by_rendering(item):
                raise UnreadableValueError(f"a value that may be a template of {task_id!r}")
            return item
        return {name: with_xcoms(item, xcoms) for name, item in value.items()}
    if isinstance(value, list):
        return [with_xcoms(item, xcoms) for item in value]
    return value


def xcom_item(xcom: Any, index: int) -> Any:
    """Return the item of an XCom that a task is mapped over.

    :param xcom: the XCom.
    :param index: index of the item.
    :raises UnreadableValueError: it has no such item.
    """
    if not isinstance(xcom, (list, tuple)):
        raise UnreadableValueError(f"mapped over a {type(xcom).__name__}")
    if not 0 <= index < len(xcom):
        raise UnreadableValueError(f"mapped over {len(xcom)} items, without one at {index}")
    return xcom[index]


def is_unchanged_by_rendering(value: Any) -> bool:
    """Return whether a value of an XCom is the same whether or not Airflow renders it.

    Airflow renders the items of an XCom that a task is mapped over, or not: that depends on how it
    is mapped. Jinja changes line breaks, too.

    :param value: the value.
    """
    if value is None or isinstance(value, (bool, int, float)):
        return True
    if isinstance(value, str):
        is_template = value.endswith(_TEMPLATE_FILES) or any(mark in value for mark in MARKERS)
        return not is_template and not value.endswith("\n") and "\r" not in value
    if isinstance(value, Mapping):
        return all(map(is_unchanged_by_rendering, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(is_unchanged_by_rendering, value))
    return False


def plain_text_reasons(task: BaseOperator) -> Iterator[str]:
    """Yield what a task or its DAG has that may change text which is no template to the triggerer.

    ``render_template_as_native_obj`` makes a number of ``"1e3"``. With Jinja's own options a line
    break at the end may be kept, and a template may have other delimiters.
    """
    # A task has it from Airflow 3.3 on, and takes precedence over its DAG.
    given = getattr(task, "render_template_as_native_obj", None)
    if given:
        yield "render_template_as_native_obj"
    elif given is None and task.has_dag() and task.dag.render_template_as_native_obj:
        yield "the DAG's render_template_as_native_obj"
    if task.has_dag() and getattr(task.dag, "jinja_environment_kwargs", None):
        yield "the DAG's jinja_environment_kwargs"


def rendering_reasons(task: BaseOperator) -> Iterator[str]:
    """Yield what a task's DAG has for templates that the triggerer does not have."""
    if not task.has_dag():
        return
    dag = task.dag
    for name in ("user_defined_macros", "user_defined_filters"):
        if getattr(dag, name, None):
            yield f"the DAG's {name}"
    undefined = getattr(dag, "template_undefined", None)
    if undefined is not None and undefined.__name__ != "StrictUndefined":
        yield "the DAG's template_undefined"


def names_of_dag(value: Any, task: BaseOperator) -> list[str]:
    """Return the macros and filters of a task's DAG that a template uses.

    :param value: the template; other values use none.
    :param task: the task.
    """
    if not isinstance(value, str) or not task.has_dag():
        return []
    macros = getattr(task.dag, "user_defined_macros", None) or ()
    filters = getattr(task.dag, "user_defined_filters", None) or ()
    if not macros and not filters:
        return []
    from jinja2 import Environment, TemplateSyntaxError, meta, nodes

    environment = Environment(autoescape=False)  # noqa: S701 - it renders nothing
    environment.filters.update(dict.fromkeys(filters, str))
    try:
        tree = environment.parse(value)
        names = meta.find_undeclared_variables(tree)
    except TemplateSyntaxError:
        return []
    used = {node.name for node in tree.find_all(nodes.Filter)} & set(filters)
    return sorted(used | (names & set(macros)))


def _reference(value: Any) -> dict[str, list[str]]:
    """Return a reference to what an XComArg reads."""
    task = getattr(value, "operator", None)
    key = getattr(value, "key", None)
    if (
        task is None
        or not isinstance(key, str)
        or hasattr(task, "partial_kwargs")  # a mapped task has several outputs
        or task.get_closest_mapped_task_group() is not None
    ):
        raise UnreadableValueError(f"{value!r}")
    return {_XCOM: [task.task_id, key]}


def _unreadable_reason(text: str) -> str | None:
    """Return the reason why the triggerer cannot read a text; None if it can."""
    if text.endswith(_TEMPLATE_FILES):
        return "a template file"
    if "{" not in text:
        return None
    if "{" not in _EXPRESSION.sub("", text):
        # What is around them does not matter, and differs between the tasks of a DAG.
        text = "".join(_EXPRESSION.findall(text))
    return _template_reason(text) if any(marker in text for marker in MARKERS) else None


# To parse a template takes 100 microseconds.
@functools.lru_cache(maxsize=256)
def _template_reason(text: str) -> str | None:
    """Return the reason why the triggerer cannot render a template; None if it can."""
    from jinja2 import Environment, TemplateSyntaxError, meta, nodes

    try:
        tree = Environment(autoescape=False).parse(text)  # noqa: S701 - it renders nothing
        unknown = meta.find_undeclared_variables(tree) - _NAMES
    except TemplateSyntaxError as error:  # also a filter that only the DAG has
        return f"a template that Jinja cannot parse ({error})"
    if next(tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)), None):
        return "a template that includes another one"
    for name in sorted(unknown):
        if name not in _ATTRIBUTES:
            return f"{name} in a template"
    read = [
        node
        for node in tree.find_all(nodes.Getattr)
        if isinstance(node.node, nodes.Name) and node.node.name in unknown
    ]
    for node in read:
        assert isinstance(node.node, nodes.Name)
        if node.attr not in _ATTRIBUTES[node.node.name]:
            return f"{node.node.name}.{node.attr} in a template"
    whole = [node for node in tree.find_all(nodes.Name) if node.name in unknown]
    if len(whole) > len(read):
        return f"{whole[0].name} as a whole in a template"
    return None
