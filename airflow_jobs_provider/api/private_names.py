"""Warns of subclasses that replace private attributes of their base classes by accident."""

from __future__ import annotations

import inspect
import warnings
from functools import cache

__all__ = ["warn_of_replaced_names"]

_PACKAGE = f"{__name__.partition('.')[0]}."


def warn_of_replaced_names(cls: type) -> None:
    """Warn if a class of another package replaces private attributes of this package's classes.

    A method ``_cancel`` of a user's operator would be called in place of the operator's own. The
    names may change with each version.

    :param cls: the class, for ``__init_subclass__``.
    """
    if cls.__module__.startswith(_PACKAGE):
        return
    own = {name for name in vars(cls) if _is_private(name)}
    replaced = {base: own & _private_names(base) for base in cls.__mro__[1:]}
    names = sorted(set().union(*replaced.values()))
    if names:
        warnings.warn(
            f"{cls.__qualname__} replaces private attributes of the Databricks Jobs provider, "
            f"which may lose runs or launch them twice: {', '.join(names)}. Rename them",
            stacklevel=_frames_to(cls.__module__),
        )


def _frames_to(module: str) -> int:
    """Return the ``stacklevel`` of the module for a warning of the caller."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__") != module:
        frame, level = frame.f_back, level + 1
    return max(1, level)


@cache
def _private_names(base: type) -> frozenset[str]:
    if not base.__module__.startswith(_PACKAGE):
        return frozenset()
    return frozenset(filter(_is_private, vars(base)))


def _is_private(name: str) -> bool:
    # Not a name that Python mangles, such as _Custom__name, nor one of abc.
    return name.startswith("_") and "__" not in name and not name.startswith("_abc_")
