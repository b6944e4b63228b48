"""The names a Databricks notebook finds defined: ``dbutils``, ``spark``, ``sc``, ``display`` ..."""

from __future__ import annotations

import ast
import html
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.kernel.context import KernelContext
from airflow_jobs_provider.local.kernel.dbutils import DBUtils
from airflow_jobs_provider.local.kernel.spark_tables import (
    SparkTables,
    forgets_tables,
    new_warehouse,
)

__all__ = ["Spark", "SparkStarter", "names_for"]

_SHOWN_ROWS = 1000
_SPARK_NAMES = frozenset({"spark", "sc"})


class _Lazy:
    """Stands for an object that is costly to make until something is asked of it."""

    def __init__(self, name: str, spark: Spark) -> None:
        self.__dict__["_name"] = name
        self.__dict__["_spark"] = spark

    def _target(self) -> Any:
        target = self.__dict__.get("_made")
        if target is None:
            session = self.__dict__["_spark"].session()
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


class Spark:
    """The session of a notebook's run, and its tables, which outlive the run.

    :param context: what the kernel knows of its run.
    """

    def __init__(self, context: KernelContext) -> None:
        self._folder = Path(context.spark_folder)
        self._session: Any = None
        self._tables: SparkTables | None = None

    def session(self) -> Any:
        """Return the session, which is started the first time.

        :raises ModuleNotFoundError: pyspark is not installed.
        """
        if self._session is not None:
            return self._session
        try:
            sql: Any = import_module("pyspark.sql")
        except ImportError:
            raise ModuleNotFoundError(
                "spark needs pyspark (and Java) on this machine: pip install pyspark",
                name="pyspark",
            ) from None
        builder: Any = sql.SparkSession.builder.master("local[*]")
        for setting in ("spark.ui.enabled", "spark.ui.showConsoleProgress"):
            builder = builder.config(setting, "false")
        warehouse = new_warehouse(self._folder)
        builder = builder.config("spark.sql.warehouse.dir", str(warehouse))
        session = builder.getOrCreate()
        if hasattr(sql, "DataFrame"):
            # What Databricks adds to the class.
            sql.DataFrame.display = _display
        self._session = session
        with _reported():
            if forgets_tables(session):
                self._tables = SparkTables(session, self._folder, warehouse)
        self.read_tables()
        return session

    def write_tables(self, *_: object) -> None:
        """Make the tables that this run has saved known to other runs."""
        if self._tables is not None:
            with _reported():
                self._tables.write()

    def read_tables(self, *_: object) -> None:
        """Make the tables that other runs have saved known to this run."""
        if self._tables is not None:
            with _reported():
                self._tables.read()


@contextmanager
def _reported() -> Iterator[None]:
    """Report an error in the cell's output: the cell itself goes on."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  (such as a Java process that died)
        sys.stderr.write(f"Tables are not shared with other runs: {error!r}"[:500] + "\n")


class SparkStarter:
    """Makes ``spark`` and ``sc`` the real objects before the first cell that needs them.

    Until then they stand for them, so that a notebook without Spark starts none. A cell needs them
    if it names one of them or imports pyspark: ``isinstance`` and ``getActiveSession`` need the
    real session.

    :param shell: IPython's shell.
    :param spark: the session of the run.
    """

    def __init__(self, shell: Any, spark: Spark) -> None:
        self._shell = shell
        self._spark = spark
        self._is_done = False

    def before_cell(self, info: Any) -> None:
        """Look at a cell before it is run."""
        if not self._is_done:
            self.before_code(self._shell.transform_cell(info.raw_cell))

    def before_code(self, source: str) -> None:
        """Look at Python code, which need not be valid."""
        if self._is_done or not _needs_spark(source):
            return
        # Where it cannot be made, the one who uses it is told why.
        with suppress(Exception):
            session = self._spark.session()
            self._is_done = True
            real = {"spark": session, "sc": session.sparkContext}
            runtime = sys.modules.get("databricks.sdk.runtime")
            for names in (self._shell.user_ns, vars(runtime) if runtime else {}):
                for name, made in real.items():
                    if isinstance(names.get(name), _Lazy):
                        names[name] = made


def _needs_spark(source: str) -> bool:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return False
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) if name in _SPARK_NAMES:
                return True
            case ast.Import(names=aliases):
                imported = [alias.name for alias in aliases]
            case ast.ImportFrom(module=str(module), level=0):
                imported = [module]
            case _:
                continue
        if any(
            f"{name}.".startswith("pyspark.") and name != "pyspark.dbutils" for name in imported
        ):
            return True
    return False


def _display(*objects: Any, **kwargs: Any) -> None:
    ipython = _ipython_display()
    # A Spark data frame shows only its schema of itself; Databricks shows the rows.
    shown = (ipython.HTML(_table_of(o)) if _is_spark_frame(o) else o for o in objects)
    ipython.display(*shown, **kwargs)
    pyplot: Any = sys.modules.get("matplotlib.pyplot")
    for one in objects:
        if pyplot is not None and type(one).__module__.startswith("matplotlib."):
            # Else the inline backend would show it at the end of the cell once more.
            with suppress(TypeError):  # no figure
                pyplot.close(one)


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


def names_for(context: KernelContext, spark: Spark) -> dict[str, Any]:
    """Return the names that a notebook of this run finds defined."""
    dbutils = DBUtils(context, spark)

    def get_argument(name: str, default: str | None = None) -> str:
        return dbutils.widgets.get(name, default)

    return {
        "dbutils": dbutils,
        "spark": _Lazy("spark", spark),
        "sc": _Lazy("sc", spark),
        "display": _display,
        "displayHTML": _display_html,
        "getArgument": get_argument,
    }
