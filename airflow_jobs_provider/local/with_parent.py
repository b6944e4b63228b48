"""A child process that dies when the workspace does, however the workspace dies.

Also a program: ``python with_parent.py PARENT_PID COMMAND ...`` turns itself into COMMAND.
It imports the standard library only, so that this costs a child next to nothing.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel of the operating system kill this process when its parent ends.

    Works on Linux, where it also holds when the parent is killed with SIGKILL; elsewhere it does
    nothing. The wish survives ``exec``.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent_pid and os.getppid() != parent_pid:
        # The parent ended before the wish was made.
        os._exit(1)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  (the workspace's own command)
