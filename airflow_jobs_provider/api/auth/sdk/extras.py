"""Imports what the extras install, and says which one is missing."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from airflow_jobs_provider.api.errors import CredentialsError

__all__ = ["require"]


def require(module: str, *, method: str, install: str) -> ModuleType:
    """Import a module of an optional dependency, or a module of this package that needs one.

    :param module: name of the module.
    :param method: the authentication method that needs it, for the error.
    :param install: what to install, such as ``airflow-jobs-provider[auth]``.
    :raises CredentialsError: it is not installed, or too old.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        # The module is there, but not a name in it.
        is_old = not isinstance(error, ModuleNotFoundError) and error.name in sys.modules
        reason = f"{error.name or module} is {'too old' if is_old else 'not installed'}"
    raise CredentialsError(f"{method} needs an extra package ({reason}): pip install '{install}'")
