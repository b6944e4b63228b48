"""End all processes that work in a folder when the process that started them has gone.

Also a program: ``python end_with_parent.py FOLDER`` waits for the end of its standard input, which
the tests hold open as long as they live.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import psutil

__all__ = ["processes_in"]


def processes_in(home: str) -> list[psutil.Process]:
    """Return the processes that work in a folder, wherever they hang in the tree.

    Airflow's processes change their names and leave their groups, but not their folder.
    """
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            # A folder that has gone meanwhile is marked as deleted.
            if process.cwd().removesuffix(" (deleted)") == home:
                found.append(process)
    return found


if __name__ == "__main__":
    os.chdir("/")
    sys.stdin.read()
    while left := processes_in(sys.argv[1]):
        for one in left:
            with suppress(psutil.Error):
                one.kill()
        # A zombie has no folder.
        psutil.wait_procs(left, timeout=1)
