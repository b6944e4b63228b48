"""What does Airflow ask for several times, or in vain, while it serializes a task?

In all lines it asks a task, in this order, for

1. its serialized fields, of which ``start_from_trigger`` and ``start_trigger_args`` are two;
2. the value of each of them;
3. ``start_trigger_args`` again: whether there are any;
4. ``start_trigger_args`` once more, if there are: what they are.

So from the first to the last of these questions the start is found out once. At no other time may
an answer be kept: what it depends on, such as the task's DAG, its outlets and the tasks that follow
it, can be changed without the task's knowledge.

While Airflow serializes a whole DAG, which is one call of a function, nothing is changed between
its tasks. So all starts are found out before the first task is serialized, which takes little more
than half as long as one by one: the caches of the processor have the code then.

Most of the fields have their default. Airflow does not store them, but compares each with its
defaults for so long that they take more time than all others. So they are left out at the first of
these questions.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.airflow_compat.dag_values import values_of_dag

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["SerializedFields", "find_start", "tell_start"]

_START = "start_trigger_args"
# How often Airflow asks for them, besides their value as a field.
_QUESTIONS = 2


class _Serialization:
    """The serialization of one task.

    :param task: the task; None for none.
    :param found: its start, if that is known; default not.
    """

    def __init__(self, task: Any = None, found: Sequence[Any] = ()) -> None:
        self._task = None if task is None else weakref.ref(task)
        self._found = list(found)
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


class _StartsOfDag:
    """The starts of the tasks that follow in the DAG which Airflow serializes now."""

    def __init__(self) -> None:
        self._frame_id: int | None = None
        self._dag: Callable[[], Any] = lambda: None
        self._found: dict[str, Any] = {}

    def take(self, task: Any) -> list[Any]:
        """Return the start of a task that Airflow begins to serialize with its DAG; else nothing.

        Each start is returned once. So the first task of the next serialization has none left, and
        all are found out anew.
        """
        frame_id = _frame_of_call()
        if frame_id is None:
            return []
        is_same = self._frame_id == frame_id and self._dag() is task.dag
        if not is_same or task.task_id not in self._found:
            self._frame_id, self._dag = frame_id, weakref.ref(task.dag)
            self._found = _find_all(task.dag)
        return [self._found.pop(task.task_id)] if task.task_id in self._found else []


_starts = _StartsOfDag()


def _find_all(dag: Any) -> dict[str, Any]:
    """Return the starts of a DAG's tasks by task id, up to one that cannot be found out."""
    found = {}
    for task in dag.task_dict.values():
        if hasattr(task, "worker_start_reasons"):  # A sensor has no fields of this kind.
            try:
                found[task.task_id] = task.find_start()
            except Exception:  # noqa: BLE001 - it is raised for the task itself
                break
    return found


def _frame_of_call() -> int | None:
    """Return the id of the frame of Airflow's function that serializes a DAG now; None for none."""
    module = sys.modules.get("airflow.serialization.serialized_objects")
    serialize = getattr(getattr(module, "DagSerialization", None), "serialize_dag", None)
    code = getattr(serialize, "__code__", None)
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return None if frame is None else id(frame)


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
            _latest[0] = _Serialization(task, _starts.take(task))
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
