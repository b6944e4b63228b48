"""What differs from the official provider: the rows of docs/migrating.md.

``differences.json`` is made from that page by ``scripts/migration_differences.py``.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files

__all__ = ["argument_differences", "name_difference"]

# As "DatabricksRunNowOperator(polling_period_seconds=30)" or "DatabricksHook.list_jobs(offset)".
_ARGUMENT = re.compile(r"(\w+)\((\w+)")


def argument_differences(name: str) -> dict[str, str]:
    """Return what differs for arguments of a class, by the argument."""
    return _rows()[1].get(name, {})


def name_difference(name: str) -> str | None:
    """Return what differs for a class or another name as a whole, or what it is for."""
    return _rows()[0].get(name)


@cache
def _rows() -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    names: dict[str, str] = {}
    arguments: dict[str, dict[str, str]] = {}
    content = files("airflow_jobs_provider.migrate").joinpath("differences.json").read_text("utf-8")
    for row in json.loads(content):
        for name in row["names"]:
            if found := _ARGUMENT.fullmatch(name.partition("=")[0].rstrip(")")):
                arguments.setdefault(found[1], {})[found[2]] = row["text"]
            else:
                names[name] = row["text"]
    return names, arguments
