"""Answers what Airflow asks for several times, or in vain, while it serializes a task.

In all lines it asks a task, in this order, for

1. its serialized fields, of which ``start_from_trigger`` and ``start_trigger_args`` are two;
2. the value of each of them;
3. ``start_trigger_args`` again: whether there are any;
4. ``start_trigger_args`` once more, if there are: what they are.

So from the first to the last of these questions the start is found out once. At no other time may
an answer be kept: what it depends on, such as the task's DAG, its outlets and the tasks that follow
it, can be changed without the task's knowledge.

Most of the fields have their default. Airflow does not store them, but compares each with its
defaults for so long that they take more time than all others. So they are left out at the first of
these questions.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from airflow_jobs_provider.airflow_compat.dag_values import values_of_dag

__all__ = ["SerializedFields", "find_start", "tell_start"]

_START = "start_trigger_args"
# How often Airflow asks for them, besides their value as a field.
_QUESTIONS = 2


class _Serialization:
    """The serialization of one task.

    :param task: the task; None for none.
    """

    def __init__(self, task: Any = None) -> None:
        self._task = None if task is None else weakref.ref(task)
        self._found: list[Any] = []
        self._questions = 0

    def is_of(self, task: Any) -> bool:
        """Return whether it is that of this task."""
        return self._task is not None and self._task() is task

    def find(self, find: Callable[[], Any]) -> Any:
        """Return the start, which is found out once."""
        if not self._found:
            self._found.append(find())
        return self._found[0]

    def is_over(self) -> bool:
        """Count a question; return whether it was the last one."""
        self._questions += 1
        return self._found == [None] or self._questions >= _QUESTIONS


# That of the task which Airflow serializes now. One at a time: a process that serializes a DAG does
# nothing else.
_latest = [_Serialization()]


class SerializedFields:
    """The ``get_serialized_fields`` of a task: notes that Airflow begins to serialize it.

    Fields that have their default are left out, and ``start_trigger_args``: Airflow makes text of
    it, which takes long, and replaces the text later.
    """

    def __init__(self) -> None:
        self._fields: dict[type, frozenset[str]] = {}

    def __set_name__(self, owner: type, name: str) -> None:
        """Note the class, whose base classes have the fields."""
        self._owner, self._name = owner, name

    def __get__(self, task: Any, kind: type) -> Callable[[], frozenset[str]]:
        """Return the method, of the class or of a task."""

        def fields() -> frozenset[str]:
            if kind not in self._fields:
                whole = getattr(super(self._owner, kind), self._name)()
                self._fields[kind] = whole - {_START}
            names = self._fields[kind]
            if task is None:
                return names
            _latest[0] = _Serialization(task)
            defaults = _defaults(task)
            return frozenset(
                [name for name in names if getattr(task, name, None) != defaults.get(name)]
            )

        return fields


def _defaults(task: Any) -> dict[str, Any]:
    """Return the values by field that Airflow does not store, as far as they are not None.

    Those of this installation take precedence over those of the schema: Airflow stores a value of
    the schema where it was given in place of another default.

    :param task: the task, for whose DAG they are found out once.
    """
    values = values_of_dag(task)
    if _defaults not in values:
        from airflow.serialization import serialized_objects

        found: dict[str, Any] = {}
        # Airflow before 3.2 has no such class, and other rules.
        serializer: Any = getattr(serialized_objects, "OperatorSerialization", None)
        if serializer is not None:
            found |= serializer.get_schema_defaults("operator")
            found |= serializer.generate_client_defaults()
        values[_defaults] = found
    defaults: dict[str, Any] = values[_defaults]
    return defaults


def find_start(task: Any, find: Callable[[], Any]) -> Any:
    """Return how a task starts in the triggerer; found out once while Airflow serializes it.

    :param task: the task.
    :param find: returns its start.
    """
    serialization = _latest[0]
    return serialization.find(find) if serialization.is_of(task) else find()


def tell_start(task: Any, find: Callable[[], Any]) -> Any:
    """Return the same to Airflow, which asks for ``start_trigger_args``.

    :param task: the task.
    :param find: returns its start.
    """
    serialization = _latest[0]
    if not serialization.is_of(task):
        return find()
    start = serialization.find(find)
    if serialization.is_over():
        _latest[0] = _Serialization()
    return start
