"""The processes of a whole Airflow under test: start and stop components, kill and freeze them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.end_to_end.cluster_database import DATABASE_OPTION, ClusterDatabase
from tests.end_to_end.cluster_environment import API_SERVER, COMMANDS
from tests.end_to_end.eventually import eventually
from tests.end_to_end.processes import is_alive, send

__all__ = ["ClusterProcesses"]


class ClusterProcesses:
    """The components of an Airflow, each a process with children.

    :ivar home: the folder of the Airflow, with the components' logs.
    :ivar env: the environment variables of all components.

    :param home: the folder.
    :param port: of the API server.
    :param database: the metadata database.
    """

    env: dict[str, str]

    def __init__(self, home: Path, port: int, database: ClusterDatabase) -> None:
        self.home = home
        self.port = port
        self._database = database
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def components(self) -> list[str]:
        """The names of the components at work."""
        return list(self._processes)

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
        if name == API_SERVER:
            return self.env | {DATABASE_OPTION: self._database.url_for_api_server}
        return self.env

    def log_of(self, name: str) -> str:
        """Return what a component wrote."""
        return (self.home / f"{name}.log").read_text(errors="replace")

    def cpu_seconds(self, *names: str) -> float:
        """Return the CPU time that components have taken so far, with all their processes."""
        times = [process.cpu_times() for process in self._processes_of(*names)]
        return float(
            sum(one.user + one.system + one.children_user + one.children_system for one in times)
        )

    def memory_megabytes(self, *names: str) -> float:
        """Return the memory of components, with all their processes: proportional set size."""
        found = [process.memory_full_info().pss for process in self._processes_of(*names)]
        return float(sum(found)) / 1_000_000

    def _processes_of(self, *names: str) -> list[psutil.Process]:
        mains = [psutil.Process(self._processes[name].pid) for name in names]
        return mains + [child for main in mains for child in main.children(recursive=True)]

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

    def component_at(self, port: int) -> str:
        """Return the component one of whose processes has a connection from a port."""
        for name, process in self._processes.items():
            with contextlib.suppress(psutil.Error):
                main = psutil.Process(process.pid)
                for one in [main, *main.children(recursive=True)]:
                    if any(at.laddr and at.laddr.port == port for at in one.net_connections()):
                        return name
        raise AssertionError(f"no component has a connection from port {port}")

    def freeze(self, name: str) -> None:
        """Stop a component where it is, as a suspended machine or a full disk would."""
        os.killpg(self._processes[name].pid, signal.SIGSTOP)
        # SQLite has one lock for all that is written: the rest of Airflow would stand still, too.
        while self._database.is_sqlite and not self._database.is_writable():
            self.thaw(name)
            time.sleep(0.05)
            os.killpg(self._processes[name].pid, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let a frozen component go on."""
        os.killpg(self._processes[name].pid, signal.SIGCONT)


def _kill(victims: list[psutil.Process]) -> None:
    # Stopped first, so that none lives to see the end of another and to act on it.
    send(victims, signal.SIGSTOP, signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, victims)), "the processes are dead")
