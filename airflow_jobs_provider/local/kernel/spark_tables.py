"""Tables and views of Spark that outlive the run that made them.

Without a Hive metastore Spark forgets its catalog when its process ends, and a Derby metastore can
be opened by one process at a time. So each session writes the definitions of its tables to files,
and reads those that other sessions have written:

- ``databases/DATABASE.json`` and ``tables/DATABASE.TABLE.json`` are the definitions;
- ``data/NAME`` is the warehouse folder of one session. Each session has one of its own, so that two
  runs that make a table of the same name do not write to the same files. A table stays in the
  folder of the session that made it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["SparkTables", "forgets_tables", "new_warehouse", "remove_unused_warehouses"]

_DATABASES = "databases"
_TABLES = "tables"
_DATA = "data"
_DEFAULT = "default"
_PARTIAL_SUFFIX = ".partial"
# In the warehouse folders of sessions whose tables have definitions here.
_MARK = ".defined"
_PLAIN_NAME = re.compile(r"\w+")
_MANAGED, _VIEW = "MANAGED", "VIEW"
_Stamp = tuple[int, int, int]
_Definition = tuple[_Stamp, dict[str, Any]]


def new_warehouse(folder: Path) -> Path:
    """Return the warehouse folder of a new session; Spark creates it.

    :param folder: the folder of all sessions.
    """
    return folder / _DATA / secrets.token_hex(8)


def remove_unused_warehouses(folder: Path) -> None:
    """Remove the warehouse folders that no table is in. No session may be running."""
    for partial in folder.glob(f"*/*{_PARTIAL_SUFFIX}"):
        partial.unlink()
    definitions = [_read(file) for file in (folder / _TABLES).glob("*.json")]
    locations = [one["location"] for one in definitions if one and one["location"]]
    for mark in (folder / _DATA).glob(f"*/{_MARK}"):
        warehouse = mark.parent
        if not any(f"{_DATA}/{warehouse.name}/" in location for location in locations):
            shutil.rmtree(warehouse, ignore_errors=True)


def forgets_tables(session: Any) -> bool:
    """Return whether a session is one whose tables end with its process.

    Spark Connect has a server with a catalog of its own, and users may have a Hive metastore.
    """
    return (
        hasattr(session, "_jsparkSession")
        and session.conf.get("spark.sql.catalogImplementation") == "in-memory"
    )


@dataclass(slots=True)
class _Known:
    """A definition as this session has read or written it.

    :param stamp: of its file.
    :param entry: Spark's own description of the table; None if Spark refused the definition.
    :param partitions: how many partitions the table had.
    """

    stamp: _Stamp
    entry: Any
    partitions: int = 0


class SparkTables:
    """The tables and databases that a session has in common with other runs.

    :param session: the session, one that forgets its tables.
    :param folder: the folder of all sessions.
    :param warehouse: the session's own warehouse folder.
    """

    def __init__(self, session: Any, folder: Path, warehouse: Path) -> None:
        self._folder = folder
        # The notebook's current database and settings are not to matter here.
        self._own = session.newSession()
        # pyspark itself has no way to these.
        self._jvm = session._jvm  # noqa: SLF001
        state = session._jsparkSession  # noqa: SLF001
        self._catalog = state.sharedState().externalCatalog()
        self._cached = state.sessionState().catalog()
        self._classes = self._jvm.org.apache.spark.sql.catalyst.catalog
        self._databases = {_DEFAULT}
        self._known: dict[str, _Known] = {}
        self._warned: set[str] = set()
        for made in (folder / _DATABASES, folder / _TABLES, warehouse):
            made.mkdir(parents=True, exist_ok=True)
        (warehouse / _MARK).touch()

    def write(self) -> None:
        """Write the definitions that this session has changed, and remove those it has dropped."""
        databases = set(_texts(self._catalog.listDatabases()))
        for database in self._databases - databases:
            self._database_file(database).unlink(missing_ok=True)
        for database in databases - self._databases:
            self._write_database(database)
        self._databases = databases
        tables = {
            f"{database}.{table}"
            for database in databases
            for table in _texts(self._catalog.listTables(database))
        }
        for name in tables:
            self._write_table(name)
        for name, known in list(self._known.items()):
            if known.entry is not None and name not in tables:
                del self._known[name]
                file = self._table_file(name)
                # Unless another run has made one of that name since.
                if _stamp(file) == known.stamp:
                    file.unlink(missing_ok=True)

    def read(self) -> None:
        """Take over the definitions that other sessions have written or removed since."""
        for file in (self._folder / _DATABASES).glob("*.json"):
            self._define_database(file.stem)
        files = {file.stem: file for file in (self._folder / _TABLES).glob("*.json")}
        for name in self._known.keys() - files:
            self._forget(name)
        tables: dict[str, _Definition] = {}
        views: dict[str, _Definition] = {}
        for name, file in files.items():
            stamp = _stamp(file)
            if name in self._known and self._known[name].stamp == stamp:
                continue
            definition = _read(file)
            if stamp is None or definition is None:  # removed meanwhile
                continue
            self._forget(name)
            (views if definition["type"] == _VIEW else tables)[name] = stamp, definition
        refused = self._define_all(tables)
        # A view may be of another view, most likely of an older one.
        views = dict(sorted(views.items(), key=lambda item: item[1][1]["created"]))
        while views:
            refused_views = self._define_all(views)
            if len(refused_views) == len(views):
                refused |= refused_views
                break
            views = {name: views[name] for name in refused_views}
        for name, reason in refused.items():
            self._warn(f"This run does not know the table {name}: {reason}")
        # Other runs may have written to tables whose files this session has listed.
        self._cached.invalidateAllCachedTables()

    def _write_database(self, database: str) -> None:
        entry = self._catalog.getDatabase(database)
        location = self._path_of(entry.locationUri())
        # In a warehouse folder it is this session's; others have theirs.
        given = None if self._is_own(location) else location
        _write_whole(
            self._database_file(database), {"comment": entry.description(), "location": given}
        )

    def _write_table(self, name: str) -> None:
        database, _, table = name.partition(".")
        entry = self._catalog.getTable(database, table)
        partitions = self._partitions(entry)
        known = self._known.get(name)
        if (
            known is not None
            and known.entry is not None
            and known.partitions == partitions
            and known.entry.equals(entry)
        ):
            return
        kind: str = entry.tableType().name()
        namespace = [*_texts(entry.viewCatalogAndNamespace())][1:] or [database]
        if not (_PLAIN_NAME.fullmatch(database) and _PLAIN_NAME.fullmatch(table)):
            self._warn(f"The table {name} ends with this run: its name cannot be a file's")
            return
        try:
            [(sql,)] = self._own.sql(f"SHOW CREATE TABLE `{database}`.`{table}`").collect()
        except Exception as error:  # noqa: BLE001  (Spark's are many; the notebook goes on)
            self._warn(f"The table {name} ends with this run: {_first_line(error)}")
            return
        location = None if kind == _VIEW else self._path_of(entry.location())
        if location is not None and self._is_own(location):
            # The state folder may be moved.
            location = location.partition(f"{self._folder}/")[2]
        definition = {
            "type": kind,
            "sql": sql,
            "location": location,
            "namespace": namespace[0],
            "created": int(entry.createTime()),
        }
        stamp = _write_whole(self._table_file(name), definition)
        self._known[name] = _Known(stamp, entry, partitions)

    def _define_all(self, definitions: dict[str, _Definition]) -> dict[str, str]:
        """Define tables in this session, and return those that Spark refuses with its reason."""
        refused: dict[str, str] = {}
        for name, (stamp, definition) in definitions.items():
            try:
                entry = self._define(name, definition)
            except Exception as error:  # noqa: BLE001  (the notebook may not need the table)
                refused[name] = _first_line(error)
                self._known[name] = _Known(stamp, None)
            else:
                self._known[name] = _Known(stamp, entry, self._partitions(entry))
        return refused

    def _define(self, name: str, definition: dict[str, Any]) -> Any:
        database, _, table = name.partition(".")
        sql, kind = definition["sql"], definition["type"]
        if kind == _MANAGED:
            # It is in the warehouse folder of another session.
            location = definition["location"]
            if location.startswith(f"{_DATA}/"):
                location = str(self._folder / location)
            sql = f"{sql}\nLOCATION {_literal(location)}"
        self._define_database(database)
        self._own.sql(f"USE `{definition['namespace']}`")
        self._own.sql(sql)
        try:
            entry = self._catalog.getTable(database, table)
            if kind == _MANAGED:
                # With a location it is EXTERNAL, and dropping it would leave its files.
                entry = self._set_type(entry, _MANAGED)
            if entry.tracksPartitionsInCatalog():
                self._own.sql(f"MSCK REPAIR TABLE `{database}`.`{table}`")
                entry = self._catalog.getTable(database, table)
        except Exception:
            self._remove(database, table)
            raise
        return entry

    def _define_database(self, database: str) -> None:
        if database in self._databases or self._catalog.databaseExists(database):
            return
        given = _read(self._database_file(database)) or {"comment": "", "location": None}
        location = f" LOCATION {_literal(given['location'])}" if given["location"] else ""
        self._own.sql(
            f"CREATE DATABASE `{database}` COMMENT {_literal(given['comment'])}{location}"
        )
        self._databases.add(database)

    def _forget(self, name: str) -> None:
        """Remove a table from this session's catalog; its files are another session's."""
        if self._known.pop(name, None) is not None:
            database, _, table = name.partition(".")
            self._remove(database, table)

    def _remove(self, database: str, table: str) -> None:
        if not self._catalog.tableExists(database, table):
            return
        entry = self._catalog.getTable(database, table)
        if entry.tableType().name() == _MANAGED:
            self._set_type(entry, "EXTERNAL")
        self._catalog.dropTable(database, table, True, False)

    def _set_type(self, entry: Any, kind: str) -> Any:
        values = [entry.productElement(index) for index in range(entry.productArity())]
        # The fields of Spark's class CatalogTable begin with identifier and tableType.
        values[1] = getattr(self._classes.CatalogTableType, kind)()
        self._catalog.alterTable(self._classes.CatalogTable(*values))
        return self._catalog.getTable(entry.database(), entry.identifier().table())

    def _partitions(self, entry: Any) -> int:
        if not entry.tracksPartitionsInCatalog():
            return 0
        table = entry.identifier().table()
        of_all = self._jvm.scala.Option.empty()
        return int(self._catalog.listPartitionNames(entry.database(), table, of_all).size())

    def _is_own(self, location: str) -> bool:
        return f"{self._folder / _DATA}/" in location

    def _path_of(self, uri: Any) -> str:
        return str(self._classes.CatalogUtils.URIToString(uri))

    def _database_file(self, database: str) -> Path:
        return self._folder / _DATABASES / f"{database}.json"

    def _table_file(self, name: str) -> Path:
        return self._folder / _TABLES / f"{name}.json"

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            sys.stderr.write(f"{message}\n")


def _texts(sequence: Any) -> list[str]:
    """Return the texts of a Scala sequence of names, which have no line breaks."""
    joined: str = sequence.mkString("\n")
    return joined.split("\n") if joined else []


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:500] or type(error).__name__


def _read(file: Path) -> dict[str, Any] | None:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    read: dict[str, Any] = json.loads(text)
    return read


def _write_whole(file: Path, definition: dict[str, Any]) -> _Stamp:
    """Write a file whole or not at all: others read it meanwhile."""
    partial = file.with_name(f"{secrets.token_hex(8)}{_PARTIAL_SUFFIX}")
    partial.write_text(json.dumps(definition), encoding="utf-8")
    stamp = _stamp(partial)
    partial.replace(file)
    assert stamp is not None
    return stamp


def _stamp(file: Path) -> _Stamp | None:
    """Return what tells one version of a file from the next; None if there is no file."""
    try:
        found = os.stat(file)  # noqa: PTH116  (shorter)
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
