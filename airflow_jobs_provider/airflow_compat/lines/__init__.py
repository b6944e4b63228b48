"""What differs between Airflow's lines (minor versions): one module for each that differs.

A module is named after the first line that it is for, and is used up to the next one: without a
module for 3.4, Airflow 3.4 gets that of 3.3. A new line whose internals have moved is a new module
here, found by its name, with a subclass of the line before it.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module

from airflow_jobs_provider.airflow_compat.lines.base import AirflowLine

__all__ = ["airflow_line", "airflow_version"]

_PREFIX = "airflow_"


def airflow_version() -> tuple[int, int]:
    """Return the line of the running Airflow, such as (3, 0)."""
    from airflow import __version__

    major, minor = __version__.split(".")[:2]
    return int(major), int(minor)


@cache
def airflow_line() -> AirflowLine:
    """Return what is particular to the running Airflow, chosen once by its version."""
    modules: dict[tuple[int, ...], str] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith(_PREFIX):
            first_line = module.name.removeprefix(_PREFIX).split("_")
            modules[tuple(map(int, first_line))] = module.name
    running = airflow_version()
    newest = max((line for line in modules if line <= running), default=min(modules))
    line: AirflowLine = import_module(f"{__name__}.{modules[newest]}").LINE
    return line
