"""The values of a mapped task, as they are stored for the triggerer.

Airflow starts a mapped task in the triggerer unexpanded: each of its task instances gets the same
arguments, and knows its ``map_index``. So all values are stored, and the trigger takes those of its
index, as ``DictOfListsExpandInput`` and ``ListOfDictsExpandInput`` of Airflow do on a worker.

They are stored as text. The serialized DAG has their number only: a database may change the order
of its keys, and it may be that of a later version of the DAG.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from airflow_jobs_provider.airflow_compat.stored_text import compressed, value_of_text
from airflow_jobs_provider.airflow_compat.triggerer_values import (
    MARKERS,
    UnreadableValueError,
    is_unchanged_by_rendering,
    storable,
    storable_field,
    xcom_item,
    xcom_references,
)

__all__ = [
    "MappedOutput",
    "MappedValues",
    "StoredMapping",
    "fields_of_each",
    "stored_mapping",
    "values_at",
    "without_values",
]

# Whether the request has a token of the user's must be known before another task's output is read.
_NEVER_IN_OUTPUT = frozenset({"idempotency_token", "json"})


class MappedOutput(NamedTuple):
    """An item of another task's output that has arguments by name.

    :ivar task_id: the other task.
    :ivar key: key of the XCom.
    :ivar item_index: index of the item.
    :ivar fields: names that it may have.
    """

    task_id: str
    key: str
    item_index: int
    fields: frozenset[str]

    def arguments(self, output: Any) -> dict[str, Any]:
        """Return the arguments.

        :param output: the XCom.
        :raises UnreadableValueError: a worker has to read them.
        """
        item = xcom_item(output, self.item_index)
        if not isinstance(item, Mapping):
            raise UnreadableValueError(f"an item of {self.task_id!r} that is no dict")
        if others := sorted(map(str, item.keys() - self.fields)):
            raise UnreadableValueError(f"mapped arguments of {self.task_id!r}: {', '.join(others)}")
        if not is_unchanged_by_rendering(item):
            raise UnreadableValueError(f"a value that may be a template of {self.task_id!r}")
        return dict(item)


class MappedValues(NamedTuple):
    """What one task instance of a mapped task has.

    :ivar fields: its template fields, stored as :func:`~.triggerer_values.storable` returns them.
    :ivar output: where more of them are; None for nowhere.
    """

    fields: Mapping[str, Any]
    output: MappedOutput | None = None


class StoredMapping(NamedTuple):
    """All values of a mapped task, as they are stored.

    :ivar text: the values.
    :ivar has_templates: whether any of them has to be rendered.
    """

    text: str
    has_templates: bool


def stored_mapping(expand_input: Any, fields: Collection[str]) -> StoredMapping:
    """Return all values of a mapped task as they are stored.

    :param expand_input: what the task is mapped over.
    :param fields: names of the arguments that may be mapped.
    :raises UnreadableValueError: a worker has to expand the task.
    """
    value = expand_input.value
    if isinstance(value, Mapping):
        mapping: dict[str, Any] = {"product": _product(value, fields)}
    elif isinstance(value, (list, tuple)):
        mapping = {"items": [_item(item, fields) for item in value]}
    else:
        mapping = {"output": _output(value), "fields": sorted(set(fields) - _NEVER_IN_OUTPUT)}
    text = json.dumps(mapping, separators=(",", ":"))
    return StoredMapping(compressed(text), any(marker in text for marker in MARKERS))


def without_values(value: Any) -> Any:
    """Return what a task is mapped over, with as many literal values, which are all the same.

    :param value: what the task is mapped over, which :func:`stored_mapping` can store.
    """
    if isinstance(value, Mapping):
        return {
            name: [None] * len(values) if isinstance(values, (list, tuple)) else values
            for name, values in value.items()
        }
    return [{}] * len(value) if isinstance(value, (list, tuple)) else value


def fields_of_each(expand_input: Any) -> set[str]:
    """Return the names of the arguments that each task instance gets by the mapping.

    :param expand_input: what the task is mapped over.
    """
    value = expand_input.value
    if isinstance(value, Mapping):
        return set(value)
    if not isinstance(value, (list, tuple)):
        return set()
    items = [set(item) for item in value if isinstance(item, Mapping)]
    return set.intersection(*items) if items else set()


def values_at(stored: str, map_index: int) -> MappedValues:
    """Return what one task instance has.

    :param stored: the text of a :class:`StoredMapping`.
    :param map_index: its index.
    :raises UnreadableValueError: there is nothing at that index.
    """
    if map_index < 0:
        raise UnreadableValueError("a mapped task that is not expanded")
    mapping = _mapping(stored)
    if "output" in mapping:
        ((task_id, key),) = xcom_references(mapping["output"])
        fields = frozenset(mapping["fields"])
        return MappedValues({}, MappedOutput(task_id, key, map_index, fields))
    if "items" in mapping:
        items = mapping["items"]
        if map_index >= len(items):
            raise UnreadableValueError(f"no mapped values at {map_index}")
        return MappedValues(copy.deepcopy(items[map_index]))
    picked, index = {}, map_index
    # The last argument varies fastest, as with Airflow.
    for name, values in reversed(mapping["product"]):
        if isinstance(values, list):
            index, place = divmod(index, len(values))
            picked[name] = values[place]
        else:  # another task's output, which comes first
            picked[name] = _with_index(values, index)
            index = 0
    if index:
        raise UnreadableValueError(f"no mapped values at {map_index}")
    return MappedValues(copy.deepcopy(picked))


# Each instance has the same text. The triggerer reads it in its event loop, for 5,000 short values
# in 7 milliseconds.
@functools.lru_cache(maxsize=8)
def _mapping(stored: str) -> Any:
    """Return the values of all instances, which must not be changed."""
    return value_of_text(stored)


def _product(arguments: Mapping[str, Any], fields: Collection[str]) -> list[list[Any]]:
    """Return names and values in the order in which Airflow multiplies them."""
    product: list[list[Any]] = []
    for name, values in arguments.items():
        _check_name(name, fields)
        if isinstance(values, (list, tuple)):
            product.append([name, [storable_field(name, one) for one in values]])
        elif product:
            # The length of an output is not known when literal values are rendered.
            raise UnreadableValueError(f"{name} mapped over {_kind(values)} after another argument")
        else:
            product.append([name, _output(values)])
    return product


def _item(item: Any, fields: Collection[str]) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        raise UnreadableValueError(f"expand_kwargs with {item!r} in a list")
    for name, value in item.items():
        _check_name(name, fields)
        if hasattr(value, "resolve"):  # Airflow does not resolve it
            raise UnreadableValueError(f"expand_kwargs with {value!r} in {name}")
    return {name: storable_field(name, value) for name, value in item.items()}


def _output(value: Any) -> Any:
    if not hasattr(value, "resolve"):
        raise UnreadableValueError(f"mapped over {_kind(value)}")
    try:
        return storable(value)
    except UnreadableValueError as reason:
        raise UnreadableValueError(f"mapped over {reason}") from None


def _kind(value: Any) -> str:
    return repr(value) if hasattr(value, "resolve") else f"a {type(value).__name__}"


def _check_name(name: Any, fields: Collection[str]) -> None:
    if name not in fields:
        raise UnreadableValueError(f"the mapped argument {name}")


def _with_index(reference: Mapping[str, Any], index: int) -> dict[str, Any]:
    ((marker, place),) = reference.items()
    return {marker: [*place, index]}
