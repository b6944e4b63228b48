"""A process that has a kernel's modules loaded, and forks the kernels of notebooks.

A program: ``python fork_server.py CONTROL_FD WORKSPACE_PID``. Importing what a kernel needs takes
longer than most short notebooks; a forked kernel has it at once, and shares the memory of it.

Each message on the control socket is one request: a JSON object with the kernel's ``arguments``,
``environment`` (in addition to this process's own), ``cwd`` and ``marker``, and two descriptors:
the kernel's standard error, and a pipe. The supervisor that is forked writes its process id into
the pipe, and at its end the exit code, each as a line. Without a second line it was killed.

When the control socket is closed, the process ends after its last kernel. When the workspace dies,
the process is killed, and its supervisors kill the kernels.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["MARKER_CHARS", "MAX_REQUEST_BYTES"]

MAX_REQUEST_BYTES = 64 * 1024
# The length of the marker in the fork server's own environment; that of a run is written over it.
MARKER_CHARS = 128
_PACKAGE_PARENT = str(Path(__file__).resolve().parents[3])


def main(control: socket.socket, workspace_pid: int) -> None:
    """Fork a kernel for each request; return in the forked kernel when that has ended."""
    if not sys.flags.safe_path:
        # Python put this file's folder first.
        sys.path.pop(0)
    sys.path.insert(0, _PACKAGE_PARENT)
    from airflow_jobs_provider.local.kernel.launch import load_modules
    from airflow_jobs_provider.local.runners.process_markers import MARKER_VARIABLE
    from airflow_jobs_provider.local.runners.supervisor import signal_when_parent_dies

    sys.path.remove(_PACKAGE_PARENT)
    signal_when_parent_dies(workspace_pid, signal.SIGKILL)
    load_modules()
    # The system reaps the supervisors.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # A collection would write to each object, and so copy the shared memory in every kernel.
    gc.collect()
    gc.freeze()
    own_pid = os.getpid()
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, MAX_REQUEST_BYTES, 2)
        if not data:
            break
        if _forked() == 0:
            control.close()
            _show_marker(MARKER_VARIABLE, json.loads(data)["marker"])
            _become_kernel(json.loads(data), descriptors, own_pid)
            return
        for descriptor in descriptors:
            os.close(descriptor)
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _forked() -> int | None:
    """Fork; return None if the system has no room for another process.

    The workspace sees that by the closed pipe. The kernels that are there go on.
    """
    try:
        return os.fork()
    except OSError:
        return None


def _become_kernel(request: dict[str, Any], descriptors: Sequence[int], parent_pid: int) -> None:
    """Become the supervisor of a kernel; return in the kernel's process, when it has ended."""
    from airflow_jobs_provider.local.kernel.launch import run_kernel
    from airflow_jobs_provider.local.runners.supervisor import supervise

    errors, status = descriptors
    leads = os.getpid()
    try:
        os.setsid()
        os.dup2(errors, 2)
        os.close(errors)
        os.environ.update(request["environment"])
        os.chdir(request["cwd"])
        sys.argv[1:] = request["arguments"]
        os.write(status, b"%d\n" % leads)

        def work() -> None:
            os.close(status)
            run_kernel(request["arguments"])

        supervise(parent_pid, work, lambda code: os.write(status, b"%d\n" % code))
    finally:
        if os.getpid() == leads:
            # It raised: the workspace takes this end as a sign to look for what is left.
            os.kill(leads, signal.SIGKILL)


def _show_marker(variable: str, marker: str) -> None:
    """Write the run's marker over this process's own, where other processes read it.

    The system shows the environment with which a program was started, not what it changed since.
    """
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    place = getenv(variable.encode())
    ctypes.memmove(place, marker.encode().ljust(MARKER_CHARS)[:MARKER_CHARS], MARKER_CHARS)
    os.environ[variable] = marker


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
