"""Airflow's metadata database in a SQLite file, with the rows that a test puts into it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, insert
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session, sessionmaker

__all__ = ["Metadata", "make_database", "metadata_database"]


@dataclass
class Metadata:
    """The database.

    :ivar engine: what it is reached by.
    :ivar made_at: when the test began; not when its module was imported.
    """

    engine: Engine
    made_at: datetime = field(
        default_factory=lambda: datetime.now(UTC).replace(microsecond=0), kw_only=True
    )
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _dags: set[str] = field(default_factory=set)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Give a session, which is committed in the end."""
        with Session(self.engine) as session, session.begin():
            yield session

    def add(self, table: str, *rows: Mapping[str, Any]) -> None:
        """Add rows to a table."""
        from airflow.models.base import Base

        with self.session() as session:
            session.execute(insert(Base.metadata.tables[table]), list(rows))

    def add_dag(self, dag_id: str) -> None:
        """Add a DAG, once."""
        if not self._dags:
            self.add("dag_bundle", {"name": "dags"})
            self.add("log_template", {"filename": "f", "elasticsearch_id": "e"})
        if dag_id not in self._dags:
            self._dags.add(dag_id)
            self.add(
                "dag",
                {
                    "dag_id": dag_id,
                    "bundle_name": "dags",
                    "max_active_tasks": 16,
                    "max_consecutive_failed_dag_runs": 0,
                    "has_task_concurrency_limits": False,
                },
            )

    def add_task(
        self,
        dag_id: str,
        task_id: str = "notebook",
        *,
        state: str | None = "success",
        xcoms: Mapping[str, Any] | None = None,
        map_index: int = -1,
        dag_run: str = "",
        trigger_id: int | None = None,
        age: timedelta = timedelta(0),
    ) -> int:
        """Add a task instance in a DAG run of its own, and its XComs; return the DAG run's id."""
        self.add_dag(dag_id)
        number = next(self._numbers)
        run_id = dag_run or f"manual__{number}"
        began = self.made_at - age - timedelta(minutes=10)
        self.add(
            "dag_run",
            {
                "id": number,
                "dag_id": dag_id,
                "run_id": run_id,
                "run_type": "manual",
                "run_after": began,
                "log_template_id": 1,
            },
        )
        place = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
        is_over = state in ("success", "failed")
        self.add(
            "task_instance",
            {
                **place,
                "pool": "default_pool",
                "state": state,
                "try_number": 1,
                "start_date": began,
                "end_date": began + timedelta(seconds=75) if is_over else None,
                "trigger_id": trigger_id,
            },
        )
        if xcoms:
            rows = [
                {**place, "dag_run_id": number, "key": key, "value": value, "timestamp": began}
                for key, value in xcoms.items()
            ]
            self.add("xcom", *rows)
        return number

    def add_run(
        self,
        dag_id: str,
        run_id: object = 7001,
        *,
        page: object = None,
        task_run_ids: object = None,
        **task: Any,
    ) -> int:
        """Add a task that has launched a run; return the DAG run's id."""
        page = f"https://example.com/?o=1#job/12/run/{run_id}" if page is None else page
        xcoms = {"run_id": run_id, "job_id": 12, "run_page_url": page}
        if task_run_ids is not None:
            xcoms["task_run_ids"] = task_run_ids
        return self.add_task(dag_id, xcoms=xcoms, **task)

    def age_xcom(self, dag_run_id: int, key: str) -> None:
        """Let an XCom be a day older than the others of its task."""
        from airflow.models.xcom import XComModel

        with self.session() as session:
            (row,) = session.query(XComModel).filter_by(dag_run_id=dag_run_id, key=key)
            row.timestamp -= timedelta(days=1)

    def add_trigger(
        self, kind: str, arguments: Mapping[str, Any], *, triggerer_id: int | None = None
    ) -> int:
        """Add a trigger of a class of this package; return its id."""
        from airflow.models.trigger import Trigger

        with self.session() as session:
            trigger = Trigger(f"airflow_jobs_provider.{kind}", dict(arguments))
            trigger.triggerer_id = triggerer_id
            session.add(trigger)
            session.flush()
            return trigger.id

    def watch(self, trigger_id: int, asset: str) -> None:
        """Let a trigger watch for events of an asset."""
        from airflow.models.base import Base

        number = next(self._numbers)
        self.add("asset", {"id": number, "name": asset, "uri": f"{asset}-{number}", "extra": {}})
        row: dict[str, Any] = {"asset_id": number, "trigger_id": trigger_id}
        if "asset_watcher" in Base.metadata.tables:
            self.add("asset_watcher", {**row, "name": f"{asset}-{number}"})
        else:  # before Airflow 3.2
            self.add("asset_trigger", row)

    def add_triggerer(self, hostname: str, *, age: timedelta = timedelta(0)) -> int:
        """Add a triggerer whose last heartbeat was so long ago; return the id of its job."""
        number = next(self._numbers)
        row = {
            "id": number,
            "job_type": "TriggererJob",
            "state": "running",
            "hostname": hostname,
            "latest_heartbeat": datetime.now(UTC) - age,
        }
        self.add("job", row)
        return number


def make_database(file: Path, *names: str) -> None:
    """Make an empty database.

    :param file: where it is made.
    :param names: its tables; default all.
    """
    import airflow.models
    from airflow.models.base import Base

    airflow.models.import_all_models()
    engine = _engine(file)
    tables = [Base.metadata.tables[name] for name in names]
    Base.metadata.create_all(engine, tables=tables or None)
    engine.dispose()


@contextmanager
def metadata_database(file: Path) -> Iterator[Metadata]:
    """Let Airflow use a database in this process.

    :param file: the database, see :func:`make_database`.
    """
    from airflow import settings

    engine = _engine(file)
    made = sessionmaker(engine, autoflush=False, expire_on_commit=False)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"engine": engine, "Session": made, "NonScopedSession": made}.items():
            patch.setattr(settings, name, value, raising=False)
        yield Metadata(engine)
    engine.dispose()


def _engine(file: Path) -> Engine:
    engine = create_engine(f"sqlite:///{file}", connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def do_not_wait_for_the_disk(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA journal_mode=MEMORY")

    return engine
