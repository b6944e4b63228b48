"""Parent process of a run's command. It ends the command's descendants, too.

A program: ``python supervisor.py WORKSPACE_PID COMMAND ...``. It imports the standard library only,
so that it starts fast and needs no import path. The fork server of kernels uses :func:`supervise`
in the processes that it forks.

The supervisor is a subreaper (``PR_SET_CHILD_SUBREAPER``): a descendant whose own parent has ended
becomes a child of the supervisor, not of init. So a new session, a double fork or ``nohup`` hides
no process from it. It kills all descendants when the command ends, when the workspace asks for it
(:data:`END_SIGNAL`) and when the workspace dies, with SIGKILL too.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NoReturn

__all__ = ["END_SIGNAL", "signal_when_parent_dies", "supervise"]

# Linux sends it when the workspace dies; the workspace sends it to end the run at once.
END_SIGNAL = signal.SIGHUP
_AWAITED = {END_SIGNAL, signal.SIGTERM, signal.SIGCHLD}
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# A process that cannot be killed (a user changed, a disk that hangs) must not hold up the rest.
_KILL_SECONDS = 5.0
_RETRY_SECONDS = 0.005


def supervise(
    parent_pid: int,
    work: Callable[[], object],
    report: Callable[[int], object] | None = None,
) -> None:
    """Run ``work`` in a child process, kill its remaining descendants, exit as it did.

    Returns only in the child process, after ``work`` has returned there.

    :param parent_pid: the process whose death ends everything.
    :param work: what the child process does, in a session of its own.
    :param report: called at the end with the exit code as :mod:`subprocess` has it: the negative
        number of a signal, 0 if the end was asked for. The process then exits with 0. Default None:
        the process ends with that code, or by that signal, itself.
    """
    # Blocked signals are kept until sigwait() takes them; none is lost. Others, which the command
    # may send to its parent, do nothing.
    inherited_mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal_when_parent_dies(parent_pid, END_SIGNAL)
    supervisor_pid = os.getpid()
    leader = os.fork()
    if leader == 0:
        _lead_session(supervisor_pid, inherited_mask)
        work()
        return
    status = _wait_for_end(leader)
    _kill_descendants()
    if report is not None:
        report(0 if status is None else os.waitstatus_to_exitcode(status))
        os._exit(0)
    if status is None:
        os._exit(0)
    _end_like(status)


def _lead_session(supervisor_pid: int, mask: Iterable[int]) -> None:
    # A signal to the command's process group must not reach the supervisor.
    os.setsid()
    signal_when_parent_dies(supervisor_pid, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _execute(command: list[str]) -> NoReturn:
    try:
        if "JPY_PARENT_PID" in os.environ:
            # A Jupyter kernel ends itself when this is not its parent.
            os.environ["JPY_PARENT_PID"] = str(os.getppid())
        # Python ignores SIGPIPE; the command is to find the default.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execvp(command[0], command)  # noqa: S606  (the workspace's own command)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.stderr.flush()
    os._exit(127)


def _wait_for_end(leader: int) -> int | None:
    """Return the wait status of the command, or None if it is to be ended."""
    while True:
        received = signal.sigwait(_AWAITED)
        if received == END_SIGNAL:
            return None
        if received == signal.SIGTERM:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(leader, signal.SIGTERM)
        for pid, status in _reap():
            if pid == leader:
                return status


def _reap() -> list[tuple[int, int]]:
    """Return the process id and wait status of each child that has ended."""
    ended: list[tuple[int, int]] = []
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0] != 0:
            ended.append(found)
    return ended


def _kill_descendants() -> None:
    deadline = time.monotonic() + _KILL_SECONDS
    while time.monotonic() < deadline:
        # Again until none is left: a process may fork between the look and the signal.
        descendants = _descendants(os.getpid())
        for pid in descendants:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        _reap()
        if not descendants:
            return
        time.sleep(_RETRY_SECONDS)


def _descendants(ancestor: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  (imports nothing more)
        if not name.isdecimal():
            continue
        with suppress(OSError):  # it has just ended
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123  (imports nothing more)
                # The command's name, in parentheses, may hold anything.
                after_name = file.read().rpartition(b")")[2].split()
            children.setdefault(int(after_name[1]), []).append(int(name))
    found: list[int] = []
    remaining = [ancestor]
    while remaining:
        below = children.get(remaining.pop(), [])
        found += below
        remaining += below
    return found


def _end_like(status: int) -> NoReturn:
    """End with the exit code, or by the signal, that ended the command."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with suppress(OSError):  # SIGKILL has no handler
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def signal_when_parent_dies(parent_pid: int, number: int) -> None:
    """Have this process receive a signal when its parent ends; exit if that has happened."""
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent_pid:
        # The parent ended before it was asked for.
        os._exit(1)


def _prctl(option: int, argument: int) -> None:
    ctypes.CDLL(None).prctl(option, argument, 0, 0, 0)


if __name__ == "__main__":
    try:
        supervise(int(sys.argv[1]), lambda: _execute(sys.argv[2:]))
    finally:
        # It raised: the workspace takes this end as a sign to look for what is left.
        os.kill(os.getpid(), signal.SIGKILL)
