"""Measure the CPU time of a program with all the processes that it starts, ended ones included.

    python scripts/process_cpu.py COMMAND ARGUMENT...

runs the command under a keeper. The keeper is a process that inherits every process whose parent
has ended (a "child subreaper" of Linux), so that none leaves its tree. When a process has been
waited for, Linux adds its CPU time to what its parent keeps for its children. So the tree of the
keeper always has the whole time: what living processes used themselves, and what they keep for
those that ended.

The exception is a process whose parent ignores SIGCHLD: Linux then drops its time.

The keeper ends with the command, or when its standard input is closed; it kills what is left.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

__all__ = [
    "Keeper",
    "ProcessTimes",
    "UnstableTreeError",
    "cpu_seconds",
    "seconds_by_level",
    "tree_of",
]

_PR_SET_CHILD_SUBREAPER = 36
_TICKS = os.sysconf("SC_CLK_TCK")
# Attempts to read a tree in which no process ends meanwhile.
_ATTEMPTS = 50


class UnstableTreeError(Exception):
    """Processes ended all the time while the tree was read."""


class ProcessTimes(NamedTuple):
    """The CPU times of one process, in clock ticks.

    :ivar parent: process id of the parent.
    :ivar started: start time, which tells two processes with the same id apart.
    :ivar own: of the process itself, all threads.
    :ivar children: of its children that ended and were waited for, and of theirs.
    """

    parent: int
    started: int
    own: int
    children: int


def tree_of(root: int) -> dict[int, ProcessTimes]:
    """Return the times of a process and of all below it, by process id, all from one moment.

    A process that ends while the tree is read would be missed or counted twice. So the tree is read
    until two readings have the same processes and the same times of ended children.

    :raises UnstableTreeError: processes end faster than the tree can be read.
    """
    before = _read_tree(root)
    for _ in range(_ATTEMPTS):
        after = _read_tree(root)
        if _ended(before) == _ended(after):
            return before
        before = after
        time.sleep(0.01)
    raise UnstableTreeError(f"processes below {root} end all the time")


def cpu_seconds(root: int) -> float:
    """Return the CPU seconds of a process and of all below it."""
    return sum(one.own + one.children for one in tree_of(root).values()) / _TICKS


def seconds_by_level(tree: dict[int, ProcessTimes], root: int) -> list[float]:
    """Return the CPU seconds of each level of a tree below its root: children, their children ...

    An ended process counts on the level below the one that waited for it, together with what it
    kept for its own children. An orphan counts on the first level.
    """
    levels: list[float] = []

    def add(level: int, ticks: int) -> None:
        levels.extend([0.0] * (level + 1 - len(levels)))
        levels[level] += ticks / _TICKS

    def level_of(pid: int) -> int:
        return -1 if pid == root else 1 + level_of(tree[pid].parent)

    for pid, times in tree.items():
        level = level_of(pid)
        if pid != root:
            add(level, times.own)
        add(level + 1, times.children)
    return levels


def _ended(tree: dict[int, ProcessTimes]) -> dict[int, tuple[int, int, int]]:
    return {pid: (one.parent, one.started, one.children) for pid, one in tree.items()}


def _read_tree(root: int) -> dict[int, ProcessTimes]:
    every = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            # It may end just now.
            with suppress(FileNotFoundError, ProcessLookupError):
                every[int(folder.name)] = _times((folder / "stat").read_bytes())
    below: dict[int, list[int]] = {}
    for pid, times in every.items():
        below.setdefault(times.parent, []).append(pid)
    found, todo = {}, [root]
    while todo:
        pid = todo.pop()
        if pid in every:
            found[pid] = every[pid]
            todo += below.get(pid, [])
    return found


def _times(stat: bytes) -> ProcessTimes:
    """Read a line of /proc/PID/stat, see proc(5); the program's name may have spaces."""
    fields = stat.rpartition(b")")[2].split()
    user, system, children_user, children_system = map(int, fields[11:15])
    return ProcessTimes(
        int(fields[1]), int(fields[19]), user + system, children_user + children_system
    )


@dataclass
class Keeper:
    """A command that runs under a keeper. Use it as a context manager: at the end all is killed.

    :param command: program and arguments.
    :param env: its environment.
    :param cwd: its working folder.
    :param log: file for its output.
    """

    command: Sequence[str]
    env: dict[str, str]
    cwd: Path
    log: Path

    def __enter__(self) -> Self:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-S", __file__, *self.command],
                env=self.env,
                cwd=self.cwd,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_exception: object) -> None:
        self.end()

    def end(self) -> None:
        """Kill the command with all the processes that it has started."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    @property
    def pid(self) -> int:
        """Process id of the keeper, the root of the tree."""
        return self._process.pid

    def is_running(self) -> bool:
        """Return whether the command has not ended yet."""
        return self._process.poll() is None

    def seconds_by_level(self) -> list[float]:
        """Return the CPU seconds so far: of the command's own process, of its children ..."""
        return seconds_by_level(tree_of(self.pid), self.pid)


def _keep(command: Sequence[str]) -> int:
    """Run a command, wait for all processes that this one inherits, and return its exit code."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # Its standard input is the keeper's own business.
    started = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_kill_at_end_of_input, daemon=True).start()
    with suppress(ChildProcessError):  # The other thread has waited for all of them.
        while True:
            pid, status = os.wait()
            if pid == started.pid:
                _kill_all_below()
                return abs(os.waitstatus_to_exitcode(status))
    return 1


def _kill_at_end_of_input() -> None:
    sys.stdin.buffer.read()
    _kill_all_below()
    os._exit(1)


def _kill_all_below() -> None:
    """Kill until there is none: one may start another while it is being killed."""
    while below := [pid for pid in _read_tree(os.getpid()) if pid != os.getpid()]:
        for pid in below:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(_keep(sys.argv[1:]))
