"""The names a Databricks notebook finds defined: ``dbutils``, ``spark``, ``sc``, ``display`` ..."""

from __future__ import annotations

import html
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from airflow_jobs_provider.local.kernel.context import KernelContext
from airflow_jobs_provider.local.kernel.dbutils import DBUtils

__all__ = ["names_for"]

_SHOWN_ROWS = 1000


class _Lazy:
    """Stands for an object that is costly to make until something is asked of it."""

    def __init__(self, name: str) -> None:
        self.__dict__["_name"] = name

    def _target(self) -> Any:
        target = self.__dict__.get("_made")
        if target is None:
            session = _spark_session()
            target = session if self.__dict__["_name"] == "spark" else session.sparkContext
            self.__dict__["_made"] = target
        return target

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("_repr_", "_ipython_")):
            # IPython asks for these of everything in sight; none is worth starting Spark.
            raise AttributeError(name)
        return getattr(self._target(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._target(), name, value)

    def __repr__(self) -> str:
        return repr(self._target())


def _spark_session() -> Any:
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise ModuleNotFoundError(
            "spark needs pyspark (and Java) on this machine: pip install pyspark",
            name="pyspark",
        ) from None
    builder: Any = SparkSession.builder
    return builder.master("local[*]").config("spark.ui.enabled", "false").getOrCreate()


def _display(*objects: Any, **kwargs: Any) -> None:
    ipython = _ipython_display()
    # A Spark data frame shows only its schema of itself; Databricks shows the rows.
    shown = (ipython.HTML(_table_of(o)) if _is_spark_frame(o) else o for o in objects)
    ipython.display(*shown, **kwargs)


def _table_of(frame: Any) -> str:
    """Return the first rows of a Spark data frame as HTML; without pandas, which may be missing."""

    def row(cells: Iterable[object], tag: str) -> str:
        return "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells)

    lines = [row(frame.columns, "th"), *(row(values, "td") for values in frame.take(_SHOWN_ROWS))]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _is_spark_frame(candidate: Any) -> bool:
    return type(candidate).__module__.startswith("pyspark.sql") and hasattr(candidate, "take")


def _display_html(source: str) -> None:
    ipython = _ipython_display()
    ipython.display(ipython.HTML(source))


def _ipython_display() -> Any:
    return import_module("IPython.display")


def names_for(context: KernelContext) -> dict[str, Any]:
    """Return the names that a notebook of this run finds defined."""
    dbutils = DBUtils(context)

    def get_argument(name: str, default: str | None = None) -> str:
        return dbutils.widgets.get(name, default)

    return {
        "dbutils": dbutils,
        "spark": _Lazy("spark"),
        "sc": _Lazy("sc"),
        "display": _display,
        "displayHTML": _display_html,
        "getArgument": get_argument,
    }
