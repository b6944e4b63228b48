"""Starts the processes of notebooks: forked from one that has the modules loaded, where it can be.

The fork server costs one process that waits. It is started again when the environment or the
installed packages have changed, so a notebook finds what a process started now would find.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import site
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.runners.fork_requests import (
    CLIENT,
    KERNEL,
    MARKER_CHARS,
    MAX_REQUEST_BYTES,
)
from airflow_jobs_provider.local.runners.processes import environment_of_runs

__all__ = ["MAX_LINE_BYTES", "ForkServer", "ForkedProcess", "KernelForks", "reader_of"]

# A message may have a notebook's result and the trace of its error.
MAX_LINE_BYTES = 64 * 1024 * 1024
_PROGRAM = Path(__file__).with_name("fork_server.py")
# Its supervisors and the way in which it shows their markers are Linux's.
_IS_SUPPORTED = sys.platform.startswith("linux")


class ForkedProcess:
    """A forked process, with what :class:`subprocess.Popen` has of it.

    That of a kernel is its supervisor.

    :ivar pid: its process id.
    :ivar returncode: the exit code; the negative number of a signal; None while it lives.
    """

    stdin = stdout = stderr = None

    def __init__(self, pid: int, status: asyncio.StreamReader) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._watch = asyncio.create_task(self._read(status))

    async def _read(self, status: asyncio.StreamReader) -> None:
        told = await status.read()
        self.returncode = int(told) if told else -signal.SIGKILL

    def poll(self) -> int | None:
        """Return the exit code; None while the process lives."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:  # noqa: ARG002
        """Return the exit code; to be called after the end."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM, which a supervisor hands to its kernel."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process; a kernel dies with its supervisor."""
        self.send_signal(signal.SIGKILL)


class KernelForks:
    """Requests to a fork server for kernels.

    :param control: the socket of the fork server. Several processes may have it.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control

    async def fork(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        cwd: str,
        marker: str,
        errors: int,
    ) -> ForkedProcess | None:
        """Fork a kernel; return None if it has to be started as a program of its own.

        :param arguments: those of ipykernel's own program.
        :param environment: what the kernel has in addition to the environment of all runs.
        :param cwd: the folder to run in.
        :param marker: the run's marker.
        :param errors: the descriptor of the kernel's standard error.
        """
        request = {
            "program": KERNEL,
            "arguments": [*arguments],
            "environment": {**environment},
            "cwd": cwd,
            "marker": marker,
        }
        return await _fork(self._control, request, errors)


class ForkServer:
    """The process that a workspace's notebooks are forked from.

    :param marker: the prefix of the markers of the workspace's runs.
    """

    def __init__(self, marker: str) -> None:
        self._marker = marker
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._started_with: object = None
        self._retired: list[subprocess.Popen[bytes]] = []

    def start(self) -> bool:
        """Start the process unless it runs; return whether there is one."""
        if not _IS_SUPPORTED:
            return False
        wanted = (environment_of_runs(self._marker.ljust(MARKER_CHARS)), _installed())
        runs = self._process is not None and self._process.poll() is None
        if runs and self._started_with == wanted:
            return True
        self._retire()
        self._retired = [process for process in self._retired if process.poll() is None]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setblocking(False)
            self._process = subprocess.Popen(  # noqa: S603  (the workspace's own command)
                [sys.executable, str(_PROGRAM), str(theirs.fileno()), str(os.getpid())],
                # 1: a kernel does not watch its parent itself; its supervisor does.
                env={
                    **wanted[0],
                    "JPY_PARENT_PID": "1",
                    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._control, self._started_with = ours, wanted
        return True

    async def fork_client(
        self, task: Path, *, marker: str, commands: int, messages: int
    ) -> ForkedProcess | None:
        """Fork the process that executes a notebook; return None if a program is to be started.

        It gets the control socket, too, for its kernels.

        :param task: the file that says what to execute.
        :param marker: the run's marker.
        :param commands: the descriptor that it reads commands from.
        :param messages: the descriptor that it writes messages to.
        """
        if not self.start():
            return None
        assert self._control is not None
        request = {"program": CLIENT, "task": str(task), "marker": marker}
        return await _fork(self._control, request, commands, messages, self._control.fileno())

    def close(self) -> None:
        """End the process, and with it all that it has forked; returns when it has ended."""
        self._retire()
        for process in self._retired:
            process.kill()
            process.wait()
        self._retired.clear()

    def _retire(self) -> None:
        """Have the process end after the last one that it has forked."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._retired.append(self._process)
        self._control = self._process = None


async def _fork(
    control: socket.socket, request: Mapping[str, Any], *descriptors: int
) -> ForkedProcess | None:
    """Ask for a process; return None if the request is too large, or the fork server has ended.

    The request cannot be taken back. When the caller is canceled the pipe is closed, and the
    process ends as soon as it writes its process id. One that had written it before has the marker.
    """
    data = json.dumps(request).encode()
    if len(data) > MAX_REQUEST_BYTES:
        return None
    read_end, write_end = os.pipe()
    try:
        status, transport = await reader_of(read_end)
        socket.send_fds(control, [data], [write_end, *descriptors])
    except OSError:  # it has just ended, or many requests are waiting
        return None
    finally:
        os.close(write_end)
    try:
        first = await status.readline()
    except asyncio.CancelledError:
        transport.close()
        raise
    return ForkedProcess(int(first), status) if first else None


async def reader_of(descriptor: int) -> tuple[asyncio.StreamReader, asyncio.BaseTransport]:
    """Return what reads a pipe in the running event loop.

    :param descriptor: the end of the pipe, which is closed with the transport.
    """
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    return reader, transport


def _installed() -> list[tuple[str, int]]:
    """Return what changes when a package is installed, upgraded or removed."""
    known = {*site.getsitepackages(), site.getusersitepackages()}
    found = []
    for folder in (one for one in sys.path if one in known):
        with suppress(OSError):
            found.append((folder, os.stat(folder).st_mtime_ns))  # noqa: PTH116  (no pathlib needed)
    return found
