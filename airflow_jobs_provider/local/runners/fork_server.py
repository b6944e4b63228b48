"""A process that has the modules of notebooks loaded, and forks the processes of their runs.

A program: ``python fork_server.py CONTROL_FD WORKSPACE_PID``. Importing what a kernel needs takes
longer than most short notebooks; a forked kernel has it at once, and shares the memory of it.

Each message on the control socket is one request: a JSON object with the ``program`` and the run's
``marker``, and descriptors. The first is a pipe, into which the process writes its process id as a
line.

* A kernel: its ``arguments``, ``environment`` (in addition to this process's own) and ``cwd``, and
  the descriptor of its standard error. The process is the kernel's supervisor. At its end it writes
  the exit code as a second line. Without one it was killed.
* The client that executes a notebook (``notebook_program.py``): its ``task``, and the descriptors
  of its commands, of its messages and of this control socket.

When the control socket is closed, the process ends after the last one that it has forked. When the
workspace dies, the process is killed, and with it the clients; its supervisors kill the kernels.
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
from typing import Any, NoReturn

_MAX_DESCRIPTORS = 4
_PACKAGE_PARENT = str(Path(__file__).resolve().parents[3])


def main(control: socket.socket, workspace_pid: int) -> None:
    """Fork a process for each request; return in a forked kernel when that has ended."""
    if not sys.flags.safe_path:
        # Python put this file's folder first.
        sys.path.pop(0)
    sys.path.insert(0, _PACKAGE_PARENT)
    from airflow_jobs_provider.local.kernel.launch import load_modules
    from airflow_jobs_provider.local.runners.fork_requests import CLIENT, MAX_REQUEST_BYTES
    from airflow_jobs_provider.local.runners.process_markers import MARKER_VARIABLE
    from airflow_jobs_provider.local.runners.supervisor import signal_when_parent_dies

    signal_when_parent_dies(workspace_pid, signal.SIGKILL)
    load_modules()
    only_of_clients = _load_client()
    sys.path.remove(_PACKAGE_PARENT)
    # The system reaps the supervisors.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # A collection would write to each object, and so copy the shared memory in every kernel.
    gc.collect()
    gc.freeze()
    own_pid = os.getpid()
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, MAX_REQUEST_BYTES, _MAX_DESCRIPTORS)
        if not data:
            break
        if _forked() == 0:
            control.close()
            request = json.loads(data)
            _show_marker(MARKER_VARIABLE, request["marker"])
            if request["program"] == CLIENT:
                _become_client(request, descriptors, own_pid)
            for name in only_of_clients:
                del sys.modules[name]
            _become_kernel(request, descriptors, own_pid)
            return
        for descriptor in descriptors:
            os.close(descriptor)
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _load_client() -> list[str]:
    """Import what clients need; return the modules that a kernel does not need.

    A kernel is to import them itself: the notebook may have installed other versions.
    """
    before = {name.partition(".")[0] for name in sys.modules}
    from airflow_jobs_provider.local.runners.notebook_program import load_modules

    load_modules()
    known = before | sys.stdlib_module_names
    return [name for name in sys.modules if name.partition(".")[0] not in known]


def _forked() -> int | None:
    """Fork; return None if the system has no room for another process.

    The workspace sees that by the closed pipe. The kernels that are there go on.
    """
    try:
        return os.fork()
    except OSError:
        return None


def _become_client(
    request: dict[str, Any], descriptors: Sequence[int], parent_pid: int
) -> NoReturn:
    """Execute a notebook, and end the process."""
    try:
        from airflow_jobs_provider.local.runners.kernel_processes import KernelForks
        from airflow_jobs_provider.local.runners.notebook_program import run
        from airflow_jobs_provider.local.runners.supervisor import signal_when_parent_dies

        status, commands, messages, control = descriptors
        os.setsid()
        signal_when_parent_dies(parent_pid, signal.SIGKILL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.write(status, b"%d\n" % os.getpid())
        run(
            Path(request["task"]),
            os.fdopen(commands, "rb", buffering=0),
            os.fdopen(messages, "wb", buffering=0),
            KernelForks(socket.socket(fileno=control)),
        )
    finally:
        # Nothing of the fork server's own is to be cleaned up.
        os._exit(0)


def _become_kernel(request: dict[str, Any], descriptors: Sequence[int], parent_pid: int) -> None:
    """Become the supervisor of a kernel; return in the kernel's process, when it has ended."""
    from airflow_jobs_provider.local.kernel.launch import run_kernel
    from airflow_jobs_provider.local.runners.supervisor import supervise

    status, errors = descriptors
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
    from airflow_jobs_provider.local.runners.fork_requests import MARKER_CHARS

    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    place = getenv(variable.encode())
    ctypes.memmove(place, marker.encode().ljust(MARKER_CHARS)[:MARKER_CHARS], MARKER_CHARS)
    os.environ[variable] = marker


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
