"""Imports what the extras install, and says which one is missing."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from airflow_jobs_provider.api.auth.sdk.deferred_init import import_without_init
from airflow_jobs_provider.api.errors import CredentialsError

__all__ = ["require"]


def require(module: str, *, method: str, install: str) -> ModuleType:
    """Import a module of an optional dependency, or a module of this package that needs one.

    :param module: name of the module.
    :param method: the authentication method that needs it, for the error.
    :param install: what to install, such as ``airflow-jobs-provider[auth]``.
    :raises CredentialsError: it is not installed, too old or broken.
    """
    is_ours = module.startswith(f"{__package__}.")
    try:
        with _without_garbage_collection():
            return import_without_init(module) if is_ours else importlib.import_module(module)
    except ImportError as error:
        # The package is there otherwise, but lacks a name.
        problem = "not installed" if isinstance(error, ModuleNotFoundError) else "too old or broken"
        reason = f"{error.name or module} is {problem}"
    raise CredentialsError(f"{method} needs an extra package ({reason}): pip install '{install}'")


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Pause the garbage collection.

    The import of a large library starts many of them, each over all objects of the process, and
    each holds up the event loop, although the import is in a thread.
    """
    is_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_enabled:
            gc.enable()
