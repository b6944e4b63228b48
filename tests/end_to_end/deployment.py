"""Airflow with CeleryExecutor, PostgreSQL and Redis: workers and triggerers as many as wanted."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Self

import psutil

from scripts.services import PostgresServer, RedisServer
from tests.end_to_end.airflow_cluster import START_SECONDS, AirflowCluster
from tests.end_to_end.cluster_dag_run import ClusterDagRun
from tests.end_to_end.eventually import PATIENCE_SECONDS, eventually

__all__ = ["Deployment", "WorkerOfTask"]

WORKERS = ("worker-1", "worker-2")
COMPONENTS = ("scheduler", "dagprocessor", "apiserver", *WORKERS)
TRIGGERERS = 2
# After so many seconds without a heartbeat Airflow takes a task or a scheduler for dead; by default
# these are minutes.
SILENCE_SECONDS = "12"
SETTINGS = {
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    "AIRFLOW__CORE__PARALLELISM": "64",
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "400",
    "AIRFLOW__CELERY__WORKER_CONCURRENCY": "6",
    "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": SILENCE_SECONDS,
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": SILENCE_SECONDS,
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    # A task that a lost broker message leaves queued is queued anew after so long.
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "3",
}


class Deployment(AirflowCluster):
    """Airflow with two Celery workers and two triggerers. Use it as a context manager.

    :param home: an empty folder.
    :param dags: folder of the DAG files.
    :param connections: environment variables with the Airflow connections.
    :param postgres: the server of Airflow's metadata and Celery's results.
    :param redis: the broker.
    :param settings: further environment variables of Airflow; default none.
    """

    def __init__(
        self,
        home: Path,
        dags: Path,
        connections: dict[str, str],
        postgres: PostgresServer,
        redis: RedisServer,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        services = {
            "AIRFLOW__CELERY__BROKER_URL": redis.url,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{postgres.url}/postgres",
        }
        super().__init__(
            home,
            dags,
            connections,
            {**SETTINGS, **services, **settings},
            database_server=postgres.url,
            components=COMPONENTS,
        )

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self.restart_what_ended()
            eventually(
                lambda: all(" ready." in self.log_of(name) for name in WORKERS), "workers are ready"
            )
        except BaseException:
            self._stop()
            raise
        return self

    def worker_of(self, pid: int) -> WorkerOfTask:
        """Return what executes a task.

        :param pid: the task's process.
        """
        task = psutil.Process(pid)
        above = task.parents()
        for name in WORKERS:
            main = self._processes.get(name)
            if main is not None and main.pid in {process.pid for process in above}:
                ids = [process.pid for process in above]
                # The pool process is the main process's child.
                return WorkerOfTask(name, above[ids.index(main.pid) - 1], task)
        raise AssertionError(f"no worker executes process {pid}")

    @property
    def workers(self) -> list[str]:
        """The names of the workers that are running."""
        return [name for name in self._processes if name.startswith("worker")]

    def workloads_of(self, name: str) -> int:
        """Return how many workloads a worker has begun to execute."""
        return self.log_of(name).count("Executing workload in Celery")

    def main_process(self, name: str) -> psutil.Process:
        """Return the main process of a component."""
        return psutil.Process(self._processes[name].pid)

    def signal(self, name: str, sign: signal.Signals, *, group: bool = False) -> None:
        """Send a signal to a component's main process, or to its whole process group."""
        (os.killpg if group else os.kill)(self._processes[name].pid, sign)

    def await_end(self, name: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until a component's main process has ended after a signal."""
        self._processes.pop(name).wait(seconds)

    def restart_what_ended(self) -> None:
        """Start what has ended by itself, until all is at work, as a service manager does."""
        eventually(self._is_whole, "all components are at work", START_SECONDS)

    def _is_whole(self) -> bool:
        for name in [name for name, one in self._processes.items() if one.poll() is not None]:
            del self._processes[name]
        for name in COMPONENTS:
            if name not in self._processes:
                (self.home / f"{name}.pid").unlink(missing_ok=True)
                self.start(name)
        try:
            while len(self.triggerers) < TRIGGERERS:
                self.start_triggerer()
            return self._is_ready()
        except AssertionError:  # One more has ended meanwhile.
            return False

    def triggerer_of(self, dag_run: ClusterDagRun) -> str:
        """Return the triggerer that waits for a DAG run's task."""
        number = dag_run.triggerer_id()
        return next(name for name, one in self._triggerer_ids.items() if one == number)


@dataclass(frozen=True)
class WorkerOfTask:
    """The processes that execute a task.

    :ivar name: the worker's name.
    :ivar pool: its pool process, which supervises the task.
    :ivar task: the task's own process.
    """

    name: str
    pool: psutil.Process
    task: psutil.Process
