"""A whole Airflow for the tests: scheduler, LocalExecutor, API, as many triggerers as wanted.

Everything is a process of its own on loopback, in a home of its own with a SQLite database, and is
gone at the end, children included. Works with Airflow 2.11, 3.0 and 3.3: the Airflow of the Python
that runs the tests.

Where TEST_DATABASE_SERVER names a database server, as in
``postgresql+psycopg2://airflow@127.0.0.1:5432``, the metadata is in a new database there.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

import psutil
import pytest
import sqlalchemy

import airflow_jobs_provider
from scripts import end_with_parent
from scripts.airflow_env import airflow_environment
from tests.end_to_end.airflow_versions import AIRFLOW_2, AIRFLOW_3_0
from tests.end_to_end.cluster_dag_run import ClusterDagRun
from tests.end_to_end.eventually import PATIENCE_SECONDS, eventually
from tests.end_to_end.processes import is_alive, send

__all__ = ["START_SECONDS", "AirflowCluster", "Clusters"]

API = "/api/v1" if AIRFLOW_2 else "/api/v2"
# The DAG files do not change. To parse them takes a second of processor time, by default twice a
# minute. Airflow 3.0 takes DAGs for gone if a callback is executed so long after they were parsed.
_SECTION = "SCHEDULER" if AIRFLOW_2 else "DAG_PROCESSOR"
PARSING = {
    f"AIRFLOW__{_SECTION}__MIN_FILE_PROCESS_INTERVAL": "120",
    f"AIRFLOW__{_SECTION}__STALE_DAG_THRESHOLD": "86400",
    f"AIRFLOW__{'CORE' if AIRFLOW_2 else _SECTION}__DAG_FILE_PROCESSOR_TIMEOUT": "300",
}
DATABASE_OPTION = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
DATABASE_SERVER = os.environ.get("TEST_DATABASE_SERVER", "")
START_SECONDS = 300
# Below those that Linux and macOS give to clients.
PORTS = (20_000, 32_000)
# How long a triggerer may be silent before another one takes its triggers.
TRIGGERER_SILENCE_SECONDS = 12
LOCKED = "database is locked"
# How long a component waits until it may write to SQLite. The API server gives up soon and is asked
# again: its requests may wait for each other, and meanwhile nobody else writes. Airflow 3.0 uses a
# session again that could not write, and all requests of that thread fail then. A scheduler or a
# triggerer that gives up ends.
SQLITE_SECONDS = 60
API_SERVER_SQLITE_SECONDS = 20 if AIRFLOW_3_0 else 5
OPEN = build_opener(ProxyHandler({})).open


class AirflowCluster:
    """Airflow, running. Use it as a context manager.

    :param home: an empty folder.
    :param dags: folder of the DAG files.
    :param connections: environment variables with the Airflow connections.
    :param settings: more environment variables.
    :param database_server: URL of the server for the metadata database; SQLite by default, or what
        TEST_DATABASE_SERVER says.
    :param components: names of the components beside the triggerers.
    """

    # Of DAG runs: the next Airflow may be given the same workspace, which counts what each one did.
    _numbers: ClassVar[count[int]] = count(1)

    def __init__(
        self,
        home: Path,
        dags: Path,
        connections: dict[str, str],
        settings: dict[str, str] | None = None,
        *,
        database_server: str = DATABASE_SERVER,
        components: Sequence[str] = (),
    ) -> None:
        self.home = home.resolve()
        self.port = _free_port()
        self._connections = connections
        self._settings = settings or {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._triggerer_ids: dict[str, int] = {}
        self._prepared: set[int] = set()
        self._database_server = database_server
        self._on_sqlite = not database_server
        self._components = components or COMPONENTS
        self._database = (
            f"sqlite:///{self.home}/airflow.db?timeout={SQLITE_SECONDS}"
            if self._on_sqlite
            else f"{database_server}/airflow_{self.port}_{int(time.time())}"
        )
        self._engine = sqlalchemy.create_engine(self._database, poolclass=sqlalchemy.pool.NullPool)
        self.env = self._environment(dags) | self._settings

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop()

    # What a user does.

    def trigger(self, dag_id: str) -> ClusterDagRun:
        """Begin a run of a DAG."""
        number = next(self._numbers)
        date = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number)).isoformat()
        body = {"dag_run_id": f"{dag_id}_{number}", "logical_date": date}
        self.ask("POST", f"/dags/{dag_id}/dagRuns", body)
        return ClusterDagRun(self, dag_id, body["dag_run_id"], date)

    def command(self, *arguments: str) -> None:
        """Run an Airflow command to its end."""
        subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=self.env,
            cwd=self.home,
            capture_output=True,
            timeout=PATIENCE_SECONDS,
            check=True,
        )

    def ask(self, verb: str, path: str, body: object = None) -> dict[str, Any]:
        """Send a request to Airflow's API; again while another process writes to SQLite.

        SQLite does not wait where a transaction has read, and another one has written since. A DAG
        run is requested again until the DAG file is parsed.
        """
        request = Request(f"http://127.0.0.1:{self.port}{API}{path}", method=verb)
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            before = self._locked()
            try:
                with OPEN(request, timeout=60) as answer:
                    return dict(json.loads(answer.read() or b"{}"))
            except HTTPError as error:
                text = error.read().decode()
                is_locked = error.code == HTTPStatus.INTERNAL_SERVER_ERROR and (
                    LOCKED in text or self._locks_since(before)
                )
                is_unparsed = error.code == HTTPStatus.NOT_FOUND and verb == "POST"
                if not (is_locked or is_unparsed) or time.monotonic() > deadline:
                    raise AssertionError(f"{verb} {path}: {error}: {text}") from error
            time.sleep(0.2)

    def _locked(self) -> int:
        """Return how often the API server has logged that another process was writing to SQLite.

        Airflow 3.3 says so in its response only.
        """
        return self.log_of(API_SERVER).count(LOCKED)

    def _locks_since(self, before: int) -> bool:
        """Whether the API server logs it once more. Airflow 3.0 does after it has responded."""
        deadline = time.monotonic() + 2
        while self._locked() == before:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def rows(self, query: str, **parameters: object) -> list[tuple[Any, ...]]:
        """Return what the metadata database has.

        A test that waits looks five times a second. The API server takes some 20 ms of processor
        time for each request; the database takes one.
        """
        with self._engine.connect() as database:
            return [tuple(row) for row in database.execute(sqlalchemy.text(query), parameters)]

    # What happens to processes.

    def start(self, name: str) -> None:
        """Start a component: triggerer-1, triggerer-2, scheduler and so on."""
        command = COMMANDS[name.partition("-")[0]]
        arguments = [argument.format(port=self.port, name=name) for argument in command.split()]
        with (self.home / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "airflow", *arguments],
                env=self._environment_of(name),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _environment_of(self, name: str) -> dict[str, str]:
        if name != API_SERVER or not self._on_sqlite:
            return self.env
        waits, gives_up = (
            f"?timeout={seconds}" for seconds in (SQLITE_SECONDS, API_SERVER_SQLITE_SECONDS)
        )
        return self.env | {DATABASE_OPTION: self._database.replace(waits, gives_up)}

    def cpu_seconds(self, *names: str) -> float:
        """Return the CPU time that components have taken so far, with all their processes."""
        mains = [psutil.Process(self._processes[name].pid) for name in names]
        processes = mains + [child for main in mains for child in main.children(recursive=True)]
        times = [process.cpu_times() for process in processes]
        return float(
            sum(one.user + one.system + one.children_user + one.children_system for one in times)
        )

    @property
    def is_whole(self) -> bool:
        """Whether all components are at work, among them a triggerer."""
        alive = {name for name, process in self._processes.items() if process.poll() is None}
        return alive == set(self._processes) and alive >= {*self._components, *self.triggerers[:1]}

    @property
    def triggerers(self) -> list[str]:
        """The names of the triggerers at work."""
        return [name for name in self._processes if name.startswith("triggerer")]

    def start_triggerer(self) -> str:
        """Start one more triggerer, wait until it is at work, and return its name."""
        name = f"triggerer-{len(self._triggerer_ids) + 1}"
        before = self._triggerers()
        self.start(name)

        def new() -> set[int]:
            assert self._processes[name].poll() is None, self.log_of(name)[-3000:]
            return set(self._triggerers()) - set(before)

        (self._triggerer_ids[name],) = eventually(new, f"{name} is at work")
        return name

    def only_triggerer(self) -> str:
        """Return the only triggerer at work: the others are stopped, or one is started."""
        first, *others = self.triggerers or [self.start_triggerer()]
        for name in others:
            self.terminate(name)
        return first

    def until_beaten(self, name: str, since: float, seconds: float = 6) -> None:
        """Wait until a triggerer has gone round for some seconds since a time."""
        number = self._triggerer_ids[name]
        eventually(lambda: self._triggerers()[number] > since + seconds, f"{name} goes on")

    def until_prepared(self, dag_run: ClusterDagRun) -> None:
        """Wait until the triggerer that waits for a task has built what it answers questions from.

        It does that at its first trigger, once, and sends no heartbeat meanwhile: on a busy machine
        for so long that another one takes its triggers over.
        """
        since = time.time()

        def is_prepared() -> bool:
            number = dag_run.triggerer_id()
            if number not in self._prepared and self._triggerers().get(number, 0) > since:
                self._prepared.add(number)
            return number in self._prepared

        eventually(is_prepared, f"the triggerer of {dag_run.run_id} sends heartbeats")

    def heartbeat_of(self, name: str) -> float:
        """Return when a triggerer last sent a heartbeat, in seconds since the epoch."""
        return self._triggerers()[self._triggerer_ids[name]]

    def triggers_of(self, name: str) -> int:
        """Return how many triggers are assigned to a triggerer."""
        query = "select count(*) from trigger where triggerer_id = :number"
        ((found,),) = self.rows(query, number=self._triggerer_ids[name])
        return int(found)

    def logged_by_triggers(self, name: str, pattern: str) -> set[str]:
        """Return what a pattern finds in what the triggers of a triggerer logged."""
        # A trigger that has ended logs where its triggerer does, and on Airflow 2 each one starts
        # there.
        files = [self.home / f"{name}.log"]
        files += (self.home / "logs").glob(f"**/*.trigger.{self._triggerer_ids[name]}.log")
        found = re.compile(pattern)
        return {text for file in files for text in found.findall(file.read_text(errors="replace"))}

    def terminate(self, name: str) -> None:
        """Send SIGTERM and wait for the end, as a service manager does."""
        process = self._processes.pop(name)
        process.terminate()
        process.wait(60)

    def terminate_group(self, name: str) -> None:
        """Send SIGTERM to a component's whole process group, as a container's end may do."""
        process = self._processes.pop(name)
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)

    def kill(self, name: str) -> None:
        """Send SIGKILL to the component's main process, and wait until its children are gone."""
        process = self._processes.pop(name)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait(10)
        _, alive = psutil.wait_procs(children, timeout=30)
        assert alive == [], "a child outlived its parent"

    def kill_alone(self, name: str) -> None:
        """Send SIGKILL to the component's main process; its children may live on."""
        process = self._processes.pop(name)
        process.kill()
        process.wait(10)

    def kill_whole(self, *names: str) -> None:
        """Send SIGKILL to all processes of components at once, as the end of a machine does."""
        processes = [self._processes.pop(name) for name in names]
        victims = [psutil.Process(process.pid) for process in processes]
        _kill(victims + [child for one in victims for child in one.children(recursive=True)])
        for process in processes:
            process.wait(10)

    def kill_worker(self, pid: int, *, supervisor_only: bool = False) -> None:
        """Send SIGKILL to the executor's worker with all that it started for a task.

        :param pid: the task's process.
        :param supervisor_only: kill only those above the task's process.
        """
        scheduler = self._processes["scheduler"].pid
        task = psutil.Process(pid)
        above = [one for one in task.parents() if scheduler in {p.pid for p in one.parents()}]
        assert above, "the task's process has a worker"
        _kill(above if supervisor_only else [*above, task])

    def task_process(self, port: int) -> int | None:
        """Return the task's process that has a connection from a port; None if no task has it."""
        below = psutil.Process(self._processes["scheduler"].pid).children(recursive=True)
        for process in below:
            with contextlib.suppress(psutil.Error):
                if any(one.laddr and one.laddr.port == port for one in process.net_connections()):
                    return int(process.pid)
        return None

    @property
    def components(self) -> list[str]:
        """The names of the components at work."""
        return list(self._processes)

    def restart(self, *names: str) -> None:
        """Start components anew, and wait until they are at work."""
        since = time.time()
        for name in names:
            if name.startswith("triggerer"):
                self.start_triggerer()
            else:
                self.start(name)
        if "scheduler" in names:
            eventually(lambda: self._beats("SchedulerJob", since), "the scheduler is at work")
        eventually(self._is_ready, "Airflow is ready", START_SECONDS)

    def freeze(self, name: str) -> None:
        """Stop a component where it is, as a suspended machine or a full disk would."""
        os.killpg(self._processes[name].pid, signal.SIGSTOP)
        # SQLite has one lock for all that is written: the rest of Airflow would stand still, too.
        while self._on_sqlite and not self._is_writable():
            self.thaw(name)
            time.sleep(0.05)
            os.killpg(self._processes[name].pid, signal.SIGSTOP)

    def _is_writable(self) -> bool:
        """Whether nobody keeps the SQLite file locked."""
        with closing(sqlite3.connect(self.home / "airflow.db", timeout=5)) as database:
            try:
                database.execute("begin immediate")
            except sqlite3.OperationalError:
                return False
            return True

    def thaw(self, name: str) -> None:
        """Let a frozen component go on."""
        os.killpg(self._processes[name].pid, signal.SIGCONT)

    def _triggerers(self) -> dict[int, float]:
        """Return when each triggerer that has not ended in order last gave a sign of life."""
        return self._beats("TriggererJob")

    def _beats(self, job_type: str, since: float = 0) -> dict[int, float]:
        """Return when each such job that has not ended in order last gave a sign of life."""
        query = (
            "select id, latest_heartbeat from job"
            " where job_type = :job_type and end_date is null and latest_heartbeat is not null"
        )
        rows = self.rows(query, job_type=job_type)
        beats = {number: _time(beat).timestamp() for number, beat in rows}
        return {number: beat for number, beat in beats.items() if beat > since}

    def log_of(self, name: str) -> str:
        """Return what a component wrote."""
        return (self.home / f"{name}.log").read_text(errors="replace")

    def _environment(self, dags: Path) -> dict[str, str]:
        url = f"http://127.0.0.1:{self.port}"
        env = airflow_environment(self.home, dags, connection=None) | self._connections
        env |= {
            # Airflow shall see the same package as the tests, installed or not.
            "PYTHONPATH": str(Path(airflow_jobs_provider.__file__).parent.parent),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "16",
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "50",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            DATABASE_OPTION: self._database,
            "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "3",
            **PARSING,
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(TRIGGERER_SILENCE_SECONDS),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
        }
        if AIRFLOW_2:
            (self.home / "webserver_config.py").write_text("AUTH_ROLE_PUBLIC = 'Admin'\n")
            return env | {
                # Airflow 2 refuses SQLite with any executor but the sequential one, since a
                # deployment's database would be locked too often; a few tasks are no deployment.
                "_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK": "1",
                # SQLite locks no rows. So the scheduler and the task process that schedules what
                # comes after its task would both count an attempt.
                "AIRFLOW__SCHEDULER__SCHEDULE_AFTER_TASK_EXECUTION": "False",
                "AIRFLOW__API__AUTH_BACKENDS": "airflow.api.auth.backend.default",
                "AIRFLOW__WEBSERVER__CONFIG_FILE": str(self.home / "webserver_config.py"),
                "AIRFLOW__WEBSERVER__WORKERS": "1",
                "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
            }
        if AIRFLOW_3_0:
            env["AIRFLOW__CORE__EXECUTOR"] = "tests.end_to_end.local_executor.LocalExecutor"
        return env | {
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": url,
            "AIRFLOW__API__WORKERS": "1",
            # For LOCKED.
            "AIRFLOW__API__EXPOSE_STACKTRACE": "True",
            # Airflow 3.0 names none, which newer versions of PyJWT refuse.
            "AIRFLOW__API_AUTH__JWT_ISSUER": "airflow",
            # The API server takes 20 ms of processor time for a heartbeat; many tasks wait at once.
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "3",
            # A task fails whose request to start is sent again after a time-out, 5 s by default.
            # Airflow 3.0 does not know the setting.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        }

    def _start(self) -> None:
        # Not even tests that are killed leave an Airflow behind.
        self._watchdog = subprocess.Popen(
            [sys.executable, end_with_parent.__file__, str(self.home)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        if not self._on_sqlite:
            server = sqlalchemy.create_engine(
                f"{self._database_server}/postgres", isolation_level="AUTOCOMMIT"
            )
            with server.connect() as database:
                name = self._database.rpartition("/")[2]
                database.execute(sqlalchemy.text(f"create database {name}"))
        self._migrate()
        for name in self._components:
            self.start(name)
        self.start_triggerer()
        eventually(self._is_ready, "Airflow is ready", START_SECONDS)

    def _migrate(self) -> None:
        """Make the database, and airflow.cfg, whose secrets all components share."""
        if self._on_sqlite and _Migrated.first is not None:
            _Migrated.first.copy_to(self.home)
            return
        with (self.home / "db.log").open("wb") as log:
            subprocess.run(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                env=self.env,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=START_SECONDS,
                check=True,
            )
        if self._on_sqlite:
            with closing(sqlite3.connect(self.home / "airflow.db")) as database:
                # Stays with the file: readers no longer wait for writers.
                database.execute("PRAGMA journal_mode=WAL")
                _number_triggers_once(database)
            _Migrated.first = _Migrated.of(self.home)

    def _is_ready(self) -> bool:
        for name, process in self._processes.items():
            assert process.poll() is None, f"{name} has ended:\n{self.log_of(name)[-3000:]}"
        try:
            health = self.ask("GET", "/health" if AIRFLOW_2 else "/monitor/health")
            parts = ("scheduler", "triggerer")
            healthy = all(health[part]["status"] == "healthy" for part in parts)
            return healthy and bool(self.ask("GET", "/dags")["dags"])
        except (URLError, OSError, AssertionError, KeyError):
            return False

    def _stop(self) -> None:
        # Whoever needs an orderly end has asked for it before.
        self._watchdog.communicate(timeout=60)
        for process in self._processes.values():
            process.wait(10)


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


class Clusters:
    """Whole Airflows, one at a time. Use it as a context manager.

    :param homes: makes the folders of the Airflows.
    """

    def __init__(self, homes: pytest.TempPathFactory) -> None:
        self._homes = homes
        self._one: AirflowCluster | None = None
        self._wanted: object = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._end()

    def running(
        self,
        dags: Path,
        connections: dict[str, str],
        settings: dict[str, str],
    ) -> AirflowCluster:
        """Return the Airflow that is running if it is the wanted one, or start that.

        A start takes half a minute of processor time.
        """
        wanted = (dags, connections, settings)
        if self._one is None or wanted != self._wanted or not self._one.is_whole:
            self._end()
            self._one = AirflowCluster(self._homes.mktemp("cluster"), *wanted).__enter__()
            self._wanted = wanted
        return self._one

    def _end(self) -> None:
        one, self._one = self._one, None
        if one is not None:
            one.__exit__()


API_SERVER = "webserver" if AIRFLOW_2 else "apiserver"
COMPONENTS = ["scheduler", *([] if AIRFLOW_2 else ["dagprocessor"]), API_SERVER]
COMMANDS = {
    "scheduler": "scheduler --skip-serve-logs",
    "triggerer": "triggerer --skip-serve-logs",
    "worker": (
        "celery worker --skip-serve-logs --without-gossip --without-mingle"
        " --celery-hostname {name}@airflow --pid {name}.pid"
    ),
    "dagprocessor": "dag-processor",
    "apiserver": "api-server",
    "webserver": "webserver --hostname 127.0.0.1 --port {port}",
}


def _kill(victims: list[psutil.Process]) -> None:
    # Stopped first, so that none lives to see the end of another and to act on it.
    send(victims, signal.SIGSTOP, signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, victims)), "the processes are dead")


def _time(noted: datetime | str) -> datetime:
    """Return a time as the database has it: SQLite has text, in UTC."""
    if isinstance(noted, str):
        return datetime.fromisoformat(noted).replace(tzinfo=UTC)
    return noted


def _free_port() -> int:
    """Return a port that no client's connection is given before Airflow takes it."""
    while True:
        port = random.randrange(*PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


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
