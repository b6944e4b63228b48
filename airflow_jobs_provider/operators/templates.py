"""Detects values that are known only when a task runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["has_unrendered"]

TEMPLATE_MARKERS = ("{{", "{%", "{#")
TEMPLATE_FILES = (".json-tpl",)


def has_unrendered(value: Any) -> bool:
    """Whether a value contains something that is known only when the task runs.

    That is text with a Jinja marker or the name of a template file, and what Airflow resolves: an
    XComArg, a mapped argument, a DAG's param, a callable, a value set during execution.
    """
    if value is None or isinstance(value, (bool, int, float)):
        return False
    if isinstance(value, str):
        return value.endswith(TEMPLATE_FILES) or (
            "{" in value and any(mark in value for mark in TEMPLATE_MARKERS)
        )
    if isinstance(value, (dict, Mapping)):  # A dict is recognized faster than a Mapping.
        return any(map(has_unrendered, value.values()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(map(has_unrendered, value))
    return (
        callable(value)
        or hasattr(value, "resolve")
        or type(value).__module__.partition(".")[0] == "airflow"
    )
