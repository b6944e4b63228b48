"""What does Airflow ask for several times while it serializes a task?

In all lines it asks a task, in this order, for

1. its serialized fields, of which ``start_from_trigger`` and ``start_trigger_args`` are two;
2. the value of each of them;
3. ``start_trigger_args`` again: whether there are any;
4. ``start_trigger_args`` once more, if there are: what they are.

So from the first to the last of these questions the start is found out once. At no other time may
an answer be kept: what it depends on, such as the task's DAG, its outlets and the tasks that follow
it, can be changed without the task's knowledge.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

__all__ = ["SerializedFields", "find_start", "tell_start"]

_START = "start_trigger_args"
_NOT_OWN = object()
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

    The field ``start_trigger_args`` is left out. Airflow makes text of it, which takes long, and
    replaces the text later. So are a task's own fields that are None, a third of all: Airflow
    stores none of them, but compares each with its defaults first.
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
            own = getattr(task, "__dict__", {})  # A mapped task has slots.
            return frozenset([name for name in names if own.get(name, _NOT_OWN) is not None])

        return fields


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
