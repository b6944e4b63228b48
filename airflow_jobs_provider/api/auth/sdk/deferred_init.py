"""Imports modules of databricks-sdk without the SDK's clients for every service.

``import databricks.sdk.config`` executes ``databricks/sdk/__init__.py`` first. That module imports
the clients of all services: about 1.2 s of processor time and 55 MB, of which a token needs
nothing. In a triggerer the import would hold up the event loop, although it runs in a thread.

So ``databricks.sdk`` is imported without executing its ``__init__.py``. That is executed, once and
in the same module object, when an attribute of the package is first needed that is no submodule,
such as ``WorkspaceClient``. The same happens at ``dir(databricks.sdk)``. Other code of the process
sees no difference, except in ``vars(databricks.sdk)``. If the SDK is imported already, it is used
as it is.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

__all__ = ["import_without_init"]

_SDK = "databricks.sdk"
# Submodules that __init__.py does not import: an attribute of the package would not find them.
# The first one connects to the Spark session of a notebook.
_NO_ATTRIBUTES = ("runtime",)


def import_without_init(name: str) -> ModuleType:
    """Import a module that imports modules of databricks-sdk.

    :param name: the module's name.
    :raises ImportError: the module, or databricks-sdk, cannot be imported.
    """
    if _finder not in sys.meta_path:
        # It stays there: another thread that iterates over the list now would skip a finder if one
        # was removed.
        sys.meta_path.insert(0, _finder)
    package = importlib.import_module(_SDK)
    try:
        return importlib.import_module(name)
    except ImportError:
        init = vars(package).get("__getattr__")
        if not isinstance(init, _DeferredInit):
            raise
    # A later SDK may have modules that need its __init__.py.
    init.execute()
    return importlib.import_module(name)


class _Finder(MetaPathFinder):
    """Finds ``databricks.sdk`` as the other finders do, with a loader that defers its code."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _SDK or target is not None:  # a target: importlib.reload
            return None
        for finder in list(sys.meta_path):
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _DeferringLoader(spec.loader)
                return spec
        return None


_finder = _Finder()


class _DeferringLoader(Loader):
    """Makes a module, and leaves its code to :class:`_DeferredInit`."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None  # the import system has set it
        # As importlib.util.LazyLoader does: inspect and importlib.resources need the real one.
        spec.loader = module.__loader__ = self._loader
        init = _DeferredInit(module, self._loader)
        vars(module).update(__getattr__=init, __dir__=init.names)


class _DeferredInit:
    """The ``__getattr__`` of a module whose code is not executed yet (PEP 562).

    :param module: the module.
    :param loader: its loader.
    """

    def __init__(self, module: ModuleType, loader: Loader) -> None:
        self._module = module
        self._loader = loader
        self._lock = threading.RLock()
        self._is_running = False
        self._is_done = False

    def __call__(self, name: str) -> Any:
        """Return an attribute that the module does not have yet."""
        # Modules of the SDK import each other in this way, so this must not wait for the lock: the
        # thread that has it may wait for one of those modules.
        if not name.startswith("_") and name not in _NO_ATTRIBUTES:
            submodule = f"{_SDK}.{name}"
            if find_spec(submodule) is not None:
                return importlib.import_module(submodule)
        self.execute()
        try:
            return vars(self._module)[name]
        except KeyError:
            raise AttributeError(
                f"module {_SDK!r} has no attribute {name!r}", name=name, obj=self._module
            ) from None

    def names(self) -> list[str]:
        """Return what ``dir()`` shows of the module."""
        self.execute()
        return sorted(vars(self._module))

    def execute(self) -> None:
        """Execute the module's code, unless that is done, or being done in this thread."""
        with self._lock:
            if self._is_done or self._is_running:
                return
            self._is_running = True
            try:
                self._loader.exec_module(self._module)
            finally:
                self._is_running = False
            self._is_done = True
            for name in ("__getattr__", "__dir__"):
                vars(self._module).pop(name, None)
