"""Runs an entry point of an installed package (reference of later versions: "PythonWheelTask").

A program: ``python entry_point.py PACKAGE ENTRY_POINT PARAMETER ...``. It imports the standard
library only, so that it starts fast and changes nothing for the code that it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module, metadata
from typing import Any

__all__ = ["find_entry_point"]


def find_entry_point(package: str, name: str) -> Callable[[], Any]:
    """Return the function that an entry point names.

    :param package: name of the distribution package, such as ``my-package``.
    :param name: name of the entry point in the package's metadata, in any group. If the metadata
        does not have it, the function of this name in the package itself.
    :raises ImportError: neither exists.
    """
    known = metadata.distribution(package).entry_points
    found = [one for one in known if one.name == name]
    # A name may be in several groups.
    found.sort(key=lambda one: one.group != "console_scripts")
    if found:
        function: Callable[[], Any] = found[0].load()
        return function
    module = package.replace("-", "_")
    try:
        function = getattr(import_module(module), name)
    except (AttributeError, ModuleNotFoundError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name != module:
            raise  # a module that the package imports
        names = ", ".join(sorted({one.name for one in known})) or "none"
        raise ImportError(
            f"Entry point {name} is not in the metadata of the package {package}, and "
            f"{module}.{name}() does not exist. Entry points of the package: {names}"
        ) from None
    return function


if __name__ == "__main__":
    _package, _name = sys.argv[1:3]
    sys.argv[:3] = [_name]
    find_entry_point(_package, _name)()
