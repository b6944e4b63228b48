"""Stores jobs and runs in SQLite, durable across crashes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.engine.model import Job, Output, Run, now_millis

__all__ = ["Store"]

_KEPT_MILLIS = 60 * 24 * 3600 * 1000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS ids (last INTEGER NOT NULL);
INSERT INTO ids SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM ids);
CREATE TABLE IF NOT EXISTS jobs (
    job_id INTEGER PRIMARY KEY,
    deleted INTEGER NOT NULL DEFAULT 0,
    runs INTEGER NOT NULL DEFAULT 0,
    name TEXT NOT NULL,
    record TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS runs (
    run_id INTEGER PRIMARY KEY,
    job_id INTEGER NOT NULL,
    run_type TEXT NOT NULL,
    parent_run_id INTEGER,
    ended INTEGER NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0,
    start_time INTEGER NOT NULL,
    idempotency_token TEXT,
    record TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS outputs (run_id INTEGER PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS secret_scopes (scope TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS secrets (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    updated INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE UNIQUE INDEX IF NOT EXISTS runs_by_token ON runs (idempotency_token)
    WHERE idempotency_token IS NOT NULL;
CREATE INDEX IF NOT EXISTS runs_by_job ON runs (job_id);
CREATE INDEX IF NOT EXISTS runs_by_parent ON runs (parent_run_id, run_id)
    WHERE parent_run_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS runs_live ON runs (ended) WHERE ended = 0;
"""


class Store:
    """The store. Used from one thread; each call is short."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        # A write-ahead log loses nothing when this process is killed, and costs no fsync a write.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)

    @property
    def changes(self) -> int:
        """A number that grows with each change through this connection."""
        return self._db.total_changes

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the statements inside in one transaction."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def new_id(self) -> int:
        """Return a new id, unique among jobs and runs.

        Jobs and runs draw from one sequence, so that taking one for the other never works.
        """
        (last,) = self._db.execute("UPDATE ids SET last = last + 1 RETURNING last").fetchone()
        return int(last)

    # Jobs

    def add_job(self, job: Job, *, hidden: bool = False) -> None:
        """Store a job; the job of a one-time run is hidden from all endpoints."""
        self._db.execute(
            "INSERT INTO jobs (job_id, deleted, name, record) VALUES (?, ?, ?, ?)",
            (job.job_id, 2 if hidden else 0, *_job_columns(job)),
        )

    def save_job(self, job: Job) -> None:
        """Update a job's settings and permissions."""
        self._db.execute(
            "UPDATE jobs SET name = ?, record = ? WHERE job_id = ?",
            (*_job_columns(job), job.job_id),
        )

    def job(self, job_id: int) -> Job | None:
        """Return a job, or None if it does not exist (any more)."""
        row = self._db.execute(
            "SELECT record FROM jobs WHERE job_id = ? AND deleted = 0", (job_id,)
        ).fetchone()
        return Job(**json.loads(row[0])) if row else None

    def was_job(self, job_id: int) -> bool:
        """Return whether a job of that id existed and was deleted."""
        query = "SELECT 1 FROM jobs WHERE job_id = ? AND deleted = 1"
        return self._db.execute(query, (job_id,)).fetchone() is not None

    def jobs(self, *, limit: int = -1, offset: int = 0, name: str | None = None) -> list[Job]:
        """Return jobs, the newest first."""
        where, values = "deleted = 0", []
        if name is not None:
            where, values = "deleted = 0 AND lower(name) = lower(?)", [name]
        rows = self._db.execute(
            f"SELECT record FROM jobs WHERE {where}"  # noqa: S608  (conditions written above)
            " ORDER BY job_id DESC LIMIT ? OFFSET ?",
            (*values, limit, offset),
        )
        return [Job(**json.loads(record)) for (record,) in rows]

    def delete_job(self, job_id: int) -> None:
        """Delete a job and its history."""
        self._db.execute("UPDATE jobs SET deleted = 1 WHERE job_id = ?", (job_id,))
        self._db.execute("UPDATE runs SET deleted = 1 WHERE job_id = ?", (job_id,))

    def job_count(self) -> int:
        """Return how many jobs there are."""
        (count,) = self._db.execute("SELECT count(*) FROM jobs WHERE deleted = 0").fetchone()
        return int(count)

    def next_number_in_job(self, job_id: int) -> int:
        """Return the sequence number of a job's next run."""
        query = "UPDATE jobs SET runs = runs + 1 WHERE job_id = ? RETURNING runs"
        (number,) = self._db.execute(query, (job_id,)).fetchone()
        return int(number)

    # Runs

    def add_runs(self, runs: Iterable[Run]) -> None:
        """Store new runs.

        :raises sqlite3.IntegrityError: if the idempotency token has been used.
        """
        self._db.executemany(
            "INSERT INTO runs (run_id, job_id, run_type, parent_run_id, ended, start_time,"
            " idempotency_token, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    run.run_id,
                    run.job_id,
                    str(run.run_type),
                    run.parent_run_id,
                    run.has_ended,
                    run.start_time,
                    run.idempotency_token,
                    _dump(run.as_record()),
                )
                for run in runs
            ],
        )

    def save_run(self, run: Run) -> None:
        """Update a run."""
        self._db.execute(
            "UPDATE runs SET ended = ?, start_time = ?, record = ? WHERE run_id = ?",
            (run.has_ended, run.start_time, _dump(run.as_record()), run.run_id),
        )

    def run(self, run_id: int) -> Run | None:
        """Return a run, or None if it does not exist (any more)."""
        query = "SELECT record FROM runs WHERE run_id = ? AND deleted = 0"
        row = self._db.execute(query, (run_id,)).fetchone()
        return _run(row[0]) if row else None

    def run_of_token(self, token: str) -> tuple[Run, bool] | None:
        """Return the run that was launched with an idempotency token, and whether it is deleted."""
        query = "SELECT record, deleted FROM runs WHERE idempotency_token = ?"
        row = self._db.execute(query, (token,)).fetchone()
        return (_run(row[0]), bool(row[1])) if row else None

    def runs(
        self,
        *,
        limit: int,
        offset: int = 0,
        before_run_id: int | None = None,
        job_id: int | None = None,
        ended: bool | None = None,
        run_type: str | None = None,
        started_from: int | None = None,
        started_to: int | None = None,
    ) -> list[Run]:
        """Return runs, the most recently started first; the runs of single tasks are left out."""
        conditions: list[str] = ["deleted = 0", "parent_run_id IS NULL"]
        values: list[Any] = []
        for condition, value in (
            ("job_id = ?", job_id),
            ("ended = ?", ended),
            ("run_type = ?", run_type),
            ("run_id < ?", before_run_id),
            ("start_time >= ?", started_from),
            ("start_time <= ?", started_to),
        ):
            if value is not None:
                conditions.append(condition)
                values.append(value)
        rows = self._db.execute(
            f"SELECT record FROM runs WHERE {' AND '.join(conditions)}"  # noqa: S608  (as above)
            " ORDER BY run_id DESC LIMIT ? OFFSET ?",
            (*values, limit, offset),
        )
        return [_run(record) for (record,) in rows]

    def all_runs(self) -> list[Run]:
        """Return all runs in the order of their launches: deleted ones and single tasks' too."""
        rows = self._db.execute("SELECT record FROM runs ORDER BY run_id")
        return [_run(record) for (record,) in rows]

    def task_runs(self, parent_run_ids: Sequence[int]) -> list[Run]:
        """Return the runs of the single tasks of runs of the ``tasks`` form."""
        if not parent_run_ids:
            return []
        marks = ", ".join("?" * len(parent_run_ids))
        rows = self._db.execute(
            f"SELECT record FROM runs WHERE parent_run_id IN ({marks})"  # noqa: S608  (marks only)
            " ORDER BY run_id",
            list(parent_run_ids),
        )
        return [_run(record) for (record,) in rows]

    def save_output(self, run_id: int, output: Output) -> None:
        """Store a run's output; apart from the run, since it may be large and is read seldom."""
        self._db.execute(
            "INSERT OR REPLACE INTO outputs (run_id, record) VALUES (?, ?)",
            (run_id, _dump(asdict(output))),
        )

    def output(self, run_id: int) -> Output:
        """Return what a run left."""
        query = "SELECT record FROM outputs WHERE run_id = ?"
        row = self._db.execute(query, (run_id,)).fetchone()
        return Output(**json.loads(row[0])) if row else Output()

    def live_runs(self) -> list[Run]:
        """Return all runs that have not ended, deleted ones and single tasks' too."""
        rows = self._db.execute("SELECT record FROM runs WHERE ended = 0 ORDER BY run_id")
        return [_run(record) for (record,) in rows]

    def active_count(self, job_id: int) -> int:
        """Return how many runs of a job are active."""
        query = "SELECT count(*) FROM runs WHERE ended = 0 AND job_id = ? AND parent_run_id IS NULL"
        (count,) = self._db.execute(query, (job_id,)).fetchone()
        return int(count)

    def active_task_runs(self) -> int:
        """Return how many runs of tasks are active; a run of several tasks is none itself."""
        query = "SELECT count(*) - count(DISTINCT parent_run_id) FROM runs WHERE ended = 0"
        (count,) = self._db.execute(query).fetchone()
        return int(count)

    def delete_run(self, run_id: int) -> None:
        """Delete a run; its row stays, so that its idempotency token is still known as used."""
        self._db.execute(
            "UPDATE runs SET deleted = 1 WHERE run_id = :id OR parent_run_id = :id"
            " OR parent_run_id IN (SELECT run_id FROM runs WHERE parent_run_id = :id)",
            {"id": run_id},
        )

    def cluster_ids(self) -> list[str]:
        """Return the clusters that jobs and runs have named."""
        rows = self._db.execute(
            "SELECT DISTINCT json_extract(record, '$.cluster_spec.existing_cluster_id') FROM runs"
            " UNION SELECT json_extract(record, '$.settings.existing_cluster_id') FROM jobs"
            " UNION SELECT json_extract(task.value, '$.existing_cluster_id')"
            " FROM jobs, json_each(jobs.record, '$.settings.tasks') AS task"
        )
        return sorted(str(name) for (name,) in rows if name)

    # Secrets

    def secret_scopes(self) -> list[str]:
        """Return the scopes."""
        rows = self._db.execute("SELECT scope FROM secret_scopes ORDER BY scope")
        return [scope for (scope,) in rows]

    def add_secret_scope(self, scope: str) -> bool:
        """Add a scope; return False if there is one of that name."""
        query = "INSERT OR IGNORE INTO secret_scopes VALUES (?)"
        return self._db.execute(query, (scope,)).rowcount > 0

    def delete_secret_scope(self, scope: str) -> None:
        """Delete a scope and its secrets."""
        self._db.execute("DELETE FROM secrets WHERE scope = ?", (scope,))
        self._db.execute("DELETE FROM secret_scopes WHERE scope = ?", (scope,))

    def put_secret(self, scope: str, key: str, value: bytes, updated: int) -> None:
        """Store a secret."""
        query = "INSERT OR REPLACE INTO secrets VALUES (?, ?, ?, ?)"
        self._db.execute(query, (scope, key, value, updated))

    def secret(self, scope: str, key: str) -> bytes | None:
        """Return a secret; None if there is none."""
        query = "SELECT value FROM secrets WHERE scope = ? AND key = ?"
        row = self._db.execute(query, (scope, key)).fetchone()
        return bytes(row[0]) if row else None

    def secrets(self, scope: str) -> list[tuple[str, int]]:
        """Return the keys of a scope, each with the time of its last change."""
        query = "SELECT key, updated FROM secrets WHERE scope = ? ORDER BY key"
        return [(key, int(updated)) for key, updated in self._db.execute(query, (scope,))]

    def delete_secret(self, scope: str, key: str) -> bool:
        """Delete a secret; return whether there was one."""
        query = "DELETE FROM secrets WHERE scope = ? AND key = ?"
        return self._db.execute(query, (scope, key)).rowcount > 0

    def forget_old_runs(self) -> list[int]:
        """Remove runs older than 60 days, as the service does, and return their ids."""
        rows = self._db.execute(
            "DELETE FROM runs WHERE ended = 1 AND start_time < ? RETURNING run_id",
            (now_millis() - _KEPT_MILLIS,),
        ).fetchall()
        self._db.executemany("DELETE FROM outputs WHERE run_id = ?", rows)
        return [int(run_id) for (run_id,) in rows]


def _dump(record: dict[str, Any]) -> str:
    # A notebook may print and return what UTF-8 cannot hold; the escapes of ASCII can.
    return json.dumps(record, ensure_ascii=True, separators=(",", ":"))


def _job_columns(job: Job) -> tuple[str, str]:
    record = {
        "job_id": job.job_id,
        "settings": job.settings,
        "created_time": job.created_time,
        "creator_user_name": job.creator_user_name,
        "access_control_list": job.access_control_list,
    }
    return str(job.settings.get("name", "Untitled")), _dump(record)


def _run(record: str) -> Run:
    return Run(**json.loads(record))
