"""``%sql`` cells: in Spark if pyspark is installed, else in the workspace's DuckDB warehouse.

A cell may have several statements; the result of the last one is shown. ``:name`` is the value of
the widget of that name.
"""

from __future__ import annotations

import html
import importlib.util
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.kernel.context import KernelContext

__all__ = ["SqlMagic", "SqlResult", "statements_of"]

# What a semicolon or a colon means nothing in: literals, quoted names, comments.
_OPAQUE = re.compile(
    r"'(?:\\.|''|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|`(?:``|[^`])*`|--[^\n]*|/\*.*?\*/|;", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class SqlResult:
    """The rows of a statement that DuckDB has run; ``_sqldf`` in later cells."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def collect(self) -> list[tuple[Any, ...]]:
        """Return the rows."""
        return [tuple(row) for row in self.rows]

    def count(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def toPandas(self) -> Any:  # noqa: N802
        """Return the rows as a data frame of pandas, which must be installed."""
        pandas: Any = importlib.import_module("pandas")
        return pandas.DataFrame(self.collect(), columns=list(self.columns))

    def _repr_html_(self) -> str:
        def line(cells: Sequence[object], tag: str) -> str:
            made = "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells)
            return f"<tr>{made}</tr>"

        lines = [line(self.columns, "th"), *(line(row, "td") for row in self.rows)]
        return f"<table>{''.join(lines)}</table>"


class SqlMagic:
    """The magic ``%sql``.

    :param shell: IPython's shell.
    :param context: what the kernel knows of its run.
    """

    def __init__(self, shell: Any, context: KernelContext) -> None:
        self._shell = shell
        self._context = context
        self._position: Any = None

    def run(self, line: str, cell: str | None = None) -> None:
        """Run the statements, show the rows of the last one, and keep them as ``_sqldf``."""
        text = line if cell is None else f"{line}\n{cell}"
        names = self._shell.user_ns
        if _is_installed("pyspark"):
            result = self._in_spark(text)
        elif _is_installed("duckdb") and _is_installed("sqlglot"):
            result = self._in_duckdb(text)
        else:
            raise ModuleNotFoundError(
                "%sql needs pyspark and Java on this machine, or DuckDB: "
                "pip install 'airflow-jobs-provider[sql]'"
            )
        if result is not None:
            names["_sqldf"] = result
            names["display"](result)

    def _in_spark(self, text: str) -> Any:
        names = self._shell.user_ns
        widgets: dict[str, str] = names["dbutils"].widgets.getAll()
        frame = None
        for statement in statements_of(text):
            # Spark before 3.4 knows no parameters.
            frame = names["spark"].sql(statement, **({"args": widgets} if widgets else {}))
        return frame

    def _in_duckdb(self, text: str) -> SqlResult | None:
        from airflow_jobs_provider.local.runners import sql_program

        widgets: dict[str, str] = self._shell.user_ns["dbutils"].widgets.getAll()
        with tempfile.TemporaryDirectory() as folder:
            arguments = sql_program.Arguments(
                query=text,
                parameters=widgets,
                database=self._context.warehouse,
                temporary_folder=str(Path(folder) / "temporary"),
                result="",
            )
            result: dict[str, Any] | None = None
            statements = sql_program.read_statements(text, widgets)
            with sql_program.connected(arguments) as warehouse:
                if self._position is not None:
                    warehouse.position = self._position
                    warehouse.enter()
                for statement in statements:
                    result = warehouse.run(statement)
                self._position = warehouse.position
        if result is None or not result["columns"]:
            return None
        return SqlResult(result["columns"], result["rows"])


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:  # a notebook has this name
        return False


def statements_of(text: str) -> Iterator[str]:
    """Yield the statements of a text, without the semicolons between them."""
    begin = 0
    for found in _OPAQUE.finditer(text):
        if found[0] == ";":
            yield from _unless_empty(text[begin : found.start()])
            begin = found.end()
    yield from _unless_empty(text[begin:])


def _unless_empty(statement: str) -> Iterator[str]:
    without_comments = re.sub(r"--[^\n]*|/\*.*?\*/", "", statement, flags=re.DOTALL)
    if without_comments.strip():
        yield statement.strip()
