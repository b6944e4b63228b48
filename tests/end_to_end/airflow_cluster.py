"""A whole Airflow for the tests: scheduler, LocalExecutor, API, as many triggerers as wanted.

Everything is a process of its own on loopback, in a home of its own with a SQLite database, and is
gone at the end, children included. Works with Airflow 2.11, 3.0 and 3.3: the Airflow of the Python
that runs the tests.

Where TEST_DATABASE_SERVER names a database server, as in
``postgresql+psycopg2://airflow@127.0.0.1:5432``, the metadata is in a new database there.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.error import URLError

from scripts import end_with_parent
from tests.end_to_end.airflow_versions import AIRFLOW_2
from tests.end_to_end.cluster_api import ClusterApi
from tests.end_to_end.cluster_dag_run import ClusterDagRun
from tests.end_to_end.cluster_database import ClusterDatabase, utc_time
from tests.end_to_end.cluster_environment import API_SERVER, COMPONENTS, cluster_environment
from tests.end_to_end.cluster_processes import ClusterProcesses
from tests.end_to_end.eventually import PATIENCE_SECONDS, eventually

__all__ = ["START_SECONDS", "AirflowCluster"]

DATABASE_SERVER = os.environ.get("TEST_DATABASE_SERVER", "")
START_SECONDS = 300
# Below those that Linux and macOS give to clients.
PORTS = (20_000, 32_000)


class AirflowCluster(ClusterProcesses):
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
        home, port = home.resolve(), _free_port()
        database = ClusterDatabase(home, database_server, f"airflow_{port}_{int(time.time())}")
        super().__init__(home, port, database)
        self._api = ClusterApi(port, lambda: self.log_of(API_SERVER))
        self._triggerer_ids: dict[str, int] = {}
        self._prepared: set[int] = set()
        self._components = components or COMPONENTS
        self.env = cluster_environment(
            self.home, dags, connections, port=port, database=database.url
        ) | (settings or {})

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
        """Send a request to Airflow's API; see :meth:`.ClusterApi.ask`."""
        return self._api.ask(verb, path, body)

    def rows(self, query: str, **parameters: object) -> list[tuple[Any, ...]]:
        """Return what the metadata database has.

        A test that waits looks five times a second. The API server takes some 20 ms of processor
        time for each request; the database takes one.
        """
        return self._database.rows(query, **parameters)

    # Its triggerers.

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
        beats = {number: utc_time(beat).timestamp() for number, beat in rows}
        return {number: beat for number, beat in beats.items() if beat > since}

    # All of its components.

    @property
    def is_whole(self) -> bool:
        """Whether all components are at work, among them a triggerer."""
        alive = {name for name, process in self._processes.items() if process.poll() is None}
        return alive == set(self._processes) and alive >= {*self._components, *self.triggerers[:1]}

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

    def _start(self) -> None:
        # Not even tests that are killed leave an Airflow behind.
        self._watchdog = subprocess.Popen(
            [sys.executable, end_with_parent.__file__, str(self.home)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self._database.create(self.env)
        for name in self._components:
            self.start(name)
        self.start_triggerer()
        eventually(self._is_ready, "Airflow is ready", START_SECONDS)

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


def _free_port() -> int:
    """Return a port that no client's connection is given before Airflow takes it."""
    while True:
        port = random.randrange(*PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
