"""Imports what the extras install, and says which one is missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from airflow_jobs_provider.api.errors import CredentialsError

__all__ = ["require"]


def require(module: str, *, method: str, install: str) -> ModuleType:
    """Import a module of an optional dependency, or a module of this package that needs one.

    :param module: name of the module.
    :param method: the authentication method that needs it, for the error.
    :param install: what to install, such as ``airflow-jobs-provider[auth]``.
    :raises CredentialsError: it is not installed, too old or broken.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        # The package is there otherwise, but lacks a name.
        problem = "not installed" if isinstance(error, ModuleNotFoundError) else "too old or broken"
        reason = f"{error.name or module} is {problem}"
    raise CredentialsError(f"{method} needs an extra package ({reason}): pip install '{install}'")
