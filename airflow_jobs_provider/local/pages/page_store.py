"""Reads the store for pages, in threads: a search through all runs does not delay the API."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.engine.model import Job, Run
from airflow_jobs_provider.local.engine.store import Store
from airflow_jobs_provider.local.pages.states import ACTIVE, StateKind, kind_of_states

__all__ = ["ACTIVE_RUNS", "PageStore", "RunFilter", "without_clusters"]

ACTIVE_RUNS = "active"
_CACHE_KIB = 512
_NEW_CLUSTER = "new_cluster"


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs a page lists.

    :param job_id: runs of this job.
    :param state: the name of a :class:`StateKind` in lower case, or ``active``.
    :param text: in the run's name, its tasks and parameters, or equal to its id.
    :param before: runs with lower ids.
    :param after: runs with higher ids; those nearest to it.
    """

    job_id: int | None = None
    state: str = ""
    text: str = ""
    before: int | None = None
    after: int | None = None

    @property
    def kinds(self) -> frozenset[StateKind]:
        """The states that are searched; all if the filter does not name one."""
        if self.state == ACTIVE_RUNS:
            return ACTIVE
        return frozenset(kind for kind in StateKind if kind.name.lower() == self.state)


class PageStore(Store):
    """A connection of its own, which cannot write; used by one thread at a time."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._db = sqlite3.connect(
            f"{file.as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        # These rules are written in Python once; SQL asks them.
        self._db.create_function("state_kind", 2, _kind_name, deterministic=True)
        self._db.create_function("has_text", 2, _has_text, deterministic=True)

    def search_runs(self, wanted: RunFilter, limit: int) -> list[Run]:
        """Return the runs that a filter selects, the newest first."""
        conditions, values = ["deleted = 0", "parent_run_id IS NULL"], list[Any]()
        if wanted.job_id is not None:
            conditions.append("job_id = ?")
            values.append(wanted.job_id)
        if wanted.kinds:
            names = [kind.name for kind in wanted.kinds]
            if wanted.kinds <= ACTIVE:
                conditions.append("ended = 0")
            conditions.append(
                "state_kind(json_extract(record, '$.life_cycle_state'),"
                f" json_extract(record, '$.result_state')) IN ({', '.join('?' * len(names))})"
            )
            values += names
        if wanted.text:
            conditions.append("(run_id = ? OR has_text(record, ?))")
            values += [wanted.text, wanted.text.casefold()]
        for condition, bound in (("run_id < ?", wanted.before), ("run_id > ?", wanted.after)):
            if bound is not None:
                conditions.append(condition)
                values.append(bound)
        order = "ASC" if wanted.after is not None else "DESC"
        rows = self._db.execute(
            f"SELECT record FROM runs WHERE {' AND '.join(conditions)}"  # noqa: S608  (as above)
            f" ORDER BY run_id {order} LIMIT ?",
            (*values, limit),
        )
        runs = [Run(**json.loads(record)) for (record,) in rows]
        return runs[::-1] if wanted.after is not None else runs

    def search_jobs(self, text: str, *, limit: int, offset: int) -> list[Job]:
        """Return the jobs whose name has a text in it, the newest first."""
        rows = self._db.execute(
            "SELECT record FROM jobs WHERE deleted = 0 AND name LIKE ? ESCAPE '\\'"
            " ORDER BY job_id DESC LIMIT ? OFFSET ?",
            (_like(text), limit, offset),
        )
        return [Job(**json.loads(record)) for (record,) in rows]

    def attempts(self, run: Run) -> list[Run]:
        """Return the run and the other attempts at it, the first one first."""
        rows = self._db.execute(
            "SELECT record FROM runs WHERE job_id = ? AND deleted = 0"
            " AND json_extract(record, '$.original_attempt_run_id') = ? ORDER BY run_id",
            (run.job_id, run.original_attempt_run_id),
        )
        return [Run(**json.loads(record)) for (record,) in rows]

    def version(self, run_id: int) -> str:
        """Return a text that changes with the state of a run, or of a task of it."""
        rows = self._db.execute(
            "SELECT run_id, json_extract(record, '$.life_cycle_state'),"
            " json_extract(record, '$.result_state') FROM runs"
            " WHERE run_id = ? OR parent_run_id = ? ORDER BY run_id",
            (run_id, run_id),
        )
        return f"{hash(tuple(rows)) & 0xFFFFFFFFFFFF:x}"


def _kind_name(life_cycle_state: str, result_state: str | None) -> str:
    return kind_of_states(life_cycle_state, result_state).name


def without_clusters(tasks: Any) -> Any:
    """Return tasks without the clusters that they start, whose environment may hold secrets."""
    if isinstance(tasks, dict):
        return {
            name: without_clusters(value) for name, value in tasks.items() if name != _NEW_CLUSTER
        }
    if isinstance(tasks, list):
        return [without_clusters(task) for task in tasks]
    return tasks


def _has_text(record: str, text: str) -> bool:
    """Return whether a text is in the name of a run, its tasks or its parameters.

    Nothing is searched that the pages do not show: whoever searches could find out what it is.
    """
    run = json.loads(record)
    tasks = without_clusters([run["task"], run["tasks"]])
    parameters = [run["overriding_parameters"], run["job_parameters"]]
    searched = [run["run_name"], tasks, parameters]
    return text in json.dumps(searched, ensure_ascii=False).casefold()


def _like(text: str) -> str:
    """Return the pattern of LIKE for texts that contain this one."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
