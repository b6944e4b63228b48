"""Mapped tasks that start in the triggerer.

Airflow starts each instance of a mapped task there with the arguments that the mapped task had when
its DAG was serialized. They are made from a prototype: the operator with the arguments that all
instances share. The values that differ are stored beside them; see :mod:`.mapped_values`.

Airflow's ``expand`` takes these arguments from the class, before the DAG is complete. So the mapped
task gets a class that makes them when Airflow asks for them.

The triggerer reads the serialized DAG for each instance that it starts, in both of its processes.
So the serialized DAG has no values of such a task, only their number, which the scheduler needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_jobs_provider.airflow_compat.mapped_values import (
    fields_of_each,
    stored_mapping,
    without_values,
)
from airflow_jobs_provider.airflow_compat.task_serialization import (
    SerializedFields,
    find_start,
    tell_start,
)
from airflow_jobs_provider.airflow_compat.triggerer_values import (
    UnreadableValueError,
    rendering_reasons,
)

if TYPE_CHECKING:
    from airflow.triggers.base import StartTriggerArgs

__all__ = ["is_prototype", "is_unmapped", "mapped_start_reasons", "with_mapped_start"]

_is_prototype: ContextVar[bool] = ContextVar("is_prototype", default=False)
# What an operator takes for any template field, and checks later.
_PLACEHOLDER = "{{ ds }}"
# The argument of the trigger that has the values.
_MAPPED = "mapped"


def is_prototype() -> bool:
    """Return whether the operator that is constructed is a prototype, which is never executed."""
    return _is_prototype.get()


def is_unmapped(task: Any) -> bool:
    """Return whether an operator is an instance of a mapped task.

    :param task: the operator.
    """
    return bool(getattr(task, "_BaseOperator__from_mapped", False))


def with_mapped_start(partial: Any) -> Any:
    """Let the mapped task that is made of a partial operator start in the triggerer if it can.

    :param partial: what Airflow's ``partial`` has returned.
    """
    partial.__class__ = _classes()[0]
    return partial


def mapped_start_reasons(task: Any) -> list[str]:
    """Return the reasons why a worker starts this instance of a mapped task.

    :param task: the operator of the instance.
    """
    mapped: Any = task.dag.task_dict.get(task.task_id) if task.has_dag() else None
    if not hasattr(mapped, "worker_start_reasons"):
        return ["mapping"]
    reasons: list[str] = mapped.worker_start_reasons()
    return reasons


@cache
def _classes() -> tuple[type, type]:
    """Return the classes of partial and mapped operators, which differ between Airflow's lines."""
    from airflow.sdk.bases.operator import get_merged_defaults
    from airflow.sdk.definitions._internal.mixins import ResolveMixin
    from airflow.sdk.definitions.mappedoperator import MappedOperator, OperatorPartial

    class ExpandInput(ResolveMixin):
        """What a task is mapped over, as Airflow serializes it."""

        def __init__(self, mapped: Mapped) -> None:
            self._mapped, self._input = mapped, mapped.expand_input
            self.EXPAND_INPUT_TYPE = self._input.EXPAND_INPUT_TYPE

        @property
        def value(self) -> Any:
            """The values; only their number if the instances start in the triggerer."""
            value = self._input.value
            return without_values(value) if self._mapped.start_from_trigger else value

        def iter_references(self) -> Any:
            """Yield the outputs of other tasks."""
            return self._input.iter_references()

        def resolve(self, context: Mapping[str, Any]) -> Any:
            """Return the values of an instance on its worker."""
            return self._input.resolve(context)

    class Mapped(MappedOperator):
        """A mapped operator that starts in the triggerer if it can."""

        __slots__ = ()

        get_serialized_fields: Any = SerializedFields()

        @property
        def start_trigger_args(self) -> StartTriggerArgs | None:
            """The arguments that Airflow starts each instance with; None: on a worker."""
            arguments: StartTriggerArgs | None = tell_start(self, self.find_start)
            return arguments

        @start_trigger_args.setter
        def start_trigger_args(self, value: Any) -> None:
            """Do nothing. A copy of the object has the value made anew."""

        @property
        def start_from_trigger(self) -> bool:
            """Whether the instances start in the triggerer."""
            return find_start(self, self.find_start) is not None

        @start_from_trigger.setter
        def start_from_trigger(self, value: Any) -> None:
            """Do nothing. A copy of the object has the value made anew."""

        def find_start(self) -> StartTriggerArgs | None:
            """Return the arguments that Airflow starts each instance with; None: on a worker."""
            return _start(self)[0] if self._requests_start() else None

        def worker_start_reasons(self) -> list[str]:
            """Return the reasons why a worker starts the instances."""
            return _start(self)[1]

        def _get_specified_expand_input(self) -> Any:
            return ExpandInput(self)

        def _requests_start(self) -> bool:
            given = self.partial_kwargs.get("start_from_trigger")
            if given is None:
                defaults, _ = get_merged_defaults(self.dag, self.task_group, None, None)
                given = defaults.get("start_from_trigger")
            if given is None:
                option = conf.get("databricks_jobs", "start_from_trigger", fallback="")
                given = option == "auto"
            return bool(given)

    class Partial(OperatorPartial):
        """A partial operator of which such a mapped operator is made."""

        __slots__ = ()

        def _expand(self, expand_input: Any, *, strict: bool) -> Any:
            mapped: Any = super()._expand(expand_input, strict=strict)
            mapped.__class__ = Mapped
            return mapped

    # Airflow pickles a DAG for a function that runs in an environment of its own.
    for cls in (Partial, Mapped):
        cls.__qualname__ = cls.__name__
    return Partial, Mapped


def __getattr__(name: str) -> Any:
    """Return a class of mapped tasks for :mod:`pickle`."""
    if name in ("Partial", "Mapped"):
        return _classes()[name == "Mapped"]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@contextmanager
def _making_prototype() -> Iterator[None]:
    token = _is_prototype.set(True)
    try:
        yield
    finally:
        _is_prototype.reset(token)


def _start(mapped: Any) -> tuple[StartTriggerArgs | None, list[str]]:
    """Return the arguments that Airflow starts each instance with, and why there are none."""
    expand_input = mapped.expand_input
    # Each workspace has a poller of its own, so the connection is no value that differs.
    fields = set(mapped.template_fields) - {"databricks_conn_id"} - mapped.partial_kwargs.keys()
    try:
        stored = stored_mapping(expand_input, fields)
    except UnreadableValueError as reason:
        return None, [str(reason)]
    names = fields_of_each(expand_input)
    try:
        with _making_prototype():
            prototype: Any = mapped.unmap(dict.fromkeys(names, _PLACEHOLDER))
    except Exception as error:  # noqa: BLE001 - what is wrong is told on the worker
        return None, [f"arguments that are known when the task runs ({error})"]
    for name in names:
        setattr(prototype, name, None)
    arguments, reasons = prototype.start_or_reasons(len(stored.text))
    if stored.has_templates:
        reasons += [one for one in rendering_reasons(prototype) if one not in reasons]
    if reasons:
        return None, reasons
    return replace(arguments, trigger_kwargs={**arguments.trigger_kwargs, _MAPPED: stored.text}), []
