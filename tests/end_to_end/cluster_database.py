"""The metadata database of a whole Airflow for the tests: a SQLite file, or one of a server."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy

from tests.end_to_end.airflow_versions import AIRFLOW_3_0

__all__ = ["DATABASE_OPTION", "ClusterDatabase", "utc_time"]

DATABASE_OPTION = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
MIGRATION_SECONDS = 300
# How long a component waits until it may write to SQLite. The API server gives up soon and is asked
# again: its requests may wait for each other, and meanwhile nobody else writes. Airflow 3.0 uses a
# session again that could not write, and all requests of that thread fail then. A scheduler or a
# triggerer that gives up ends.
SQLITE_SECONDS = 60
API_SERVER_SQLITE_SECONDS = 20 if AIRFLOW_3_0 else 5


class ClusterDatabase:
    """The metadata database of one Airflow.

    :param home: the folder of the Airflow.
    :param server: URL of the database server; empty for SQLite.
    :param name: name of the new database on the server.
    """

    def __init__(self, home: Path, server: str, name: str) -> None:
        self._home, self._server, self._name = home, server, name
        self.is_sqlite = not server
        self.url = self._sqlite(SQLITE_SECONDS) if self.is_sqlite else f"{server}/{name}"
        self._engine = sqlalchemy.create_engine(self.url, poolclass=sqlalchemy.pool.NullPool)

    @property
    def url_for_api_server(self) -> str:
        """The URL for the API server."""
        return self._sqlite(API_SERVER_SQLITE_SECONDS) if self.is_sqlite else self.url

    def _sqlite(self, seconds: int) -> str:
        return f"sqlite:///{self._home}/airflow.db?timeout={seconds}"

    def rows(self, query: str, **parameters: object) -> list[tuple[Any, ...]]:
        """Return what the database has."""
        with self._engine.connect() as database:
            return [tuple(row) for row in database.execute(sqlalchemy.text(query), parameters)]

    def create(self, environment: dict[str, str]) -> None:
        """Make the database, and airflow.cfg, whose secrets all components share.

        :param environment: that of Airflow's commands.
        """
        if not self.is_sqlite:
            server = sqlalchemy.create_engine(
                f"{self._server}/postgres", isolation_level="AUTOCOMMIT"
            )
            with server.connect() as database:
                database.execute(sqlalchemy.text(f"create database {self._name}"))
        elif _Migrated.first is not None:
            _Migrated.first.copy_to(self._home)
            return
        with (self._home / "db.log").open("wb") as log:
            subprocess.run(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=MIGRATION_SECONDS,
                check=True,
            )
        if self.is_sqlite:
            with closing(sqlite3.connect(self._home / "airflow.db")) as database:
                # Stays with the file: readers no longer wait for writers.
                database.execute("PRAGMA journal_mode=WAL")
                _number_triggers_once(database)
            _Migrated.first = _Migrated.of(self._home)

    def is_writable(self) -> bool:
        """Whether nobody keeps the SQLite file locked."""
        with closing(sqlite3.connect(self._home / "airflow.db", timeout=5)) as database:
            try:
                database.execute("begin immediate")
            except sqlite3.OperationalError:
                return False
            return True


@dataclass(frozen=True)
class _Migrated:
    """A home as ``airflow db migrate`` leaves it; copied, since that takes many seconds."""

    first: ClassVar[_Migrated | None] = None

    home: Path
    database: bytes
    configuration: str

    @classmethod
    def of(cls, home: Path) -> _Migrated:
        """Read a home in which no component has started."""
        files = home / "airflow.db", home / "airflow.cfg"
        return cls(home, files[0].read_bytes(), files[1].read_text())

    def copy_to(self, home: Path) -> None:
        """Fill an empty home."""
        (home / "airflow.db").write_bytes(self.database)
        configuration = self.configuration.replace(str(self.home), str(home))
        (home / "airflow.cfg").write_text(configuration)


def utc_time(noted: datetime | str) -> datetime:
    """Return a time as the database has it: SQLite has text, in UTC."""
    if isinstance(noted, str):
        return datetime.fromisoformat(noted).replace(tzinfo=UTC)
    return noted


def _number_triggers_once(database: sqlite3.Connection) -> None:
    """Let no trigger have the number of one that is gone, as it is in any other database.

    A triggerer tells triggers apart by their numbers.
    """
    of_table = "from sqlite_master where tbl_name = 'trigger' and sql is not null"
    statements = [sql for (sql,) in database.execute(f"select sql {of_table} order by type desc")]
    statements[0], changes = re.subn(
        r"id INTEGER NOT NULL(.*),\s*CONSTRAINT \w+ PRIMARY KEY \(id\)",
        r"id INTEGER PRIMARY KEY AUTOINCREMENT\1",
        statements[0],
        flags=re.DOTALL,
    )
    assert changes == 1, statements[0]
    database.execute("drop table trigger")
    for statement in statements:
        database.execute(statement)
    database.commit()
