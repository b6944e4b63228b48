"""Names of a module that are imported when they are first used (PEP 562)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from airflow_jobs_provider.official_names import missing_name

__all__ = ["lazy_names"]


def lazy_names(
    attributes: dict[str, Any], modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the functions ``__getattr__`` and ``__dir__`` of a module.

    :param attributes: the module's ``globals()``.
    :param modules: the names, each with the module that has it, relative to the module's package,
        such as ``.run_now``.
    """

    def import_name(name: str) -> Any:
        if name not in modules:
            raise missing_name(attributes["__name__"], name)
        value = getattr(import_module(modules[name], attributes["__package__"]), name)
        attributes[name] = value
        return value

    def list_names() -> list[str]:
        return sorted({*attributes, *modules})

    return import_name, list_names
