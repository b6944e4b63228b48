"""Applies ``default_args`` to the arguments of a base class, after Airflow has prepared them.

Airflow wraps the constructor of each class of operators. The wrapper of the class that is made
finds the DAG and the group, merges their default arguments and params with the task's, and passes
all of that on. The wrapper of each base class does it again, for 15 to 20 microseconds. An operator
of this package has six such base classes, and Airflow makes all tasks of a DAG file in each process
that parses it.

Both functions rely on attributes that Airflow's operators have from 2.11 to 3.3. A later Airflow
that has others does everything itself.
"""

from __future__ import annotations

import functools
from typing import Any, TypeVar

from airflow.providers.common.compat.sdk import BaseOperator

__all__ = ["applies_defaults_once", "set_attribute", "specially_set_attributes"]

# Whether Airflow's operators have the attributes that are used here.
KNOWS_INTERNALS = hasattr(BaseOperator, "_BaseOperator__instantiated") and hasattr(
    BaseOperator.__init__, "_BaseOperatorMeta__param_names"
)

Class = TypeVar("Class", bound=type)


def applies_defaults_once(cls: Class) -> Class:
    """Let the constructor of a base class only fill its arguments from ``default_args``.

    A decorator. If the class itself is made, its constructor is that of Airflow. So it is if a
    class of another package calls it, which may have changed ``default_args``, ``dag`` or
    ``params``.

    :param cls: a class of operators with a constructor of its own, which needs no argument.
    """
    if not KNOWS_INTERNALS:
        return cls
    applied: Any = vars(cls)["__init__"]
    constructor = applied.__wrapped__
    # Without the wrapper that makes errors final: that of the class that is made does so.
    plain_constructor = getattr(constructor, "__wrapped__", constructor)
    names = applied._BaseOperatorMeta__param_names  # noqa: SLF001

    @functools.wraps(applied)
    def fill_and_construct(self: Any, *args: Any, **kwargs: Any) -> None:
        made: Any = type(self)
        is_prepared = "_BaseOperator__init_kwargs" in vars(self) and not args
        if not is_prepared or not _is_called_by_package(made, cls):
            applied(self, *args, **kwargs)
            return
        default_args = kwargs.pop("default_args", None) or {}
        if default_args:
            for name in default_args.keys() & names:
                kwargs.setdefault(name, default_args[name])
        plain_constructor(self, **kwargs, default_args=default_args)
        self._BaseOperator__init_kwargs.update(kwargs)

    # Airflow tells by it which class is made.
    fill_and_construct.__wrapped__ = constructor
    cls.__init__ = fill_and_construct  # type: ignore[misc]
    return cls


@functools.lru_cache(maxsize=1024)
def _is_called_by_package(made: type, cls: type) -> bool:
    """Return whether a class of this package calls the constructor of its base class.

    :param made: the class that is made.
    :param cls: the base class.
    """
    before = made.__mro__[: made.__mro__.index(cls)]
    callers = [one.__module__ for one in before if "__init__" in vars(one)]
    return bool(callers) and callers[-1].startswith(f"{__package__.partition('.')[0]}.")


@functools.cache
def specially_set_attributes(cls: type) -> frozenset[str]:
    """Return the attributes that are not only set: Airflow converts them, or they are properties.

    Airflow converts an attribute by ``_convert_NAME``. A user's class may have such a method, too.

    This is called when a class is defined, in a process that forks others if it preloads: each of
    those would take a millisecond for it.

    :param cls: a class of operators.
    """
    return frozenset(name for base in cls.__mro__ for name in _specially_set_by(base))


@functools.cache
def _specially_set_by(cls: type) -> frozenset[str]:
    return frozenset(
        name.removeprefix("_convert_")
        for name, value in vars(cls).items()
        if name.startswith("_convert_") or hasattr(value, "__set__")
    )


def set_attribute(self: Any, key: str, value: Any) -> None:
    """Set an attribute of an operator: a ``__setattr__`` that is fast while a constructor runs.

    It leaves out what has no effect then. Airflow's takes 1 to 2 microseconds, this one 0.3, and a
    constructor sets a hundred attributes.

    :param self: the operator.
    :param key: name of the attribute.
    :param value: the attribute.
    """
    attributes = self.__dict__
    is_constructed = "_BaseOperator__instantiated" in attributes
    if is_constructed or key in specially_set_attributes(self.__class__) or not KNOWS_INTERNALS:
        BaseOperator.__setattr__(self, key, value)
        return
    attributes[key] = value
    init_kwargs = attributes.get("_BaseOperator__init_kwargs", ())
    if key in init_kwargs and not attributes.get("_BaseOperator__from_mapped"):
        init_kwargs[key] = value
