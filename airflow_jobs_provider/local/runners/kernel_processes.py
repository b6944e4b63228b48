"""Starts the processes of kernels: forked from one that has the modules loaded, where it can be.

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

from airflow_jobs_provider.local.runners.fork_server import MARKER_CHARS, MAX_REQUEST_BYTES
from airflow_jobs_provider.local.runners.processes import environment_of_runs, request_end

__all__ = ["ForkServer", "ForkedProcess"]

_PROGRAM = Path(__file__).with_name("fork_server.py")
# Its supervisors and the way in which it shows their markers are Linux's.
_IS_SUPPORTED = sys.platform.startswith("linux")


class ForkedProcess:
    """The supervisor of a forked kernel, with what :class:`subprocess.Popen` has of it.

    :ivar pid: its process id.
    :ivar returncode: how the kernel ended; the negative number of a signal; None while it lives.
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
        """Return how the kernel ended; None while it lives."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:  # noqa: ARG002
        """Return how the kernel ended; to be called after its end."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the supervisor."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM, which the supervisor hands to the kernel."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the supervisor; the kernel dies with it."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The process that a workspace's kernels are forked from.

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
        request: dict[str, Any] = {
            "arguments": [*arguments],
            "environment": {**environment},
            "cwd": cwd,
            "marker": marker,
        }
        data = json.dumps(request).encode()
        if len(data) > MAX_REQUEST_BYTES or not self.start():
            return None
        assert self._control is not None
        read_end, write_end = os.pipe()
        try:
            status = await _reader_of(read_end)
            socket.send_fds(self._control, [data], [errors, write_end])
        except OSError:  # it has just ended, or many requests are waiting
            return None
        finally:
            os.close(write_end)
        pid_line = asyncio.ensure_future(status.readline())
        try:
            first = await asyncio.shield(pid_line)
        except asyncio.CancelledError:
            # The request cannot be taken back: the kernel ends as soon as it is there.
            pid_line.add_done_callback(_end_unwanted)
            raise
        return ForkedProcess(int(first), status) if first else None

    def close(self) -> None:
        """End the process, and with it all kernels; returns when it has ended."""
        self._retire()
        for process in self._retired:
            process.kill()
            process.wait()
        self._retired.clear()

    def _retire(self) -> None:
        """Have the process end after its last kernel."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._retired.append(self._process)
        self._control = self._process = None


def _end_unwanted(pid_line: asyncio.Future[bytes]) -> None:
    if not pid_line.cancelled() and pid_line.exception() is None and pid_line.result():
        request_end(int(pid_line.result()))


async def _reader_of(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    return reader


def _installed() -> list[tuple[str, int]]:
    """Return what changes when a package is installed, upgraded or removed."""
    known = {*site.getsitepackages(), site.getusersitepackages()}
    found = []
    for folder in (one for one in sys.path if one in known):
        with suppress(OSError):
            found.append((folder, os.stat(folder).st_mtime_ns))  # noqa: PTH116  (no pathlib needed)
    return found
