"""Runs the statements of a SQL file in the workspace's warehouse, a DuckDB database.

A program: ``python sql_program.py FILE``. The file has the arguments as JSON (:class:`Arguments`).
It is run as a file, so it imports nothing of this package.

SQL is read in the dialect of Databricks. DuckDB has no catalog of a name such as ``main``. So each
schema has its catalog in its name: ``main.sales.orders`` is the table ``orders`` in DuckDB's schema
``main.sales``. Every catalog that is named exists and has a schema ``default``.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
from sqlglot import Tokenizer, exp, parse
from sqlglot.errors import ParseError, TokenError
from sqlglot.tokens import Token, TokenType

DIALECT = "databricks"
DATABASE = "warehouse"
DEFAULT_CATALOG = "workspace"
DEFAULT_SCHEMA = "default"
MAX_ROWS = 1000
MAX_RESULT_BYTES = 5 * 1024 * 1024
# They tune storage or set permissions, neither of which there is here.
WITHOUT_EFFECT = frozenset(
    {"ANALYZE", "CACHE", "GRANT", "MSCK", "OPTIMIZE", "REFRESH", "REVOKE", "SET", "VACUUM"}
)


class SqlError(Exception):
    """A statement that cannot be run; the text is the message of the run."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the workspace passes.

    :ivar query: the text of the file.
    :ivar parameters: values of the parameters, which are texts, by name.
    :ivar database: the file of the warehouse.
    :ivar temporary_folder: for what does not fit into memory.
    :ivar result: where the results are written, as JSON.
    """

    query: str
    parameters: Mapping[str, str]
    database: str
    temporary_folder: str
    result: str


@dataclass(slots=True)
class Position:
    """The catalog and the schema that names without them belong to."""

    catalog: str = DEFAULT_CATALOG
    schema: str = DEFAULT_SCHEMA

    def schema_name(self, catalog: str, schema: str) -> str:
        """Return the name in DuckDB of a schema."""
        return f"{catalog or self.catalog}.{schema or self.schema}".lower()


@dataclass(slots=True)
class Warehouse:
    """A connection to the warehouse.

    :ivar room: how many bytes of results are still kept.
    """

    connection: duckdb.DuckDBPyConnection
    room: int = MAX_RESULT_BYTES
    position: Position = field(default_factory=Position)

    def run(self, statement: exp.Expression) -> dict[str, Any]:
        """Run a statement and return its result."""
        if isinstance(statement, exp.Use):
            self._use(statement)
            return _result((), (), truncated=False)
        if _is_without_effect(statement):
            return _result((), (), truncated=False)
        for catalog in _catalogs(statement):
            self._add_schema(self.position.schema_name(catalog, DEFAULT_SCHEMA))
        text = self._with_schema_names(statement).sql(dialect="duckdb", identify=True)
        cursor = self.connection.execute(text)
        names = [column[0] for column in cursor.description or ()]
        rows: list[list[Any]] = []
        truncated = False
        while (row := cursor.fetchone()) is not None:
            values = [_as_json(value) for value in row]
            self.room -= len(json.dumps(values))
            if len(rows) == MAX_ROWS or self.room < 0:
                truncated = True
                break
            rows.append(values)
        return _result(names, rows, truncated=truncated)

    def enter(self) -> None:
        """Make the catalog and schema of the position the current ones."""
        catalog, schema = self.position.catalog, self.position.schema
        if schema == DEFAULT_SCHEMA:
            self._add_schema(self.position.schema_name(catalog, schema))
        name = self.position.schema_name(catalog, schema)
        self.connection.execute(f"USE {DATABASE}.{_quoted(name)}")

    def _use(self, statement: exp.Use) -> None:
        table: exp.Table = statement.this
        kind = str(statement.args.get("kind") or "").upper()
        before = self.position
        if kind == "CATALOG":
            self.position = Position(table.name)
        else:
            self.position = Position(table.db or before.catalog, table.name)
        try:
            self.enter()
        except duckdb.Error:
            self.position = before
            raise

    def _add_schema(self, name: str) -> None:
        self.connection.execute(f"CREATE SCHEMA IF NOT EXISTS {DATABASE}.{_quoted(name)}")

    def _with_schema_names(self, statement: exp.Expression) -> exp.Expression:
        """Replace catalog and schema by the schema's name in DuckDB; other names stay."""
        tables = [table for table in statement.find_all(exp.Table) if table.db]
        named = {_table_name(table, table.name) for table in tables}
        # Others are fields of a structure: table.column.field.
        columns = [
            column
            for column in statement.find_all(exp.Column)
            if _table_name(column, column.table) in named
        ]
        for node in (*tables, *columns):
            name = self.position.schema_name(node.text("catalog"), node.text("db"))
            node.set("db", exp.to_identifier(name, quoted=True))
            node.set("catalog", None)
        return statement


def main(arguments: Arguments) -> int:
    """Run the statements and write the results; return the exit code."""
    results: list[dict[str, Any]] = []
    error = None
    try:
        statements = read_statements(arguments.query, arguments.parameters)
        with connected(arguments) as warehouse:
            results += map(warehouse.run, statements)
    except (SqlError, duckdb.Error) as caught:
        error = str(caught)
    written = Path(arguments.result)
    partial = written.with_suffix(".partial")
    partial.write_text(json.dumps({"error": error, "results": results}), encoding="utf-8")
    partial.replace(written)
    return 0 if error is None else 1


@contextmanager
def connected(arguments: Arguments) -> Iterator[Warehouse]:
    """Open the warehouse, which one process at a time may do; wait for the others."""
    with Path(arguments.database).with_suffix(".lock").open("w") as lock:
        try:
            import fcntl
        except ImportError:  # pragma: no cover  (Windows)
            pass
        else:
            fcntl.flock(lock, fcntl.LOCK_EX)
        config = {
            # Nothing is downloaded.
            "autoinstall_known_extensions": "false",
            "temp_directory": arguments.temporary_folder,
        }
        with duckdb.connect(":memory:", config=config) as connection:
            path = exp.Literal.string(arguments.database).sql(dialect="duckdb")
            connection.execute(f"ATTACH {path} AS {DATABASE}")
            warehouse = Warehouse(connection)
            warehouse.enter()
            yield warehouse


def read_statements(query: str, parameters: Mapping[str, str]) -> list[exp.Expression]:
    """Return the statements of a text, the values of the parameters in their places.

    :raises SqlError: the text cannot be read, or a parameter has no value.
    """
    logging.getLogger("sqlglot").setLevel(logging.ERROR)
    try:
        statements = parse(_with_identifiers(query, parameters), read=DIALECT)
    except ParseError as error:
        where = error.errors[0]
        raise SqlError(
            f"[PARSE_SYNTAX_ERROR] Syntax error at or near '{where['highlight']}'. "
            f"SQLSTATE: 42601 (line {where['line']}, pos {where['col']})"
        ) from None
    except TokenError as error:
        raise SqlError(f"[PARSE_SYNTAX_ERROR] {error}. SQLSTATE: 42601") from None
    read = [one for one in statements if one is not None and not isinstance(one, exp.Semicolon)]
    for statement in read:
        for placeholder in [*statement.find_all(exp.Placeholder)]:
            value = _value(placeholder.name, parameters)
            placeholder.replace(exp.Literal.string(value))
    return read


def _value(name: str, parameters: Mapping[str, str]) -> str:
    if name not in parameters:
        raise SqlError(
            f"[UNBOUND_SQL_PARAMETER] Found the unbound parameter: {name}. "
            "Add it to the parameters of the task. SQLSTATE: 42P02"
        )
    return parameters[name]


def _with_identifiers(query: str, parameters: Mapping[str, str]) -> str:
    """Replace each ``IDENTIFIER(:name)`` and ``IDENTIFIER('name')`` by the name in quotes."""
    tokens = Tokenizer(dialect=DIALECT).tokenize(query)
    made: list[str] = []
    end = 0
    for index, token in enumerate(tokens):
        if token.text.upper() != "IDENTIFIER":
            continue
        match _kinds(tokens[index + 1 : index + 5]):
            case [TokenType.L_PAREN, TokenType.COLON, _, TokenType.R_PAREN]:
                name = _value(tokens[index + 3].text, parameters)
                last = tokens[index + 4]
            case [TokenType.L_PAREN, TokenType.STRING, TokenType.R_PAREN, *_]:
                name = tokens[index + 2].text
                last = tokens[index + 3]
            case _:
                continue
        parts = [part.name.replace("`", "``") for part in exp.to_table(name, dialect=DIALECT).parts]
        made += query[end : token.start], ".".join(f"`{part}`" for part in parts)
        end = last.end + 1
    return "".join((*made, query[end:]))


def _kinds(tokens: Sequence[Token]) -> list[TokenType]:
    return [token.token_type for token in tokens]


def _is_without_effect(statement: exp.Expression) -> bool:
    if isinstance(statement, exp.Command):
        words = [statement.name.upper(), *str(statement.expression.name).upper().split()[:1]]
        return words[0] in WITHOUT_EFFECT or words == ["CREATE", "CATALOG"]
    return type(statement).__name__.upper() in WITHOUT_EFFECT


def _catalogs(statement: exp.Expression) -> set[str]:
    return {table.catalog for table in statement.find_all(exp.Table) if table.catalog}


def _table_name(node: exp.Expression, table: str) -> tuple[str, str, str]:
    return node.text("catalog").lower(), node.text("db").lower(), table.lower()


def _quoted(name: str) -> str:
    return str(exp.to_identifier(name, quoted=True).sql(dialect="duckdb"))


def _result(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], *, truncated: bool
) -> dict[str, Any]:
    return {"columns": columns, "rows": rows, "truncated": truncated}


def _as_json(value: Any) -> Any:
    """Return a value of DuckDB as JSON has it; what JSON does not have is text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(name): _as_json(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(one) for one in value]
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


if __name__ == "__main__":
    sys.exit(main(Arguments(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
