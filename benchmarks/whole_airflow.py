"""A whole Airflow on this machine, to be measured: each component under a keeper of its own.

Everything is on loopback, in a home of its own, and ends with the process that started it.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from itertools import count
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

import sqlalchemy

from scripts.airflow_env import airflow_environment
from scripts.process_cpu import Keeper, cpu_seconds
from scripts.services import PostgresServer, RedisServer

START_SECONDS = 240
DATABASE_OPTION = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
OPEN = build_opener(ProxyHandler({})).open
# The processes of each component, and the names under which they are shown: its own process, the
# children, and theirs.
LEVELS = {
    "scheduler": ("scheduler", "executor", "task processes"),
    "triggerer": ("triggerer", "triggerer", "triggerer"),
    "dag-processor": ("DAG processor", "DAG processor", "DAG processor"),
    "api-server": ("API server", "API server", "API server"),
    "worker": ("Celery worker", "executor", "task processes"),
}
COMMANDS = {
    "scheduler": "scheduler --skip-serve-logs",
    "triggerer": "triggerer --skip-serve-logs",
    "dag-processor": "dag-processor",
    "api-server": "api-server",
    "worker": "celery worker --skip-serve-logs --without-gossip --without-mingle",
}
COMPONENTS = ("scheduler", "triggerer", "dag-processor", "api-server")
# How long a component waits until it may write to SQLite. The API server gives up soon: its
# requests may wait for each other, and meanwhile nobody else writes. It is asked again then.
SQLITE_SECONDS = 60
API_SERVER_SQLITE_SECONDS = 5
REPEATED_REQUESTS = 12
# How long a task waits for a response of the API server, which is late on a busy machine. What is
# sent twice costs twice; and a task fails whose first request is answered after it has given up.
API_SECONDS = 60
REQUEST = re.compile(r"\[http\.access\].* method=(\w+) path=(\S+) ")
# What differs between tasks in a path: ids, and the names of DAGs, DAG runs and tasks.
IDENTIFIER = re.compile(
    r"(?<=/task-instances)/[0-9a-f-]{36}|(?<=/dags)/\w+|(?<=/xcoms)/[^/]+/[^/]+/[^/]+"
)
# Each process appends its component's name: new interpreters as they start, and each fork.
COUNT_PROCESSES = """
import os

def note():
    file = os.open(os.environ["BENCHMARK_PROCESSES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, (os.environ["BENCHMARK_COMPONENT"] + "\\n").encode())
    os.close(file)

if "BENCHMARK_COMPONENT" in os.environ:
    note()
    os.register_at_fork(after_in_child=note)
"""


class FailedDagRunsError(Exception):
    """DAG runs did not succeed."""


class WholeAirflow:
    """An Airflow that runs. Use it as a context manager.

    :param home: an empty folder.
    :param python: the interpreter of its environment.
    :param dags: the DAG files: their text by their name.
    :param connection: the fields of the connection ``databricks_default``, which is put into
        Airflow's database.
    :param packages: a folder of packages beside those of the environment.
    :param settings: more environment variables.
    :param distributed: use CeleryExecutor with a worker, PostgreSQL and Redis, in place of
        LocalExecutor and SQLite.
    """

    def __init__(
        self,
        home: Path,
        python: str,
        dags: Mapping[str, str],
        connection: Mapping[str, Any],
        *,
        packages: Path | None = None,
        settings: Mapping[str, str] | None = None,
        distributed: bool = False,
    ) -> None:
        self.home = home.resolve()
        self._python = python
        self._dags = dags
        self._connection = {"connection_id": "databricks_default", **connection}
        self._distributed = distributed
        self._port = _free_port()
        self._keepers: dict[str, Keeper] = {}
        self._servers: dict[str, int] = {}
        self._numbers = count(1)
        self._stack = ExitStack()
        self._packages = packages
        self._settings = dict(settings or {})

    def _environment(self, packages: Path | None) -> dict[str, str]:
        url = f"http://127.0.0.1:{self._port}"
        env = airflow_environment(self.home, self.home / "dags", connection=None)
        # Each process would compile a checkout's modules anew, but not those of installed packages.
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        folders = [self.home / "site", *([packages] if packages else [])]
        return env | {
            "PATH": f"{Path(self._python).parent}{os.pathsep}{env['PATH']}",
            "PYTHONPATH": os.pathsep.join(map(str, folders)),
            "BENCHMARK_PROCESSES": str(self.home / "processes"),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            # All runs of a round go at once.
            "AIRFLOW__CORE__MAX_ACTIVE_RUNS_PER_DAG": "1000",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            # The files do not change: parsing them anew would only blur the figures.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self._port),
            "AIRFLOW__API__BASE_URL": url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": str(API_SECONDS),
        }

    def _start_database(self) -> dict[str, str]:
        """Start the servers, if any, and return the settings that name them."""
        if not self._distributed:
            url = f"sqlite:///{self.home}/airflow.db?timeout={SQLITE_SECONDS}"
            settings = {DATABASE_OPTION: url}
        else:
            postgres = self._stack.enter_context(PostgresServer())
            redis = self._stack.enter_context(RedisServer())
            self._servers = {"PostgreSQL": postgres.pid, "Redis": redis.pid}
            url = f"{postgres.url}/postgres"
            settings = {
                "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
                DATABASE_OPTION: url,
                "AIRFLOW__CELERY__BROKER_URL": redis.url,
                "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{url}",
            }
        self._engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)
        return settings

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        for folder in ("dags", "site"):
            (self.home / folder).mkdir()
        for name, text in self._dags.items():
            (self.home / "dags" / name).write_text(text)
        (self.home / "site" / "sitecustomize.py").write_text(COUNT_PROCESSES)
        (self.home / "processes").touch()
        self._env = self._environment(self._packages) | self._start_database() | self._settings
        self._run("db", "migrate")
        if not self._distributed:
            with self._engine.connect() as database:
                # Stays with the file: readers no longer wait for writers.
                database.execute(sqlalchemy.text("PRAGMA journal_mode=WAL"))
        for name in (*COMPONENTS, *(["worker"] if self._distributed else [])):
            keeper = Keeper(
                [self._python, "-m", "airflow", *COMMANDS[name].split()],
                self._environment_of(name),
                self.home,
                self.home / f"{name}.log",
            )
            self._keepers[name] = self._stack.enter_context(keeper)
        self._until(self._is_ready, "Airflow is ready", START_SECONDS)
        self.ask("POST", "/connections", self._connection)
        # The first request to the API for tasks builds it, which takes seconds.
        with OPEN(f"http://127.0.0.1:{self._port}/execution/health", timeout=START_SECONDS):
            pass

    def _environment_of(self, name: str) -> dict[str, str]:
        environment = self._env | {"BENCHMARK_COMPONENT": name}
        if name == "api-server" and not self._distributed:
            url = f"sqlite:///{self.home}/airflow.db?timeout={API_SERVER_SQLITE_SECONDS}"
            environment[DATABASE_OPTION] = url
        return environment

    def _run(self, *command: str) -> None:
        with (self.home / f"{'-'.join(command)}.log").open("wb") as log:
            subprocess.run(
                [self._python, "-m", "airflow", *command],
                env=self._env,
                cwd=self.home,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=START_SECONDS,
                check=True,
            )

    def _is_ready(self) -> bool:
        try:
            health = self.ask("GET", "/monitor/health")
        except (URLError, OSError):
            return False
        parts = ("scheduler", "triggerer", "dag_processor")
        if any(health[part]["status"] != "healthy" for part in parts):
            return False
        broken = self.rows("select filename, stacktrace from import_error")
        if broken:
            raise RuntimeError(f"{broken[0][0]}: {broken[0][1]}")
        return len(self.rows("select dag_id from serialized_dag")) == len(self._dags)

    def _until(self, look: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait until something is so.

        :raises TimeoutError: it did not become so in time.
        :raises RuntimeError: a component has ended.
        """
        deadline = time.monotonic() + seconds
        while not look():
            for name, keeper in self._keepers.items():
                if not keeper.is_running():
                    raise RuntimeError(f"{name} has ended:\n{self.log_of(name)[-3000:]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {seconds:.0f} s")
            time.sleep(0.25)

    def ask(self, verb: str, path: str, body: object = None) -> dict[str, Any]:
        """Send a request to Airflow's API; again where it could not write to SQLite."""
        request = Request(f"http://127.0.0.1:{self._port}/api/v2{path}", method=verb)
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        for attempt in range(REPEATED_REQUESTS):
            try:
                with OPEN(request, timeout=60) as answer:
                    decoded: dict[str, Any] = json.loads(answer.read() or b"{}")
                break
            except HTTPError as error:
                is_last = attempt == REPEATED_REQUESTS - 1
                if is_last or error.code != HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
                time.sleep(1)
        return decoded

    def rows(self, query: str, **parameters: Any) -> list[Any]:
        """Read from Airflow's database."""
        with self._engine.connect() as database:
            return list(database.execute(sqlalchemy.text(query), parameters))

    def log_of(self, name: str) -> str:
        """Return what a component wrote."""
        return (self.home / f"{name}.log").read_text(errors="replace")

    def run(self, dag_id: str, runs: int, seconds: float) -> float:
        """Run a DAG so many times at once, and return the seconds until the last run had ended.

        :param dag_id: the DAG.
        :param runs: how many DAG runs.
        :param seconds: the longest it may take.
        :raises FailedDagRunsError: a DAG run did not succeed, or not in time.
        """
        begun = datetime.now(tz=UTC)
        name = f"{dag_id}-{next(self._numbers)}"
        for number in range(runs):
            date = begun - timedelta(days=1, seconds=number)
            body = {"dag_run_id": f"{name}-{number}", "logical_date": date.isoformat()}
            self.ask("POST", f"/dags/{dag_id}/dagRuns", body)

        def states() -> Counter[str]:
            query = "select state, count(*) from dag_run where run_id like :name group by state"
            return Counter(dict(map(tuple, self.rows(query, name=f"{name}-%"))))

        try:
            self._until(
                lambda: states()["success"] + states()["failed"] == runs,
                f"{name} has ended",
                seconds,
            )
        except TimeoutError as error:
            for number in range(runs):
                path = f"/dags/{dag_id}/dagRuns/{name}-{number}"
                self.ask("PATCH", path, {"state": "failed"})
            raise FailedDagRunsError(str(error)) from error
        if states()["success"] != runs:
            raise FailedDagRunsError(f"of {runs} runs of {dag_id}: {dict(states())}")
        last = self.rows(
            "select max(end_date) from dag_run where run_id like :name", name=f"{name}-%"
        )
        end = last[0][0]
        if isinstance(end, str):
            end = datetime.fromisoformat(end).replace(tzinfo=UTC)
        seconds_taken: float = (end - begun).total_seconds()
        return seconds_taken

    def cpu_seconds(self) -> Counter[str]:
        """Return the CPU seconds so far of each kind of process, as LEVELS names them."""
        seconds: Counter[str] = Counter()
        for name, pid in self._servers.items():
            seconds[name] = cpu_seconds(pid)  # type: ignore[assignment]
        for component, keeper in self._keepers.items():
            names = LEVELS[component]
            for level, one in enumerate(keeper.seconds_by_level()):
                seconds[names[min(level, len(names) - 1)]] += one  # type: ignore[assignment]
        return seconds

    def processes(self) -> Counter[str]:
        """Return how many processes each component has started so far."""
        return Counter((self.home / "processes").read_text().split())

    def requests(self) -> Counter[str]:
        """Return how many requests Airflow's API has answered so far, by method and endpoint."""
        found = REQUEST.findall(self.log_of("api-server"))
        return Counter(f"{method} {IDENTIFIER.sub('/...', path)}" for method, path in found)

    def log_bytes(self) -> int:
        """Return the size of all logs: those of the components and those of the tasks."""
        files = [*self.home.glob("*.log"), *(self.home / "logs").glob("**/*")]
        return sum(file.stat().st_size for file in files if file.is_file())

    @contextmanager
    def written_rows(self) -> Iterator[Counter[str]]:
        """Count the rows that are inserted, updated and deleted in each table.

        PostgreSQL counts them itself. For SQLite triggers count, which takes a little time.
        """
        counts: Counter[str] = Counter()
        if self._distributed:
            query = "select relname, n_tup_ins + n_tup_upd + n_tup_del from pg_stat_user_tables"
            before = Counter(dict(map(tuple, self.rows(query))))
            yield counts
            counts.update(Counter(dict(map(tuple, self.rows(query)))) - before)
            return
        tables = [
            name for (name,) in self.rows("select name from sqlite_master where type='table'")
        ]
        names = [name for name in tables if not name.startswith(("sqlite_", "alembic"))]
        verbs = ("insert", "update", "delete")
        with self._engine.begin() as database:
            database.execute(sqlalchemy.text("create table benchmark_rows (name text)"))
            for name in names:
                for verb in verbs:
                    database.execute(
                        sqlalchemy.text(
                            f'create trigger "benchmark_{verb}_{name}" after {verb} on "{name}" '
                            f"begin insert into benchmark_rows values ('{name}'); end"
                        )
                    )
        try:
            yield counts
        finally:
            query = "select name, count(*) from benchmark_rows group by name"
            counts.update(dict(map(tuple, self.rows(query))))
            with self._engine.begin() as database:
                for name in names:
                    for verb in verbs:
                        database.execute(sqlalchemy.text(f'drop trigger "benchmark_{verb}_{name}"'))
                database.execute(sqlalchemy.text("drop table benchmark_rows"))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port
